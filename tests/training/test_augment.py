"""Augmentation: shapes, ranges, and nothing but the generator decides."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor

from spadunet.labels import LabelSet
from spadunet.preprocessing.mirror import MirrorAxis
from spadunet.training.augment import MARGIN, augment, margin, mirror, transforms
from spadunet.training.patch_recipes import PATCH_RECIPES

SIZES = [((8, 16, 16), 0), ((4, 16, 16), 2), ((1, 16, 16), 6), ((2, 8, 8), 3), ((5, 7, 9), 0)]


def larger_patch(size, da: int, *, num_channels: int = 1) -> tuple[Tensor, Tensor]:
    """What `augment` is given: the patch and its margin, noise, with labels 0, 1 and 4."""
    generator = torch.Generator().manual_seed(0)
    shape = tuple(s + 2 * m for s, m in zip(size, margin(size, da), strict=True))
    image = torch.rand(num_channels, *shape, generator=generator) * 2 - 1
    return image, torch.tensor([0, 1, 4])[torch.randint(3, shape, generator=generator)]


def test_margin_is_a_share_of_the_patch_and_none_along_thick_slices():
    # 0.3 · 40 = 12, 0.3 · 56 = 16.8, 0.3 · 1 = 0.3
    assert MARGIN == 0.3
    assert margin((40, 56, 1), 0) == (12, 17, 0)
    assert margin((40, 56, 1), 1) == (0, 17, 0)


@pytest.mark.parametrize(("size", "da"), SIZES)
@pytest.mark.parametrize("num_channels", [1, 3])
def test_patch_has_its_size_range_and_no_new_label(size, da, num_channels):
    generator = np.random.default_rng(0)
    for _ in range(40):  # each transform by chance, the rarest one time in ten
        image, classes = augment(*larger_patch(size, da, num_channels=num_channels), da, size, generator)
        assert image.shape == (num_channels, *size)
        assert image.dtype == torch.float32
        assert image.isfinite().all()
        assert image.min() >= -1
        assert image.max() <= 1
        assert classes.shape == size
        assert classes.dtype == torch.int64
        assert set(classes.unique().tolist()) <= {0, 1, 4}


def test_the_same_generator_gives_the_same_patch_and_the_next_draw_another():
    size = (8, 16, 16)
    results = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)
        generator = np.random.default_rng(7)
        results.append([augment(*larger_patch(size, 0), 0, size, generator) for _ in range(8)])
    for (image, classes), (other_image, other_classes) in zip(*results, strict=True):
        assert torch.equal(image, other_image)
        assert torch.equal(classes, other_classes)
    assert len({image.sum().item() for image, _ in results[0]}) > 1


def test_global_generators_are_left_as_they_were():
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    augment(*larger_patch((8, 16, 16), 0), 0, (8, 16, 16), np.random.default_rng(0))
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert torch.equal(torch.get_rng_state(), before[2])


def slabs(da: int) -> tuple[Tensor, Tensor]:
    """Eight slices, each of one value and one label: its number."""
    size = (8, 16, 16)
    depth, height, width = (s + 2 * m for s, m in zip(size, margin(size, da), strict=True))
    number = torch.arange(depth).view(depth, 1, 1).expand(depth, height, width).clone()
    return (number / depth)[None], number


def test_thick_slices_stay_what_they_are_since_nothing_is_turned_out_of_plane():
    generator = np.random.default_rng(0)
    for _ in range(30):
        _, classes = augment(*slabs(2), 2, (8, 16, 16), generator)
        assert torch.equal(classes, torch.arange(8).view(8, 1, 1).expand(8, 16, 16))


def test_thick_slices_keep_their_intensities_through_rotation_and_scaling():
    spatial = transforms((8, 16, 16), True).transforms[0]
    image, classes = slabs(2)
    for _ in range(20):
        turned = spatial(image=image, segmentation=classes[None].to(torch.int16))["image"]
        assert torch.allclose(turned[0], image[0, :, :16, :16], atol=1e-5)


def test_thick_slices_are_blurred_in_plane_only():
    blur = transforms((8, 16, 16), True).transforms[2].transform
    image, _ = slabs(2)
    assert torch.allclose(blur(image=image.clone())["image"], image, atol=1e-6)
    image[:, :, 8:] = 1
    assert not torch.allclose(blur(image=image.clone())["image"], image, atol=1e-2)


def test_thin_slices_are_turned_out_of_plane_now_and_then():
    generator = np.random.default_rng(0)
    mixed = 0
    for _ in range(30):
        _, classes = augment(*slabs(0), 0, (8, 16, 16), generator)
        mixed += any(len(piece.unique()) > 1 for piece in classes)
    assert mixed >= 5


def test_thick_slices_are_turned_and_scaled_in_plane():
    image, _ = larger_patch((2, 16, 16), 3)
    classes = torch.zeros(image.shape[1:], dtype=torch.int64)
    classes[:, :, : image.shape[3] // 2] = 1
    generator = np.random.default_rng(0)
    edge = margin((2, 16, 16), 3)[1]
    halves = classes[:, edge:-edge, edge:-edge]
    turned = sum(not torch.equal(augment(image, classes, 3, (2, 16, 16), generator)[1], halves) for _ in range(30))
    assert turned >= 10


def test_labels_follow_the_image():
    # A bright cube on dark ground, labelled: after any turn the label covers what is bright.
    size, da = (12, 16, 16), 0
    shape = tuple(s + 2 * m for s, m in zip(size, margin(size, da), strict=True))
    classes = torch.zeros(shape, dtype=torch.int64)
    classes[4:12, 6:16, 6:16] = 1
    image = classes[None].float() * 2 - 1
    spatial = transforms(size, False).transforms[0]
    torch.manual_seed(0)
    np.random.seed(0)
    for _ in range(10):
        result = spatial(image=image, segmentation=classes[None].to(torch.int16))
        bright, label = result["image"][0] > 0, result["segmentation"][0] == 1
        assert (bright == label).float().mean() > 0.97  # all but the rounding at the cube's faces


def test_a_factor_of_brightness_leaves_air_black(monkeypatch: pytest.MonkeyPatch):
    size = (4, 4, 4)
    brightness = transforms(size, False).transforms[3].transform
    monkeypatch.setattr("spadunet.training.augment.transforms", lambda *_: brightness)
    image, classes = -torch.ones(1, *size), torch.zeros(size, dtype=torch.int64)
    image[0, 0] = 0.0
    changed, _ = augment(image, classes, 0, size, np.random.default_rng(0))
    assert (changed[0, 1:] == -1).all()
    assert (changed[0, 0] != 0).all()


def test_a_mirrored_patch_has_its_sides_swapped_and_ignored_voxels_ignored():
    labels = LabelSet(names=("background", "left kidney", "right kidney"), ids=(0, 1, 2), ignore_id=9)
    mirrored = labels.mirrored("left-right")
    assert mirrored is not None
    axis = MirrorAxis(array_axis=2, labels=mirrored)
    image, classes = torch.arange(4.0).expand(1, 1, 1, 4), torch.tensor([[[1, 0, 2, 3]]])
    generator = np.random.default_rng(0)
    results = [mirror(image, classes, [axis], generator) for _ in range(200)]
    turned = [(seen.flatten().tolist(), found.flatten().tolist()) for seen, found in results]
    as_it_was, in_mirror = ([0, 1, 2, 3], [1, 0, 2, 3]), ([3, 2, 1, 0], [3, 1, 0, 2])
    assert all(pair in (as_it_was, in_mirror) for pair in turned)
    assert abs(turned.count(in_mirror) - 100) < 4 * (200 / 4) ** 0.5
    assert mirror(image, classes, [], generator) == (image, classes)


@pytest.mark.parametrize(("name", "largest"), [("paper-btcv", 1.4), ("paper-chaos", 1.1)])
@pytest.mark.parametrize("is_thick", [False, True])
def test_the_papers_patches_are_turned_about_depth_by_up_to_90_degrees_and_scaled_along_all_axes(
    name, largest, is_thick
):
    spatial = transforms((8, 16, 16), is_thick, PATCH_RECIPES[name]).transforms[0]
    np.random.seed(0)
    image = torch.zeros(1, 8, 16, 16)
    drawn = [spatial.get_parameters(image=image)["affine"] for _ in range(1500)]
    changed = np.array([affine for affine in drawn if affine is not None])
    # 1 - 0.8 · 0.8 = 0.36 of the patches, with a standard deviation of sqrt(0.36 · 0.64 / 1500) = 0.012.
    assert abs(len(changed) / len(drawn) - 0.36) < 4 * 0.0125
    scales = np.linalg.norm(changed, axis=1)  # of each axis
    assert np.allclose(scales, scales[:, :1])
    assert 0.7 <= scales.min() < 0.72
    assert largest - 0.02 < scales.max() <= largest + 1e-9
    assert np.allclose(changed[:, 0, 1:], 0)
    assert np.allclose(changed[:, 1:, 0], 0)
    angles = np.rad2deg(np.arctan2(changed[:, 2, 1], changed[:, 1, 1]))
    assert 80 < np.abs(angles).max() <= 90


@pytest.mark.parametrize("name", ["paper-btcv", "paper-chaos"])
def test_the_papers_patches_meet_each_change_of_intensity_as_often_as_published(name):
    _, *intensities = transforms((8, 16, 16), True, PATCH_RECIPES[name]).transforms
    assert [it.apply_probability for it in intensities] == pytest.approx([0.1, 0.1, 0.15, 0.15, 0.15, 4 / 13])
    low_resolution = intensities[4].transform
    image = torch.rand(1, 8, 16, 16)
    slices = torch.arange(8.0).view(1, 8, 1, 1).expand(1, 8, 16, 16).clone()
    assert not torch.equal(low_resolution(image=image.clone())["image"], image)
    assert torch.equal(low_resolution(image=slices.clone())["image"], slices)  # in plane only


def test_the_papers_patches_read_a_margin_along_depth_too_where_slices_are_thick():
    recipe = PATCH_RECIPES["paper-btcv"]
    assert margin((48, 192, 192), 2, recipe) == (14, 58, 58)
    image = torch.rand(1, 76, 40, 40)
    patch, classes = augment(
        image, torch.zeros(76, 40, 40, dtype=torch.int64), 2, (48, 24, 24), np.random.default_rng(0), recipe
    )
    assert patch.shape == (1, 48, 24, 24)
    assert classes.shape == (48, 24, 24)
