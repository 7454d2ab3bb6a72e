"""Dice plus cross-entropy, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from monai.losses.dice import DiceCELoss, DiceLoss
from torch import Tensor
from torch.nn import functional

from spadunet.labels import LabelSet, Region
from spadunet.training.loss import SMOOTH, deep_loss

TWO = LabelSet(names=("background", "organ"), ids=(0, 1))
FOUR = LabelSet(names=("background", "a", "b", "c"), ids=(0, 1, 2, 3))
REGIONS = FOUR.model_copy(
    update={"regions": (Region(name="all", ids=(1, 2, 3), painted_id=1), Region(name="c", ids=(3,), painted_id=3))}
)
SIZES = ((4, 8, 8), (2, 4, 4), (1, 2, 2))


def ignoring(labels: LabelSet) -> LabelSet:
    """The same with an ignore label, which becomes class 4."""
    return labels.model_copy(update={"ignore_id": 9})


def random_levels(num_outputs: int) -> tuple[list[Tensor], Tensor]:
    """Logits of three levels, and classes 0 to 3 of the finest."""
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(2, num_outputs, *size, generator=generator) * 3 for size in SIZES]
    return logits, torch.randint(4, (2, *SIZES[0]), generator=generator)


def shares_at(target: Tensor, level: Tensor) -> Tensor:
    """(B, K, D, H, W) averaged to the size of a level."""
    return functional.adaptive_avg_pool3d(target, level.shape[2:])


def test_loss_of_two_voxels_is_what_a_hand_works_out():
    # Two classes, two voxels, both with p(foreground) = 3/4; the first is foreground, the second background.
    logits = torch.zeros(1, 2, 1, 1, 2)
    logits[:, 1] = math.log(3)
    classes = torch.tensor([1, 0]).view(1, 1, 1, 2)
    cross_entropy = -(math.log(3 / 4) + math.log(1 / 4)) / 2
    dice = 1 - (2 * 3 / 4 + SMOOTH) / (1 + 3 / 2 + SMOOTH)  # intersection 3/4; one voxel, and p sums to 3/2
    assert deep_loss([logits], classes, TWO).item() == pytest.approx(cross_entropy + dice, abs=1e-6)


def test_a_perfect_prediction_costs_nothing_even_without_foreground():
    for label in (0, 1):
        logits = torch.full((1, 2, 1, 2, 2), -50.0)
        logits[:, label] = 50
        classes = torch.full((1, 1, 2, 2), label)
        assert deep_loss([logits], classes, TWO).item() == pytest.approx(0, abs=1e-5)


def test_dice_is_taken_over_the_batch_so_that_an_empty_patch_does_not_count_by_itself():
    logits = torch.zeros(2, 2, 1, 1, 1)  # p = 1/2 everywhere; one of two voxels is foreground
    classes = torch.tensor([1, 0]).view(2, 1, 1, 1)
    dice = 1 - (2 * 1 / 2 + SMOOTH) / (1 + 1 + SMOOTH)
    assert deep_loss([logits], classes, TWO).item() == pytest.approx(math.log(2) + dice, abs=1e-6)


def test_a_coarse_level_weighs_half_and_is_compared_with_the_shares_of_the_voxels_it_covers():
    classes = torch.tensor([[1, 0, 1, 1], [0, 0, 1, 1]]).view(1, 1, 2, 4)  # one voxel in four, and four in four
    fine = torch.zeros(1, 2, 1, 2, 4)
    coarse = torch.zeros(1, 2, 1, 1, 2)  # p = 1/2 everywhere
    dice = 1 - (2 * (1 / 4 + 1) / 2 + SMOOTH) / (1 / 4 + 1 + 1 + SMOOTH)
    below = math.log(2) + dice
    alone = deep_loss([fine], classes, TWO).item()
    both = deep_loss([fine, coarse], classes, TWO).item()
    assert both == pytest.approx((alone + below / 2) / 1.5, rel=1e-6)


def test_depth_that_a_level_does_not_halve_stays_apart():
    classes = torch.tensor([0, 1]).view(1, 2, 1, 1).expand(1, 2, 4, 4)  # DA 1: one slice of each class
    coarse = torch.zeros(1, 2, 2, 2, 2)
    coarse[:, 0, 0], coarse[:, 1, 1] = 50, 50
    fine = functional.interpolate(coarse, size=(2, 4, 4))
    assert deep_loss([fine, coarse], classes, TWO).item() == pytest.approx(0, abs=1e-5)


def test_levels_of_half_precision_are_compared_in_single():
    logits = torch.zeros(1, 2, 1, 2, 2, dtype=torch.bfloat16)
    assert deep_loss([logits], torch.ones(1, 1, 2, 2, dtype=torch.int64), TWO).dtype == torch.float32


def test_loss_of_classes_is_monais():
    logits, classes = random_levels(4)
    loss = DiceCELoss(include_background=False, softmax=True, batch=True, smooth_nr=SMOOTH, smooth_dr=SMOOTH)
    shares = functional.one_hot(classes, 4).movedim(-1, 1).float()
    levels = [loss(level, shares_at(shares, level)) for level in logits]
    expected = (4 * levels[0] + 2 * levels[1] + levels[2]) / 7
    assert deep_loss(logits, classes, FOUR).item() == pytest.approx(expected.item(), rel=1e-6)


def test_loss_of_regions_is_monais_dice_and_binary_cross_entropy_of_their_members():
    logits, classes = random_levels(2)
    dice = DiceLoss(sigmoid=True, batch=True, smooth_nr=SMOOTH, smooth_dr=SMOOTH)
    members = torch.stack([classes > 0, classes == 3], dim=1).float()
    levels = [
        dice(level, shares_at(members, level))
        + functional.binary_cross_entropy_with_logits(level, shares_at(members, level))
        for level in logits
    ]
    expected = (4 * levels[0] + 2 * levels[1] + levels[2]) / 7
    assert deep_loss(logits, classes, REGIONS).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("labels", [FOUR, REGIONS], ids=["classes", "regions"])
def test_an_ignore_label_that_no_voxel_has_changes_nothing(labels: LabelSet):
    logits, classes = random_levels(labels.num_outputs)
    expected = deep_loss(logits, classes, labels).item()
    assert deep_loss(logits, classes, ignoring(labels)).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("labels", [FOUR, REGIONS], ids=["classes", "regions"])
def test_loss_with_ignored_voxels_is_that_of_the_labelled_voxels_alone(labels: LabelSet):
    logits, classes = random_levels(labels.num_outputs)
    partly = classes.clone()
    partly[..., 4:] = 4  # the right half, so that a coarse voxel is wholly labelled or wholly ignored
    halves = [level[..., : level.shape[-1] // 2] for level in logits]
    expected = deep_loss(halves, classes[..., :4], labels).item()
    assert deep_loss(logits, partly, ignoring(labels)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("labels", [FOUR, REGIONS], ids=["classes", "regions"])
def test_a_coarse_voxel_counts_by_the_share_of_it_that_is_labelled(labels: LabelSet):
    # The coarse level has two voxels. The first covers four labelled ones, the second one labelled and three ignored.
    # So it counts as if the first were there four times and the second once, and each fine voxel of its own class.
    classes = torch.tensor([[1, 0, 3, 4], [3, 3, 4, 4]]).view(1, 1, 2, 4)
    coarse = torch.randn(1, labels.num_outputs, 1, 1, 2, generator=torch.Generator().manual_seed(1))
    fine = torch.zeros(1, labels.num_outputs, 1, 2, 4)
    repeated = coarse[..., [0, 0, 0, 0, 1]]
    alone = deep_loss([fine], classes, ignoring(labels)).item()
    below = deep_loss([repeated], torch.tensor([1, 0, 3, 3, 3]).view(1, 1, 1, 5), labels).item()
    both = deep_loss([fine, coarse], classes, ignoring(labels)).item()
    assert both == pytest.approx((alone + below / 2) / 1.5, rel=1e-4)  # SMOOTH weighs a little more on fewer voxels


@pytest.mark.parametrize("labels", [FOUR, REGIONS], ids=["classes", "regions"])
def test_ignored_voxels_teach_nothing_and_a_patch_of_them_costs_nothing(labels: LabelSet):
    logits, classes = random_levels(labels.num_outputs)
    classes[..., :4] = 4
    finest = logits[0].requires_grad_()
    deep_loss([finest], classes, ignoring(labels)).backward()
    assert finest.grad is not None
    assert (finest.grad[..., :4] == 0).all()
    assert (finest.grad[..., 4:] != 0).any()
    levels = [level.detach().requires_grad_() for level in logits]
    loss = deep_loss(levels, torch.full_like(classes, 4), ignoring(labels))
    loss.backward()
    assert loss.item() == 0
    assert all(level.grad is not None and (level.grad == 0).all() for level in levels)


@pytest.mark.parametrize("kind", ["classes", "regions", "ignored"])
def test_the_mean_of_the_losses_of_processes_that_share_a_batch_is_the_loss_of_the_whole(kind: str):
    """Each adds up what the other has summed; half the patches would have another Dice."""
    parts = {
        "classes": {},
        "regions": {"regions": (Region(name="r", ids=(1, 2), painted_id=1), Region(name="s", ids=(2,), painted_id=2))},
        "ignored": {"ignore_id": 9},
    }
    labels = LabelSet(names=("background", "a", "b"), ids=(0, 1, 2), **parts[kind])
    generator = torch.Generator().manual_seed(0)
    logits = [
        torch.randn(4, labels.num_outputs, *size, generator=generator, dtype=torch.float64)
        for size in ((4, 8, 8), (2, 4, 4))
    ]
    classes = torch.randint(len(labels.known_ids), (4, 4, 8, 8), generator=generator)
    halves = [([level[half] for level in logits], classes[half], labels) for half in (slice(0, 2), slice(2, 4))]
    sums: list[list[torch.Tensor]] = [[], []]
    for half, noted in zip(halves, sums, strict=True):
        deep_loss(*half, lambda tensor, noted=noted: noted.append(tensor) or tensor)
    together = [
        deep_loss(*half, lambda tensor, of_other=of_other: tensor + of_other.pop(0))
        for half, of_other in zip(halves, reversed(sums), strict=True)
    ]
    whole = float(deep_loss(logits, classes, labels))
    assert float(sum(together)) / 2 == pytest.approx(whole, abs=1e-7)
    assert abs(float(sum(deep_loss(*half) for half in halves)) / 2 - whole) > 1e-4
