"""What the values of a label map mean."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from pydantic import Field, model_validator

from .record import FormatVersion, Record, is_unused
from .sides import PatientAxis, Sides, sides_of, tell_ends

BACKGROUND, IGNORE = "background", "ignore"
MAX_COUNTED_ID = 1 << 12
MAX_ID = 2**32 - 1


class Region(Record):
    """A structure made of all voxels with one of `ids`; a predicted label map shows it as `painted_id`."""

    name: str
    ids: tuple[int, ...]
    painted_id: int
    is_list_of_one: bool = Field(default=False, exclude_if=lambda value: not value)
    """Its one id was given as a list, which nnU-Net writes differently."""

    @property
    def nnunet_key(self) -> str:
        """What nnU-Net's summary.json calls it: its id, or, where a list was given, a tuple as Python writes it."""
        return str(self.ids if len(self.ids) > 1 or self.is_list_of_one else self.ids[0])

    def mask_in(self, array: np.ndarray) -> np.ndarray:
        """Where an array of ids holds the structure, bool of the same shape."""
        return array == self.ids[0] if len(self.ids) == 1 else np.isin(array, self.ids)


@dataclass(frozen=True, kw_only=True)
class Mirrored:
    """What classes and outputs become in a mirror."""

    classes: tuple[int, ...]
    """Class number in the mirror image of each class, ignore included."""
    outputs: tuple[int, ...]
    """Number in the mirror image of each output."""


