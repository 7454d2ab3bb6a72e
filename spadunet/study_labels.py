"""Studies and their labels from a folder: images, labels.csv and, where it must be fixed, classes.json."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from .dataset import RawCase
from .errors import listed
from .patients import patients_of
from .study import SPLIT_NAMES, LabelledStudies, SplitName, Study
from .study_classes import choose_classes, labels_of_rows, require_different, warn_missing
from .study_images import StudyImages, find_study_images
from .study_table import IMAGE, LABELS_CSV, PATIENT, SPLIT, STUDY, LabelTable, TableRow, read_table

MAX_TOLD = 3

log = logging.getLogger("spadunet")


def read_studies(folder: Path) -> LabelledStudies:
    """The studies of a folder with images/ (or imagesTr/), labels.csv and perhaps classes.json and dataset.json.

    Images that have no row in the table are left out, and told.

    Raises:
        InputError: if a file is missing or wrong, an image of the table is not there, a label is missing or unknown,
            all are the same, or a patient is in two splits; names file, line, value and remedy, up to ten lines.
    """
    folder = folder.resolve()
    table = read_table(folder / LABELS_CSV)
    images = find_study_images(folder)
    views = find_views(table, images)
    lines: dict[str, list[int]] = {}
    for number, (row, view) in enumerate(zip(table.rows, views, strict=True)):
        lines.setdefault(row.keys.get(STUDY) or view.name, []).append(number)
    classes = choose_classes(folder, table, num_studies=len(lines))
    labels = labels_of_rows(table, classes)
    check_same(table, lines, labels)
    splits = {name: read_split(table.rows[numbers[0]]) for name, numbers in lines.items()}
    patients = find_patients(table, lines, views, images.patients)
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
    warn_missing(found)
    unused = sorted(images.views.keys() - {view.name for view in views})
    if unused:
        told = listed(unused, MAX_TOLD)
        log.warning("%s: %d images have no row and are not used: %s", table.path, len(unused), told)
    return found


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


def check_same(table: LabelTable, lines: Mapping[str, Sequence[int]], labels: Sequence[tuple[int, ...]]) -> None:
    """Refuse studies whose rows have different labels, patients or splits, and splits of other names."""
    problems = []
    for row in table.rows if table.has(SPLIT) else ():
        if row.keys[SPLIT].lower() not in SPLIT_NAMES:
            problems.append(f"line {row.line}: split is '{row.keys[SPLIT]}'; expected {', '.join(SPLIT_NAMES)}")
    table.refuse(problems)
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
                if mine.lower() != its.lower() if key == SPLIT else mine != its:
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
    table: LabelTable, lines: Mapping[str, Sequence[int]], views: Sequence[RawCase], known: Mapping[str, str]
) -> dict[str, str]:
    """Patient of each study: of the table, else of dataset.json, else as names tell."""
    of_view = {name: views[numbers[0]].name for name, numbers in lines.items()}
    told = {**known, **{name: known[view] for name, view in of_view.items() if view in known}}
    by_name = patients_of(list(lines), told)
    return {name: table.rows[numbers[0]].keys.get(PATIENT) or by_name[name] for name, numbers in lines.items()}


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
            line, other = (table.rows[lines[it][0]].line for it in (name, earlier))
            remedy = "put all studies of a patient into one split"
            if not table.has(PATIENT):
                remedy += ", or tell patients apart by a column patient"
            problems.append(
                f"line {line}: patient '{patient}' is in {splits[name]}, but in {splits[earlier]} in line {other}; "
                f"{remedy}"
            )
    table.refuse(problems)
