"""Files in exactly MedMNIST's layout, of real images with true labels: a substitute where the official ones are not.

    python benchmarks/medmnist_files.py -d RAW/Dataset004_Hippocampus RAW/Dataset101_SunnybrookLV -o files

They are NOT MedMNIST: no number on them compares with a published one. They are cut from a raw dataset with label maps,
and every label follows from a label map. A case's *region* is the box around all structures of its patient and 16 mm
more; its depth is the coarsest axis, or that along which the first two structures follow each other. A *cube* has sides
of 0.3 of that depth in mm, a *slice* lies across it; both are brought to 28³ and 28². Names end as follows, in 2d of
slices and in 3d of cubes or whole regions:

part     binary: a slice through the first or the second structure alone, a cube centred on one of them
where    multi-class: nothing, the first, the second or both in a slice or in a cube at a random place; of these four
         those that every split has
found    multi-label: the same slices and cubes, a finding a structure
size     ordinal: quarter (borders from the training images) of the share that structures take of a slice that has
         some, or of the whole region; such a file reads as multi-class, which is learned and scored alike
phase    binary, of patients with two images of one shape: that with the smaller or the larger first structure (of a
         left ventricle end-systole or end-diastole); slices through it in either, or the whole region

A structure is found where it takes 1 % of the slice or cube. With a single structure the first three are left out,
without pairs of images the last.

Grey levels are 0 to 255 between the percentiles 0.5 and 99.5 of the whole image. Test images come from imagesTs alone
and training and validation images from imagesTr alone, four fifths and a fifth of its patients; a patient in both ends
the script. `FILE.json` beside each file has kind and names, and the case that each image is of.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from spadunet.classes import ClassKind, ClassSet
from spadunet.dataset import Dataset, RawCase, find_test_cases, load_dataset
from spadunet.description import read_description
from spadunet.files import atomic_path
from spadunet.image import read_image, read_label_map
from spadunet.patients import patients_of
from spadunet.record import Record, write_record
from spadunet.study import SPLIT_NAMES, SplitName
from spadunet.training.splits import make_splits

MARGIN_MM = 16.0
CUBE_SHARE = 0.3
"""Of the region's depth."""
LEAST_SHARE = 0.01
"""Of a slice or cube that a structure takes to be found in it."""
WINDOW = (0.5, 99.5)
GRADES = 4
LEAST_IMAGES = 2
"""Of a class in each split."""
THICK = 1.5
"""Times the finest spacing: the coarsest axis is then depth."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """The region of one image, depth first."""

    name: str
    patient: str
    split: SplitName
    grey: np.ndarray
    """(D, H, W) uint8."""
    classes: np.ndarray
    """(D, H, W): 0, or the number of a structure from 1."""
    spacing_mm: np.ndarray
    """(d, h, w)."""


Piece = tuple[np.ndarray, Sequence[float]]
"""An image (H, W) or (D, H, W), and its label: numbers of classes, findings, or a share yet to be graded."""
Pieces = Callable[[Case, Sequence[Case], np.random.Generator, int], Iterator[Piece]]
"""Of a case, all cases of its patient, and how many are wanted."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One file to be made."""

    kind: ClassKind
    names: tuple[str, ...]
    pieces: Pieces
    is_flat: bool


class Contents(Record):
    """What is in a file, as written beside it."""

    format_version: int = 1
    classes: ClassSet
    dataset: str
    cases: dict[SplitName, tuple[str, ...]]
    """Of each image in turn."""


def shares_of(classes: np.ndarray) -> tuple[float, ...]:
    """What the first and the second structure take of a slice or cube."""
    return tuple(float((classes == number).mean()) for number in (1, 2))


def findings_of(classes: np.ndarray) -> tuple[int, int]:
    """Whether the first and the second structure are in a slice or cube."""
    first, second = (int(share >= LEAST_SHARE) for share in shares_of(classes))
    return first, second


