"""One crop: where it lies, how it is read, and what its values become."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from small_corpus import make_corpus, noise

from spadunet.pretraining import crops
from spadunet.pretraining.corpus import Corpus, CorpusImage
from spadunet.pretraining.crops import (
    Intensities,
    Placement,
    change_intensities,
    draw_intensities,
    place_crop,
    read_crop,
    rotation,
)
from spadunet.spacing import Shape, Spacing

SHAPE = (30, 40, 50)
STEPS = np.array([3.0, 2.0, 1.0]) / 512
UNSCALED = (1.0, 1.0, 1.0)


def ramp() -> np.ndarray:
    """(1, *SHAPE): a plane through all voxels, whose values float16 holds exactly."""
    return (np.tensordot(STEPS, np.indices(SHAPE), 1)[None] - 0.25).astype(np.float32)


def ramp_at(voxel: Sequence[float]) -> float:
    """The ramp at any place in stored voxels."""
    return float(np.dot(STEPS, voxel)) - 0.25


def corpus_of(folder: Path, array: np.ndarray, spacing_mm: Spacing = (1, 1, 1)) -> tuple[Corpus, CorpusImage]:
    corpus = make_corpus(folder, {"a": (array, spacing_mm)})
    return corpus, corpus.training[0]


def placed(
    size: Shape, centre: Sequence[float], matrix: object = None, flips: tuple[bool, bool, bool] = (False, False, False)
) -> Placement:
    return Placement(
        size=size,
        centre=np.array(centre, float),
        matrix=np.eye(3) if matrix is None else np.array(matrix, float),
        flips=flips,
    )


def entry(shape: Shape, spacing_mm: Spacing = (1, 1, 1)) -> CorpusImage:
    facts = {"key": "a", "source": "a", "dataset": "A", "modality": "CT", "num_channels": 1, "weight": 1}
    return CorpusImage.model_validate({**facts, "shape": shape, "spacing_mm": spacing_mm})


def placements(image: CorpusImage, size: Shape, scales: tuple[float, float, float] = UNSCALED, number: int = 400):
    generator = np.random.default_rng(1)
    return [place_crop(image, size, scales, generator) for _ in range(number)]


def test_what_is_not_resampled_is_the_stored_voxels_to_the_last_bit(tmp_path):
    array = noise(3, 12, 20, 24)
    corpus, image = corpus_of(tmp_path, array)
    for flips in itertools.product((False, True), repeat=3):
        crop = read_crop(corpus, image, placed((4, 8, 6), (5.5, 10.5, 12.5), flips=flips), 96)
        stored = array[:, 4:8, 7:15, 10:16]
        expected = np.flip(stored, [axis for axis, is_flipped in enumerate(flips, 1) if is_flipped])
        np.testing.assert_array_equal(crop, expected)


@pytest.mark.parametrize(
    "matrix",
    [
        np.diag([1.0, 1.25, 1.25]),
        np.diag([0.8, 1.5, 1.5]),
        rotation(0.4, 0, 0),
        rotation(0.4, 0, 0) @ np.diag([1.1, 0.75, 0.75]),
        rotation(-1.2, 0.3, -0.4) @ np.diag([0.9, 0.8, 0.8]),
    ],
    ids=["zoom-out", "zoom", "turn", "turn and zoom", "tilt and zoom"],
)
def test_a_ramp_stays_the_ramp_wherever_its_voxels_come_from(tmp_path, matrix):
    corpus, image = corpus_of(tmp_path, ramp())
    size, centre = (6, 10, 12), np.array([14.25, 19.5, 24.75])
    crop = read_crop(corpus, image, placed(size, centre, matrix), 96)
    for voxel in itertools.product(*map(range, size)):
        place = centre + matrix @ (np.array(voxel) - (np.array(size) - 1) / 2)
        assert float(crop[0][voxel]) == pytest.approx(ramp_at(place), abs=1e-5)


def test_a_tilt_of_nothing_gives_what_the_way_without_tilt_gives(tmp_path):
    """The 3D way and the way through plane and depth, at the borders too."""
    corpus, image = corpus_of(tmp_path, noise(1, 20, 30, 30))
    matrix = rotation(0.7, 0, 0) @ np.diag([1.2, 1.1, 1.1])
    tilted = matrix + np.array([[0, 1e-12, 0], [0, 0, 0], [0, 0, 0]])
    size, centre = (24, 32, 16), (9.3, 14.2, 15.8)
    expected = read_crop(corpus, image, placed(size, centre, tilted), 96)
    torch.testing.assert_close(read_crop(corpus, image, placed(size, centre, matrix), 96), expected, atol=2e-5, rtol=0)


def test_rotation_is_in_millimetres(tmp_path, monkeypatch):
    """Turned by a quarter, a step of 1 mm along the crop's height is half a voxel of 2 mm of the image's width."""
    corpus, image = corpus_of(tmp_path, ramp(), (4, 1, 2))
    monkeypatch.setattr(crops, "ROTATION_SHARE", 1)
    monkeypatch.setattr(crops, "FLIP_SHARE", 0)
    quarter = np.random.default_rng(0)
    monkeypatch.setattr(crops, "rotation", lambda turn, first, second: rotation(math.pi / 2, first, second))
    placement = place_crop(image, (2, 5, 5), UNSCALED, quarter)
    np.testing.assert_allclose(placement.matrix, [[1, 0, 0], [0, 0, -2], [0, 0.5, 0]], atol=1e-12)
    crop = read_crop(corpus, image, placement, 96)[0]
    np.testing.assert_allclose(crop[:, 1:] - crop[:, :-1], STEPS[2] / 2, atol=1e-5)
    np.testing.assert_allclose(crop[:, :, 1:] - crop[:, :, :-1], -2 * STEPS[1], atol=1e-5)
    np.testing.assert_allclose(crop[1] - crop[0], STEPS[0], atol=1e-5)


def test_a_tilt_of_voxels_that_are_no_cubes_keeps_right_angles_in_millimetres(monkeypatch):
    image = entry((60, 60, 60), (1.4, 1, 1))
    monkeypatch.setattr(crops, "ROTATION_SHARE", 1)
    for placement in placements(image, (8, 8, 8), number=20):
        turned = np.diag(image.spacing_mm) @ placement.matrix @ np.diag(1 / np.array(image.spacing_mm))
        np.testing.assert_allclose(turned @ turned.T, np.eye(3), atol=1e-12)
        assert turned[0, 1] != 0


def test_outside_is_minus_one_and_the_image_lies_in_the_middle(tmp_path):
    corpus, image = corpus_of(tmp_path, np.full((1, 4, 4, 4), 0.5))
    for matrix in (None, rotation(0.3, 0, 0), rotation(0.3, 0.1, 0.1)):
        crop = read_crop(corpus, image, placed((8, 16, 16), (1.5, 1.5, 1.5), matrix), 96)[0]
        assert (crop[0] == -1).all() and (crop[-1] == -1).all()
        assert (crop[:, :4] == -1).all() and (crop[:, :, -4:] == -1).all()
        np.testing.assert_allclose(crop[3:5, 7:9, 7:9], 0.5, atol=1e-6)


def test_a_crop_lies_inside_the_image_as_far_as_it_fits():
    firsts = []
    for placement in placements(entry((20, 6, 40)), (8, 8, 8)):
        first = placement.centre - 3.5
        assert 0 <= first[0] <= 12 and 0 <= first[2] <= 32
        assert first[1] == -1  # in the middle
        firsts.append(first)
    assert {first[0] for first in firsts} == set(range(13))  # every place
    assert {first[2] for first in firsts} >= {0, 32}


def test_a_crop_that_sees_more_lies_inside_with_all_that_it_sees():
    for placement in placements(entry((20, 80, 80)), (8, 32, 32), (1.25, 2.0, 2.0)):
        reach = 31.0
        assert (placement.centre[1:] - reach >= 0).all() and (placement.centre[1:] + reach <= 79).all()


def test_how_often_crops_are_turned_tilted_and_flipped():
    many = placements(entry((60, 60, 60)), (8, 8, 8), number=3000)
    resampled = [placement for placement in many if placement.is_resampled]
    assert len(resampled) / len(many) == pytest.approx(0.3, abs=0.03)
    assert all(placement.matrix[0, 1:].any() for placement in resampled)
    for axis in range(3):
        assert np.mean([placement.flips[axis] for placement in many]) == pytest.approx(0.5, abs=0.04)
    # The tilts and the turn reach their limits and not beyond: a voxel along depth leaves its axis by 30° + 30°.
    lowest = min(placement.matrix[0, 0] for placement in resampled)
    assert math.cos(math.pi / 6) ** 2 <= lowest < 0.8


@pytest.mark.parametrize(
    ("image", "size"),
    [
        (entry((60, 60, 60), (1.6, 1, 1)), (8, 8, 8)),
        (entry((1, 60, 60)), (1, 8, 8)),
        (entry((60, 60, 60)), (1, 8, 8)),
    ],
    ids=["thick slices", "2D image", "one slice of a volume"],
)
def test_nothing_is_tilted_that_has_thick_slices_or_one(image, size):
    turned = [placement.matrix for placement in placements(image, size) if placement.is_resampled]
    assert turned
    assert not any(matrix[0, 1:].any() or matrix[1:, 0].any() for matrix in turned)
    assert max(matrix[1, 2] for matrix in turned) > 0.9  # up to a quarter either way
    assert min(matrix[1, 2] for matrix in turned) < -0.9


class Reading:
    """A corpus that notes what is read."""

    def __init__(self):
        self.boxes = []

    def read_box(self, image: CorpusImage, first: Sequence[int], size: Shape) -> np.ndarray:
        self.boxes.append((tuple(first), size))
        return np.zeros((1, *size), np.float32)


@pytest.mark.parametrize("shape", [(400, 300, 300), (50, 90, 90)])
def test_only_the_box_of_a_crop_is_read_and_few_slices(shape, monkeypatch):
    monkeypatch.setattr(crops, "ROTATION_SHARE", 1)
    image, corpus = entry(shape), Reading()
    for placement in placements(image, (64, 64, 64), (1.25, 1.5, 1.5), number=20):
        read_crop(corpus, image, placement, 96)  # type: ignore[arg-type]
    for first, size in corpus.boxes:
        assert size[0] <= 96
        assert all(f >= 0 and f + s <= n for f, s, n in zip(first, size, shape, strict=True))
    assert max(size[0] for _, size in corpus.boxes) > (90 if shape[0] == 400 else 49)


def test_a_2d_image_is_read_as_one_slice(monkeypatch):
    monkeypatch.setattr(crops, "ROTATION_SHARE", 1)
    image, corpus = entry((1, 300, 300)), Reading()
    for placement in placements(image, (1, 64, 64), (1.0, 1.5, 1.5), number=20):
        read_crop(corpus, image, placement, 96)  # type: ignore[arg-type]
    assert {size[0] for _, size in corpus.boxes} == {1}


def test_values_are_changed_as_worked_out_by_hand():
    crop = torch.tensor([-1.0, -0.5, 0.0, 1.0]).view(1, 1, 1, 4)  # 0, 1/4, 1/2, 1

    def changed(**changes: float | bool) -> list[float]:
        return [(value + 1) / 2 for value in change_intensities(crop, Intensities(**changes)).flatten().tolist()]

    assert change_intensities(crop, Intensities(is_inverted=True)) is crop
    assert changed(brightness=1.2) == pytest.approx([0, 0.3, 0.6, 1])
    assert changed(contrast=0.8) == pytest.approx([0.0875, 0.2875, 0.4875, 0.8875])  # the mean is 7/16
    assert changed(contrast=1.25) == pytest.approx([0, 0.203125, 0.515625, 1])
    assert changed(gamma=2) == pytest.approx([0, 1 / 16, 1 / 4, 1])
    assert changed(gamma=2, is_inverted=True) == pytest.approx([0, 7 / 16, 3 / 4, 1])
    assert changed(brightness=1.2, gamma=2) == pytest.approx([0, 0.09, 0.36, 1])


def test_contrast_is_about_the_mean_of_each_channel():
    crop = torch.tensor([[-1.0, 0.0], [0.0, 1.0]]).view(2, 1, 1, 2)  # means 1/4 and 3/4
    changed = change_intensities(crop, Intensities(contrast=0.5))
    torch.testing.assert_close(changed.view(2, 2), torch.tensor([[-0.75, -0.25], [0.25, 0.75]]))


def test_how_often_values_are_changed_and_how_far():
    generator = np.random.default_rng(0)
    many = [draw_intensities(generator) for _ in range(4000)]
    limits = {"brightness": (0.15, 0.75, 1.25), "contrast": (0.15, 0.75, 1.25), "gamma": (0.3, 0.7, 1.5)}
    for name, (share, lowest, highest) in limits.items():
        values = np.array([getattr(changes, name) for changes in many])
        changed = values[values != 1]
        assert len(changed) / len(many) == pytest.approx(share, abs=0.02)
        assert lowest <= changed.min() < lowest + 0.02 and highest - 0.02 < changed.max() <= highest
    assert np.mean([changes.is_inverted for changes in many]) == pytest.approx(0.5, abs=0.03)
