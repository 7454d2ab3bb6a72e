"""What `spadunet_evaluate` does with pairs of label maps, whichever they are: check, score, write, draw."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..evaluation.pairs import Pair
    from ..evaluation.scoring import Scoring
    from ..labels import LabelSet
    from ..scores import Scores
    from ..workers import Workers


def find_labels(
    options: argparse.Namespace,
    groups: Mapping[Path, Sequence[Pair]],
    workers: Workers,
    problems: Sequence[str] = (),
    protocol: LabelSet | None = None,
) -> LabelSet:
    """The labels to score, once nothing is found to be wrong with names and files.

    Args:
        groups: pairs by the folder of their predictions.
        problems: that are known already.
        protocol: labels that count unless `--labels` says others.

    Raises:
        InputError: lists everything that is wrong.
    """
    from ..errors import InputError
    from ..evaluation.checks import require_good
    from ..evaluation.label_names import labels_for, name_problems, stated_labels

    places = options.predictions, options.references
    labels = None if options.labels else protocol
    known = [(f"--protocol {options.protocol}", labels)] if labels else []
    found = [*problems]
    try:
        found += [] if options.labels else name_problems([*known, *stated_labels(*places)])
        labels = labels or labels_for(*places, options.labels)
    except InputError as error:
        found.append(str(error))
    require_good(groups, labels, allow_missing=options.allow_missing, problems=found, workers=workers)
    assert labels is not None
    return labels


def score_pairs(
    pairs: Sequence[Pair], labels: LabelSet, output: Path, scoring: Scoring, workers: Workers
) -> tuple[Scores, list[Path]]:
    """Score and write; an interrupted call goes on with what it scored. The scores, and the files that hold them."""
    from ..evaluation.evaluate import evaluate_pairs
    from ..evaluation.partial import PARTIAL_JSONL
    from ..evaluation.tables import write_scores

    partial = output / PARTIAL_JSONL
    scores = evaluate_pairs(pairs, labels, workers=workers, scoring=scoring, partial=partial)
    files = write_scores(output, scores, labels, pairs=pairs)
    if not scores.failed:
        partial.unlink(missing_ok=True)
    return scores, files


def find_images(options: argparse.Namespace, pairs: Iterable[Pair]) -> dict[str, Path] | None:
    """Images for the report by case name; None where none are asked for.

    Raises:
        InputError: if there is no such folder, or no image of any case.
    """
    from ..evaluation.report import find_report_images

    return find_report_images(options.images, pairs) if options.images else None


def report_on(
    scores: Scores,
    labels: LabelSet,
    pairs: Sequence[Pair],
    options: argparse.Namespace,
    predictions: Path,
    output: Path,
    images: Mapping[str, Path] | None,
    workers: Workers,
) -> list[Path]:
    """Write report.html if it is asked for; the file, if so."""
    if not options.report:
        return []
    from ..evaluation.report import REPORT_HTML, write_report

    path = output / REPORT_HTML
    folders = {"predictions": predictions, "references": options.references}
    return [write_report(path, scores, labels, pairs, **folders, images=images, workers=workers)]
