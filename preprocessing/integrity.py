"""Checks of a raw dataset before any work: everything that is wrong, odd or mended, told at once."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, Literal, TypeVar

import numpy as np

from .. import __version__
from ..dataset import Dataset, RawCase, find_test_cases
from ..errors import InputError
from ..formats import LABEL_ENDINGS, ending_of
from ..image import Image, LabelMap, corner_distance_mm, geometry_difference, read_image, read_label_map, turned_onto
from ..labels import LabelSet, ids_in
from ..parallel import map_cases
from ..patients import patients_of
from ..record import FormatVersion, Record, digest_of
from ..workers import THIS_PROCESS, Workers
from .memory import memory_to_read, most_memory

Severity = Literal["error", "warning", "repair"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "repair")
DRIFT_MM = 1e-3
"""Corners that lie further apart than this are drift, not rounding."""
FAR = 5.0
"""Robust deviations from the cohort's median, on a logarithmic scale, beyond which a case is told …"""
FAR_FACTOR = 1.5
"""… if it also differs by this factor."""
FAR_INTENSITY_FACTOR = 20.0
"""The same for intensities, which in MR have no unit."""
REMEDY = "export it again or remove it"
MIN_COHORT = 5
"""Fewer cases say nothing about what is usual."""
MAX_PERCENTILE_VOXELS = 1_000_000

Observed = TypeVar("Observed")
Observe = Callable[[str, Image, LabelMap | None], Observed]
"""Case, image and label map to whatever a later stage wants to know of them."""


class Finding(Record):
    """One thing found: an error stops the work, a warning does not, a repair is made whenever the case is read."""

    severity: Severity
    case: str
    """Empty where it concerns the dataset."""
    text: str


class CheckReport(Record):
    """All findings of a dataset, errors first."""

    format_version: FormatVersion = 1
    dataset_name: str
    num_cases: int
    findings: tuple[Finding, ...]
    source_digest: str = ""
    """Changes when a file of the dataset does."""

    def of(self, severity: Severity) -> list[Finding]:
        """The findings of one severity."""
        return [finding for finding in self.findings if finding.severity == severity]

    def to_csv(self) -> str:
        """One row a finding."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["severity", "case", "text"])
        writer.writerows([finding.severity, finding.case, finding.text] for finding in self.findings)
        return text.getvalue()

    def to_table(self) -> str:
        """For the terminal: how many of each there are, and a line a warning and repair (errors are told as such)."""
        counts = ", ".join(f"{len(self.of(severity))} {severity}s" for severity in SEVERITIES)
        found = [*self.of("warning"), *self.of("repair")]
        width = max((len(finding.case) for finding in found), default=0)
        rows = [f"  {finding.severity:8} {finding.case:{width}}  {finding.text}" for finding in found]
        return "\n".join([f"{self.dataset_name}: {self.num_cases} cases checked, {counts}", *rows])


@dataclass(frozen=True, kw_only=True)
class CheckedCase(Generic[Observed]):
    """What remains of a case once it is read; of an image that cannot be, only findings and ids."""

    findings: tuple[Finding, ...]
    ids: frozenset[int]
    """Label ids that occur."""
    digest: str = ""
    """Of voxels and shape."""
    side_mm: float = 0.0
    """Cube root of a voxel's volume."""
    size_mm: float = 0.0
    """Cube root of the image's volume."""
    intensity_range: float = 0.0
    """Of the first channel."""
    observed: Observed | None = None


def check_dataset(dataset: Dataset, *, workers: Workers = THIS_PROCESS) -> CheckReport:
    """Read every case, training and test, and compare them with each other."""
    report, _ = check_and_observe(dataset, None, workers=workers)
    return report


def check_and_observe(
    dataset: Dataset, observe: Observe[Observed] | None, *, workers: Workers = THIS_PROCESS
) -> tuple[CheckReport, list[Observed]]:
    """As `check_dataset`; also what `observe` tells of each sound training case, which then is read only once."""
    tests = find_test_cases(dataset)
    findings: list[Finding] = []
    checked: list[dict[str, CheckedCase[Observed]]] = []
    for cases, look, which in ((dataset.cases, observe, ""), (tests, None, ", test cases")):
        check = partial(check_case, labels=dataset.labels, num_channels=len(dataset.channel_names), observe=look)
        title = f"Checking {dataset.name}{which}"
        checked.append({})
        for outcome in map_cases(
            check, cases, title=title, workers=workers, memory_of=memory_to_read, most_memory_of=most_memory
        ):
            if outcome.result is None:
                findings.append(Finding(severity="error", case=outcome.item.name, text=str(outcome.problem)))
            else:
                findings += outcome.result.findings
                checked[-1][outcome.item.name] = outcome.result
    training, testing = checked
    findings += lone_labels(dataset)
    findings += unseen_labels(dataset, list(training.values()))
    findings += far_from_cohort({case.name: training[case.name] for case in dataset.cases if case.name in training})
    findings += doubles([*sorted(training.items()), *sorted(testing.items())])
    findings += shared_patients(dataset, [case.name for case in tests])
    findings.sort(key=lambda finding: (SEVERITIES.index(finding.severity), finding.case, finding.text))
    report = CheckReport(
        dataset_name=dataset.name,
        num_cases=len(dataset.cases) + len(tests),
        findings=tuple(findings),
        source_digest=digest_of_sources(dataset),
    )
    return report, [case.observed for case in training.values() if case.observed is not None]


