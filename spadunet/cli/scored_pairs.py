"""What `spadunet_evaluate` does with pairs of label maps, whichever they are: check, score, write, draw."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..evaluation.protocols.runs import ProtocolRun
    from ..evaluation.scoring import Scoring
    from ..labels import LabelSet
    from ..scores import Scores
    from ..workers import Workers

MANIFEST = "spadunet_evaluate.json"
NOT_ALWAYS = ("report.html", "protocol.json", "protocol.csv")
"""Files that only some evaluations write."""

log = logging.getLogger("spadunet")


def find_labels(
    options: argparse.Namespace,
    runs: Sequence[ProtocolRun],
    workers: Workers,
    problems: list[str],
    protocol: LabelSet | None = None,
) -> LabelSet:
    """The labels to score, once nothing is found to be wrong with names and files.

    Args:
        problems: that are known already; more are added.
        protocol: labels that count unless `--labels` says others.

    Raises:
        InputError: lists everything that is wrong.
    """
    from ..evaluation.checks import require_good
    from ..evaluation.label_names import labels_for

    labels = labels_for(
        prediction_folders(options, runs),
        options.references,
        options.labels,
        protocol=protocol,
        workers=workers,
        problems=problems,
    )
    groups = {run.predictions: run.pairs for run in runs}
    require_good(groups, labels, allow_missing=options.allow_missing, problems=problems, workers=workers)
    assert labels is not None
    return labels


def prediction_folders(options: argparse.Namespace, runs: Sequence[ProtocolRun]) -> list[Path]:
    """Those that may hold a labels.json: -p, and where any prediction lies."""
    parents = {pair.prediction.parent for run in runs for pair in run.pairs if pair.prediction}
    return [options.predictions, *sorted(parents - {options.predictions})]


def score_runs(
    runs: Sequence[ProtocolRun],
    labels: LabelSet,
    options: argparse.Namespace,
    output: Path,
    scoring: Scoring,
    images: Mapping[str, Path] | None,
    workers: Workers,
) -> tuple[list[Scores], list[Path]]:
    """Score all runs, then write of all; an interrupted call goes on with what it scored.

    Returns:
        The runs' scores, and the files that hold them.

    Raises:
        InputError: lists everything that is wrong with any run's files; then nothing is written but partial scores.
    """
    from ..errors import InputError
    from ..evaluation.evaluate import evaluate_pairs
    from ..evaluation.partial import PARTIAL_JSONL
    from ..evaluation.tables import write_scores

    folders = [output / "runs" / run.name if run.name else output for run in runs]
    scored: list[Scores] = []
    problems = []
    for run, folder in zip(runs, folders, strict=True):
        if run.name:
            log.info("run %s", run.name)
        try:
            partial = folder / PARTIAL_JSONL
            scored.append(evaluate_pairs(run.pairs, labels, workers=workers, scoring=scoring, partial=partial))
        except InputError as error:
            problems.append(f"run {run.name}: {error}" if run.name else str(error))
    if problems:
        raise InputError("\n".join(problems))
    for path in stale_files(output, folders):
        path.unlink()
        log.info("removed, since it is of an earlier evaluation: %s", path)
    files: list[Path] = []
    for run, folder, scores in zip(runs, folders, scored, strict=True):
        files += write_scores(folder, scores, labels, pairs=run.pairs)
    for run, folder, scores in zip(runs, folders, scored, strict=True):
        files += report_on(run, scores, labels, options, folder, images, workers)
        if not scores.failed:
            (folder / PARTIAL_JSONL).unlink(missing_ok=True)
    return scored, files


def stale_files(output: Path, folders: Iterable[Path]) -> list[Path]:
    """What an earlier evaluation wrote beside its scores, and this one may not.

    Only what its manifest lists: a report.html may be that of a training run.
    """
    try:
        earlier = {Path(file).name for file in json.loads((output / MANIFEST).read_text())["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return []  # none was here, or none that can be told
    paths = [folder / name for folder in dict.fromkeys((output, *folders)) for name in NOT_ALWAYS if name in earlier]
    return [path for path in paths if path.is_file()]


def find_images(
    options: argparse.Namespace, runs: Sequence[ProtocolRun], problems: list[str]
) -> dict[str, Path] | None:
    """Images for the report by case name; None where none are asked for.

    Args:
        problems: gets a line if there is no such folder, or no image of any case.
    """
    from ..errors import InputError
    from ..evaluation.report import find_report_images

    if not options.images:
        return None
    try:
        return find_report_images(options.images, [pair for run in runs for pair in run.pairs])
    except InputError as error:
        problems.append(str(error))
        return None


def report_on(
    run: ProtocolRun,
    scores: Scores,
    labels: LabelSet,
    options: argparse.Namespace,
    output: Path,
    images: Mapping[str, Path] | None,
    workers: Workers,
) -> list[Path]:
    """Write report.html if it is asked for; the file, if so."""
    if not options.report:
        return []
    from ..evaluation.report import REPORT_HTML, write_report

    path = output / REPORT_HTML
    folders = {"predictions": run.predictions, "references": options.references}
    return [write_report(path, scores, labels, run.pairs, **folders, name=run.name, images=images, workers=workers)]
