"""BTCV's abdominal CT ("Multi-Atlas Labeling Beyond the Cranial Vault", Landman et al. 2015) as released on Synapse."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ...dataset import RawCase
from ...errors import InputError
from ...files import write_text
from ...releases import BTCV_LABELS as LABELS
from ...releases import BTCV_PREFIX as PREFIX
from ...releases import BTCV_VALIDATION as VALIDATION
from .folder import copy, new_dataset, require_folder, write_description

SPLIT_JSON = "splits_21_9.json"
LAYOUT = "RawData/Training/img/img0001.nii.gz … and RawData/Training/label/label0001.nii.gz …"


def convert_btcv(source: Path, folder: Path) -> int:
    """Write a raw dataset with all labelled scans, and the unlabelled ones as test images; number of labelled scans.

    Args:
        source: the folder that holds RawData, or RawData itself.
        folder: of the dataset, as raw/Dataset007_BTCV.

    Raises:
        InputError: if the release's folders are not there, or scans and labels do not pair.
    """
    cases = find_cases(source)
    labelled = [case.name for case in cases if case.label_path is not None]
    with new_dataset(folder):
        for case in cases:
            write_case(case, folder)
        val = [name for name in labelled if int(name.removeprefix(PREFIX)) in VALIDATION]
        train = [name for name in labelled if name not in val]
        write_text(folder / SPLIT_JSON, json.dumps([{"train": train, "val": val}], indent=1) + "\n")
        write_description(
            folder,
            channel_names=["CT"],
            labels=LABELS,
            about={"name": "BTCV", "reference": "Landman et al. 2015, doi:10.7303/syn3193805"},
        )
    return len(labelled)


def find_cases(source: Path) -> list[RawCase]:
    """The labelled scans, then those for testing.

    Raises:
        InputError: as `convert_btcv`.
    """
    release = source / "RawData" if (source / "RawData").is_dir() else source
    images = numbered(release / "Training/img", "img")
    labels = numbered(release / "Training/label", "label")
    if images.keys() != labels.keys():
        lone = sorted(images.keys() ^ labels.keys())
        raise InputError(f"{release / 'Training'}: {lone[0]} has no partner among img and label; download it again")
    has_tests = (release / "Testing/img").is_dir()
    tests = numbered(release / "Testing/img", "img") if has_tests else {}
    return [
        RawCase(name=f"{PREFIX}{number}", image_paths=(path,), label_path=labels.get(number))
        for number, path in [*images.items(), *tests.items()]
    ]


def write_case(case: RawCase, folder: Path) -> None:
    """Copy a scan and its labels into a dataset's folder."""
    images = "imagesTs" if case.label_path is None else "imagesTr"
    copy(case.paths[0], folder / images / f"{case.name}_0000.nii.gz")
    if case.label_path is not None:
        copy(case.label_path, folder / "labelsTr" / f"{case.name}.nii.gz")


def numbered(folder: Path, prefix: str) -> dict[str, Path]:
    """Files of a folder by their four digits, sorted.

    Raises:
        InputError: if there are none.
    """
    require_folder(folder, LAYOUT)
    found = {
        match[1]: path
        for path in sorted(folder.iterdir())
        if (match := re.fullmatch(rf"{prefix}(\d{{4}})\.nii\.gz", path.name))
    }
    if not found:
        raise InputError(f"{folder}: no {prefix}0001.nii.gz … there; expected {LAYOUT}")
    return found
