"""Who trains and who is held out where a dataset has label maps of some cases and findings of some studies.

A case may have either or both. Nobody is on both sides: what is learned of a patient's label map would be known of
the patient's findings.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..classification_plan import ClassificationPlan
from ..dataset import Dataset
from ..errors import InputError, listed
from ..study import LabelledStudies, Study
from ..study_labels import one_spelling
from ..study_table import LABELS_CSV
from ..training.prepare import Sides
from ..training.splits import SPLITS_JSON, choose_cases
from .folds import NUM_FOLDS, fold_of_studies
from .sources import MAX_TOLD, Source, require_different, side_of_folder

SUFFIX = "_findings"
"""Behind the dataset's name: the name of the task."""

log = logging.getLogger("spadunet")


@dataclass(frozen=True, kw_only=True)
class BothSides:
    """Of both kinds."""

    cases: Sides
    """Names of the cases with label maps."""
    train: tuple[Study, ...]
    held_out: tuple[Study, ...]


def findings_of(dataset: Dataset, found: LabelledStudies) -> tuple[Dataset, LabelledStudies]:
    """The same cases and studies under one name for each patient, whichever of both tells of them.

    Two images show one patient if dataset.json or their names say so, or the table does, in whatever spelling; shown is
    that of the table.

    Args:
        found: what the labels.csv in the dataset's folder says.
    """
    spelled = {one_spelling(study.patient): study.patient for study in found.studies}
    called: dict[str, str] = {}

    def name_of(patient: str) -> str:
        patient = spelled.setdefault(one_spelling(patient), patient)
        while (other := called.get(patient, patient)) != patient:
            patient = other
        return patient

    for study in found.studies:
        for view in study.views:
            known = dataset.patients.get(view.name, study.patient)
            called[name_of(known)] = name_of(study.patient)
    return (
        replace(dataset, patients={case: name_of(patient) for case, patient in dataset.patients.items()}),
        replace(
            found,
            name=f"{dataset.name}{SUFFIX}",
            studies=tuple(replace(study, patient=name_of(study.patient)) for study in found.studies),
        ),
    )


def choose_sides(
    dataset: Dataset, found: LabelledStudies, folder: Path, fold: str, *, dry_run: bool = False
) -> BothSides:
    """Sides of both kinds; the patients of one are no others than those of the other.

    Where the table has splits, they count for label maps too, and who has no row trains. Else the fold of
    splits_final.json counts, and patients without a label map are dealt out to the folds by their findings.

    Args:
        dataset, found: as `findings_of` gives them.
        folder: of the dataset below preprocessed/.
        fold: its number, `all`, or `split` where the table has splits.

    Raises:
        InputError: if a patient would be on both sides, or nothing could be learned of one kind.
    """
    if found.has_splits:
        cases, train, held_out = by_table(dataset, found, fold)
    else:
        cases, train, held_out = by_fold(dataset, found, folder, fold, dry_run=dry_run)
    require_apart(dataset, found, cases, train, held_out, folder)
    where = found.folder / LABELS_CSV
    if not cases[0]:
        raise InputError(f"{where}: no case with a label map trains; put one into the split train, or add label maps")
    if not train:
        raise InputError(f"{where}: -f {fold}: no study with a row trains; give another fold, or add rows")
    require_different(found, train, None if found.has_splits else fold)
    both = {case.name for case in dataset.cases} & {view.name for study in found.studies for view in study.views}
    log.info(
        "%s: label maps of %d cases train, of %d are held out; findings of %d studies train, of %d are held out; "
        "%d cases have both",
        *(dataset.name, len(cases[0]), len(cases[1]), len(train), len(held_out), len(both)),
    )
    if fold != "all" and not held_out:
        log.warning("%s: no study is held out, so findings are not validated", where)
    return BothSides(cases=cases, train=tuple(train), held_out=tuple(held_out))


def by_table(dataset: Dataset, found: LabelledStudies, fold: str) -> tuple[Sides, list[Study], list[Study]]:
    """As the table's splits say."""
    splits: dict[str, str | None] = {study.patient: study.split for study in found.studies}
    split_of = {case.name: splits.get(dataset.patients[case.name], "train") for case in dataset.cases}
    is_all = fold == "all"
    learns = {"train", "val"} if is_all else {"train"}
    cases = [name for name, split in split_of.items() if split in learns]
    val = [] if is_all else [name for name, split in split_of.items() if split == "val"]
    train = [study for study in found.studies if study.split in learns]
    return (cases, val), train, [] if is_all else list(found.of("val"))


def by_fold(
    dataset: Dataset, found: LabelledStudies, folder: Path, fold: str, *, dry_run: bool
) -> tuple[Sides, list[Study], list[Study]]:
    """As the fold of splits_final.json says, which is made where there is none."""
    cases, val = choose_cases(dataset, folder, fold, dry_run=dry_run)
    if fold == "all":
        return (cases, val), list(found.studies), []
    side = {dataset.patients[name]: is_val for names, is_val in ((cases, False), (val, True)) for name in names}
    others = [study for study in found.studies if study.patient not in side]
    if others:
        labels = np.array([study.labels for study in others])
        folds = fold_of_studies([study.patient for study in others], labels)
        numbers = zip(others, folds, strict=True)
        side |= {study.patient: bool(number == int(fold) % NUM_FOLDS) for study, number in numbers}
    train = [study for study in found.studies if not side[study.patient]]
    return (cases, val), train, [study for study in found.studies if side[study.patient]]


def require_apart(
    dataset: Dataset,
    found: LabelledStudies,
    cases: Sides,
    train: Iterable[Study],
    held_out: Iterable[Study],
    folder: Path,
) -> None:
    """Refuse patients of whom one image trains and another is held out, of whichever kind.

    Raises:
        InputError: names them.
    """
    learned = {dataset.patients[name] for name in cases[0]} | {study.patient for study in train}
    kept = {dataset.patients[name] for name in cases[1]} | {study.patient for study in held_out}
    if found.has_splits:
        kept |= {study.patient for study in found.studies if study.split == "test"}
    shared = sorted(learned & kept)
    if shared:
        where = found.folder / LABELS_CSV if found.has_splits else folder / SPLITS_JSON
        remedy = "" if found.has_splits else " (deleted, it is made anew by patient)"
        raise InputError(
            f"{where}: {listed(shared, MAX_TOLD)} would train and be held out, with label maps or findings, as "
            f"dataset.json, {LABELS_CSV} and names tell who is who; put all images of a patient on one side{remedy}"
        )


def source_of(sides: BothSides, plan: ClassificationPlan, cases: Path, fold: str) -> Source:
    """The studies of both sides, preprocessed.

    Args:
        cases: folder of the preprocessed views.
    """
    return Source(
        plan=plan,
        train=side_of_folder(sides.train, cases),
        held_out=side_of_folder(sides.held_out, cases) if sides.held_out else None,
        fold=fold,
    )
