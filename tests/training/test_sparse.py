"""Training from little: scribbles on three slices, and cases in which only one of two organs was outlined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from whole_logits import predict_logits

from spadunet.case import Case
from spadunet.labels import LabelSet
from spadunet.network.heads import SegmentationNetwork, SegmentationTask
from spadunet.network.unet import SpadUNet
from spadunet.preprocessing.store import open_case, store_case
from spadunet.training import loop
from spadunet.training.loop import JointNetwork, train_network
from spadunet.training.patches import BatchStream, TrainingTask
from spadunet.training.variety import Variety

SHAPE, PATCH = (16, 24, 24), (8, 16, 16)
LABELS = LabelSet(names=("background", "bright", "grey"), ids=(0, 1, 2))
IGNORING = LabelSet(names=("background", "bright", "grey"), ids=(0, 1, 2), ignore_id=3)


def make_scan(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (1, D, H, W) and classes (D, H, W): a bright and a grey ball in noise, anywhere in the two halves."""
    generator = np.random.default_rng(seed)
    classes = np.zeros(SHAPE, np.uint8)
    grid = np.indices(SHAPE)
    for number, half in enumerate(generator.permutation(2), start=1):
        centre = np.array([generator.uniform(6, 10), generator.uniform(7, 17), 6 + 12 * half])
        classes[((grid - centre[:, None, None, None]) ** 2).sum(0) < generator.uniform(4, 5) ** 2] = number
    image = np.choose(classes, [-0.6, 0.7, 0.1]) + generator.normal(0, 0.15, SHAPE)
    return image[None].astype(np.float32), classes


def scribble(classes: np.ndarray, number: int) -> np.ndarray:
    """Ignored but for strokes of a voxel's width on three slices: across the balls, and through the background."""
    sparse = np.full(SHAPE, 3, np.uint8)
    for depth in (6, 8, 10):
        rows = [2 + number % 3, *(round(it[1]) for it in ndimage.center_of_mass(classes > 0, classes, [1, 2]))]
        sparse[depth, rows] = classes[depth, rows]
    return sparse


@pytest.fixture
def make_sparse_task(make_task, tmp_path: Path) -> Callable[..., TrainingTask]:
    """Store ten scans, whose classes and names of annotated ones are made of the true classes and a number."""

    def make(labels: LabelSet, draw: Callable[[np.ndarray, int], tuple[np.ndarray, tuple[str, ...]]]) -> TrainingTask:
        task = make_task(shape=SHAPE, patch=PATCH, num_cases=1)
        geometry = task.cases[0].header.geometry
        for number in range(10):
            image, classes = make_scan(number)
            drawn, annotated = draw(classes, number)
            case = Case(name=f"s{number}", image=image, classes=drawn, geometry=geometry)
            store_case(
                tmp_path / "sparse", case, made_from="", plan_digest="", ignore_class=labels.ignore_class,
                annotated=annotated,
            )  # fmt: skip
        cases = tuple(open_case(tmp_path / "sparse", f"s{number}") for number in range(10))
        return replace(task, plan=task.plan.model_copy(update={"labels": labels}), cases=cases)

    return make


def dice_after(task: TrainingTask, options: loop.RunOptions, folder: Path) -> list[float]:
    """Train, and score five scans that were not trained on: Dice of both balls."""
    torch.manual_seed(0)
    network = JointNetwork(SpadUNet([16, 16, 16], [1, 1, 1]), [SegmentationTask(1, 3, [16])])
    train_network(network, [task], folder, options, run={})
    member = network.tasks[0]
    assert isinstance(member, SegmentationTask)
    whole = SegmentationNetwork(network.backbone, member).eval()
    overlap, size = np.zeros(2), np.zeros(2)
    for seed in range(100, 105):
        image, classes = make_scan(seed)
        predicted = predict_logits(whole, torch.from_numpy(image), 0, PATCH, precision=torch.float32).argmax(0).numpy()
        for number in (1, 2):
            overlap[number - 1] += 2 * ((predicted == number) & (classes == number)).sum()
            size[number - 1] += (predicted == number).sum() + (classes == number).sum()
    return list(overlap / size)


