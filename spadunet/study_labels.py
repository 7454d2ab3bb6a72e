"""Studies and their labels from a folder: images, labels.csv and, where it must be fixed, classes.json."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from .colours import require_colours
from .copies import warn_copied_files
from .dataset import RawCase
from .description import DATASET_JSON
from .errors import listed
from .patients import patients_of
from .study import SPLIT_NAMES, LabelledStudies, SplitName, Study
from .study_classes import choose_classes, labels_by_split, labels_of_rows, require_different, warn_missing, warn_rare
from .study_images import StudyImages, find_study_images
from .study_table import IMAGE, LABELS_CSV, PATIENT, SPLIT, STUDY, LabelTable, TableRow, read_table

MAX_UNUSED = 3
"""Images without a row that are told."""

log = logging.getLogger("spadunet")


def read_studies(folder: Path, *, may_lack_rows: bool = False) -> LabelledStudies:
    """The studies of a folder with images/ (or imagesTr/), labels.csv and perhaps classes.json and dataset.json.

    Images that have no row in the table are left out, and told.

    Args:
        may_lack_rows: images without a row are nothing to tell of.

    Raises:
        InputError: if a file is missing or wrong, an image of the table is not there, a label is missing or unknown,
            all are the same, or a patient is in two splits; names file, line, value and remedy, up to ten lines.
    """
    folder = folder.resolve()
    table = read_table(folder / LABELS_CSV)
    images = find_study_images(folder)
    views = find_views(table, images)
    require_colours(
        images.folder,
        views,
        len(images.channel_names),
        reason=f"{'one channel is' if len(images.channel_names) == 1 else 'colours are'} expected",
        remedy=f"convert all to grey, or name three channels in {DATASET_JSON}, which grey pictures fill alike",
    )
    names = [view.name for view in views]
    lines = rows_of_studies(table, names)
    classes = choose_classes(folder, table, num_studies=len(lines))
    labels = labels_of_rows(table, classes)
    check_patients(table)
    check_same(table, lines, labels)
    splits = {name: read_split(table.rows[numbers[0]]) for name, numbers in lines.items()}
    patients = find_patients(table, lines, names, images.patients)
    check_leaks(table, lines, patients, splits)
    studies = tuple(
        Study(
            name=name,
            patient=patients[name],
            split=splits[name],
            views=tuple(views[number] for number in numbers),
            labels=labels[numbers[0]],
        )
        for name, numbers in lines.items()
    )
    found = LabelledStudies(
        name=folder.name,
        folder=folder,
        channel_names=images.channel_names,
        classes=classes,
        studies=studies,
        optional_channels=images.optional_channels,
    )
    require_different(found)
    warn_missing(table.path, classes, labels_by_split(found))
    warn_rare(table.path, found)
    warn_copied_files(found)
    if not may_lack_rows:
        warn_unused(table, images, views)
    return found


def warn_unused(table: LabelTable, images: StudyImages, views: Sequence[RawCase]) -> None:
    """Say which images have no row."""
    unused = sorted(images.views.keys() - {view.name for view in views})
    if unused:
        told = listed(unused, MAX_UNUSED)
        log.warning("%s: %d images have no row and are not used: %s", table.path, len(unused), told)


def rows_of_studies(table: LabelTable, names: Sequence[str]) -> dict[str, list[int]]:
    """Numbers of the rows of each study, its views.

    Args:
        names: of the image of each row, which is a study of its own where the table names none.
    """
    lines: dict[str, list[int]] = {}
    for number, (row, name) in enumerate(zip(table.rows, names, strict=True)):
        lines.setdefault(row.keys.get(STUDY) or name, []).append(number)
    return lines


def find_views(table: LabelTable, images: StudyImages) -> list[RawCase]:
    """The image of each row.

    Raises:
        InputError: if one is not there or has two rows.
    """
    found: list[RawCase] = []
    seen: dict[str, int] = {}
    problems = []
    for row in table.rows:
        text = row.keys[IMAGE]
        view = images.find(text)
        if view is None:
            what = f"image '{text}' is not in {images.folder}" if text else "image is empty"
            problems.append(f"line {row.line}: {what}; add the file, correct its name or take the row out")
        elif view.name in seen:
            problems.append(f"line {row.line}: image '{text}' stands in line {seen[view.name]} too; take one row out")
        else:
            seen[view.name] = row.line
            found.append(view)
    table.refuse(problems)
    return found


def check_splits(table: LabelTable) -> None:
    """Refuse splits of other names."""
    table.refuse(
        [
            f"line {row.line}: split is '{row.keys[SPLIT]}'; expected {', '.join(SPLIT_NAMES)}"
            for row in table.rows
            if SPLIT in row.keys and read_split(row) is None
        ]
    )


def check_patients(table: LabelTable) -> None:
    """Refuse rows without a patient where others have one: nobody could say whether they are of the same."""
    if any(row.keys.get(PATIENT) for row in table.rows):
        table.refuse(
            [
                f"line {row.line}: patient is empty, but others have one; fill it in, or take the row out"
                for row in table.rows
                if not row.keys[PATIENT]
            ]
        )


def one_spelling(text: str) -> str:
    """`Anna B` and `anna  b` are one patient, `Train` and `train` one split."""
    return "".join(text.casefold().split())


def check_same(table: LabelTable, lines: Mapping[str, Sequence[int]], labels: Sequence[tuple[int, ...]]) -> None:
    """Refuse studies whose rows have different labels, patients or splits, and splits of other names."""
    check_splits(table)
    problems = []
    for name, (first, *others) in lines.items():
        for other in others:
            here, there = table.rows[other], table.rows[first]
            where = f"line {here.line}: study '{name}' has"
            if labels[other] != labels[first]:
                remedy = "write the same in each row of a study, or give it another name"
                told = f"{cells_of(here)}, but {cells_of(there)} in line {there.line}"
                problems.append(f"{where} the labels {told}; {remedy}")
            for key in (PATIENT, SPLIT):
                mine, its = here.keys.get(key, ""), there.keys.get(key, "")
                if one_spelling(mine) != one_spelling(its):
                    problems.append(
                        f"{where} the {key} '{mine}', but '{its}' in line {there.line}; a study has one {key}"
                    )
    table.refuse(problems)


def cells_of(row: TableRow) -> str:
    """Labels as the table has them: 'benign', or '0, 1'."""
    return f"'{', '.join(row.labels.values())}'"


def read_split(row: TableRow) -> SplitName | None:
    """The split of a row, checked before; None where the table has none."""
    return next((split for split in SPLIT_NAMES if split == row.keys.get(SPLIT, "").lower()), None)


def find_patients(
    table: LabelTable, lines: Mapping[str, Sequence[int]], names: Sequence[str], known: Mapping[str, str]
) -> dict[str, str]:
    """Patient of each study: of the table as first spelled there, else of dataset.json, else as names tell.

    Args:
        names: of the image of each row.
        known: patient by name of a study or an image.
    """
    of_view = {name: names[numbers[0]] for name, numbers in lines.items()}
    told = {**known, **{name: known[view] for name, view in of_view.items() if view in known}}
    by_name = patients_of(list(lines), told)
    cells = {name: table.rows[numbers[0]].keys.get(PATIENT, "") for name, numbers in lines.items()}
    first: dict[str, str] = {}
    return {name: first.setdefault(one_spelling(cell), cell) if cell else by_name[name] for name, cell in cells.items()}


def check_leaks(
    table: LabelTable,
    lines: Mapping[str, Sequence[int]],
    patients: Mapping[str, str],
    splits: Mapping[str, SplitName | None],
) -> None:
    """Refuse a patient in two splits: what is learned of one study would be known of the other."""
    first: dict[str, str] = {}
    problems = []
    for name, patient in patients.items():
        earlier = first.setdefault(patient, name)
        if splits[earlier] != splits[name]:
            here, there = (table.rows[lines[it][0]] for it in (name, earlier))
            remedy = "put all studies of a patient into one split"
            if not table.has(PATIENT):
                remedy += ", or tell patients apart by a column patient"
            problems.append(
                f"line {here.line}: patient '{here.keys.get(PATIENT) or patient}' is in {splits[name]}, but in "
                f"{splits[earlier]} in line {there.line}; {remedy}"
            )
    table.refuse(problems)
