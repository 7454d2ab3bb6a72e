"""What preprocessing will take, from the headers of all files and a trial on a few real voxels.

The trial runs the very functions that the command will run, on the middle slices of a few cases, in a process of its
own and in the system's temporary folder. Its time and memory are scaled by the voxels that the headers announce.
"""

from __future__ import annotations

import math
import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ..dataset import RawCase
from ..dicom import the_one_series
from ..errors import InputError
from ..fingerprint import CaseFacts
from ..formats import MAX_COLOURS, VOLUME_ENDINGS, Header, ending_of, read_header, read_middle, write_array
from ..image import grid_difference, spacing_of
from ..measure import measure, measure_apart
from ..orient import choose_axes
from ..parallel import attempt
from ..plan import Plan
from ..spacing import Shape, degree_of_anisotropy
from .preprocess import target_spacing
from .resample import shape_at

SAMPLE_VOXELS = 3_000_000
"""Of all samples together: some seconds of work."""
MAX_SAMPLES = 5
WARM_SECONDS = 2.0
"""A first trial shorter than this is made again: it also loads libraries."""


@dataclass(frozen=True, kw_only=True)
class HeaderCase:
    """A case as its headers describe it."""

    case: RawCase
    image: Header
    """Of the first file."""
    num_channels: int
    label: Header | None

    @property
    def num_voxels(self) -> int:
        """Of one channel."""
        return math.prod(self.image.shape)

    @property
    def facts(self) -> CaseFacts:
        """Shape and spacing, depth first, before cropping."""
        axes, _ = choose_axes(self.image.shape, self.image.affine)
        depth, height, width = (self.image.shape[axis] for axis in axes)
        spacing = spacing_of(self.image.affine)
        spacing_mm = (spacing[axes[0]], spacing[axes[1]], spacing[axes[2]])
        return CaseFacts(name=self.case.name, spacing_mm=spacing_mm, shape=(depth, height, width))

    def target_grid(self, plan: Plan) -> tuple[Shape, int]:
        """Shape (D, H, W) and degree of anisotropy once preprocessed, if nothing is cropped."""
        facts = self.facts
        spacing_mm = target_spacing(plan, facts.spacing_mm, num_slices=facts.shape[0])
        shape = shape_at(facts.shape, facts.spacing_mm, spacing_mm)
        return shape, degree_of_anisotropy(spacing_mm, shape[0])

    def without_label(self) -> HeaderCase:
        """The image alone."""
        return replace(self, case=replace(self.case, label_path=None), label=None)

    def work(self, plan: Plan | None) -> int:
        """Voxels that go through the hands: those read, and those made where a plan resamples."""
        return self.num_channels * (self.num_voxels + (math.prod(self.target_grid(plan)[0]) if plan else 0))


def read_case_headers(case: RawCase, num_channels: int | None = None) -> HeaderCase | None:
    """Headers of all files of a case; None where a zip file would have to be unpacked.

    Args:
        num_channels: how many there must be, where that is known.

    Raises:
        InputError: if a file cannot be read, grids differ or channels are missing; all of it, a line each.
    """
    if case.problem is not None:
        raise InputError(case.problem)
    problems, headers, is_packed = [], {}, False
    for path in case.paths:
        try:
            header = read_header(path)
        except InputError as error:
            problems.append(str(error))
            continue
        is_packed |= header is None
        if header is not None:
            headers[path] = header
    images = [path for path in case.image_paths if path and path in headers]
    for path in images[1:]:
        if difference := grid_of(headers[images[0]], headers[path]):
            problems.append(f"{path}: does not lie on the grid of {images[0]}: {difference}; resample one to the other")
    label = headers.get(case.label_path) if case.label_path else None
    if (
        label
        and images
        and not is_turned(headers[images[0]], label)
        and (difference := grid_of(headers[images[0]], label))
    ):
        problems.append(
            f"{case.label_path}: does not lie on the grid of {images[0]}: {difference}; "
            "resample the labels to the image"
        )
    found = sum(headers[path].num_channels for path in images)
    may_be_grey = {found, num_channels} == {1, MAX_COLOURS}
    is_whole = None not in case.image_paths and not is_packed
    if len(images) == 1 and num_channels not in (None, found) and not may_be_grey and is_whole:
        problems.append(f"{images[0]}: wrong channel count: {found}, expected {num_channels}")
    if problems:
        raise InputError("\n".join(problems))
    if is_packed:
        return None
    return HeaderCase(case=case, image=headers[images[0]], num_channels=num_channels or found, label=label)


def is_turned(header: Header, other: Header) -> bool:
    """True if two headers may be of one grid with the axes in another order or backwards."""
    return sorted(header.shape) == sorted(other.shape) and not np.allclose(
        np.sign(np.round(header.affine[:3, :3], 3)), np.sign(np.round(other.affine[:3, :3], 3))
    )


