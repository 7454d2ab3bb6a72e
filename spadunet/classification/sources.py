"""Where studies come from: which of them train and which are held out, and the plan for them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..classes import UNKNOWN
from ..classification_plan import ClassificationPlan
from ..errors import InputError, listed
from ..inference.studies import StoredStudies, Studies, studies_of_medmnist
from ..medmnist import MedMNIST
from ..preprocessing.views import View
from ..study import LabelledStudies, SplitName, Study
from .batches import Labelled
from .folds import NUM_FOLDS, fold_of_studies

MAX_TOLD = 8
SPLIT = "split"

log = logging.getLogger("spadunet")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Studies with a plan, and the two sides of a split."""

    plan: ClassificationPlan
    train: Labelled
    held_out: Labelled | None
    """None where nothing is held out."""
    fold: str
    """Its number, `all`, or `split` where the data say who trains."""

    @property
    def name(self) -> str:
        """Of the dataset."""
        return self.plan.dataset_name

    @property
    def sides(self) -> tuple[Labelled, ...]:
        """What trains, and what is held out if anything is."""
        return (self.train,) if self.held_out is None else (self.train, self.held_out)


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Studies of one kind after those of another."""

    first: Studies
    second: Studies

    @property
    def names(self) -> tuple[str, ...]:
        """Of each study."""
        return (*self.first.names, *self.second.names)

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, number: int) -> tuple[View, ...]:
        size = len(self.first)
        return self.first[number] if number < size else self.second[number - size]


def medmnist_source(dataset: MedMNIST, plan: ClassificationPlan, fold: str | None) -> Source:
    """The training and the validation split of a file; the test split is left alone.

    Args:
        fold: None; or `all` for a run that learns from both, and validates on nothing.

    Raises:
        InputError: if another fold is asked for.
    """
    require_no_number(fold, str(dataset.path))
    train, val = (side_of_medmnist(dataset, split, plan) for split in ("train", "val"))
    if fold != "all":
        return Source(plan=plan, train=train, held_out=val, fold=SPLIT)
    both = Labelled(
        names=(*train.names, *val.names),
        labels=np.concatenate([train.labels, val.labels]),
        patients=(*train.patients, *val.patients),
        open=lambda: Chain(first=train.open(), second=val.open()),
    )
    return Source(plan=plan, train=both, held_out=None, fold="all")


def side_of_medmnist(dataset: MedMNIST, split: SplitName, plan: ClassificationPlan) -> Labelled:
    """The studies of one split."""
    names = tuple(dataset.study_name(split, number) for number in range(len(dataset.labels[split])))
    open_them = partial(studies_of_medmnist, dataset, split, plan)
    return Labelled(names=names, labels=dataset.labels[split], patients=names, open=open_them)


def folder_source(found: LabelledStudies, plan: ClassificationPlan, cases: Path, fold: str | None) -> Source:
    """The two sides that a folder's table says, or a fold of those without.

    Args:
        cases: folder of the preprocessed views.
        fold: None for the first; with a table that splits only that, or `all`.

    Raises:
        InputError: if there is no such fold, or nothing could be learned from what trains.
    """
    train, val = sides_of_folder(found, fold)
    if found.has_splits and fold != "all" and not val:
        log.warning(
            "%s: no study has the split val, so nothing tells which epoch is the best: the last weights are kept",
            found.folder,
        )
    require_different(found, train, fold)
    return Source(
        plan=plan,
        train=side_of_folder(train, cases),
        held_out=side_of_folder(val, cases) if val else None,
        fold=fold or usual_fold(found),
    )


def usual_fold(found: LabelledStudies) -> str:
    """That of a run for which none is asked."""
    return SPLIT if found.has_splits else "0"


def sides_of_folder(found: LabelledStudies, fold: str | None) -> tuple[list[Study], list[Study]]:
    """Studies that train and that are held out.

    Args:
        fold: as `folder_source` takes it.

    Raises:
        InputError: if there is no such fold.
    """
    if not found.has_splits:
        return fold_of(found, fold or "0")
    require_no_number(fold, str(found.folder))
    train, val = list(found.of("train")), list(found.of("val"))
    return ([*train, *val], []) if fold == "all" else (train, val)


def fold_of(found: LabelledStudies, fold: str) -> tuple[list[Study], list[Study]]:
    """Studies that train and that are held out.

    Raises:
        InputError: if there is no such fold.
    """
    studies = found.studies
    if fold == "all":
        return list(studies), []
    patients = [study.patient for study in studies]
    folds = fold_of_studies(patients, np.array([study.labels for study in studies]))
    num_folds = min(len(set(patients)), NUM_FOLDS)
    if num_folds < 2:
        raise InputError(f"-f {fold}: {found.folder} has a single patient, who cannot be split; give -f all")
    if int(fold) >= num_folds:
        raise InputError(f"-f {fold}: {found.folder} has folds 0 to {num_folds - 1}; give one of them or all")
    is_val = folds == int(fold)
    return (
        [study for study, held in zip(studies, is_val, strict=True) if not held],
        [study for study, held in zip(studies, is_val, strict=True) if held],
    )


def side_of_folder(studies: Sequence[Study], cases: Path) -> Labelled:
    """Some studies, whose views are stored."""
    return Labelled(
        names=tuple(study.name for study in studies),
        labels=np.array([study.labels for study in studies], dtype=np.int64),
        patients=tuple(study.patient for study in studies),
        open=partial(StoredStudies, studies=tuple(studies), folder=cases),
    )


def require_no_number(fold: str | None, where: str) -> None:
    """Refuse a fold where the data say who trains.

    Raises:
        InputError: if one is given.
    """
    if fold not in (None, "all"):
        raise InputError(f"-f {fold}: {where} says which studies train and which validate; leave it out, or give all")


def require_different(found: LabelledStudies, train: Sequence[Study], fold: str | None) -> None:
    """Refuse training studies of one class only, and tell which classes they lack.

    Raises:
        InputError: if all have the same labels.
    """
    columns = [{study.labels[number] for study in train} - {UNKNOWN} for number in range(found.classes.num_labels)]
    where = f"{found.folder}{'' if fold is None else f', fold {fold}'}"
    if all(len(column) < 2 for column in columns):
        raise InputError(f"{where}: all studies that would train have the same label; give another fold, or all")
    names = found.classes.names
    if found.classes.is_exclusive:
        missing = [name for number, name in enumerate(names) if number not in columns[0]]
    else:
        missing = [name for name, column in zip(names, columns, strict=True) if len(column) < 2]
    if missing:
        log.warning("%s: the training studies cannot teach %s", where, listed(missing, MAX_TOLD))
