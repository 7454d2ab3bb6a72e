"""Label maps of CHAOS's cases to what the challenge's server takes: the way back of `chaos`."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ...dataset import find_label
from ...errors import InputError, OutputError
from ...files import PARTIAL_PREFIX, disk_error_reason
from ...formats import LABEL_ENDINGS, NIFTI_ENDINGS, ending_of, read_channels, write_array
from ...image import grid_difference, read_label_map
from ...record import read_record
from .chaos import SLICES_JSON, CaseSlices, ChaosSlices

GREYS: dict[str, dict[str, tuple[int, ...]]] = {
    "MR": {"Task3": (0, 63, 0, 0, 0), "Task5": (0, 63, 126, 189, 252)},
    "CT": {"Task2": (0, 255)},
}
"""Grey value of each label by task, in the order of the ids: liver alone, or all organs. Tasks 1 and 4 ask for one
system for CT and MR and stay empty."""
TEMPLATE = {"Task1": ("CT", "MR"), "Task2": ("CT",), "Task3": ("MR",), "Task4": ("CT", "MR"), "Task5": ("MR",)}
RESULTS = {"CT": ("Results",), "MR": ("T1DUAL/Results", "T2SPIR/Results")}
NUM_PATIENTS = 40
"""Of each modality, training and test sets together: the folders that the challenge's template has."""
ZIP_NAME = "submission.zip"

log = logging.getLogger("spadunet")


def export_chaos(
    predictions: Sequence[Path], datasets: Sequence[Path], folder: Path, *, allow_missing: bool = False
) -> int:
    """Write Task1 … Task5 as the challenge has them, and a zip file of them; number of label maps exported.

    A picture a slice, 8 bits, named as the slice's DICOM file (of InPhase for T1-DUAL), rows and columns as there. The
    folder appears when all of it is written.

    Args:
        predictions: folders of label maps that are named as cases; of each modality that has any, all test cases.
        datasets: raw datasets that `convert_chaos` wrote.
        folder: new, or empty.
        allow_missing: export the others where some test cases have no label map.

    Raises:
        InputError: if label maps are missing, lie on another grid than their images or hold unknown labels, or the
            folder is not empty.
        OutputError: if the disk is full or the folder cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is there already; remove it, or give another folder")
    cases: dict[str, CaseSlices] = {}
    for dataset in datasets:
        remedy = "write the dataset with spadunet_convert_chaos"
        cases |= read_record(dataset / SLICES_JSON, ChaosSlices, remedy=remedy).cases
    found = find_predictions(predictions, cases)
    missing = missing_tests(found, cases)
    if missing and not allow_missing:
        raise InputError(
            f"{len(missing)} test cases have no label map: {', '.join(missing)}; predict them, or leave them out with "
            "--allow-missing"
        )
    try:
        with tempfile.TemporaryDirectory(prefix=f"{PARTIAL_PREFIX}{folder.name}-", dir=folder.parent) as partial:
            tree = Path(partial) / "tree"
            write_tree(tree, found, cases)
            archive = shutil.make_archive(str(Path(partial) / Path(ZIP_NAME).stem), "zip", tree)
            os.replace(archive, tree / ZIP_NAME)
            os.replace(tree, folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {disk_error_reason(error) or error}") from error
    return len(found)


def check_export(predictions: Sequence[Path], dataset: Path) -> tuple[int, list[str]]:
    """Export label maps into a temporary folder and read the pictures of all organs back.

    Args:
        predictions: folders of label maps that are named as cases.
        dataset: raw dataset that `convert_chaos` wrote.

    Returns:
        Number of label maps, and the test cases that have none.

    Raises:
        InputError: as `export_chaos`, and if pictures show something else than the label maps.
        OutputError: if there is no space for the pictures.
    """
    cases = read_record(dataset / SLICES_JSON, ChaosSlices, remedy="convert the release again").cases
    found = find_predictions(predictions, cases)
    problems = []
    with tempfile.TemporaryDirectory(prefix="spadunet-chaos-") as folder:
        tree = Path(folder)
        write_tree(tree, found, cases)
        for name, path in found.items():
            *_, (task, greys) = GREYS[modality_of(cases[name])].items()
            wanted = np.array(greys, np.uint8)[read_prediction(path, cases[name])]
            if not np.array_equal(read_pictures(tree / task, cases[name]), wanted):
                problems.append(f"{path}: its pictures do not show it; please report this")
    if problems:
        raise InputError("\n".join(problems))
    return len(found), missing_tests(found, cases)


def read_pictures(task: Path, case: CaseSlices) -> np.ndarray:
    """Grey values (A0, A1, A2) of a case's pictures in a task's folder, uint8."""
    paths = [task / case.folder / "Results" / f"{stem}.png" for stem in case.stems]
    return np.concatenate([read_channels(path)[0][0] for path in paths])


def write_tree(tree: Path, found: dict[str, Path], cases: dict[str, CaseSlices]) -> None:
    """Write the challenge's folders, and the pictures of each label map.

    Raises:
        InputError: if label maps do not fit their images; all of them, a line each.
    """
    make_template(tree)
    problems = []
    for name, path in tqdm(sorted(found.items()), desc="Exporting CHAOS", unit="case", disable=None):
        try:
            write_pictures(read_prediction(path, cases[name]), cases[name], tree)
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError("\n".join(problems))


def find_predictions(folders: Sequence[Path], cases: dict[str, CaseSlices]) -> dict[str, Path]:
    """Label map by case name.

    Raises:
        InputError: if there is none, or a case has two.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: folder not found; give the folder that holds the label maps")
        here = {name: find_label(folder, name, NIFTI_ENDINGS[0]) for name in cases}
        here = {name: path for name, path in here.items() if path.is_file()}
        for name in sorted(here.keys() & found.keys()):
            raise InputError(f"{here[name]}: a second label map of {name}, beside {found[name]}; keep one of them")
        found |= here
        for path in sorted(folder.iterdir()):
            if ending_of(path, LABEL_ENDINGS) and path not in here.values():
                log.warning("%s: has no name of a CHAOS case; it is left out", path)
    if not found:
        listed = ", ".join(map(str, folders))
        raise InputError(f"{listed}: no label maps named as CHAOS's cases are, like {min(cases)}{NIFTI_ENDINGS[0]}")
    return found