def digest_of_sources(dataset: Dataset) -> str:
    """Changes when any training or test file does, what dataset.json says of them, or this program."""
    cases = [*dataset.cases, *find_test_cases(dataset)]
    folders = {case.label_path.parent for case in dataset.cases if case.label_path is not None}
    label_names = sorted(path.name for folder in folders for path in folder.iterdir())
    described = [
        __version__,
        *label_names,
        *dataset.optional_channels,
        dataset.labels.to_json(),
        *dataset.channel_names,
        *sorted(dataset.patients.items()),
    ]
    return digest_of(json.dumps([described, [(case.name, case.content()) for case in cases]]))


def check_case(
    case: RawCase, *, labels: LabelSet, num_channels: int, observe: Observe[Observed] | None = None
) -> CheckedCase[Observed]:
    """Read one case and look at it alone."""
    image, label_map, findings = examine(case, labels=labels, num_channels=num_channels)
    ids = frozenset() if label_map is None else frozenset(ids_in(label_map.array))
    if label_map is not None and ids <= {0, labels.ignore_id}:
        findings.append(Finding(severity="warning", case=case.name, text=f"{case.label_path}: no voxel is labelled"))
    if image is None:
        return CheckedCase(findings=tuple(findings), ids=ids)
    is_sound = not any(finding.severity == "error" for finding in findings)
    voxel_mm3 = math.prod(image.spacing_mm)
    return CheckedCase(
        findings=tuple(findings),
        digest=digest_of_voxels(image.array),
        side_mm=voxel_mm3 ** (1 / 3),
        size_mm=(voxel_mm3 * math.prod(image.shape)) ** (1 / 3),
        intensity_range=intensity_range(image.array[0]),
        ids=ids,
        observed=None if observe is None or not is_sound else observe(case.name, image, label_map),
    )


def digest_of_voxels(array: np.ndarray) -> str:
    """Of values and shape; a large array is not copied."""
    digest = hashlib.sha256(str(array.shape).encode())
    digest.update(array.ravel().data)
    return digest.hexdigest()


def intensity_range(channel: np.ndarray) -> float:
    """Between the 0.5th and the 99.5th percentile of (A0, A1, A2); of a million random voxels, if it has more."""
    values = channel.ravel()
    if values.size > MAX_PERCENTILE_VOXELS:
        values = values[np.random.default_rng(0).integers(values.size, size=MAX_PERCENTILE_VOXELS)]
    low, high = np.percentile(values, (0.5, 99.5))
    return float(high - low)


def read_checked(case: RawCase, *, labels: LabelSet, num_channels: int) -> tuple[Image, LabelMap | None]:
    """Read a case and make sure that it can be used; a label map that drifted by less than half a voxel is put back.

    Raises:
        InputError: if a file cannot be read, there are too few or too many channels, one is constant, or the label map
            has another grid or unknown ids; all of it, a line each.
    """
    image, label_map, findings = examine(case, labels=labels, num_channels=num_channels)
    errors = [finding.text for finding in findings if finding.severity == "error"]
    if errors or image is None:
        raise InputError("\n".join(errors))
    return image, label_map


def examine(
    case: RawCase, *, labels: LabelSet, num_channels: int
) -> tuple[Image | None, LabelMap | None, list[Finding]]:
    """A case's image and label map, as far as they can be read, and what is wrong with them."""
    findings: list[Finding] = []

    def note(severity: Severity, text: str) -> None:
        findings.append(Finding(severity=severity, case=case.name, text=text))

    image, label_map = None, None
    try:
        image = read_image(case.image_paths, num_channels=num_channels)
    except InputError as error:
        note("error", str(error))
    try:
        label_map = None if case.label_path is None else read_label_map(case.label_path)
    except InputError as error:
        note("error", str(error))
    for text in [] if image is None else constant_channels(case.image_paths, image):
        note("error", text)
    if label_map is not None:
        unknown = labels.unknown_ids(label_map.array)
        if unknown:
            note(
                "error",
                f"{case.label_path}: holds label values {unknown} that dataset.json does not name "
                f"(it has {list(labels.known_ids)}); add them to its labels or correct the file",
            )
    if label_map is not None and case.annotated:
        unsaid = unsaid_ids(case.annotated, labels)
        is_unsaid = np.isin(label_map.array, unsaid)
        if is_unsaid.any():
            there = ids_in(label_map.array[is_unsaid])
            note(
                "warning",
                f"{case.label_path}: holds labels {there}, which labelled_classes in dataset.json does not name for "
                f"this case (it has {', '.join(case.annotated)}); taken as not annotated",
            )
            label_map = LabelMap(array=np.where(is_unsaid, 0, label_map.array), affine=label_map.affine)
    if image is not None and label_map is not None:
        difference = geometry_difference(image, label_map)
        turned = turned_onto(label_map, image) if difference else None
        if turned is not None:
            note("repair", f"{case.label_path}: holds the image's grid with other axes first or backwards: turned")
            label_map = turned
        elif difference:
            note(
                "error",
                f"{case.label_path}: does not lie on the grid of {case.paths[0]}: {difference}; "
                "resample the labels to the image",
            )
            return image, label_map, findings
        drift_mm = corner_distance_mm(image.shape, image.affine, label_map.affine)
        if drift_mm > DRIFT_MM:
            note("repair", f"{case.label_path}: lies {drift_mm:.3g} mm off its image, less than half a voxel: put back")
            label_map = LabelMap(array=label_map.array, affine=image.affine)
    return image, label_map, findings


