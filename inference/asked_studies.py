"""The studies to classify in a folder of images or in a MedMNIST file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ..classification_plan import ClassificationPlan
from ..errors import InputError
from ..medmnist import open_medmnist
from ..study import SPLIT_NAMES, SplitName, Study
from ..study_images import IMAGE_FOLDERS, StudyImages, names_by_file
from ..study_labels import check_splits, find_views, read_split, rows_of_studies, warn_unused
from ..study_table import LABELS_CSV, SPLIT, LabelTable, read_table
from .cases import find_cases, tell_series
from .channels import order_of
from .fitting_images import require_fitting_file, require_fitting_images
from .studies import FileStudies, MedMNISTStudies, studies_of_medmnist

STUDIES_CSV = "studies.csv"
TABLES = (LABELS_CSV, STUDIES_CSV)
"""Where a folder says which images are views of one study; labels are not looked at."""
ALL = "all"
TEST: SplitName = "test"
"""The split that is predicted unless another one is asked for, where there is one."""
SPLIT_CHOICES = (*SPLIT_NAMES, ALL)

log = logging.getLogger("spadunet")

AskedStudies = FileStudies | MedMNISTStudies


def find_studies(
    path: Path,
    plan: ClassificationPlan,
    *,
    split: str | None = None,
    channels: Sequence[str] | None = None,
    others: Sequence[ClassificationPlan] = (),
) -> AskedStudies:
    """Studies of a path, as a plan sees them; nothing of an image is read yet but a MedMNIST file's.

    A folder holds images, or images/ (imagesTr/) beside its table. Without a table each image is a study.

    Args:
        split: one of SPLIT_CHOICES; None for the test split where there are splits.
        channels: names of the images' channels, where the user gives them.
        others: plans of further models of the same channels, which must be able to mean the images, too.

    Raises:
        InputError: if there is nothing, the table is wrong, its images are not there, or images are of another kind
            than the plan's.
    """
    if path.suffix.lower() == ".npz" and not path.is_dir():
        if channels:
            raise InputError("--channels: is for folders of images; a MedMNIST file has its own order, leave it out")
        return medmnist_studies(path, plan, split, others)
    folder = next((path / name for name in IMAGE_FOLDERS if (path / name).is_dir()), path)
    order = order_of(plan, folder, channels)
    cases = find_cases(folder, len(order.names), order.optional, may_mix=True)
    for line in tell_series(cases):
        log.info(line)
    found = next((path / name for name in TABLES if (path / name).is_file()), None)
    chosen = ""
    if found is None:
        if split not in (None, ALL):
            raise InputError(f"--split {split}: {path} has no {' or '.join(TABLES)} that tells splits; leave it out")
        studies = [Study(name=it.name, patient=it.name, split=None, views=(it,), labels=()) for it in cases]
    else:
        table, chosen = rows_asked(read_table(found, has_labels=False), split)
        views = {case.name: case for case in cases}
        images = StudyImages(
            folder=folder,
            channel_names=order.names,
            optional_channels=(),
            patients={},
            views=views,
            by_file=names_by_file(views),
        )
        studies = studies_of_table(table, images)
    asked = [view for study in studies for view in study.views]
    for of_kind in {it.is_planar: it for it in (*others, plan)}.values():
        require_fitting_images(folder, asked, of_kind, len(order.names))
    return FileStudies(studies=tuple(studies), plan=plan, order=order, split=chosen)


def medmnist_studies(
    path: Path, plan: ClassificationPlan, split: str | None, others: Sequence[ClassificationPlan] = ()
) -> MedMNISTStudies:
    """The images of one split of a MedMNIST file.

    Raises:
        InputError: if the file is damaged, its images are not of the plan's kind, or all splits are asked for.
    """
    chosen = next((it for it in SPLIT_NAMES if it == (split or TEST)), None)
    if chosen is None:
        raise InputError(f"--split {split}: of a MedMNIST file one split is predicted; give {', '.join(SPLIT_NAMES)}")
    dataset = open_medmnist(path)
    for it in (plan, *others):
        require_fitting_file(dataset, it)
    return studies_of_medmnist(dataset, chosen, plan)


def rows_asked(table: LabelTable, split: str | None) -> tuple[LabelTable, str]:
    """The rows of a split, as `find_studies` has it, and its name; empty where the table has none.

    Raises:
        InputError: if there is none.
    """
    if not table.has(SPLIT):
        if split not in (None, ALL):
            raise InputError(f"--split {split}: {table.path} has no column {SPLIT}; leave it out")
        return table, ""
    check_splits(table)
    there = {read_split(row) for row in table.rows}
    wanted = split or (TEST if TEST in there else ALL)
    if wanted == ALL:
        return table, ALL
    if wanted not in there:
        found = ", ".join(it for it in SPLIT_NAMES if it in there)
        raise InputError(f"--split {split}: {table.path} has only {found}; choose one of these, or {ALL}")
    log.info("%s: split %s", table.path, wanted)
    return table.only(lambda row: read_split(row) == wanted), wanted


def studies_of_table(table: LabelTable, images: StudyImages) -> list[Study]:
    """A study for each name in the table, in its order.

    Raises:
        InputError: if an image of the table is not there or has two rows.
    """
    views = find_views(table, images)
    lines = rows_of_studies(table, [view.name for view in views])
    if not table.has(SPLIT):
        warn_unused(table, images, views)
    return [
        Study(name=name, patient=name, split=None, views=tuple(views[number] for number in numbers), labels=())
        for name, numbers in lines.items()
    ]