class LabelSet(Record):
    """Class names and their ids in label maps, background (id 0) first.

    Networks count classes 0 … num_classes - 1 in this order; files hold the ids, which may have gaps. Stored cases
    hold ignored voxels as class number num_classes. Classes never overlap; regions, which are unions of classes, may.
    """

    format_version: FormatVersion = 1
    names: tuple[str, ...]
    ids: tuple[int, ...]
    regions: tuple[Region, ...] = Field(default=(), exclude_if=is_unused)
    """What is learned instead of the classes, where there are any; the later is painted over the earlier."""
    ignore_id: int | None = Field(default=None, exclude_if=is_unused)
    """Of voxels of which nothing is known: they are neither learned nor scored, and never predicted."""
    mirror_pairs: tuple[tuple[str, str], ...] | None = Field(default=None, exclude_if=lambda value: value is None)
    """Names of structures that are each other's mirror image across left and right; None: as the names tell."""

    left_out: tuple[int, ...] = Field(default=(), exclude_if=is_unused)
    """Ids of further labels, which were not asked for: where a reference has them, they count as background."""

    @model_validator(mode="after")
    def check(self) -> LabelSet:
        """Background first, at least one class beside it, nothing twice, regions that can be painted."""
        if len(self.names) != len(self.ids):
            raise ValueError(f"{len(self.names)} names but {len(self.ids)} ids")
        if not self.ids or self.ids[0] != 0:
            raise ValueError(f"the first id must be 0, the background, not {self.ids[0] if self.ids else 'missing'}")
        if min(self.ids) < 0:
            raise ValueError(f"ids must not be negative: {min(self.ids)}")
        if max(*self.ids, self.ignore_id or 0) > MAX_ID:
            raise ValueError(f"ids must not be above {MAX_ID}: {max(*self.ids, self.ignore_id or 0)}")
        if len(self.ids) < 2:
            raise ValueError("at least one label beside background is needed")
        if len(set(self.ids)) != len(self.ids) or len(set(self.names)) != len(self.names):
            raise ValueError(f"names and ids must be unique, not {dict(zip(self.names, self.ids, strict=True))}")
        if self.ignore_id is not None and (self.ignore_id in self.ids or self.ignore_id < 0):
            raise ValueError(f"ignore needs an id of its own, not {self.ignore_id}; the others are {list(self.ids)}")
        check_regions(self.regions, self.ids)
        paired = [name for pair in self.mirror_pairs or () for name in pair]
        known = [structure.name for structure in self.structures]
        if len(set(paired)) < len(paired) or not set(paired) <= set(known):
            raise ValueError(f"mirror_pairs needs names among {known}, each once, not {paired}")
        return self

    @property
    def num_classes(self) -> int:
        """Classes with background, without ignore."""
        return len(self.ids)

    @property
    def num_outputs(self) -> int:
        """Channels of a network's logits: a class each (softmax), or a region each (sigmoid, no background)."""
        return len(self.regions) or self.num_classes

    @property
    def output_names(self) -> tuple[str, ...]:
        """What each output is for: the classes, background first, or the regions."""
        return tuple(region.name for region in self.regions) or self.names

    def subset(self, chosen: Collection[str]) -> LabelSet:
        """Labels of only some structures, in the same order and with the same ids; all else is background.

        Of regions, the classes that belong to a chosen one remain.

        Raises:
            ValueError: if nothing is chosen, or a name is no structure's; lists these.
        """
        known = [structure.name for structure in self.structures]
        unknown = sorted(set(chosen) - set(known))
        if unknown or not chosen:
            raise ValueError(f"{', '.join(unknown) or 'nothing'} is not among the labels: {', '.join(known)}")
        structures = tuple(structure for structure in self.structures if structure.name in chosen)
        ids = {label_id for structure in structures for label_id in structure.ids}
        names = dict(zip(self.ids, self.names, strict=True))
        kept = [label_id for label_id in self.ids if label_id == 0 or label_id in ids]
        pairs = self.mirror_pairs
        return LabelSet(
            names=tuple(names[label_id] for label_id in kept),
            ids=tuple(kept),
            regions=structures if self.regions else (),
            ignore_id=self.ignore_id,
            left_out=(*self.left_out, *(label_id for label_id in self.ids if label_id not in kept)),
            mirror_pairs=None if pairs is None else tuple(pair for pair in pairs if set(pair) <= set(chosen)),
        )

    def known_outputs(self, annotated: tuple[str, ...]) -> np.ndarray:
        """Of which outputs a case tells in which only these classes or regions were annotated: bool (num_outputs,).

        Background is always told of, though it then means background or any class that was not annotated. No names
        mean all.
        """
        known = [not annotated or name in annotated for name in self.output_names]
        return np.array(known if self.regions else [True, *known[1:]])

    @property
    def ignore_class(self) -> int | None:
        """Class number of ignored voxels in stored cases."""
        return None if self.ignore_id is None else self.num_classes

    @property
    def known_ids(self) -> tuple[int, ...]:
        """All ids that a label map may hold, by class number."""
        return self.ids if self.ignore_id is None else (*self.ids, self.ignore_id)

    @property
    def structures(self) -> tuple[Region, ...]:
        """What is looked for: the regions, or else each class but background as a region of its own."""
        if self.regions:
            return self.regions
        return tuple(
            Region(name=name, ids=(label_id,), painted_id=label_id)
            for name, label_id in zip(self.names[1:], self.ids[1:], strict=True)
        )

    @property
    def painted_classes(self) -> tuple[int, ...]:
        """Class number that each region is painted with."""
        return tuple(self.ids.index(region.painted_id) for region in self.regions)

    def targets(self) -> np.ndarray:
        """What the network should answer for each class number: float32 (classes, num_outputs) of 0 and 1.

        One-hot; with regions, 1 for each region that the class belongs to. Ignored voxels, the last row where there
        is such a label, are all 0.
        """
        if self.regions:
            rows = np.array([[label_id in region.ids for region in self.regions] for label_id in self.ids])
        else:
            rows = np.eye(self.num_classes)
        return np.pad(rows.astype(np.float32), ((0, len(self.known_ids) - self.num_classes), (0, 0)))

    def mirrored(self, axis: PatientAxis) -> Mirrored | None:
        """What an image's labels become when it is mirrored across an axis; None where that would make them wrong.

        Across left and right, structures named as pairs change places, or those of `mirror_pairs`. Where names tell
        ends of another axis (anterior, posterior, superior, inferior), nothing is mirrored across that.
        """
        if axis != "left-right":
            return None if tell_ends([it.name for it in self.structures], axis) else self.swapped({})
        sides = self.sides()
        pairs = (name_pair for pair in sides.pairs for name_pair in (pair, pair[::-1]))
        return None if sides.problem else self.swapped(dict(pairs))

    def sides(self) -> Sides:
        """Which structures are each other's mirror image across left and right: of `mirror_pairs`, else by name."""
        if self.mirror_pairs is not None:
            return Sides(pairs=self.mirror_pairs)
        return sides_of([structure.name for structure in self.structures])

    def tell_mirror(self, axis: PatientAxis) -> str:
        """In words, for the log: whether this axis is mirrored, what changes places, or why it is not."""
        sides = self.sides() if axis == "left-right" else Sides()
        if self.mirrored(axis) is None:
            why = sides.problem or ("ids cannot follow their names" if sides.pairs else "labels name its ends")
            return f"not mirrored across {axis}: {why}"
        pairs = "; ".join(f"{left} and {right}" for left, right in sides.pairs)
        if not pairs:
            return f"mirrored across {axis}" + (" (no label names a side)" if axis == "left-right" else "")
        return f"mirrored across {axis}, where these change places: {pairs}"

    def swapped(self, partners: dict[str, str]) -> Mirrored | None:
        """Classes and outputs when these structures change places; None if their ids cannot follow.

        An id goes where an id of all the partners of its paired structures is; other regions go where their ids do.
        """
        paired = [it for it in self.structures if it.name in partners]
        there = {label_id: frozenset(it.name for it in paired if label_id in it.ids) for label_id in self.ids}
        image: dict[int, int] = {}
        for label_id, found in there.items():
            alike = [other for other, names in there.items() if names == found]
            wanted = [other for other, names in there.items() if names == {partners[name] for name in found}]
            if len(wanted) != len(alike):
                return None
            image[label_id] = wanted[alike.index(label_id)]
        classes = [self.ids.index(image[label_id]) for label_id in self.ids]
        outputs = classes
        if self.regions:
            members = [set(region.ids) for region in self.regions]
            images = [{image[label_id] for label_id in ids} for ids in members]
            if any(ids not in members for ids in images):
                return None
            outputs = [members.index(ids) for ids in images]
        ignored = () if self.ignore_class is None else (self.ignore_class,)
        return Mirrored(classes=(*classes, *ignored), outputs=tuple(outputs))

    def unknown_ids(self, array: np.ndarray) -> list[int]:
        """Sorted values of a label map (any shape, integer) that are no label."""
        return sorted(set(ids_in(array)) - {*self.known_ids, *self.left_out})

    def to_classes(self, array: np.ndarray) -> np.ndarray:
        """Label ids (any shape, integer) to class numbers 0 … num_classes (which is ignore), uint8 or uint16.

        Raises:
            ValueError: if a value is no label.
        """
        unknown = self.unknown_ids(array)
        if unknown:
            raise ValueError(f"label values {unknown} are not among {list(self.known_ids)}")
        dtype = np.uint8 if len(self.known_ids) <= 256 else np.uint16
        if self.known_ids == tuple(range(len(self.known_ids))) and not self.left_out:
            return array.astype(dtype)
        class_of = np.zeros(max(*self.known_ids, *self.left_out) + 1, dtype)
        class_of[list(self.known_ids)] = np.arange(len(self.known_ids))
        return class_of[array]

    def to_ids(self, classes: np.ndarray) -> np.ndarray:
        """Class numbers (any shape, none ignored) to label ids, in the smallest unsigned type that holds them."""
        return np.asarray(self.ids, dtype=np.min_scalar_type(max(self.ids)))[classes]