def constant_channels(paths: Sequence[Path | None], image: Image) -> Iterator[str]:
    """What to tell of each file in which every voxel is the same; one colour of a picture may be."""
    if len(paths) == len(image.array):
        for path, channel in zip(paths, image.array, strict=True):
            if path is not None and channel.min() == channel.max():
                yield f"{path}: every voxel is {channel.flat[0]:g}; expected an image: {REMEDY}"


def unsaid_ids(annotated: tuple[str, ...], labels: LabelSet) -> list[int]:
    """Ids that belong to no class or region of these names; background stands for them where they were not drawn."""
    said = {0, labels.ignore_id}
    said |= {label_id for it in labels.structures if it.name in annotated for label_id in it.ids}
    return [label_id for label_id in labels.ids if label_id not in said]


def lone_labels(dataset: Dataset) -> Iterator[Finding]:
    """Label maps without an image: they are not used, which may be a slip in a name."""
    folders = {case.label_path.parent for case in dataset.cases if case.label_path is not None}
    used = {path for case in dataset.cases for path in case.paths}
    for folder in folders:
        for path in sorted(folder.glob("[!.]*")):
            if ending_of(path, LABEL_ENDINGS) and path not in used:
                yield Finding(severity="warning", case="", text=f"{path}: no image has this name; it is not used")


def unseen_labels(dataset: Dataset, checked: Sequence[CheckedCase]) -> Iterator[Finding]:
    """Classes or regions that no training case has."""
    seen = frozenset().union(*(case.ids for case in checked))
    for structure in dataset.labels.structures:
        if checked and not seen.intersection(structure.ids):
            ids = ", ".join(map(str, structure.ids))
            text = f"no training case has a voxel of {structure.name} (label {ids}); it cannot be learned"
            yield Finding(severity="warning", case="", text=text)


def far_from_cohort(checked: dict[str, CheckedCase]) -> Iterator[Finding]:
    """Cases unlike the others in voxel size, image size or intensities."""
    measures: tuple[tuple[str, Callable[[CheckedCase], float], float], ...] = (
        ("voxel side (mm)", lambda case: case.side_mm, FAR_FACTOR),
        ("image side (mm)", lambda case: case.size_mm, FAR_FACTOR),
        ("range of intensities", lambda case: case.intensity_range, FAR_INTENSITY_FACTOR),
    )
    for title, measure, factor in measures:
        values = {name: math.log(measure(case)) for name, case in checked.items() if measure(case) > 0}
        if len(values) < MIN_COHORT:
            continue
        middle = statistics.median(values.values())
        deviation = 1.4826 * statistics.median(abs(value - middle) for value in values.values())
        for name, value in values.items():
            if abs(value - middle) > max(FAR * deviation, math.log(factor)):
                text = f"{title} {math.exp(value):.4g}, but {math.exp(middle):.4g} in the middle of the cohort"
                yield Finding(severity="warning", case=name, text=text)


def doubles(checked: Sequence[tuple[str, CheckedCase]]) -> Iterator[Finding]:
    """The same image under two names, among training and test cases."""
    first: dict[str, str] = {}
    for name, case in checked:
        if case.digest and case.digest in first:
            text = f"shows the same image as {first[case.digest]}; keep one of them"
            yield Finding(severity="warning", case=name, text=text)
        elif case.digest:
            first[case.digest] = name


def shared_patients(dataset: Dataset, tests: Sequence[str]) -> Iterator[Finding]:
    """Patients with images in the training and in the test set."""
    names = [case.name for case in dataset.cases]
    patients = patients_of([*names, *tests], {})
    train = {patients[name] for name in names} | set(dataset.patients.values())
    for name in tests:
        if patients[name] in train or name in names:
            text = f"a test case of {patients[name]}, who has training cases too; scores on it will be too good"
            yield Finding(severity="warning", case=name, text=text)
