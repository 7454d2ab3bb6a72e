"""What a run tells while it learns: a bar or lines, and curves."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from .curves import Curves
from .options import LoopOptions

LINE_SECONDS = 30
"""Without a terminal there is no bar: a line this often says how far a run is."""

PACE_STEPS = 20
LONG_HOURS = 12

log = logging.getLogger("spadunet")


class Journal:
    """Told of every step.

    Args:
        first_step, seconds: where the run goes on.
        by: the fact that splits the curves into several lines.
        title: of the bar.
    """

    def __init__(self, folder: Path, options: LoopOptions, first_step: int, seconds: float, *, by: str, title: str):
        self.options, self.first_step, self.first_seconds = options, first_step, seconds
        self.curves = Curves(folder, first_step, by=by)
        self.bar = tqdm(
            total=options.max_steps, initial=first_step, desc=title, unit="step", disable=None, dynamic_ncols=True
        )
        self.last_line = time.monotonic()

    def note(
        self,
        step: int,
        seconds: float,
        facts: Mapping[str, object],
        measures: Mapping[str, float],
        pace: Mapping[str, float],
    ) -> None:
        """A step that is done, numbered from zero."""
        self.curves.add(step, seconds / 60, facts, measures, pace)
        line = describe(step + 1, measures, seconds, self.options)
        self.bar.update()
        self.bar.set_postfix_str(line, refresh=False)
        if step + 1 == self.first_step + PACE_STEPS:
            warn_if_long((seconds - self.first_seconds) / PACE_STEPS, step + 1, self.options)
        if self.bar.disable and time.monotonic() - self.last_line > LINE_SECONDS:
            log.info(line)
            self.last_line = time.monotonic()

    def draw(self) -> None:
        """Draw the curves as far as the run is."""
        self.curves.draw()

    def close(self) -> None:
        """End the bar, and draw the curves."""
        self.bar.close()
        self.curves.close()


def warn_if_long(step_seconds: float, step: int, options: LoopOptions) -> None:
    """Say it early if the run will need days."""
    if options.max_minutes is None and options.max_steps is not None:
        hours = (options.max_steps - step) * step_seconds / 3600
        if hours > LONG_HOURS:
            log.warning(
                "at this pace the run needs about %.0f hours; --max-minutes ends it in time, "
                "a smaller --preset or --batch-size makes steps shorter",
                hours,
            )


def describe(step: int, measures: Mapping[str, float], seconds: float, options: LoopOptions) -> str:
    """Where a run stands, in one line."""
    steps = f"step {step}" + (f" of {options.max_steps}" if options.max_steps else "")
    minutes = f"{seconds / 60:.1f}" + (f" of {options.max_minutes:g}" if options.max_minutes else "")
    values = (f"{name.replace('_', ' ')} {value:.3f}" for name, value in measures.items())
    return ", ".join([steps, f"{minutes} minutes", *values])