@pytest.mark.slow
def test_scribbles_on_three_slices_teach_whole_organs(make_sparse_task, make_options, tmp_path: Path):
    task = make_sparse_task(IGNORING, lambda classes, number: (scribble(classes, number), ()))
    labelled = np.mean([(scribble(make_scan(number)[1], number) != 3).mean() for number in range(10)])
    assert labelled < 0.03
    options = make_options(max_steps=200, checkpoint_minutes=60.0, learning_rate=5e-3)
    assert min(dice_after(task, options, tmp_path / "run")) > 0.8


def test_patches_of_scribbles_hold_labelled_voxels_and_learn_from_these_alone(make_sparse_task):
    task = make_sparse_task(IGNORING, lambda classes, number: (scribble(classes, number), ()))
    stream = BatchStream([task], 0)
    for step in range(10):
        batch = stream[step]
        is_labelled = batch.classes != 3
        assert is_labelled.flatten(1).any(1).all()
        logits = torch.randn(2, 3, *PATCH, requires_grad=True)
        loop.deep_loss([logits], batch.classes, IGNORING).backward()
        assert logits.grad is not None
        gradient = logits.grad.movedim(1, -1)
        assert (gradient[~is_labelled] == 0).all()
        assert (gradient[is_labelled] != 0).any()


def known_alone(classes: np.ndarray, _: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """All of the volume is one class."""
    return np.ones_like(classes), ()


@pytest.mark.parametrize(
    ("patch", "variety"), [(PATCH, Variety()), ((20, 32, 32), Variety(slice_merging=1.0, spacing_jitter=1.0))]
)
def test_what_lies_beyond_the_volume_is_ignored(make_sparse_task, patch: tuple[int, int, int], variety: Variety):
    """Of patches that are larger than it, or turned, zoomed or respaced at its border."""
    for labels, outside in ((IGNORING, 3), (LABELS, 0)):
        task = make_sparse_task(labels, known_alone)
        plan = task.plan.model_copy(update={"patch_sizes_voxels": dict.fromkeys(range(7), patch)})
        stream = BatchStream([replace(task, plan=plan, variety=variety)], 0)
        seen = torch.cat([stream[step].classes.flatten() for step in range(6)])  # of merged slices, all that they merge
        assert set(seen.tolist()) == {1, outside}


def half_drawn(classes: np.ndarray, number: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """The bright ball in two of ten scans, the grey one in the others."""
    drawn = 1 if number % 5 == 0 else 2
    return np.where(classes == drawn, classes, 0).astype(np.uint8), (LABELS.names[drawn],)


@pytest.mark.slow
def test_cases_that_tell_of_one_organ_each_teach_both(make_sparse_task, make_options, tmp_path: Path, monkeypatch):
    task = make_sparse_task(LABELS, half_drawn)
    options = make_options(max_steps=150, checkpoint_minutes=60.0, learning_rate=5e-3)
    found = dice_after(task, options, tmp_path / "run")
    monkeypatch.setattr("spadunet.training.patches.known_outputs", lambda *_: None)  # background as it stands
    believed = dice_after(task, options, tmp_path / "believed")
    assert min(found) > 0.95
    assert min(believed) < 0.92


def test_patches_of_partly_labelled_cases_tell_what_was_annotated(make_sparse_task):
    task = make_sparse_task(LABELS, half_drawn)
    stream = BatchStream([task], 0)
    seen = set()
    for step in range(10):
        batch = stream[step]
        assert batch.known is not None
        for known, classes in zip(batch.known.tolist(), batch.classes, strict=True):
            assert known in ([True, True, False], [True, False, True])
            assert not (classes == known.index(False)).any()
            seen.add(tuple(known))
    assert len(seen) == 2
    for case in task.cases:  # what a patch may be centred on
        assert len(set(case.foreground_voxels()[:, 0].tolist())) == 1
    whole = make_sparse_task(LABELS, lambda classes, _: (classes, ()))
    assert BatchStream([whole], 0)[0].known is None
