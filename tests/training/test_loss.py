"""Dice plus cross-entropy, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from spadunet.training.loss import SMOOTH, deep_loss, make_loss


def test_loss_of_two_voxels_is_what_a_hand_works_out():
    # Two classes, two voxels, both with p(foreground) = 3/4; the first is foreground, the second background.
    logits = torch.zeros(1, 2, 1, 1, 2)
    logits[:, 1] = math.log(3)
    classes = torch.tensor([1, 0]).view(1, 1, 1, 2)
    cross_entropy = -(math.log(3 / 4) + math.log(1 / 4)) / 2
    dice = 1 - (2 * 3 / 4 + SMOOTH) / (1 + 3 / 2 + SMOOTH)  # intersection 3/4; one voxel, and p sums to 3/2
    assert deep_loss(make_loss(), [logits], classes).item() == pytest.approx(cross_entropy + dice, abs=1e-6)


def test_a_perfect_prediction_costs_nothing_even_without_foreground():
    for label in (0, 1):
        logits = torch.full((1, 2, 1, 2, 2), -50.0)
        logits[:, label] = 50
        classes = torch.full((1, 1, 2, 2), label)
        assert deep_loss(make_loss(), [logits], classes).item() == pytest.approx(0, abs=1e-5)


def test_dice_is_taken_over_the_batch_so_that_an_empty_patch_does_not_count_by_itself():
    logits = torch.zeros(2, 2, 1, 1, 1)  # p = 1/2 everywhere; one of two voxels is foreground
    classes = torch.tensor([1, 0]).view(2, 1, 1, 1)
    dice = 1 - (2 * 1 / 2 + SMOOTH) / (1 + 1 + SMOOTH)
    assert deep_loss(make_loss(), [logits], classes).item() == pytest.approx(math.log(2) + dice, abs=1e-6)


def test_a_coarse_level_weighs_half_and_is_compared_with_the_shares_of_the_voxels_it_covers():
    classes = torch.tensor([[1, 0, 1, 1], [0, 0, 1, 1]]).view(1, 1, 2, 4)  # one voxel in four, and four in four
    fine = torch.zeros(1, 2, 1, 2, 4)
    coarse = torch.zeros(1, 2, 1, 1, 2)  # p = 1/2 everywhere
    loss = make_loss()
    dice = 1 - (2 * (1 / 4 + 1) / 2 + SMOOTH) / (1 / 4 + 1 + 1 + SMOOTH)
    below = math.log(2) + dice
    alone = deep_loss(loss, [fine], classes).item()
    both = deep_loss(loss, [fine, coarse], classes).item()
    assert both == pytest.approx((alone + below / 2) / 1.5, rel=1e-6)


def test_depth_that_a_level_does_not_halve_stays_apart():
    classes = torch.tensor([0, 1]).view(1, 2, 1, 1).expand(1, 2, 4, 4)  # DA 1: one slice of each class
    coarse = torch.zeros(1, 2, 2, 2, 2)
    coarse[:, 0, 0], coarse[:, 1, 1] = 50, 50
    fine = functional.interpolate(coarse, size=(2, 4, 4))
    assert deep_loss(make_loss(), [fine, coarse], classes).item() == pytest.approx(0, abs=1e-5)


def test_levels_of_half_precision_are_compared_in_single():
    logits = torch.zeros(1, 2, 1, 2, 2, dtype=torch.bfloat16)
    assert deep_loss(make_loss(), [logits], torch.ones(1, 1, 2, 2, dtype=torch.int64)).dtype == torch.float32
