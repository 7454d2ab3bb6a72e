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


@pytest.mark.parametrize("labels", [FOUR, REGIONS, ignoring(FOUR), ignoring(REGIONS)])
def test_the_best_answer_for_a_merged_slice_is_the_share_of_each_class_in_its_slices(labels: LabelSet):
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(4 if labels.ignore_class is None else 5, (2, 6, 8, 8), generator=generator)
    classes[:, ::3] %= 4  # at least one of three is labelled
    slices = classes.unflatten(1, (2, 3))
    told = torch.from_numpy(labels.targets())[slices].movedim(-1, 1)  # (B, K, D, k, H, W); of an ignored voxel 0
    shares = told.sum(3) / (slices < 4).sum(2)[:, None]
    best = (shares.logit(1e-6) if labels.regions else shares.clamp_min(1e-6).log()).requires_grad_()
    loss = deep_loss([best], classes, labels, num_merged=3)
    loss.backward()
    assert best.grad is not None
    for other in (0.8 * best.detach(), 1.25 * best.detach(), best.detach().roll(1, 1)):
        assert deep_loss([other], classes, labels, num_merged=3) > loss + 0.01
    if labels is FOUR:  # the Dice is whole, and what is left is the entropy of the shares
        assert loss.item() == pytest.approx(torch.special.entr(shares).sum(1).mean().item(), abs=1e-4)


def test_a_stroke_on_one_of_three_merged_slices_teaches_its_class_alone():
    labels = ignoring(FOUR)
    classes = torch.full((1, 6, 4, 4), 4)
    classes[:, 4, 1] = 2
    logits = torch.zeros(1, 4, 2, 4, 4, requires_grad=True)
    deep_loss([logits], classes, labels, num_merged=3).backward()
    assert logits.grad is not None
    assert (logits.grad[0, 2, 1, 1] < 0).all()
    elsewhere = logits.grad.clone()
    elsewhere[:, :, 1, 1] = 0
    assert not elsewhere.any()


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


# --- classes that were annotated in some patches only

SOME = torch.tensor([[True, True, False, True], [True, True, True, True]])
"""In the first patch, b was not annotated."""


