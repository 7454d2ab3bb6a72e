"""spadunet_runs: every run and how it stands."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .run import add_data_option, make_parser, run_command

if TYPE_CHECKING:
    from ..training.runs import RunSummary

EXAMPLES = """\
  spadunet_runs
  spadunet_runs spadunet_data/results/Dataset007_Liver /scratch/anna/results
  spadunet_runs --json > runs.json
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser(
        "List all runs, of training and pre-training, with their state: running, interrupted, failed, finished or\n"
        "broken; what they learn from, how far they are, and the mean validation Dice, or AUC. The last changed\n"
        "comes last.",
        EXAMPLES,
    )
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help="runs in and below these (default: those in results/)"
    )
    parser.add_argument("--json", action="store_true", help="print a list for programs")
    add_data_option(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options))


def execute(options: argparse.Namespace) -> int:
    """Find them, print them."""
    import json

    from ..errors import InputError
    from ..training.runs import find_runs
    from ..workspace import find_workspace

    folders = options.folders or [find_workspace(options.data).results]
    for folder in options.folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: folder not found; give a run's folder, or one with runs below it")
    found = {run.folder.resolve(): run for folder in folders for run in find_runs(folder)}
    runs = sorted(found.values(), key=lambda run: (run.changed, run.folder))
    if options.json:
        print(json.dumps([run.model_dump(mode="json") for run in runs], indent=1))
    elif runs:
        print_table(runs, folders)
    else:
        print(f"no runs in {', '.join(map(str, folders))}")
    return 0


def print_table(runs: Sequence[RunSummary], folders: Sequence[Path]) -> None:
    """A line a run, and below it what is wrong with it; folders are told below the only one that was searched."""
    header = ["state", "kind", "data", "network", "fold", "steps", "minutes", "Dice", "changed", "folder"]
    rows = [header, *(cells_of(run, folders[0] if len(folders) == 1 else None) for run in runs)]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    reasons = ["", *(run.reason for run in runs)]
    for row, reason in zip(rows, reasons, strict=True):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        for line in reason.splitlines():
            print(f"    {line}")


def cells_of(run: RunSummary, below: Path | None) -> list[str]:
    """The columns of a run; a dash where nothing is known."""
    folder = run.folder.relative_to(below) if below and run.folder.is_relative_to(below) else run.folder
    network = " ".join(filter(None, (run.backbone, run.preset)))
    return [
        run.state,
        run.kind or "-",
        "+".join(run.datasets) or "-",
        network or "-",
        run.fold or "-",
        share_text(run.steps, run.max_steps),
        share_text(run.minutes and round(run.minutes, 1), run.max_minutes),
        score_text(run),
        f"{run.changed.astimezone():%Y-%m-%d %H:%M}",
        str(folder),
    ]


def score_text(run: RunSummary) -> str:
    """The mean validation Dice, and the AUC of what classifies, which says so."""
    dice, auc = ("" if run.dice is None else f"{run.dice:.4f}"), ("" if run.auc is None else f"AUC {run.auc:.4f}")
    return ", ".join(filter(None, (dice, auc))) or "-"


def share_text(done: float | None, asked: float | None) -> str:
    """How much is done, of how much where that is known."""
    return ("-" if done is None else str(done)) + ("" if asked is None else f"/{asked}".removesuffix(".0"))


if __name__ == "__main__":
    main()
