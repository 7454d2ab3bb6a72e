"""A case as stacks of slices in three planes: the image of a plane as one strip, outlines as lines of their own.

Letters: D, H, W depth, height, width of an upright volume; h, w rows and columns of a slice as it is drawn.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import maximum_filter

from ..labels import Region, ids_in
from ..overlay import FEWEST_SLICES, SHOWN_PERCENTILES, Overlay, box_of
from .outlines import Outlines, outline_slice

PLANE_NAMES = {"R": "sagittal", "L": "sagittal", "A": "coronal", "P": "coronal", "I": "axial", "S": "axial"}
"""By the side of the patient that the slices are counted from."""
UPRIGHT = "SIAPRL"
"""What is above in a slice before what is beside it."""
MAX_SAMPLES = 1_000_000
"""Voxels from which black and white are told."""
NEAR_MM = 10.0
"""Around what is outlined: of a whole CT, air would take half of the greys."""
MIDDLE_PERCENTILES = (25, 75)
MUCH_WIDER, AROUND = 6, 1.5
"""Times the range of the structures' own greys: when those near it are too many, and how many are shown on either side.
Abdominal organs in CT range from about 20 to 180 HU and get -220 to 420; MR is not narrowed."""


@dataclass(frozen=True, kw_only=True)
class Detail:
    """How finely a case is drawn."""

    longer_side_pixels: int
    num_slices: int
    quality: int
    """Of WebP, up to 100."""


DETAILS = (
    Detail(longer_side_pixels=256, num_slices=24, quality=60),
    Detail(longer_side_pixels=256, num_slices=24, quality=35),
    Detail(longer_side_pixels=192, num_slices=20, quality=35),
    Detail(longer_side_pixels=160, num_slices=14, quality=30),
    Detail(longer_side_pixels=112, num_slices=10, quality=25),
    Detail(longer_side_pixels=80, num_slices=6, quality=20),
)
"""Tried one after the other, until a case takes no more than its share of the page."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Slices across one axis."""

    name: str
    """Of the plane."""
    axes: tuple[int, int]
    """Which of depth, height and width the rows and columns are counted along."""
    sides: tuple[str, str, str, str] | None
    """Of the patient at the left, right, top and bottom; None if not known."""
    size_mm: tuple[float, float]
    """Height and width of a slice."""
    shape_pixels: tuple[int, int]
    """(h, w)."""
    numbers: tuple[int, ...]
    """Of the slices in the file, counted from 1."""
    num_in_file: int
    places: tuple[float, ...]
    """Of the slices between the first and the last that could be shown, 0 to 1."""
    shown_first: int
    """The slice in which prediction and reference differ most, or else the one that has most of them."""
    strip: str
    """The slices below each other, WebP as a data URL; empty without an image."""
    references: Outlines
    predictions: Outlines

    @property
    def num_bytes(self) -> int:
        """About what it takes on a page."""
        return len(self.strip) + sum(
            len(text) + 8 for slices in (self.references, self.predictions) for it in slices for _, text in it
        )


def crop(overlay: Overlay) -> tuple[Overlay, tuple[int, int, int]]:
    """The part worth showing, where it begins, with nothing predicted where the reference ignores."""
    prediction = overlay.prediction
    if overlay.labels.ignore_id is not None:
        prediction = np.where(overlay.reference == overlay.labels.ignore_id, 0, prediction)
    box = box_of(overlay.is_labelled(overlay.reference) | (prediction != 0), overlay.spacing_mm)
    volume, reference, prediction = (np.array(it[box]) for it in (overlay.volume, overlay.reference, prediction))
    begins = (box[0].start or 0, box[1].start or 0, box[2].start or 0)
    return replace(overlay, volume=volume, reference=reference, prediction=prediction), begins


