"""What `spadunet_evaluate` does with a predictions.csv: the scores of a classification."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..csv_table import MAX_TOLD
from ..errors import InputError, listed
from .run import log_to_file, write_manifest
from .scored_pairs import MANIFEST, stale_files

if TYPE_CHECKING:
    import numpy as np

    from ..evaluation.class_references import ClassReferences
    from ..evaluation.classification import ClassificationScores

OF_LABEL_MAPS = ("metrics", "definition", "unit", "missing", "protocol", "images", "allow_missing")
"""Options that a classification has no use for."""
BYTES_A_CLASS = 600
"""Of scores.json and scores.csv."""
SECONDS_A_VALUE = 3e-8
"""Of the bootstrap, for a study, a class and a resample (measured on one core)."""
BYTES_A_VALUE = 64
"""Of a study in a resample of a batch."""

log = logging.getLogger("spadunet")


def is_classification(options: argparse.Namespace) -> bool:
    """Whether -p is a table of probabilities, and not a folder of label maps.

    Raises:
        InputError: if an option does not go with what -p is, or -r is a table and -p is none.
    """
    predictions, references = options.predictions, options.references
    if predictions.is_dir() or predictions.suffix.lower() != ".csv":
        if options.split is not None:
            raise InputError(f"--split {options.split}: is for a classification, whose -p is a predictions.csv")
        if predictions.is_dir() and references.is_file():
            raise InputError(
                f"-r {references}: is a file, and -p {predictions} a folder; for label maps give a folder, for a "
                "classification give its predictions.csv to -p"
            )
        return False
    given = [name for name in OF_LABEL_MAPS if getattr(options, name) not in (None, False)]
    if given:
        flag = f"--{given[0].replace('_', '-')}"
        raise InputError(
            f"{flag}: is for label maps, and -p {predictions} is a table of probabilities; leave {flag} out"
        )
    return True


def score_studies(options: argparse.Namespace) -> int:
    """Score, write, print the table; returns the exit code.

    Raises:
        InputError: tells the first problems of a file, a line each; then nothing is written.
    """
    from ..evaluation.classification_tables import table_text, write_classification_scores
    from ..files import require_writable

    started = time.time()
    output = options.output or options.predictions.parent
    require_writable(output, dry_run=options.dry_run)
    references, probabilities, spare, sources = read_studies(options)
    require_same_kind(output, is_classification=True)
    if options.dry_run:
        return show_studies(options, output, references, spare, sources)
    log_to_file(output / "spadunet_evaluate.log")
    if references.elsewhere:
        log.info("studies of other splits, not scored: %d", len(references.elsewhere))
    if spare:
        log.warning(told_spare(spare))
    scores = scores_of(references, probabilities)
    for path in stale_files(output, []):
        path.unlink()
        log.info("removed, since it is of an earlier evaluation: %s", path)
    files = write_classification_scores(output, scores)
    if options.report:
        from ..evaluation.classification_report import REPORT_HTML, write_classification_report

        path = output / REPORT_HTML
        files.append(
            write_classification_report(path, scores, references, probabilities, sources=list(sources.items()))
        )
    write_manifest(output / MANIFEST, "spadunet_evaluate", options, started=started, device="cpu", files=files)
    print(table_text(scores), end="")
    print(f"written: {', '.join(map(str, files))}")
    return 0


def scores_of(references: ClassReferences, probabilities: np.ndarray) -> ClassificationScores:
    """With intervals."""
    from ..evaluation.classification import score_classification
    from ..evaluation.classification_intervals import with_intervals

    labels = references.labels
    scores = score_classification(references.classes, labels, probabilities)
    return with_intervals(scores, labels, probabilities, references.patients)


def told_spare(spare: Sequence[str]) -> str:
    """A line on studies that are predicted and not scored."""
    return f"predictions without a reference, left out: {len(spare)} ({listed(spare, MAX_TOLD)})"


def read_studies(
    options: argparse.Namespace,
) -> tuple[ClassReferences, np.ndarray, tuple[str, ...], dict[str, Path]]:
    """What is right, the probabilities (N, K) of these studies, names of studies without a reference, and the files."""
    from ..class_predictions import names_in, read_predictions
    from ..evaluation.class_references import (
        find_classes,
        is_medmnist,
        labels_file,
        match,
        medmnist_references,
        read_references,
    )
    from ..medmnist import open_medmnist

    path = options.predictions
    source = labels_file(options.references)
    predicted = names_in(path)
    classes, classes_json = find_classes(path, source, options.labels)
    if is_medmnist(source):
        references = medmnist_references(open_medmnist(source), options.split, classes=classes, source=classes_json)
    else:
        references = read_references(source, options.split, classes=classes, predicted=predicted)
    probabilities, spare = match(references, read_predictions(path, references.classes), source=path)
    sources = {"predictions": path, "references": source}
    return references, probabilities, spare, sources | ({"class names": classes_json} if classes_json else {})


def require_same_kind(output: Path, *, is_classification: bool) -> None:
    """Go on unless scores of a classification would be written over those of label maps, or the other way round.

    Raises:
        InputError: if they would.
    """
    from ..evaluation.classification import ClassificationScores
    from ..evaluation.classification_tables import SCORES_JSON

    path = output / SCORES_JSON
    if not path.is_file():
        return
    try:
        ClassificationScores.from_json(path.read_text(encoding="utf-8", errors="replace"), source=path)
        found = True
    except InputError:
        found = False
    if found != is_classification:
        kind = "a classification" if found else "no classification"
        raise InputError(f"{path}: is of {kind}; name another folder with -o")


def show_studies(
    options: argparse.Namespace,
    output: Path,
    references: ClassReferences,
    spare: Sequence[str],
    sources: dict[str, Path],
) -> int:
    """Print what would be scored: the dry run."""
    from ..evaluation.classification import target_labels, target_names
    from ..evaluation.classification_intervals import RESAMPLES
    from ..evaluation.compare.statistics import MAX_BATCH_VALUES
    from ..measure import Amount, Needs
    from .dry_run import begin, finish, show, show_needs, state_of, table

    classes = references.classes
    begin("spadunet_evaluate")
    show("reads", [f"{name}: {path}" for name, path in sources.items()])
    num_patients = len(set(references.patients))
    lines = [f"{len(references.studies)} studies of {num_patients} patients, {classes.kind}"]
    show("scores", [*lines, *([told_spare(spare)] if spare else [])])
    counts = [
        [name, *(str(int((column == value).sum())) for value in (1, 0, -1))]
        for name, column in zip(target_names(classes), target_labels(classes, references.labels).T, strict=True)
    ]
    show("classes", table(["class", "cases", "others", "unknown"], counts, "classes"))
    names = ["scores.json", "scores.csv", *(["report.html"] if options.report else []), MANIFEST]
    log_state = state_of(output / "spadunet_evaluate.log", "added to")
    show(f"writes into {output}", [*(state_of(output / name) for name in names), log_state])
    if stale := stale_files(output, []):
        show("removes, of an earlier evaluation", [", ".join(map(str, stale))])
    values = len(references.studies) * len(counts) * RESAMPLES
    needs = Needs(
        time=Amount(value=values * SECONDS_A_VALUE, basis="by the number of studies, classes and resamples"),
        memory=Amount(
            value=BYTES_A_VALUE * min(len(references.studies) * RESAMPLES, MAX_BATCH_VALUES),
            basis="by the studies and resamples of a batch",
        ),
        disk=Amount(value=BYTES_A_CLASS * len(classes.names), basis="by the number of classes"),
    )
    show_needs(needs, output)
    return finish([])
