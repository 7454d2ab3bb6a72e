"""What is done to predicted label maps in the end, as chosen on held-out cases and kept with a model's task."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .record import FormatVersion, Record

Action = Literal["keep largest", "remove small", "fill holes"]
FOREGROUND = "all foreground"
"""As the structure of a rule: whatever is not background, taken together."""


class Rule(Record):
    """One step: what is done to the connected components of a structure, and what it was worth on held-out cases.

    Components are connected by faces, edges or corners. What is taken away becomes background; of a region that lies in
    another one, the other one. A hole is background that is enclosed within the structure's slices and across them.
    """

    structure: str
    """Name of a class or region, or `FOREGROUND`."""
    action: Action
    min_mm3: float | None = Field(default=None, gt=0)
    """Components of less volume are removed."""
    num_cases: int = Field(ge=1)
    """That it was chosen by."""
    dice: tuple[float, float]
    """Mean of the structure (of all, for `FOREGROUND`) before and after."""
    hd95_mm: tuple[float, float]
    """The same."""

    @model_validator(mode="after")
    def check(self) -> Rule:
        """A size where small components go, and only there; of all foreground no hole is filled: with what?"""
        if (self.min_mm3 is not None) != (self.action == "remove small"):
            raise ValueError(f"min_mm3 belongs to 'remove small', not to {self.action!r}")
        if self.structure == FOREGROUND and self.action == "fill holes":
            raise ValueError("holes are filled in a class or region, not in all foreground")
        return self

    def __str__(self) -> str:
        """For the log: `spleen: remove small components (below 100 mm³)`."""
        words = {
            "keep largest": "keep the largest component",
            "remove small": f"remove small components (below {self.min_mm3 or 0:g} mm³)",
            "fill holes": "fill holes",
        }
        return f"{self.structure}: {words[self.action]}"

    @property
    def gain(self) -> str:
        """In words."""
        (dice, better), (hd95, nearer) = self.dice, self.hd95_mm
        return f"Dice {dice:.4f} → {better:.4f}, HD95 {hd95:.2f} → {nearer:.2f} mm, {self.num_cases} cases"


class Postprocessing(Record):
    """All steps of a task, in order; none where nothing helped."""

    format_version: FormatVersion = 1
    rules: tuple[Rule, ...]
    num_cases: int
    """Held out, by which they were chosen."""