def draw_stacks(
    cropped: Overlay,
    begins: tuple[int, int, int],
    full_shape: tuple[int, ...],
    structures: Mapping[int, Region],
    *,
    has_image: bool,
    max_bytes: int,
) -> list[Stack]:
    """Slices across each axis, in as much detail as fits; across depth alone where there are hardly any slices.

    Args:
        cropped: what `crop` gives.
        begins: where that lies in the volume (D, H, W).
        full_shape: of the volume.
        structures: whose outlines are drawn, by the numbers of their colours.
        max_bytes: of all stacks on the page; the coarsest detail may take more.
    """
    window = grey_window(cropped, structures.values()) if has_image else None
    axes = range(3 if min(full_shape) >= FEWEST_SLICES else 1)
    wanted = slices_of_wrong(cropped, structures.values())
    stacks: list[Stack] = []
    for detail in DETAILS:
        stacks = [
            draw_stack(cropped, axis, begins, full_shape, structures, window, detail, wanted[axis]) for axis in axes
        ]
        if sum(stack.num_bytes for stack in stacks) <= max_bytes:
            break
    return stacks


def grey_window(cropped: Overlay, structures: Iterable[Region]) -> tuple[float, float]:
    """What is black and what is white: from some of the voxels in and near what is outlined, else from all.

    Where the structures themselves take only a small part of these greys, as organs do beside bowel gas, lung and
    bone, theirs and as much again as to tell what is around them.
    """
    stride = max(1, math.ceil((cropped.volume.size / MAX_SAMPLES) ** (1 / 3)))
    volume, reference, prediction = (
        it[::stride, ::stride, ::stride] for it in (cropped.volume, cropped.reference, cropped.prediction)
    )
    labelled = cropped.is_labelled(reference) | (prediction != 0)
    reach = [2 * math.ceil(NEAR_MM / (stride * spacing)) + 1 for spacing in cropped.spacing_mm]
    near = maximum_filter(labelled, size=reach)
    low, high = map(float, np.percentile(volume[near] if near.any() else volume, SHOWN_PERCENTILES))
    masks = [structure.mask_in(reference) for structure in structures]
    middles = [np.percentile(volume[mask], MIDDLE_PERCENTILES) for mask in masks if mask.any()]
    if middles:
        least, most = float(np.min(middles)), float(np.max(middles))
        if high - low > MUCH_WIDER * (most - least) > 0:
            around = AROUND * (most - least)
            low, high = max(low, least - around), min(high, most + around)
    return low, high if high > low else low + 1


