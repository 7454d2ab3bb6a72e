"""Spoilt copies: each kind changes the image, the same for the same seed, and only a turn moves the reference."""

from __future__ import annotations

import numpy as np
import pytest

from spadunet.image import Image, LabelMap
from spadunet.inference.spoil import KINDS, Spoiling, draw_spoilings, spoil


def case_of(*shape: int) -> tuple[Image, LabelMap]:
    """Intensities that are classes, plus a little noise."""
    rng = np.random.default_rng(0)
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(0, max(size // 2, 1)) for size in shape)] = 1
    array = 100 * labels[None] + rng.uniform(0, 5, (1, *shape))
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    return Image(array=array.astype(np.int16), affine=affine), LabelMap(array=labels, affine=affine)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(12, 14, 16), (1, 14, 16)], ids=["3d", "2d"])
@pytest.mark.parametrize("strength", [0.0, 1.0, 1.5])
def test_each_kind_changes_the_image_and_repeats_itself(kind, shape, strength):
    image, reference = case_of(*shape)
    before = image.array.copy()
    what = Spoiling(kind=kind, strength=strength, seed=(0, 1))
    found, labels = spoil(image, reference, what)
    again, _ = spoil(image, reference, what)
    assert np.array_equal(found.array, again.array)
    assert np.array_equal(image.array, before)
    assert np.isfinite(found.array).all()
    assert found.array.shape[1:] == labels.array.shape
    assert found.array.shape != before.shape or not np.array_equal(found.array, before)
    if kind == "orientation":
        assert np.array_equal(found.array[0] > 50, labels.array == 1)  # what was drawn stays on what it was drawn on
    else:
        assert labels is reference
        other, _ = spoil(image, reference, Spoiling(kind=kind, strength=strength, seed=(0, 2)))
        assert kind in ("blur", "thick slices", "contrast", "cut") or not np.array_equal(other.array, found.array)


def test_more_strength_spoils_more():
    image, reference = case_of(12, 14, 16)
    for kind in ("noise", "bias field", "blur", "cut"):
        weak, strong = (
            np.abs(spoil(image, reference, Spoiling(kind=kind, strength=s, seed=(3,)))[0].array - image.array).mean()
            for s in (0.1, 0.9)
        )
        assert weak < strong


def test_missing_channels_stay_zero():
    image, reference = case_of(8, 8, 8)
    image = Image(array=np.concatenate([image.array, 0 * image.array]), affine=image.affine, missing_channels=(1,))
    for kind in KINDS:
        found, _ = spoil(image, reference, Spoiling(kind=kind, strength=0.5, seed=(0,)))
        assert not found.array[1].any()
        assert found.missing_channels == (1,)


def test_copies_of_a_case_take_all_kinds_in_turn_and_depend_on_its_name_alone():
    found = draw_spoilings("case_1", 2 * len(KINDS), 0)
    assert sorted(it.kind for it in found[: len(KINDS)]) == sorted(KINDS)
    assert len({it.seed for it in found}) == len(found)
    assert draw_spoilings("case_1", 3, 0) == draw_spoilings("case_1", 3, 0)
    assert found != draw_spoilings("case_2", 2 * len(KINDS), 0)
    assert found != draw_spoilings("case_1", 2 * len(KINDS), 1)
    assert draw_spoilings("case_1", 0, 0) == []