def grid_of(header: Header, other: Header) -> str | None:
    """How the grids of two headers differ."""
    return grid_difference(header.shape, header.affine, other.shape, other.affine)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a command does with each case."""

    run: Callable[[RawCase], object]
    """Importable by name, with what it needs bound by `partial`."""
    plan: Plan | None = None
    """Of a stage that resamples."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What one stage took in the trial, by voxel of work."""

    seconds_per_voxel: float
    bytes_per_voxel: float
    """Of memory, above that of a resting process."""
    disk_bytes_per_voxel: float


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What all stages took in the trial."""

    rates: dict[str, Rates]
    num_cases: int
    num_voxels: int
    resting_bytes: int
    start_seconds: float

    @property
    def basis(self) -> str:
        """Where the numbers come from."""
        cases = f"{self.num_cases} case{'s' if self.num_cases > 1 else ''}"
        return f"a trial here on {self.num_voxels / 1e6:.2g} million voxels of {cases}"

    def seconds(self, name: str, work: float, num_processes: int) -> float:
        """For work of so many voxels."""
        start = self.start_seconds if num_processes > 1 else 0.0
        return start + work * self.rates[name].seconds_per_voxel / num_processes

    def memory_bytes(self, name: str, largest: Sequence[float]) -> float:
        """Of processes that each hold a case of so many voxels; several need one more, which waits."""
        waiting = self.resting_bytes if len(largest) > 1 else 0
        return waiting + sum(self.resting_bytes + work * self.rates[name].bytes_per_voxel for work in largest)


@contextmanager
def samples_of(cases: Sequence[HeaderCase]) -> Iterator[list[HeaderCase]]:
    """A few cases spread over all sizes, the large ones cut to their middle slices; gone afterwards."""
    ordered = sorted(cases, key=lambda found: found.num_voxels)
    middle = int(statistics.median(found.num_voxels * found.num_channels for found in ordered)) if ordered else 1
    count = min(max(SAMPLE_VOXELS // middle, 1), MAX_SAMPLES, len(ordered))
    chosen = [ordered[(2 * number + 1) * len(ordered) // (2 * count)] for number in range(count)]
    with TemporaryDirectory(prefix="spadunet-") as folder:
        yield [cut(found, Path(folder) / str(number), SAMPLE_VOXELS // count) for number, found in enumerate(chosen)]


def cut(found: HeaderCase, folder: Path, num_voxels: int) -> HeaderCase:
    """A case's middle slices as files in a folder; the case itself where it is small or of pictures."""
    num_slices = max(num_voxels * found.image.shape[0] // (found.num_voxels * found.num_channels), 2)
    can_be_cut = all(path.is_dir() or ending_of(path, VOLUME_ENDINGS) for path in found.case.paths)
    if num_slices >= found.image.shape[0] or not can_be_cut:
        return found
    folder.mkdir()
    parts = [cut_file(path, folder, num_slices) if path else [path] for path in found.case.image_paths]
    label_path = found.case.label_path and cut_file(found.case.label_path, folder, num_slices)[0]
    image_paths = tuple(path for files in parts for path in files)
    part = read_case_headers(RawCase(name=found.case.name, image_paths=image_paths, label_path=label_path))
    assert part is not None
    return part


def cut_file(path: Path, folder: Path, num_slices: int) -> list[Path]:
    """Middle slices of a volume, written as a file a channel, or of a DICOM folder, as links."""
    if path.is_dir():
        slices = the_one_series(path, path).slices
        first = (len(slices) - num_slices) // 2
        target = folder / path.name
        target.mkdir()
        for number, member in enumerate(slices[first : first + num_slices]):
            (target / f"{number}.dcm").symlink_to(member.path.resolve())
        return [target]
    array, affine = read_middle(path, num_slices)
    parts = []
    for channel in array:
        parts.append(folder / f"{len(list(folder.iterdir()))}-{path.name}")  # image and label may have one name
        write_array(parts[-1], channel, affine)
    return parts


def try_stages(stages: Mapping[str, Stage], samples: Sequence[HeaderCase], output: Path | None = None) -> Trial:
    """Run each stage on samples, in a process of its own.

    Args:
        output: a folder in the system's temporary one that stages write into; emptied after each case.

    Raises:
        InputError: if no sample can be used; says why.
    """
    cases = [sample.case for sample in samples]
    cost = measure_apart(run_stages, {name: stage.run for name, stage in stages.items()}, cases, output)
    rates = {}
    for name, stage in stages.items():
        done = [(sample.work(stage.plan), tried) for sample, tried in zip(samples, cost.result[name], strict=True)]
        whole = [(work, tried) for work, tried in done if tried.problem is None]
        if not whole:
            raise InputError(str(done[0][1].problem))
        voxels = sum(work for work, _ in whole)
        work, largest = max(whole, key=lambda item: item[0])
        rates[name] = Rates(
            seconds_per_voxel=sum(tried.seconds for _, tried in whole) / voxels,
            bytes_per_voxel=max(largest.peak_bytes - cost.resting_bytes, 0) / work,
            disk_bytes_per_voxel=sum(tried.disk_bytes for _, tried in whole) / voxels,
        )
    return Trial(
        rates=rates,
        num_cases=len(samples),
        num_voxels=sum(sample.num_channels * sample.num_voxels for sample in samples),
        resting_bytes=cost.resting_bytes,
        start_seconds=cost.start_seconds,
    )


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One stage on one sample."""

    seconds: float
    peak_bytes: int
    disk_bytes: int
    problem: str | None


def run_stages(
    runs: Mapping[str, Callable[[RawCase], object]], cases: Sequence[RawCase], output: Path | None
) -> dict[str, list[Tried]]:
    """Every stage on every case, by the stage's name; on the first case twice if that is short."""
    tried: dict[str, list[Tried]] = {}
    for name, run in runs.items():
        first = run_once(run, cases[0], output)
        if first.seconds < WARM_SECONDS:
            first = run_once(run, cases[0], output)
        tried[name] = [first, *(run_once(run, case, output) for case in cases[1:])]
    return tried


def run_once(run: Callable[[RawCase], object], case: RawCase, output: Path | None) -> Tried:
    """One stage on one case, and how much it wrote."""
    cost = measure(attempt, run, case)
    disk_bytes = 0
    if output is not None and output.is_dir():
        disk_bytes = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
        shutil.rmtree(output)
    return Tried(seconds=cost.seconds, peak_bytes=cost.peak_bytes, disk_bytes=disk_bytes, problem=cost.result.problem)
