"""The protocols by name, as `--protocol` takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...labels import LabelSet
from ...scores import Scores
from . import btcv, chaos, few_shot
from .report import ProtocolReport, Table
from .runs import ProtocolRun

Scored = Sequence[tuple[ProtocolRun, Scores]]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is scored, and how it is shown; metrics, definition and policy are options (cli/protocols.py)."""

    name: str
    labels: LabelSet | None
    """None: the dataset's own."""
    find_runs: Callable[[Path, Path, list[str] | None], list[ProtocolRun]]
    """Of the folders of predictions and references; problems as `pairs.tell` takes them."""
    tables: Callable[[Scored], tuple[Table, ...]]
    notes: Callable[[Scored], tuple[str, ...]]

    def report(self, scored: Scored, settled: Sequence[str], more_notes: Sequence[str] = ()) -> ProtocolReport:
        """The tables of scored runs.

        Args:
            settled: how they were scored.
        """
        return ProtocolReport(
            protocol=self.name,
            settled=tuple(settled),
            tables=self.tables(scored),
            notes=(*self.notes(scored), *more_notes, *left_out(scored)),
            definitions=scored[0][1].definitions,
        )


def left_out(scored: Scored) -> list[str]:
    """A line for each run that lacks predictions or scores of some cases."""
    lines = []
    for run, scores in scored:
        of_run = f"run {run.name}: " if run.name else ""
        for words, cases in (
            ("counted as missed, since there is no prediction", scores.not_predicted),
            ("could not be scored, in no mean", scores.failed),
        ):
            lines += [f"{of_run}{words}: {', '.join(cases)}"] if cases else []
    return lines


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(name="btcv", labels=btcv.LABELS, find_runs=btcv.find_runs, tables=btcv.tables, notes=btcv.notes),
        Protocol(name="chaos", labels=chaos.LABELS, find_runs=chaos.find_runs, tables=chaos.tables, notes=chaos.notes),
        Protocol(
            name="few-shot",
            labels=None,
            find_runs=few_shot.find_runs,
            tables=few_shot.tables,
            notes=few_shot.notes,
        ),
    )
}
