"""Writes small trees in exactly the layout of CHAOS's release: real DICOM files and pictures, cut from real volumes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from dicom_files import write_series

from spadunet.formats import write_array

TILTED = ((0.96, 0.28, 0.0), (-0.28, 0.96, 0.0))
"""Directions of rows and columns, neither along an axis."""
PIXEL_MM = (1.5, 1.25)
STEP_MM = 5.5
GREYS = {"MR": (0, 63, 126, 189, 252), "CT": (0, 255)}
TOLERATED = (0, 60, 120, 180, 250)


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """What was written as one case: arrays (slice, row, column), slice n from the file names[n] at positions_mm[n]."""

    folder: Path
    """As Train_Sets/MR/1/T1DUAL."""
    channels: dict[int, np.ndarray]
    labels: np.ndarray
    names: list[str]
    positions_mm: np.ndarray

    def points_mm(self) -> np.ndarray:
        """Where every pixel lies (slice, row, column, 3), by DICOM PS3.3, C.7.6.2.1.1: columns follow each other along
        the first direction."""
        along_row, along_column = np.array(TILTED)
        number, row, column = np.indices(self.labels.shape)[..., None]
        return self.positions_mm[number[..., 0]] + column * PIXEL_MM[1] * along_row + row * PIXEL_MM[0] * along_column


def write_image_set(
    folder: Path,
    phases: dict[str, np.ndarray],
    labels: np.ndarray,
    *,
    first_channel: int,
    names: list[str],
    step_mm: float = STEP_MM,
    greys: tuple[int, ...] | None,
    pictures: list[str] | None = None,
) -> ImageSet:
    """Write one T1DUAL, T2SPIR or CT folder.

    Args:
        phases: volumes by folder below DICOM_anon, "" for itself.
        names: of the DICOM files of the first phase, in the order of slices.
        step_mm: below zero, slices go down with their number.
        greys: of the labels in the pictures; None writes no ground truth.
        pictures: names of the pictures in the order of the sorted DICOM names, else those with .png.
    """
    first_mm = (-31.0, 12.0, 40.0)
    for number, (below, volume) in enumerate(phases.items()):
        phase_names = names if number == 0 else [f"OUT-{name}" for name in names]
        write_series(
            folder / "DICOM_anon" / below,
            volume,
            names=phase_names,
            directions=TILTED,
            step_mm=(0.0, 0.0, step_mm),
            first_mm=first_mm,
            pixel_mm=PIXEL_MM,
        )
    if greys is not None:
        for number, name in enumerate(sorted(names)):
            picture = pictures[number] if pictures else name.replace(".dcm", ".png")
            plane = np.array(greys, np.uint8)[labels[names.index(name)]]
            write_array(folder / "Ground" / picture, plane[None], np.eye(4))
    return ImageSet(
        folder=folder,
        channels={first_channel + number: volume for number, volume in enumerate(phases.values())},
        labels=labels,
        names=names,
        positions_mm=np.array(first_mm) + np.arange(len(names))[:, None] * (0.0, 0.0, step_mm),
    )


def shuffled(names: list[str]) -> list[str]:
    """The names in an order that is neither theirs nor its reverse."""
    return np.random.default_rng(0).permutation(names).tolist()


def write_release(folder: Path, image: np.ndarray, labels: np.ndarray) -> dict[str, ImageSet]:
    """Patients 2 and 21 of MR and 5 of CT to train on, 11 of MR and 3 of CT to test on; by name of their cases.

    Args:
        image: (slice, row, column), int16; each patient gets other values.
        labels: ids 0 to 4; CT's liver is id 1.
    """
    train, test = folder / "Train_Sets", folder / "Test_Sets"
    slices = range(1, len(image) + 1)
    even, odd = [f"IMG-0004-{2 * n:05}.dcm" for n in slices], [f"IMG-0012-{n:05}.dcm" for n in slices]
    ct_names, ct_pictures = [f"i{n:04},0000b.dcm" for n in slices], [f"liver_GT_{n:03}.png" for n in slices]
    both = {"InPhase": image, "OutPhase": image // 2}
    liver = (labels == 1).astype(np.uint8)
    mr, ct = GREYS["MR"], GREYS["CT"]
    return {
        "chaos_02_t1": write_image_set(
            train / "MR/2/T1DUAL", both, labels, first_channel=0, names=even, step_mm=-STEP_MM, greys=mr
        ),
        "chaos_02_t2": write_image_set(
            train / "MR/2/T2SPIR", {"": image + 7}, labels, first_channel=2, names=shuffled(odd), greys=mr
        ),
        "chaos_21_t1": write_image_set(
            train / "MR/21/T1DUAL", both, labels, first_channel=0, names=shuffled(even), greys=mr
        ),
        "chaos_21_t2": write_image_set(
            train / "MR/21/T2SPIR", {"": image + 9}, labels, first_channel=2, names=odd, greys=TOLERATED
        ),
        "chaos_11_t1": write_image_set(
            test / "MR/11/T1DUAL", both, labels, first_channel=0, names=even[::-1], greys=None
        ),
        "chaos_11_t2": write_image_set(
            test / "MR/11/T2SPIR", {"": image + 5}, labels, first_channel=2, names=odd, step_mm=-STEP_MM, greys=None
        ),
        "chaos_05_ct": write_image_set(
            train / "CT/5",
            {"": image - 1024},
            liver,
            first_channel=0,
            names=ct_names,
            step_mm=-STEP_MM,
            greys=ct,
            pictures=ct_pictures,
        ),
        "chaos_03_ct": write_image_set(
            test / "CT/3", {"": image - 1000}, liver, first_channel=0, names=shuffled(ct_names), greys=None
        ),
    }
