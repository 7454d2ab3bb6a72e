"""BTCV: thirteen organs by MONAI's definitions, on the paper's nine validation scans or in cross-validation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ...releases import BTCV_LABELS, BTCV_PREFIX, BTCV_VALIDATION, label_set_of
from ...scores import Scores
from ..pairs import label_files, pair_up, tell
from .paper import FIVE_FOLDS, NAMES, TABLE_4
from .report import Row, Table, columns_of, mean_row, part_of, published_row, row_of
from .runs import ProtocolRun, find_predictions, named

LABELS = label_set_of(BTCV_LABELS)
PAPER_METRICS = ("dice", "assd_voxels", "hd_voxels")
NOTES = (
    "published: Luo et al. 2024, Table 4. Their ASSD and HD are in voxels: the released script gives MONAI no spacing",
    "published means leave a missed organ's distances out, as here; a false alarm's Dice, too, which is 0 here",
)
NUM_FOLDS, NUM_SCANS = 5, 30
"""Of the published cross-validation."""
FOLD_NOTES = ("published: Isensee et al. 2024, nnU-Net Revisited, five-fold cross-validation of the 30 scans",)


def case_of(name: str) -> str | None:
    """btcv_0029 of btcv_0029, label0029 or img0029; None of a name without four digits at its end."""
    match = re.search(r"(\d{4})$", name)
    return f"{BTCV_PREFIX}{match[1]}" if match else None


def find_runs(predictions: Path, references: Path, problems: list[str] | None = None) -> list[ProtocolRun]:
    """The nine validation scans where predictions lie in one folder; all scans where they lie in folds.

    Args:
        references: the release's label folder, or a converted dataset's labelsTr.
        problems: as `pairs.tell` takes them.

    Raises:
        InputError: if all references are missing; or some are.
    """
    found = find_predictions(predictions, case_of, problems)
    known = named(label_files(references, problems), case_of, problems)
    wanted = list(known) if found.folds else [f"{BTCV_PREFIX}{number:04}" for number in BTCV_VALIDATION]
    missing = [case for case in wanted if case not in known]
    there = {case: known[case] for case in wanted if case in known}
    if not there or missing:
        tell(
            f"{references}: no reference for {', '.join(missing) or 'any scan'}; expected the labels of BTCV's "
            "training scans, named label0029, btcv_0029 or alike",
            problems if there else None,
        )
    pairs = pair_up(found.files, there)
    return [ProtocolRun(predictions=predictions, pairs=pairs, groups=found.folds)]


def tables(runs: Sequence[tuple[ProtocolRun, Scores]]) -> tuple[Table, ...]:
    """Means over the organs beside the paper's Table 4; of each fold, where there are folds."""
    ((run, scores),) = runs
    columns = columns_of(scores.metrics)
    if run.groups:
        folds = [row_of(name, part_of(scores, cases)) for name, cases in run.groups.items()]
        rows = [*folds, mean_row(f"mean of {len(folds)} folds", folds, scores.metrics), row_of("all scans", scores)]
        rows += counted_worst(scores)
        if is_published_split(run, scores):
            rows += [published_row(name, {"dice": value}) for name, value in FIVE_FOLDS.items()]
        title = f"BTCV, {len(folds)} folds, {len(scores.cases)} scans: mean over {len(scores.classes)} organs"
        return (Table(title=title, columns=columns, rows=tuple(rows)),)
    rows = [row_of("these predictions", scores), *counted_worst(scores)]
    for arm, values in TABLE_4["BTCV"].items():
        rows.append(published_row(NAMES[arm], dict(zip(PAPER_METRICS, values, strict=True))))
    title = f"BTCV, {len(scores.cases)} validation scans (21/9 split): mean over {len(scores.classes)} organs"
    return (Table(title=title, columns=columns, rows=tuple(rows)),)


def is_published_split(run: ProtocolRun, scores: Scores) -> bool:
    """True of all scans in five folds, which published cross-validations can stand beside."""
    return (len(run.groups), len(scores.cases)) == (NUM_FOLDS, NUM_SCANS)


def counted_worst(scores: Scores) -> list[Row]:
    """The means with missing organs counted as the worst that the image allows, where there are any."""
    row = row_of("  missing organs counted worst", scores.model_copy(update={"missing": "worst"}))
    return [row] if scores.missing != "worst" and (row.values["missed"] or row.values["false_alarms"]) else []


def notes(runs: Sequence[tuple[ProtocolRun, Scores]]) -> tuple[str, ...]:
    """Where published numbers are from, and how they were taken."""
    ((run, scores),) = runs
    if run.groups:
        return FOLD_NOTES if is_published_split(run, scores) else ()
    return NOTES
