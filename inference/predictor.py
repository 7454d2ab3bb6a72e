"""Prediction from Python: arrays or files in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np

from ..errors import InputError
from ..image import Image, LabelMap, bad_values, read_image
from ..labels import LabelSet
from ..network.device import choose_device, choose_precision
from ..quality import QualityRow, rows_of
from ..sides import PATIENT_AXES, PatientAxis
from .judge import judge
from .predict import SpacingChoice, answer_image, predict_image
from .sources import build_engine, calibration_of, choose_structures, open_sources, rules_of

AnyPath = str | Path
PRECISIONS = ("auto", "bf16", "float32")
SLICE_MM = 1.0
"""Thickness of an image of two axes, as files of such have it."""


class Predictor:
    """One model, or several whose mean counts, loaded once and ready for any number of images.

    Nothing is kept between calls and nothing outside is changed, so that threads may share a predictor.

    Letters: C channels; A0, A1, A2 array axes in storage order: slices, rows, columns, as `SimpleITK.GetArrayFromImage`
    gives them.

    Args:
        model: folder of a model, or folders of several with the same labels and channels.
        task: the dataset whose labels are wanted; None where the model has one only.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: auto, bf16 or float32.
        overlap: of windows, 0 to below 1.
        spacing: "native" predicts each image at its own spacing, whatever the plan says.
        mirror: axes of the patient whose mirror images are predicted too ("left-right", …), or one of them.
        roi_subset: names of classes or regions to predict, or one name; none for all.
        postprocessing: apply what was chosen for the model.
        memory_gb: that image and logits may take; what does not fit goes to disk. None for 80 % of what is free.

    Raises:
        InputError: if a model is missing or damaged, models do not fit together, or an option is none of its choices.
        ValueError: if the device is not there.
    """

    def __init__(
        self,
        model: AnyPath | Sequence[AnyPath],
        task: str | None = None,
        device: str = "auto",
        *,
        precision: str = "auto",
        overlap: float = 0.5,
        spacing: SpacingChoice = "plan",
        mirror: PatientAxis | Sequence[PatientAxis] = (),
        roi_subset: str | Sequence[str] = (),
        postprocessing: bool = True,
        memory_gb: float | None = None,
    ) -> None:
        if not 0 <= overlap < 1:
            raise InputError(f"overlap {overlap} is not a share from 0 to below 1")
        if memory_gb is not None and not 0 < memory_gb < np.inf:
            raise InputError(f"memory_gb {memory_gb} is not a number above 0; None is 80 % of what is free")
        axes = names_of(mirror)
        require_choices("spacing", (spacing,), get_args(SpacingChoice))
        require_choices("precision", (precision,), PRECISIONS)
        require_choices("mirror", axes, PATIENT_AXES)
        where = choose_device(device)
        sources = open_sources(folders_of(model), task, spacing)
        labels, wanted = sources[0].plan.labels, names_of(roi_subset)
        require_choices("roi_subset", wanted, [structure.name for structure in labels.structures])
        chosen = choose_structures(labels, wanted)
        self._engine = build_engine(
            sources,
            device=where,
            precision=choose_precision(precision, where),
            overlap=overlap,
            spacing=spacing,
            mirror=tuple(axis for axis in PATIENT_AXES if axis in axes),
            chosen=chosen,
            rules=rules_of(sources, chosen)[0] if postprocessing else (),
            memory_gb=memory_gb,
            folder=None,
        )
        self._calibration = calibration_of(sources)[0]

    @property
    def labels(self) -> LabelSet:
        """What the ids in the answers mean."""
        return self._engine.labels

    @property
    def channel_names(self) -> tuple[str, ...]:
        """In the order in which arrays and files are given."""
        return self._engine.plan.channel_names

    def predict(self, array: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
        """Label ids, unsigned integers (A0, A1, A2), of an image (C, A0, A1, A2).

        The array is taken to run towards the patient's head, back and left, as an axial scan does in a file of identity
        direction, and mirror images are made accordingly; a 2D image is a picture, which tells of left and right alone.
        Of one that lies otherwise give `predict_image` its affine.

        Args:
            array: real numbers in the scanner's units, not normalised; of a 2D image (C, A1, A2), which gives (A1, A2).
            spacing_mm: one number for each axis of space, in the array's order.

        Raises:
            InputError: if axes, channels or spacing do not fit, or values are not finite.
        """
        image = image_of_array(array, spacing_mm)
        ids = self.predict_image(image).array
        return ids[0] if len(spacing_mm) == 2 else ids

    def predict_probabilities(self, array: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
        """Probabilities, float16 (K, A0, A1, A2), of an image (C, A0, A1, A2), before post-processing.

        K counts the classes, background first, which add up to 1, or the regions; in the order of `labels`. The class
        with the largest, and the regions above 0.5, are those of the label map.

        Args:
            array: as of `predict`; a 2D image (C, A1, A2) gives (K, A1, A2).
            spacing_mm: as of `predict`.

        Raises:
            InputError: as `predict`, or if they take more memory than may be taken.
        """
        image = image_of_array(array, spacing_mm)
        require_fitting(image, self.channel_names)
        probabilities = answer_image(image, replace(self._engine, keeps_probabilities=True))[1].probabilities
        assert probabilities is not None
        return probabilities[:, 0] if len(spacing_mm) == 2 else probabilities

    def predict_file(self, paths: AnyPath | Sequence[AnyPath | None]) -> np.ndarray:
        """Label ids, unsigned integers (A0, A1, A2), of an image on disk, on its own grid.

        Args:
            paths: of its file, or of a file a channel, None for an optional one that is missing; any format that
                `spadunet_predict` reads, folders of DICOM slices too.

        Raises:
            InputError: if a file is missing, damaged or does not fit the model.
        """
        return self.predict_image(image_of_files(paths, self.channel_names)).array

    def predict_image(self, image: Image) -> LabelMap:
        """Label ids on the grid of an image, with its affine.

        Raises:
            InputError: if channels do not fit, or values are not finite.
        """
        require_fitting(image, self.channel_names)
        return predict_image(image, self._engine)

    def judge_image(self, image: Image) -> tuple[LabelMap, dict[str, QualityRow]]:
        """As `predict_image`, and what `spadunet_predict` tells in quality.csv, by class or region; last the mean.

        Dice is expected only where `spadunet_quality --fit` has taught the model.

        Raises:
            InputError: as `predict_image`.
        """
        require_fitting(image, self.channel_names)
        label_map, answer = answer_image(image, replace(self._engine, is_judged=True))
        rows = rows_of("image", judge(answer, label_map, self.labels), self._calibration)
        return label_map, {row.name: row for row in rows}


def image_of_array(array: np.ndarray, spacing_mm: Sequence[float]) -> Image:
    """An image (C, A0, A1, A2) or (C, A1, A2) that runs as `Predictor.predict` says.

    The point 0 is in the middle of a volume, since one that begins there counts as of unknown orientation.

    Raises:
        InputError: if axes and spacing do not fit.
    """
    array, spacing = np.asarray(array), [float(side) for side in spacing_mm]
    if array.ndim not in (3, 4) or len(spacing) != array.ndim - 1 or 0 in array.shape:
        raise InputError(
            f"array of shape {array.shape} with spacing {tuple(spacing)}: expected (channels, slices, rows, "
            "columns) and three spacings, or (channels, rows, columns) and two"
        )
    if not all(0 < side < np.inf for side in spacing):
        raise InputError(f"spacing {tuple(spacing)} mm: each must be above zero and finite")
    is_picture = array.ndim == 3
    if is_picture:
        array, spacing = array[:, None], [SLICE_MM, *spacing]
    affine = np.eye(4)[[2, 1, 0, 3]] * np.array([*spacing, 1.0])
    if not is_picture:
        affine[:3, 3] = -affine[:3, :3] @ (np.array(array.shape[1:]) - 1) / 2
    return Image(array=array, affine=affine)


def image_of_files(paths: AnyPath | Sequence[AnyPath | None], channel_names: Sequence[str]) -> Image:
    """An image on disk: the path of its file, or of a file a channel, None for one that is missing.

    Raises:
        InputError: if a file is missing, damaged, or has other channels.
    """
    listed = [paths] if isinstance(paths, str | Path) else list(paths)
    files = [None if path is None else Path(path) for path in listed]
    if not any(files):
        raise InputError("no path of an image is given")
    return read_image(files, num_channels=len(channel_names))


def require_fitting(image: Image, channel_names: Sequence[str]) -> None:
    """Refuse an image that a model cannot take.

    Args:
        channel_names: the model's.

    Raises:
        InputError: if channels do not fit, or values are not finite.
    """
    array, num_channels = image.array, len(channel_names)
    if len(array) != num_channels:
        raise InputError(f"the image has {len(array)} channels, the model {num_channels}: {', '.join(channel_names)}")
    if array.dtype.kind not in "uif":
        raise InputError(f"the image holds {array.dtype}; expected real numbers, integer or floating point")
    if problem := bad_values(array):
        raise InputError(f"the image {problem}")


def folders_of(model: AnyPath | Sequence[AnyPath]) -> list[Path]:
    """Of one model or several."""
    return [Path(model)] if isinstance(model, str | Path) else [Path(folder) for folder in model]


def names_of(words: str | Sequence[str]) -> tuple[str, ...]:
    """Names, of one or several."""
    return (words,) if isinstance(words, str) else tuple(words)


def require_choices(option: str, values: Sequence[str], choices: Sequence[str]) -> None:
    """Refuse a value that is none of an option's choices.

    Raises:
        InputError: names it, and the choices.
    """
    for value in values:
        if value not in choices:
            raise InputError(f"{option} {value!r}: is none of {', '.join(choices)}")
