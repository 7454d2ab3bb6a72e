"""What a reader may do with a damaged file: refuse it in a line that names it, or give a sound answer in its place."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from damage import Mutant
from second_readers import second_opinion
from sources import LABELS
from sources import make_plan as make_tiny_plan

from spadunet.dataset import Dataset, load_dataset
from spadunet.errors import InputError, OutputError
from spadunet.evaluation.label_names import read_labels
from spadunet.fingerprint import Fingerprint
from spadunet.image import Image, corner_distance_mm, read_image, read_label_map
from spadunet.inference.predict import build_network
from spadunet.model import load_model
from spadunet.plan import Plan
from spadunet.plans.planner import make_plan
from spadunet.preprocessing.converters.chaos_submission import export_chaos
from spadunet.preprocessing.preprocess import preprocess
from spadunet.preprocessing.store import open_case
from spadunet.record import read_record
from spadunet.training.splits import choose_cases

REFUSED, SAME, AS_WRITTEN, SOUND = "refused", "same place", "as another reader has it", "sound"
MAX_LINE = 700
"""Characters: an error is read by a person."""


PLAN = make_tiny_plan()
DATASETS: list[Dataset] = []
"""The sound one, once `prepare` has read it."""


def prepare(sources: Path) -> None:
    """Read what damaged documents belong to."""
    DATASETS.append(load_dataset(sources / "dataset"))


class Wrong(AssertionError):
    """What must not happen."""


def judge(mutant: Mutant) -> str:
    """How a damaged file was taken.

    Raises:
        Wrong: if it was taken badly; any other error is no better.
    """
    try:
        return KINDS[mutant.kind](mutant)
    except (InputError, OutputError) as error:
        check_message(mutant.path, str(error))
        return REFUSED


def check_message(path: Path, message: str) -> None:
    """One line that a person can read and that names the file."""
    if "\n" in message or len(message) > MAX_LINE + 2 * len(str(path)) or not message.isprintable():
        raise Wrong(f"no line: {message[:2000]!r}")
    if path.name not in message:
        raise Wrong(f"names no file: {message}")


def judge_image(mutant: Mutant) -> str:
    """A file, folder or zip file with an image, read and preprocessed."""
    image, original = read_image([mutant.path]), read_image([mutant.source])
    if mutant.path.suffix not in (".jpg", ".jpeg") and mutant.path.name != "colour.png" and len(image.array) == 1:
        read_label_map(mutant.path)
    if "cut to" in mutant.said and not np.array_equal(image.array, original.array):
        raise Wrong("truncated, and read with other voxels")
    verdict = placement(mutant, image, original)
    case = preprocess("a", Image(array=image.array[:1], affine=image.affine), None, PLAN)
    if not np.isfinite(case.image).all():
        raise Wrong("preprocessed to NaN")
    return verdict


def placement(mutant: Mutant, image: Image, original: Image) -> str:
    """Whether an image lies where it lay, or where others would put it too."""
    if lie_alike(image, original.shape, original.affine, is_flat=False):
        return SAME
    second = second_opinion(mutant.path)
    if second is None:
        raise Wrong(f"another reader refuses it; here {image.shape} {image.affine.tolist()}")
    shape, affine = second
    if mutant.source.name == "deep.tif":
        affine = original.affine
    if not lie_alike(image, shape, affine, is_flat=mutant.source.name == "flat.nii"):
        raise Wrong(f"here {image.shape} {image.affine.tolist()}, there {shape} {affine.tolist()}")
    return AS_WRITTEN


def lie_alike(image: Image, shape: tuple[int, ...], affine: np.ndarray, *, is_flat: bool) -> bool:
    """True if corners agree within half a voxel; of a 2D image only what is in its plane."""
    ours, theirs = image.affine.copy(), affine.copy()
    if is_flat:
        for matrix in (ours, theirs):
            matrix[:, 0], matrix[2] = 0, 0
    with np.errstate(all="ignore"):
        return shape == image.shape and corner_distance_mm(shape, ours, theirs) <= 0.5 * min(image.spacing_mm)


def judge_sidecar(mutant: Mutant) -> str:
    """A TIFF whose spacing stands in a damaged file: the spacing is that of the file."""
    try:
        image = read_image([mutant.path])
    except InputError as error:
        check_message(mutant.path.with_suffix(".json"), str(error))
        return REFUSED
    spacing = json.loads((mutant.path.with_suffix(".json")).read_text(encoding="utf-8-sig"))["spacing"]
    if [float(side) for side in spacing] != list(image.spacing_mm):
        raise Wrong(f"spacing {image.spacing_mm}")
    return SOUND


def judge_description(mutant: Mutant) -> str:
    """dataset.json of a folder with its images, or alone."""
    folder = mutant.path.parent
    if mutant.source.parent.name == "regions":
        read_labels(mutant.path)
        return SOUND
    for name in ("imagesTr", "labelsTr"):
        (folder / name).symlink_to(mutant.source.parent / name)
    dataset = load_dataset(folder)
    if len(dataset.cases) != 4 or len(dataset.channel_names) != 1:
        raise Wrong(f"{len(dataset.cases)} cases of {dataset.channel_names}")
    return SOUND


def judge_splits(mutant: Mutant) -> str:
    """splits_final.json."""
    names = {case.name for case in DATASETS[0].cases}
    train, val = choose_cases(DATASETS[0], mutant.path.parent, "0")
    if not train or set(train) & set(val) or not set(train + val) <= names or len(set(train)) != len(train):
        raise Wrong(f"{train} {val}")
    return SOUND


def judge_plan(mutant: Mutant) -> str:
    """plan.json: what it says can be done to an image."""
    plan = read_record(mutant.path, Plan, remedy="plan again")
    sizes = [math.prod(size) for size in plan.patch_sizes_voxels.values()]
    if max(sizes) > 1 << 30:
        raise Wrong(f"patches of {max(sizes)} voxels")
    image = read_image(DATASETS[0].cases[0].image_paths)
    plan = replace_channels(plan)
    try:
        case = preprocess("a", image, None, plan)
    except InputError as error:
        if "\n" in str(error):
            raise Wrong(str(error)) from error
        return REFUSED
    if not np.isfinite(case.image).all():
        raise Wrong("preprocessed to NaN")
    return SOUND


def replace_channels(plan: Plan) -> Plan:
    """A plan of one channel: with more, an image of one is refused before."""
    return plan.model_copy(update={"channel_names": plan.channel_names[:1], "intensity": plan.intensity[:1]})


def judge_fingerprint(mutant: Mutant) -> str:
    """fingerprint.json: a plan can be made of it."""
    found = read_record(mutant.path, Fingerprint, remedy="make it again")
    if len(found.intensities) != 1:
        return SOUND  # of another dataset, which the digest tells
    try:
        made = make_plan(found, ("CT",), LABELS, memory_gb=0.1)
    except InputError as error:
        if "\n" in str(error):
            raise Wrong(str(error)) from error
        return REFUSED
    if Plan.from_json(made.to_json()) != made:
        raise Wrong("a plan that cannot be read again")
    return SOUND


def judge_case(mutant: Mutant) -> str:
    """The header of a stored case: its arrays can be read."""
    for path in mutant.source.parent.glob("case0.*"):
        if path != mutant.source:
            (mutant.path.parent / path.name).symlink_to(path)
    case = open_case(mutant.path.parent, "case0")
    image, classes = case.read_patch((-1, 0, 2), (4, 8, 8))
    if image.shape != (1, 4, 8, 8) or classes.shape != (4, 8, 8) or case.da not in range(7):
        raise Wrong(f"{image.shape} {classes.shape} {case.da}")
    return SOUND


def judge_labels(mutant: Mutant) -> str:
    """labels.json beside predictions."""
    labels = read_labels(mutant.path)
    labels.to_classes(np.array(labels.ids))
    return SOUND


def judge_slices(mutant: Mutant) -> str:
    """chaos_slices.json: a submission is written where it should be, and nowhere else."""
    predictions, output = mutant.path.parent / "predictions", mutant.path.parent / "out/submission"
    predictions.mkdir()
    output.parent.mkdir()
    (predictions / "mr_1.nii.gz").symlink_to(mutant.source.parent / "mr_1.nii.gz")
    before = set(mutant.path.parent.rglob("*"))
    try:
        export_chaos([predictions], [mutant.path.parent], output)
    except InputError as error:
        if "\n" in str(error) or len(str(error)) > MAX_LINE + 200:
            raise Wrong(str(error)) from error
        verdict = REFUSED
    else:
        verdict = SOUND
        if len(list(output.rglob("*.png"))) != 10:
            raise Wrong(f"{len(list(output.rglob('*.png')))} pictures")
    outside = [path for path in set(mutant.path.parent.rglob("*")) - before if output not in (path, *path.parents)]
    if outside:
        raise Wrong(f"written elsewhere: {outside[:3]}")
    return verdict


def judge_model(mutant: Mutant) -> str:
    """A model folder: a network can be built of it."""
    model = load_model(mutant.path)
    for task in model.tasks:
        build_network(model, task)
    return SOUND


KINDS: dict[str, Callable[[Mutant], str]] = {
    "image": judge_image,
    "sidecar": judge_sidecar,
    "description": judge_description,
    "splits": judge_splits,
    "plan": judge_plan,
    "fingerprint": judge_fingerprint,
    "case": judge_case,
    "labels": judge_labels,
    "slices": judge_slices,
    "model": judge_model,
}
