"""Before training: a plan for the studies, and their images preprocessed; what is there from the same files is kept."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..classification_plan import ClassificationPlan
from ..errors import InputError, OutputError
from ..fingerprint import Fingerprint, read_current
from ..medmnist import MedMNIST
from ..plan import MAX_PATCH_VOXELS
from ..plans.plan_classes import digest_of_studies, fingerprint_studies, plan_medmnist, plan_studies
from ..plans.planner import TargetSpacing
from ..preprocessing.memory import memory_to_read
from ..preprocessing.preprocess import orient_and_crop
from ..preprocessing.run import preprocess_studies
from ..preprocessing.views import read_view
from ..record import write_record
from ..spacing import Shape
from ..study import LabelledStudies
from ..workers import THIS_PROCESS, Workers

FOLDER = "classification"
"""Below a dataset's preprocessed folder, where segmentation has files of its own."""
FINGERPRINT_JSON, PLAN_JSON = "fingerprint.json", "plan.json"
MEDMNIST_SIZES = "one number, that of all sides, or those of depth, height and width"

log = logging.getLogger("spadunet")


@dataclass(frozen=True, kw_only=True)
class PreparedFolder:
    """A plan, and where the images lie that it made."""

    plan: ClassificationPlan
    cases: Path


def plan_of_file(dataset: MedMNIST, sizes: tuple[int, ...] | None) -> ClassificationPlan:
    """The paper's plan, or with other sizes.

    Args:
        sizes: one, or depth, height and width.

    Raises:
        InputError: if they do not fit.
    """
    if sizes is None:
        return plan_medmnist(dataset)
    shape = shape_of_sizes(sizes, is_planar=dataset.is_planar)
    return ClassificationPlan(**(dict(plan_medmnist(dataset, side_voxels=shape[1])) | {"input_size_voxels": shape}))


def shape_of_sizes(sizes: tuple[int, ...], *, is_planar: bool) -> Shape:
    """(depth, height, width) of one or three sizes.

    Raises:
        InputError: if they are not so many, too large, or pictures shall have several slices or volumes one.
    """
    told = " ".join(map(str, sizes))
    if len(sizes) not in (1, 3):
        raise InputError(f"--input-size {told}: expected {MEDMNIST_SIZES}")
    depth, height, width = sizes if len(sizes) == 3 else (1 if is_planar else sizes[0], sizes[0], sizes[0])
    if is_planar and depth != 1:
        raise InputError(f"--input-size {told}: the images are pictures of one slice; give 1 {height} {width}")
    if not is_planar and depth == 1:
        raise InputError(f"--input-size {told}: one slice, but the images are volumes; give a depth of 2 or more")
    if depth * height * width > MAX_PATCH_VOXELS:
        raise InputError(f"--input-size {told}: an image has at most {MAX_PATCH_VOXELS:,} voxels; give smaller sizes")
    return depth, height, width


def prepare_folder(
    found: LabelledStudies,
    folder: Path,
    *,
    target_spacing: TargetSpacing = "median",
    sizes: tuple[int, ...] | None = None,
    workers: Workers = THIS_PROCESS,
) -> PreparedFolder:
    """Plan the studies of a folder, and preprocess all their views.

    Args:
        folder: of the dataset below preprocessed/.
        sizes: of the network's images: one, or depth, height and width; None for each image's own.

    Raises:
        InputError: if an image cannot be used, or the sizes do not fit the images.
        OutputError: if an image cannot be preprocessed.
    """
    folder = folder / FOLDER
    fingerprint = find_fingerprint(found, folder, workers)
    size = None if sizes is None else shape_of_sizes(sizes, is_planar=fingerprint.is_planar())
    plan = plan_studies(fingerprint, found, target_spacing=target_spacing, input_size_voxels=size)
    write_record(folder / PLAN_JSON, plan)
    log.info(
        "%s: %s, degree of anisotropy %d: %s",
        found.name,
        f"spacing {plan.target_spacing_mm} mm" if size is None else f"images interpolated to {size} voxels",
        plan.degree_of_anisotropy,
        folder / PLAN_JSON,
    )
    # A folder for each way of preprocessing, so that runs that differ in it do not take each other's images away.
    cases = (folder / f"cases_{plan.preprocessing_digest()}").absolute()
    summary = preprocess_studies(found, plan, cases, workers=workers)
    log.info("%s: %d images preprocessed, %d kept: %s", found.name, summary.num_made, summary.num_kept, cases)
    if summary.problems:
        raise OutputError("\n".join(summary.problems))
    return PreparedFolder(plan=plan, cases=cases)


def find_fingerprint(found: LabelledStudies, folder: Path, workers: Workers) -> Fingerprint:
    """The stored one if no file has changed since, else a new one."""
    path = folder / FINGERPRINT_JSON
    if stored := read_current(path, found.name, partial(digest_of_studies, found)):
        return stored
    read = partial(read_view, num_channels=len(found.channel_names))
    made = fingerprint_studies(found, read=read, orient=orient_and_crop, workers=workers, memory_of=memory_to_read)
    write_record(path, made)
    log.info("%s: fingerprint of %d images: %s", found.name, len(made.cases), path)
    return made
