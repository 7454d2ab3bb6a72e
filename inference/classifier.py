"""Classification from Python: a study's images in, probabilities by class out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..classes import ClassSet
from ..errors import InputError
from ..image import Image
from ..network.device import choose_device, choose_precision
from ..preprocessing.preprocess import preprocess_image
from ..preprocessing.views import view_of_case
from .class_sources import open_class_sources
from .predict_classes import Item, Loaded, classify_batch
from .predictor import PRECISIONS, AnyPath, folders_of, image_of_array, image_of_files, require_choices, require_fitting


class StudyClassifier:
    """One model that classifies, or several whose mean counts, loaded once and ready for any number of studies.

    A study is one image or several views. Nothing is kept between calls and nothing outside is changed, so that threads
    may share a classifier.

    Args:
        model: folder of a model, or folders of several with the same classes and channels.
        task: the dataset whose classes are wanted; None where the model has learned one only.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: auto, bf16 or float32.

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
    ) -> None:
        require_choices("precision", (precision,), PRECISIONS)
        self._device = choose_device(device)
        self._precision = choose_precision(precision, self._device)
        self._sources = open_class_sources(folders_of(model), task)
        for source in self._sources:
            source.network.to(self._device)

    @property
    def classes(self) -> ClassSet:
        """Kind and names of the classes or findings."""
        return self._sources[0].classes

    @property
    def channel_names(self) -> tuple[str, ...]:
        """In the order in which arrays and files are given."""
        return self._sources[0].plan.channel_names

    def classify(self, *views: np.ndarray, spacing_mm: Sequence[float]) -> dict[str, float]:
        """Probabilities by class of a study of one view or several of one spacing.

        Args:
            views: (channels, slices, rows, columns) or (channels, rows, columns), as `Predictor.predict` takes them.
            spacing_mm: one number for each axis of space, in the arrays' order.

        Raises:
            InputError: if there is no view, axes, channels or spacing do not fit, or values are not finite.
        """
        return self.classify_images([image_of_array(view, spacing_mm) for view in views])

    def classify_file(self, *views: AnyPath | Sequence[AnyPath | None]) -> dict[str, float]:
        """Probabilities by class of a study on disk.

        Args:
            views: of each the path of its file, or of a file a channel, as `Predictor.predict_file` takes them.

        Raises:
            InputError: if there is no view, or a file is missing, damaged or does not fit the model.
        """
        return self.classify_images([image_of_files(view, self.channel_names) for view in views])

    def classify_images(self, views: Sequence[Image]) -> dict[str, float]:
        """Probabilities by class of a study: of exclusive classes they add up to 1, of findings each is alone.

        Raises:
            InputError: if there is no view, channels do not fit, or values are not finite.
        """
        if not views:
            raise InputError("no image is given; a study has one view or several")
        for view in views:
            require_fitting(view, self.channel_names)
        seen = [
            tuple(
                view_of_case(preprocess_image(f"view {number}", view, it.plan, size_voxels=it.plan.input_size_voxels))
                for number, view in enumerate(views)
            )
            for it in self._sources
        ]
        study = Loaded(item=Item(number=0, name="study"), views=tuple(seen))
        (answer,) = classify_batch([study], self._sources, self._device, self._precision, False)
        return dict(zip(self.classes.names, answer.probabilities.tolist(), strict=True))
