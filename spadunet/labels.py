"""What the values of a label map mean."""

from __future__ import annotations

import numpy as np
from pydantic import model_validator

from .record import FormatVersion, Record

BACKGROUND = "background"


class LabelSet(Record):
    """Class names and their ids in label maps, background (id 0) first.

    Networks count classes 0 … num_classes - 1 in this order; files hold the ids, which may have gaps.
    """

    format_version: FormatVersion = 1
    names: tuple[str, ...]
    ids: tuple[int, ...]

    @model_validator(mode="after")
    def check(self) -> LabelSet:
        """Background first, at least one class beside it, nothing twice."""
        if len(self.names) != len(self.ids):
            raise ValueError(f"{len(self.names)} names but {len(self.ids)} ids")
        if not self.ids or self.ids[0] != 0:
            raise ValueError(f"the first id must be 0, the background, not {self.ids[0] if self.ids else 'missing'}")
        if min(self.ids) < 0:
            raise ValueError(f"ids must not be negative: {min(self.ids)}")
        if len(self.ids) < 2:
            raise ValueError("at least one label beside background is needed")
        if len(set(self.ids)) != len(self.ids) or len(set(self.names)) != len(self.names):
            raise ValueError(f"names and ids must be unique, not {dict(zip(self.names, self.ids, strict=True))}")
        return self

    @property
    def num_classes(self) -> int:
        """Classes with background."""
        return len(self.ids)

    @property
    def foreground_names(self) -> tuple[str, ...]:
        """Names of all classes but background."""
        return self.names[1:]

    def unknown_ids(self, array: np.ndarray) -> list[int]:
        """Sorted values of a label map (any shape, integer) that are no label."""
        return sorted(set(np.unique(array).tolist()) - set(self.ids))

    def to_classes(self, array: np.ndarray) -> np.ndarray:
        """Label ids (any shape, integer) to class numbers 0 … num_classes - 1, uint8 or uint16.

        Raises:
            ValueError: if a value is no label.
        """
        unknown = self.unknown_ids(array)
        if unknown:
            raise ValueError(f"label values {unknown} are not among {list(self.ids)}")
        order = np.argsort(self.ids)
        classes = order[np.searchsorted(np.asarray(self.ids)[order], array)]
        return classes.astype(np.uint8 if self.num_classes <= 256 else np.uint16)

    def to_ids(self, classes: np.ndarray) -> np.ndarray:
        """Class numbers (any shape) to label ids, in the smallest unsigned type that holds them."""
        return np.asarray(self.ids, dtype=np.min_scalar_type(max(self.ids)))[classes]