def ids_in(array: np.ndarray) -> list[int]:
    """Sorted values of a label map (any shape, integer), none of an empty one.

    Small values are counted plane by plane, for the memory's sake: sorting a large volume takes ten times as long.
    """
    if not array.size:
        return []
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= MAX_COUNTED_ID:
        return [int(value) for value in np.unique(array)]
    is_there = np.zeros(high + 1, bool)
    for plane in array if array.ndim > 1 else [array]:
        is_there |= np.bincount(plane.ravel(), minlength=high + 1) > 0
    return np.flatnonzero(is_there).tolist()


def check_regions(regions: tuple[Region, ...], ids: tuple[int, ...]) -> None:
    """Raise ValueError unless each region can be told from the others in a painted label map.

    Args:
        ids: of all classes, background first.
    """
    for number, region in enumerate(regions):
        if not region.ids or not set(region.ids) <= set(ids[1:]):
            raise ValueError(f"{region.name}: a region needs ids of labels beside background, not {list(region.ids)}")
        if region.painted_id not in region.ids:
            raise ValueError(
                f"{region.name}: its id in regions_class_order, {region.painted_id}, is not one of its own, "
                f"{list(region.ids)}"
            )
        for earlier in regions[:number]:
            if set(region.ids) >= set(earlier.ids):
                raise ValueError(
                    f"{region.name} would be painted over all of {earlier.name}; list the larger one first"
                )
            if region.painted_id == earlier.painted_id:
                raise ValueError(
                    f"{earlier.name} and {region.name} have one id, {region.painted_id}, in regions_class_order"
                )
