"""The files of a case as pictures of its image with the outlines of reference and prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..labels import LabelSet
from ..overlay import Overlay, Plane, draw_planes, read_overlay


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
    overlay = read_overlay(image_path, reference_path, prediction_path, labels)
    return draw_planes(overlay, choose(overlay))
