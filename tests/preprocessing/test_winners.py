"""The winning class on another grid: exactly what interpolating every class would give, for far less."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from spadunet.errors import InputError
from spadunet.preprocessing import winners
from spadunet.preprocessing.resample import LINEAR, NEAREST, resample_array
from spadunet.preprocessing.winners import Winners

ALL_LINEAR = (LINEAR,) * 3
GRIDS = [
    ((9, 10, 12), (18, 21, 24), ALL_LINEAR),
    ((9, 40, 50), (5, 61, 33), ALL_LINEAR),
    ((5, 30, 30), (11, 30, 64), (NEAREST, LINEAR, LINEAR)),
    ((20, 30, 30), (7, 70, 30), (NEAREST, LINEAR, LINEAR)),
    ((7, 26, 25), (7, 26, 25), ALL_LINEAR),
    ((1, 26, 1), (1, 60, 1), ALL_LINEAR),
    ((40, 3, 3), (1, 1, 1), ALL_LINEAR),
]


def largest_of_logits(logits: np.ndarray, shape: tuple[int, int, int], orders) -> np.ndarray:
    """Class numbers of `shape`, of all planes at once."""
    winners = Winners(logits.shape[1:], shape, orders, len(logits))
    winners.add(logits)
    return winners.result


def paint_positive(logits: np.ndarray, numbers: tuple[int, ...], shape: tuple[int, int, int], orders) -> np.ndarray:
    """The same of regions."""
    winners = Winners(logits.shape[1:], shape, orders, len(logits), numbers)
    winners.add(logits)
    return winners.result


def logits_of(kind: str, num_outputs: int, shape: tuple[int, int, int]) -> np.ndarray:
    """(K, D, H, W) float32: noise, in which every class may win anywhere; or organs as a network sees them."""
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 1, (num_outputs, *shape)).astype(np.float32)
    if kind == "noise":
        return noise
    labels = ndimage.gaussian_filter(noise, (0, 2, 2, 2)).argmax(axis=0)
    shares = np.stack(
        [ndimage.gaussian_filter((labels == number).astype(np.float32), 1) for number in range(num_outputs)]
    )
    return np.log(shares + 1e-4) + noise / 5


def all_interpolated(logits: np.ndarray, shape: tuple[int, int, int], orders) -> np.ndarray:
    """Every class on the other grid, by the resampling of images."""
    return np.stack([resample_array(output, shape, orders) for output in logits])


@pytest.mark.parametrize("kind", ["noise", "organs"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("shape", "new_shape", "orders"), GRIDS)
def test_the_winner_is_that_of_all_classes_interpolated(kind, dtype, shape, new_shape, orders):
    logits = logits_of(kind, 13, shape).astype(dtype)
    expected = all_interpolated(logits, new_shape, orders)
    found = largest_of_logits(logits, new_shape, orders)
    assert found.dtype == np.uint8 and found.shape == new_shape
    chosen = np.take_along_axis(expected, found[None].astype(int), axis=0)[0]
    assert (chosen >= expected.max(axis=0) - 1e-5).all()
    assert (found == expected.argmax(axis=0)).mean() > 0.999


@pytest.mark.parametrize(("shape", "new_shape", "orders"), GRIDS)
def test_regions_are_painted_where_interpolation_is_above_zero(shape, new_shape, orders):
    logits = logits_of("organs", 4, shape) + 2
    expected = np.zeros(new_shape, np.uint8)
    for number, region in zip((3, 1, 7, 2), all_interpolated(logits, new_shape, orders), strict=True):
        expected[region > 0] = number
    assert (paint_positive(logits, (3, 1, 7, 2), new_shape, orders) == expected).mean() > 0.999


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize(("shape", "new_shape", "orders"), GRIDS)
def test_planes_may_come_in_any_portions(shape, new_shape, orders, regions: bool):
    logits = logits_of("organs", 5, shape)
    whole = paint_positive(logits, (1, 2, 3, 4, 5), new_shape, orders) if regions else None
    whole = largest_of_logits(logits, new_shape, orders) if whole is None else whole
    for portion in (1, 2, 3, 7):
        filled = Winners(shape, new_shape, orders, 5, (1, 2, 3, 4, 5) if regions else None)
        for first in range(0, shape[0], portion):
            filled.add(logits[:, first : first + portion].copy())
        assert np.array_equal(filled.result, whole), portion


def test_what_was_given_may_be_overwritten_afterwards():
    logits = logits_of("organs", 5, (9, 10, 12))
    filled = Winners((9, 10, 12), (18, 20, 24), ALL_LINEAR, 5)
    for first in range(0, 9, 3):
        portion = logits[:, first : first + 3].copy()
        filled.add(portion)
        portion[:] = np.nan
    assert np.array_equal(filled.result, largest_of_logits(logits, (18, 20, 24), ALL_LINEAR))


def test_hardly_anything_is_interpolated_of_many_classes(monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []
    interpolate = winners.interpolate

    def count(values: np.ndarray, *weights: np.ndarray) -> np.ndarray:
        seen.append(values.size)
        return interpolate(values, *weights)

    monkeypatch.setattr(winners, "interpolate", count)
    labels = np.zeros((30, 60, 60), int)
    for number in range(1, 50):  # in a lattice
        labels[(number // 10) * 6 + 1 : (number // 10) * 6 + 5, (number % 10) * 6 : (number % 10) * 6 + 5, 20:40] = (
            number
        )
    logits = np.stack([np.where(labels == number, 8, -8) for number in range(50)]).astype(np.float32)
    largest_of_logits(logits, (60, 120, 120), ALL_LINEAR)
    assert sum(seen) < logits.size / 5


def test_more_than_256_classes_have_their_numbers():
    logits = np.zeros((300, 2, 2, 2), np.float32)
    logits[299] = 1
    found = largest_of_logits(logits, (4, 4, 4), ALL_LINEAR)
    assert found.dtype == np.uint16 and (found == 299).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_values_that_are_no_finite_numbers_are_told(value: float, dtype):
    logits = logits_of("organs", 3, (4, 5, 6)).astype(dtype)
    logits[1, 2, 3, 4] = value
    with pytest.raises(InputError, match="no finite numbers"):
        largest_of_logits(logits, (8, 10, 12), ALL_LINEAR)
    with pytest.raises(InputError, match="no finite numbers"):
        paint_positive(logits, (1, 2, 3), (8, 10, 12), ALL_LINEAR)


def test_where_all_are_equal_the_first_wins():
    assert not largest_of_logits(np.zeros((3, 4, 4, 4), np.float32), (8, 9, 3), ALL_LINEAR).any()


def test_scores_are_interpolated_before_the_largest_is_taken():
    # At 0.25 of the way class 1 still leads, since it is so sure of its voxel.
    logits = np.array([[1, 1.0], [9, 0]]).reshape(2, 1, 1, 2)
    assert largest_of_logits(logits, (1, 1, 2), ALL_LINEAR).ravel().tolist() == [1, 0]
    assert largest_of_logits(logits, (1, 1, 4), ALL_LINEAR).ravel().tolist() == [1, 1, 1, 0]


def test_scores_all_below_zero_have_a_largest_too():
    logits = np.array([-9.0, -3.0, -5.0]).reshape(3, 1, 1, 1)
    assert largest_of_logits(logits, (1, 1, 1), ALL_LINEAR).ravel().tolist() == [1]


def test_regions_are_painted_where_their_logit_is_above_zero_the_later_over_the_earlier():
    logits = np.array([[1.0, 2, 0, -1], [-1, 3, -5, 4]]).reshape(2, 1, 1, 4)
    painted = paint_positive(logits, (2, 5), (1, 1, 4), ALL_LINEAR)
    assert painted.ravel().tolist() == [2, 5, 0, 5]  # a logit of 0 is no region
    assert painted.dtype == np.uint8
    # Halfway between 3 and -5 the second region is gone, where voxels of 0 and 1 would be rounded.
    assert paint_positive(logits[1:, ..., 1:3], (5,), (1, 1, 4), ALL_LINEAR).ravel().tolist() == [5, 5, 0, 0]
    assert paint_positive(logits[1:, ..., 1:3], (300,), (1, 1, 1), ALL_LINEAR).tolist() == [[[0]]]
    assert paint_positive(logits[:1], (300,), (1, 1, 4), ALL_LINEAR).dtype == np.uint16
