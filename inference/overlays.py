"""The files of a case as pictures of its image with the outlines of reference and prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import InputError
from ..image import LabelMap, geometry_difference, read_image, read_label_map, turned_onto
from ..labels import LabelSet
from ..overlay import Overlay, Plane, draw_planes
from ..preprocessing.orient import choose_upright_axes, orient


def draw_case(
    image_path: Path,
    reference_path: Path,
    prediction_path: Path,
    labels: LabelSet,
    choose: Callable[[Overlay], Sequence[Plane]],
) -> list[bytes]:
    """JPEGs of the chosen planes of a case.

    Args:
        image_path: of one channel; of several in one file, the first is shown.

    Raises:
        InputError: if a file cannot be read, or they do not lie on one grid.
    """
    image = read_image([image_path])
    axes, flips = choose_upright_axes(image.shape, image.affine)
    label_maps: list[LabelMap] = []
    for path in (reference_path, prediction_path):
        label_map = read_label_map(path)
        label_map = (turned_onto(label_map, image) if geometry_difference(label_map, image) else None) or label_map
        if label_map.array.shape != image.shape:
            raise InputError(f"{path}: does not lie on the grid of {image_path}")
        label_maps.append(label_map)
    spacing_mm = image.spacing_mm
    reference, prediction = (orient(label_map.array, axes, flips) for label_map in label_maps)
    overlay = Overlay(
        volume=orient(image.array[0], axes, flips),
        reference=reference,
        prediction=prediction,
        labels=labels,
        spacing_mm=(spacing_mm[axes[0]], spacing_mm[axes[1]], spacing_mm[axes[2]]),
    )
    return draw_planes(overlay, choose(overlay))