def draw_stack(
    cropped: Overlay,
    axis: int,
    begins: tuple[int, int, int],
    full_shape: tuple[int, ...],
    structures: Mapping[int, Region],
    window: tuple[float, float] | None,
    detail: Detail,
    wanted: Sequence[int],
) -> Stack:
    """Slices across one axis; `wanted` as `choose_slices` takes them."""
    rows, columns = upright_sides(axis, cropped.ends)
    chosen, first = choose_slices(cropped, axis, detail.num_slices, wanted)
    step_rows, step_columns = (
        -(-cropped.reference.shape[side] // detail.longer_side_pixels) for side in (rows, columns)
    )

    def slice_of(array: np.ndarray, index: int) -> np.ndarray:
        return array.transpose(axis, rows, columns)[index]

    def outlines(array: np.ndarray) -> Outlines:
        coarse = (
            slice_of(array, index)[step_rows // 2 :: step_rows, step_columns // 2 :: step_columns] for index in chosen
        )
        return [outline_slice(it, structures) for it in coarse]

    height, width = slice_of(cropped.reference, 0)[step_rows // 2 :: step_rows, step_columns // 2 :: step_columns].shape
    strip = ""
    if window is not None:
        strip = draw_strip([slice_of(cropped.volume, index) for index in chosen], (height, width), window, detail)
    ends = cropped.ends
    size = full_shape[axis]
    in_volume = [begins[axis] + index for index in chosen]
    return Stack(
        name=plane_name(ends[axis] if ends else None, axis),
        axes=(rows, columns),
        sides=(*ends[columns], *ends[rows]) if ends else None,
        size_mm=(height * step_rows * cropped.spacing_mm[rows], width * step_columns * cropped.spacing_mm[columns]),
        shape_pixels=(height, width),
        numbers=tuple(size - it if cropped.flips[axis] else it + 1 for it in in_volume),
        num_in_file=size,
        places=tuple(round((index + 0.5) / cropped.reference.shape[axis], 4) for index in chosen),
        shown_first=chosen.index(first),
        strip=strip,
        references=outlines(cropped.reference),
        predictions=outlines(cropped.prediction),
    )


def upright_sides(axis: int, ends: tuple[tuple[str, str], ...] | None) -> tuple[int, int]:
    """The axes of rows and columns in slices across an axis, so that the head is above, or else the front."""
    first, second = (other for other in range(3) if other != axis)
    if ends is not None and UPRIGHT.index(ends[first][0][0]) // 2 > UPRIGHT.index(ends[second][0][0]) // 2:
        return second, first
    return first, second


def plane_name(ends: tuple[str, str] | None, axis: int) -> str:
    """What a radiologist calls slices that are counted between these sides of the patient."""
    if ends is None:
        return ("image plane", "across rows", "across columns")[axis]
    return PLANE_NAMES[ends[0][0]] + (" (oblique)" if len(ends[0]) > 1 else "")


def slices_of_wrong(cropped: Overlay, structures: Iterable[Region]) -> list[list[int]]:
    """Across each axis, the slice with most voxels of each structure that is missed or a false alarm."""
    reference_ids, prediction_ids = (set(ids_in(it)) for it in (cropped.reference, cropped.prediction))
    found: list[list[int]] = [[], [], []]
    for structure in structures:
        is_there, is_predicted = (not ids.isdisjoint(structure.ids) for ids in (reference_ids, prediction_ids))
        if is_there == is_predicted:
            continue
        mask = structure.mask_in(cropped.reference if is_there else cropped.prediction)
        for axis, slices in enumerate(found):
            others = tuple(it for it in range(3) if it != axis)
            slices.append(int(np.count_nonzero(mask, axis=others).argmax()))
    return found


def choose_slices(cropped: Overlay, axis: int, num_slices: int, wanted: Sequence[int] = ()) -> tuple[list[int], int]:
    """Slices across an axis, evenly spaced over what is labelled, and among them the one with the largest error.

    That is the one in which most voxels differ, or if none does, most are labelled; the middle one of none.

    Args:
        wanted: slices to be among them, as far as there is room.
    """
    others = tuple(it for it in range(3) if it != axis)
    labelled = cropped.is_labelled(cropped.reference) | (cropped.prediction != 0)
    counts = np.count_nonzero((cropped.reference != cropped.prediction) & labelled, axis=others)
    labelled_counts = np.count_nonzero(labelled, axis=others)
    there = np.flatnonzero(labelled_counts)
    low, high = (int(there[0]), int(there[-1])) if len(there) else (0, len(counts) - 1)
    telling = next((it for it in (counts, labelled_counts) if it.any()), None)
    worst = (low + high) // 2 if telling is None else int(telling.argmax())
    chosen = sorted(set(np.linspace(low, high, min(num_slices, high - low + 1)).round().astype(int).tolist()))
    kept = {worst}
    for index in (worst, *wanted):
        free = [it for it in chosen if it not in kept]
        if index not in chosen and free:
            chosen.remove(min(free, key=lambda it: abs(it - index)))
            chosen.append(index)
        kept.add(index)
    return sorted(chosen), worst


def draw_strip(
    slices: Sequence[np.ndarray], shape_pixels: tuple[int, int], window: tuple[float, float], detail: Detail
) -> str:
    """Slices (H, W) below each other, black at window[0] and white at window[1], as a WebP in a data URL."""
    from PIL import Image

    height, width = shape_pixels
    low, high = window
    tiles = []
    for it in slices:
        grey = np.clip((it.astype(np.float32) - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
        tiles.append(np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.BOX)))
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(tiles)).save(buffer, "WEBP", quality=detail.quality)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