def missing_tests(found: dict[str, Path], cases: dict[str, CaseSlices]) -> list[str]:
    """Test cases without a label map, of modalities that have some label map."""
    modalities = {modality_of(cases[name]) for name in found}
    return [
        name
        for name, case in sorted(cases.items())
        if case.is_test and name not in found and modality_of(case) in modalities
    ]


def modality_of(case: CaseSlices) -> str:
    """MR or CT."""
    return case.folder.split("/")[0]


def make_template(tree: Path) -> None:
    """The folders that the challenge's template has, empty."""
    for task, modalities in TEMPLATE.items():
        for modality in modalities:
            for patient in range(1, NUM_PATIENTS + 1):
                for results in RESULTS[modality]:
                    (tree / task / modality / str(patient) / results).mkdir(parents=True)


def read_prediction(path: Path, case: CaseSlices) -> np.ndarray:
    """Label ids (A0, A1, A2) on the grid of the case's image.

    Raises:
        InputError: if they lie on another grid, or one is no label of its modality.
    """
    label_map = read_label_map(path)
    difference = grid_difference(label_map.shape, label_map.affine, case.shape, np.array(case.affine))
    if difference:
        raise InputError(f"{path}: does not lie on the grid of its image: {difference}; predict it on its own grid")
    num_labels = len(next(iter(GREYS[modality_of(case)].values())))
    wrong = label_map.array[(label_map.array < 0) | (label_map.array >= num_labels)]
    if wrong.size:
        raise InputError(f"{path}: holds the label {wrong[0]}; {modality_of(case)} has 0 to {num_labels - 1}")
    return label_map.array


def write_pictures(labels: np.ndarray, case: CaseSlices, tree: Path) -> None:
    """Write a picture a slice of (A0, A1, A2) into each task of the case's modality."""
    for task, greys in GREYS[modality_of(case)].items():
        volume = np.array(greys, np.uint8)[labels]
        for stem, plane in zip(case.stems, volume, strict=True):
            write_array(tree / task / case.folder / "Results" / f"{stem}.png", plane[None], np.eye(4))