def merged(level: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and classes of three outputs: b is background, and background's probability is the sum of both."""
    background = torch.logaddexp(level[:, 0], level[:, 2])
    return torch.stack([background, level[:, 1], level[:, 3]], dim=1), torch.tensor([0, 1, 0, 2])[classes]


def test_a_class_that_no_patch_tells_of_is_one_with_background():
    logits, classes = random_levels(4)
    known = SOME[:1].expand(2, 4)
    three = FOUR.model_copy(update={"names": ("background", "a", "c"), "ids": (0, 1, 3)})
    expected = deep_loss([merged(level, classes)[0] for level in logits], merged(logits[0], classes)[1], three)
    assert deep_loss(logits, classes, FOUR, known=known).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_batch_of_both_kinds_by_hand():
    logits, classes = random_levels(4)
    logs = logits[0].log_softmax(1)
    # The first patch: of a and c alone, all else is background. The second: as ever.
    together = torch.logaddexp(logs[0, 0], logs[0, 2])
    first = torch.stack([together, logs[0, 1], together, logs[0, 3]]).gather(0, classes[0][None])
    entropy = -torch.cat([first, logs[1].gather(0, classes[1][None])]).mean()
    shares = functional.one_hot(classes, 4).movedim(-1, 1).float()
    dice = []
    for number in (1, 2, 3):
        patches = slice(1, 2) if number == 2 else slice(0, 2)
        p, t = logs.exp()[patches, number], shares[patches, number]
        dice.append((2 * (p * t).sum() + SMOOTH) / (p.sum() + t.sum() + SMOOTH))
    expected = entropy + 1 - sum(dice) / 3
    assert deep_loss(logits[:1], classes, FOUR, known=SOME).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("ignores", [False, True])
def test_background_never_speaks_against_a_class_that_was_not_annotated(ignores: bool):
    logits, _ = random_levels(4)
    classes = torch.zeros(2, *SIZES[0], dtype=torch.int64)
    classes[:, :, :4] = 1
    if ignores:
        classes[:, :, 6:] = 4
    levels = [level.requires_grad_() for level in logits]
    deep_loss(levels, classes, ignoring(FOUR) if ignores else FOUR, known=SOME).backward()
    for level in levels:
        assert level.grad is not None
        partly, fully = level.grad[:, 2, :, level.shape[3] // 2 :]  # where background is
        assert (partly <= 0).all()  # pushed up if anything, for what stands in for background takes part in it
        assert (partly < 0).any()
        assert (fully > 0).any()
    if ignores:
        assert (levels[0].grad[:, :, :, 6:] == 0).all()


def test_a_region_that_was_not_annotated_gets_no_gradient():
    logits, classes = random_levels(2)
    known = torch.tensor([[True, False], [True, True]])
    finest = logits[0].requires_grad_()
    loss = deep_loss([finest], classes, REGIONS, known=known)
    loss.backward()
    assert finest.grad is not None
    assert (finest.grad[0, 1] == 0).all()
    assert (finest.grad[0, 0] != 0).any()
    assert (finest.grad[1] != 0).any()
    # By hand: "all" in both patches, "c" in the second, in the entropy by its voxels and in the mean of the Dice.
    pairs = [(finest[:, 0], classes > 0), (finest[1:, 1], classes[1:] == 3)]
    sums = [functional.binary_cross_entropy_with_logits(z, t.float(), reduction="sum") for z, t in pairs]
    dice = [(2 * (z.sigmoid() * t).sum() + SMOOTH) / (z.sigmoid().sum() + t.sum() + SMOOTH) for z, t in pairs]
    expected = sum(sums) / sum(z.numel() for z, _ in pairs) + 1 - sum(dice) / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("labels", [FOUR, REGIONS, ignoring(FOUR), ignoring(REGIONS)])
def test_where_all_is_known_or_weighs_alike_the_loss_is_the_usual_one(labels: LabelSet):
    logits, classes = random_levels(labels.num_outputs)
    if labels.ignore_class is not None:
        classes[..., :3] = 4
    expected = deep_loss(logits, classes, labels).item()
    known = torch.ones(2, labels.num_outputs, dtype=torch.bool)
    assert deep_loss(logits, classes, labels, known=known).item() == pytest.approx(expected, rel=1e-5)
    even = (2.5,) * labels.num_outputs
    assert deep_loss(logits, classes, labels, class_weights=even).item() == pytest.approx(expected, rel=1e-5)


# --- weights of classes


def test_weights_of_classes_count_in_the_cross_entropy_and_in_the_mean_of_the_dice():
    logits, classes = random_levels(4)
    weights = (0.5, 1.0, 4.0, 2.0)
    shares = functional.one_hot(classes, 4).movedim(-1, 1).float()
    entropy = functional.cross_entropy(logits[0], classes, weight=torch.tensor(weights))
    p, axes = logits[0].softmax(1), (0, 2, 3, 4)
    dice = (2 * (p * shares).sum(axes) + SMOOTH) / (p.sum(axes) + shares.sum(axes) + SMOOTH)
    expected = entropy + ((1 - dice[1:]) * torch.tensor(weights[1:])).sum() / sum(weights[1:])
    found = deep_loss(logits[:1], classes, FOUR, class_weights=weights)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_weights_of_regions_count_in_both_terms():
    logits, classes = random_levels(2)
    weights = torch.tensor([1.0, 3.0])
    members = torch.stack([classes > 0, classes == 3], dim=1).float()
    axes = (0, 2, 3, 4)
    entropy = functional.binary_cross_entropy_with_logits(logits[0], members, reduction="none").mean(axes)
    p = logits[0].sigmoid()
    dice = (2 * (p * members).sum(axes) + SMOOTH) / (p.sum(axes) + members.sum(axes) + SMOOTH)
    expected = ((entropy + 1 - dice) * weights).sum() / weights.sum()
    found = deep_loss(logits[:1], classes, REGIONS, class_weights=(1.0, 3.0))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("labels", [FOUR, REGIONS, ignoring(FOUR), ignoring(REGIONS)])
def test_the_loss_of_a_batch_that_two_processes_share_is_the_mean_of_theirs(labels: LabelSet):
    logits, classes = random_levels(labels.num_outputs)
    if labels.ignore_class is not None:
        classes[0, ..., :3] = 4
    known = torch.ones(2, labels.num_outputs, dtype=torch.bool)
    known[0, 1] = False
    options: dict[str, object] = {"class_weights": tuple(range(1, labels.num_outputs + 1))}
    whole = deep_loss(logits, classes, labels, known=known, **options)
    # Each process asks for the same sums in the same order; the other's are those of its own first pass.
    asked: list[list[Tensor]] = [[], []]
    for rank in (0, 1):
        part = slice(rank, rank + 1)
        note = lambda it, rank=rank: asked[rank].append(it) or it  # noqa: E731
        deep_loss([level[part] for level in logits], classes[part], labels, note, known=known[part], **options)
    losses = []
    for rank in (0, 1):
        part, others = slice(rank, rank + 1), iter(asked[1 - rank])
        add = lambda it, others=others: it + next(others)  # noqa: E731
        losses.append(
            deep_loss([level[part] for level in logits], classes[part], labels, add, known=known[part], **options)
        )
    assert sum(losses).item() / 2 == pytest.approx(whole.item(), rel=1e-5)