def cube_side(case: Case) -> np.ndarray:
    """Voxels (d, h, w) of a case's cubes, at most the region."""
    side_mm = CUBE_SHARE * case.grey.shape[0] * case.spacing_mm[0]
    return np.clip(np.rint(side_mm / case.spacing_mm).astype(int), 1, case.grey.shape)


def box_at(first: np.ndarray, side: np.ndarray) -> tuple[slice, ...]:
    """From its first voxel."""
    return tuple(slice(start, start + length) for start, length in zip(first.tolist(), side.tolist(), strict=True))


def random_slices(case: Case, rng: np.random.Generator, wanted: Callable[[np.ndarray], bool], count: int) -> list[int]:
    """Numbers of so many slices whose label map is as wanted, fewer where there are fewer."""
    fitting = [number for number, each in enumerate(case.classes) if wanted(each)]
    return sorted(rng.permutation(fitting)[:count].tolist()) if fitting else []


def part_slices(case: Case, _: Sequence[Case], rng: np.random.Generator, count: int) -> Iterator[Piece]:
    """Through one of the two structures alone."""
    for label, findings in enumerate(((1, 0), (0, 1))):
        for number in random_slices(case, rng, lambda it, of=findings: findings_of(it) == of, max(1, count // 2)):
            yield case.grey[number], (label,)


def part_cubes(case: Case, _: Sequence[Case], rng: np.random.Generator, count: int) -> Iterator[Piece]:
    """Around the middle of one of the two structures, as far as the region allows; one of each."""
    side = cube_side(case)
    for label in (0, 1):
        voxels = np.argwhere(case.classes == label + 1)
        if len(voxels):
            first = np.rint(voxels.mean(0)).astype(int) - side // 2
            yield case.grey[box_at(np.clip(first, 0, case.grey.shape - side), side)], (label,)


def found_slices(case: Case, _: Sequence[Case], rng: np.random.Generator, count: int) -> Iterator[Piece]:
    """Anywhere, with what is in them."""
    for number in random_slices(case, rng, lambda _: True, count):
        yield case.grey[number], findings_of(case.classes[number])


def found_cubes(case: Case, _: Sequence[Case], rng: np.random.Generator, count: int) -> Iterator[Piece]:
    """Anywhere, with what is in them."""
    side = cube_side(case)
    for _number in range(count):
        box = box_at(rng.integers(0, case.grey.shape - side + 1), side)
        yield case.grey[box], findings_of(case.classes[box])


def combined(pieces: Pieces) -> Pieces:
    """Two findings as one of four classes: nothing, the first, the second, both."""

    def make(case: Case, group: Sequence[Case], rng: np.random.Generator, count: int) -> Iterator[Piece]:
        for image, (first, second) in pieces(case, group, rng, count):
            yield image, (first + 2 * second,)

    return make


def size_slices(case: Case, _: Sequence[Case], rng: np.random.Generator, count: int) -> Iterator[Piece]:
    """Through any structure, with the share that structures take."""
    for number in random_slices(case, rng, lambda it: bool(it.any()), count):
        yield case.grey[number], (sum(shares_of(case.classes[number])),)


def size_cubes(case: Case, _: Sequence[Case], rng: np.random.Generator, count: int) -> Iterator[Piece]:
    """The whole region, with the share that structures take."""
    yield case.grey, (sum(shares_of(case.classes)),)


def phase_of(case: Case, group: Sequence[Case]) -> int | None:
    """1 of the larger first structure of a patient's two images, 0 of the smaller; None where there is no pair."""
    sizes = {each.name: int((each.classes == 1).sum()) for each in group}
    if len(group) != 2 or len(set(sizes.values())) < 2:
        return None
    return int(sizes[case.name] == max(sizes.values()))


def phase_slices(case: Case, group: Sequence[Case], rng: np.random.Generator, count: int) -> Iterator[Piece]:
    """Through the first structure in either image."""
    label = phase_of(case, group)
    if label is not None:
        through = np.any([(each.classes == 1).any(axis=(1, 2)) for each in group], axis=0)
        for number in sorted(rng.permutation(np.flatnonzero(through))[:count].tolist()):
            yield case.grey[number], (label,)


def phase_cubes(case: Case, group: Sequence[Case], rng: np.random.Generator, count: int) -> Iterator[Piece]:
    """The whole region."""
    label = phase_of(case, group)
    if label is not None:
        yield case.grey, (label,)


def tasks_of(names: Sequence[str], *, has_pairs: bool) -> dict[str, Task]:
    """Files that can be made, by the end of their names.

    Args:
        names: of the structures.
        has_pairs: some patient has two images.
    """
    quarters = tuple(f"quarter {number}" for number in range(1, GRADES + 1))
    tasks: dict[str, Task] = {}
    if len(names) > 1:
        first, second = names[:2]
        where = ("nothing", first, second, "both")
        tasks |= {
            "part2d": Task(kind="binary", names=(first, second), pieces=part_slices, is_flat=True),
            "part3d": Task(kind="binary", names=(first, second), pieces=part_cubes, is_flat=False),
            "where2d": Task(kind="multi-class", names=where, pieces=combined(found_slices), is_flat=True),
            "where3d": Task(kind="multi-class", names=where, pieces=combined(found_cubes), is_flat=False),
            "found2d": Task(kind="multi-label", names=(first, second), pieces=found_slices, is_flat=True),
            "found3d": Task(kind="multi-label", names=(first, second), pieces=found_cubes, is_flat=False),
        }
    tasks["size2d"] = Task(kind="ordinal", names=quarters, pieces=size_slices, is_flat=True)
    tasks["size3d"] = Task(kind="ordinal", names=quarters, pieces=size_cubes, is_flat=False)
    if has_pairs:
        phases = (f"smaller {names[0]}", f"larger {names[0]}")
        tasks["phase2d"] = Task(kind="binary", names=phases, pieces=phase_slices, is_flat=True)
        tasks["phase3d"] = Task(kind="binary", names=phases, pieces=phase_cubes, is_flat=False)
    return tasks


@dataclass(frozen=True, kw_only=True)
class Source:
    """A case on disk, and where it goes."""

    case: RawCase
    patient: str
    split: SplitName


def sources_of(dataset: Dataset) -> list[Source]:
    """All cases with a label map: test cases are those of imagesTs, validation cases a fifth of the other patients.

    Raises:
        SystemExit: if a split has none, or a patient is in imagesTr and in imagesTs.
    """
    tests, trains = find_test_cases(dataset), list(dataset.cases)
    known = read_description(dataset.folder).patients
    patients = patients_of([case.name for case in (*trains, *tests)], known)  # names tell more together
    both = {patients[case.name] for case in trains} & {patients[case.name] for case in tests}
    if both:
        raise SystemExit(f"{dataset.folder}: patient {min(both)} is in imagesTr and in imagesTs; take one out")
    folds = make_splits(dataset)
    held_out = set(folds[0]["val"]) if folds else set()
    split_of: dict[str, SplitName] = {case.name: "val" if case.name in held_out else "train" for case in trains}
    split_of |= {case.name: "test" for case in tests}
    found = [
        Source(case=case, patient=patients[case.name], split=split_of[case.name])
        for case in (*trains, *tests)
        if case.label_path is not None
    ]
    for split in SPLIT_NAMES:
        if not any(source.split == split for source in found):
            raise SystemExit(f"{dataset.folder}: no case with a label map for {split}; it needs imagesTs and labelsTs")
    return found


def read_case(source: Source, ids: Sequence[int]) -> Case:
    """A whole image, its axes as stored."""
    image = read_image(source.case.image_paths)
    assert source.case.label_path is not None
    stored = read_label_map(source.case.label_path).array
    classes = np.zeros(stored.shape, np.uint8)
    for number, label in enumerate(ids, start=1):
        classes[stored == label] = number
    low, high = np.percentile(image.array[0], WINDOW)
    grey = 255 * np.clip((image.array[0] - low) / max(high - low, 1e-6), 0, 1)
    return Case(
        name=source.case.name,
        patient=source.patient,
        split=source.split,
        grey=np.rint(grey).astype(np.uint8),
        classes=classes,
        spacing_mm=np.array(image.spacing_mm),
    )


def depth_axis(cases: Sequence[Case]) -> int:
    """The coarsest axis, or where none is coarse that along which the first two structures lie apart in training."""
    spacing = np.median([case.spacing_mm for case in cases], axis=0)
    if spacing.max() > THICK * spacing.min():
        return int(spacing.argmax())
    gaps = [
        np.argwhere(case.classes == 2).mean(0) - np.argwhere(case.classes == 1).mean(0)
        for case in cases
        if case.split == "train" and {1, 2} <= set(np.unique(case.classes).tolist())
    ]
    return int(np.abs(np.mean(gaps, axis=0)).argmax()) if gaps else 0


def region_of(group: Sequence[Case]) -> tuple[slice, ...]:
    """The box around all structures in all images of a patient, which have one shape, with the margin."""
    anything = np.any([case.classes > 0 for case in group], axis=0)
    voxels, margin = np.argwhere(anything), np.ceil(MARGIN_MM / group[0].spacing_mm).astype(int)
    first = np.maximum(voxels.min(0) - margin, 0)
    last = np.minimum(voxels.max(0) + margin + 1, anything.shape)
    return box_at(first, last - first)


def cut(case: Case, box: tuple[slice, ...], depth: int) -> Case:
    """A case's region, depth first."""
    grey, classes = (np.moveaxis(array[box], depth, 0) for array in (case.grey, case.classes))
    spacing = np.concatenate([case.spacing_mm[[depth]], np.delete(case.spacing_mm, depth)])
    parts = {"name": case.name, "patient": case.patient, "split": case.split}
    return Case(**parts, grey=grey, classes=classes, spacing_mm=spacing)


def read_cases(dataset: Dataset) -> list[list[Case]]:
    """The regions of all cases, patient by patient; images of one patient in two shapes count as two patients'."""
    whole = [read_case(source, dataset.labels.ids[1:]) for source in sources_of(dataset)]
    depth = depth_axis(whole)
    groups: dict[tuple, list[Case]] = {}
    for case in whole:
        if case.classes.any():
            groups.setdefault((case.patient, case.grey.shape), []).append(case)
    return [[cut(case, region_of(group), depth) for case in group] for group in groups.values()]


def scaled(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 of this side along every axis, linearly interpolated."""
    mode = "trilinear" if image.ndim == 3 else "bilinear"
    floats = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None, None]
    return functional.interpolate(floats, (size,) * image.ndim, mode=mode)[0, 0].round().to(torch.uint8).numpy()


def graded(labels: dict[SplitName, np.ndarray]) -> dict[SplitName, np.ndarray]:
    """Shares (N, 1) as quarters, whose borders are those of the training images."""
    borders = np.quantile(labels["train"], np.arange(1, GRADES) / GRADES)
    return {split: np.searchsorted(borders, values, side="right") for split, values in labels.items()}


def make_file(
    path: Path, task: Task, groups: Sequence[Sequence[Case]], *, dataset: str, size: int, per_case: int
) -> Contents | None:
    """Write one file and what is in it; None, and nothing written, where some class is not in every split.

    Of several classes those that are in every split remain.

    Args:
        groups: the cases, patient by patient.
        size: voxels of a side.
        per_case: images of a case, where there are so many.
    """
    images: dict[SplitName, list[np.ndarray]] = {split: [] for split in SPLIT_NAMES}
    labels: dict[SplitName, list[Sequence[float]]] = {split: [] for split in SPLIT_NAMES}
    cases: dict[SplitName, list[str]] = {split: [] for split in SPLIT_NAMES}
    for group in groups:
        for case in group:
            rng = np.random.default_rng([*path.stem.encode(), *case.name.encode()])
            for image, label in task.pieces(case, group, rng, per_case):
                images[case.split].append(scaled(image, size))
                labels[case.split].append(label)
                cases[case.split].append(case.name)
    if not all(images.values()):
        return None
    rows = {split: np.array(labels[split]) for split in SPLIT_NAMES}  # (N, 1) or (N, L)
    rows = graded(rows) if task.kind == "ordinal" else rows
    names, chosen = task.names, {split: np.arange(len(rows[split])) for split in SPLIT_NAMES}
    if task.kind == "multi-label":
        if any((values.min(0) == values.max(0)).any() for values in rows.values()):
            return None
    else:
        counts = [np.bincount(values[:, 0], minlength=len(names)) for values in rows.values()]
        common = np.flatnonzero(np.min(counts, axis=0) >= LEAST_IMAGES)
        if len(common) < 2 or (len(common) < len(names) and task.kind != "multi-class"):
            return None
        names = tuple(names[number] for number in common)
        chosen = {split: np.flatnonzero(np.isin(values[:, 0], common)) for split, values in rows.items()}
        rows = {split: np.searchsorted(common, values[chosen[split]]) for split, values in rows.items()}
    members = {f"{split}_images": np.stack(images[split])[chosen[split]] for split in SPLIT_NAMES}
    members |= {f"{split}_labels": rows[split].astype(np.uint8) for split in SPLIT_NAMES}
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **members)
    contents = Contents(
        classes=ClassSet(kind=task.kind, names=names),
        dataset=dataset,
        cases={split: tuple(cases[split][number] for number in chosen[split]) for split in SPLIT_NAMES},
    )
    write_record(path.with_suffix(".json"), contents)
    return contents


def title_of(dataset: Dataset) -> str:
    """Hippocampus of Dataset004_Hippocampus, in small letters and digits."""
    return re.sub(r"^dataset\d+|[^a-z0-9]", "", dataset.name.lower())


def make_files(raw: Path, output: Path, *, size: int, per_case: int, wanted: Sequence[str] | None = None) -> list[str]:
    """All files of a raw dataset; a line on each."""
    dataset = load_dataset(raw)
    groups = read_cases(dataset)
    output.mkdir(parents=True, exist_ok=True)
    lines = []
    tasks = tasks_of(dataset.labels.names[1:], has_pairs=any(len(group) == 2 for group in groups))
    for end, task in tasks.items():
        path = output / f"{title_of(dataset)}{end}.npz"
        if wanted and end not in wanted:
            continue
        contents = make_file(path, task, groups, dataset=dataset.name, size=size, per_case=per_case)
        if contents is None:
            lines.append(f"{path.name}: left out, as not every split has all of {', '.join(task.names)}")
            continue
        numbers = ", ".join(f"{split} {len(names)}" for split, names in contents.cases.items())
        lines.append(f"{path.name}: {task.kind}, {', '.join(contents.classes.names)}: {numbers}")
    return lines


def main() -> None:
    """Make the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", "--dataset", type=Path, nargs="+", required=True, help="raw, with imagesTs and labelsTs")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the files")
    parser.add_argument("--only", nargs="+", metavar="END", help="of them alone, such as where2d part3d")
    parser.add_argument("--size", type=int, default=28, help="voxels of a side (default: 28)")
    parser.add_argument("--per-case", type=int, default=4, help="slices or cubes of a case (default: 4)")
    options = parser.parse_args()
    for raw in options.dataset:
        found = make_files(raw, options.output, size=options.size, per_case=options.per_case, wanted=options.only)
        print("\n".join(found))


if __name__ == "__main__":
    main()
