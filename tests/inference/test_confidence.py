"""How sure networks are: streamed sums are those of whole logits, and label maps stay what they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from random_models import CLASSES, REGIONS, engine_of, hippocampus, member_of, plan_of
from torch import Tensor
from whole_logits import predict_logits

from spadunet.image import Image
from spadunet.inference import confidence
from spadunet.inference.confidence import Agreement, Confidence, ConfidenceSums
from spadunet.inference.predict import Engine, segment, views_of
from spadunet.inference.stages import StageTimes
from spadunet.labels import LabelSet
from spadunet.orient import orient

LABELS = pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])


def by_hand(logits: Tensor, labels: LabelSet) -> list[Confidence]:
    """Of whole logits (K, D, H, W), in NumPy, each structure by itself."""
    values = logits.double().numpy()
    if labels.regions:
        p = 1 / (1 + np.exp(-values))
        entropies = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
        masks = values > 0
    else:
        p = np.exp(values - values.max(0))
        p /= p.sum(0)
        entropies = np.broadcast_to(-(p * np.log2(p)).sum(0), p.shape)
        masks = values.argmax(0) == np.arange(len(p))[:, None, None, None]
    found = []
    for share, entropy, mask in list(zip(p, entropies, masks, strict=True))[0 if labels.regions else 1 :]:
        around = (share > 0.05) & (share < 0.95)
        found.append(
            Confidence(
                soft_dice=2 * share[mask].sum() / (mask.sum() + share.sum()),
                entropy_in=entropy[mask].mean() if mask.any() else None,
                entropy_around=entropy[around].mean() if around.any() else None,
                share_around=around.sum() / max((around | mask).sum(), 1),
            )
        )
    return found


def assert_same(found: list[Confidence], expected: list[Confidence]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert vars(one) == pytest.approx(vars(other), rel=1e-5)


def streamed(logits: Tensor, labels: LabelSet, cuts: list[int], dim: int) -> list[Confidence]:
    """Of slabs of so many planes, without background."""
    sums = ConfidenceSums(len(labels.structures), has_regions=bool(labels.regions))
    for slab in logits.split(cuts, dim):
        sums.add(slab)
    return sums.confidences()


@LABELS
@pytest.mark.parametrize(("cuts", "dim"), [([20], 1), ([1, 3, 16], 1), ([7, 11], 2), ([10, 6], 3)])
def test_slabs_give_what_the_whole_gives(labels, cuts, dim, monkeypatch):
    torch.manual_seed(0)
    logits = 3 * torch.randn(labels.num_outputs, 20, 18, 16)
    logits[1, :10] += 4
    expected = by_hand(logits, labels)
    assert_same(streamed(logits, labels, cuts, dim), expected)
    monkeypatch.setattr(confidence, "MAX_PART_BYTES", 1000)
    assert_same(streamed(logits, labels, cuts, dim), expected)


def test_two_voxels_by_hand():
    p = torch.tensor([[0.5, 0.01], [0.25, 0.98], [0.25, 0.01]]).view(3, 1, 1, 2)
    found = streamed(p.log(), LabelSet(names=("background", "a", "b"), ids=(0, 1, 2)), [1], 1)
    a, b = found
    sure = -(0.98 * np.log2(0.98) + 2 * 0.01 * np.log2(0.01))
    assert vars(a) == pytest.approx(
        {
            "soft_dice": 2 * 0.98 / (1 + 0.25 + 0.98),
            "entropy_in": sure,
            "entropy_around": 1.5,
            "share_around": 0.5,
        },
        rel=1e-5,
    )
    assert (b.soft_dice, b.entropy_in, b.share_around) == (0, None, 1)  # b wins nowhere


def test_what_is_certain_has_no_entropy_and_nothing_around_it():
    logits = torch.zeros(2, 1, 2, 2)
    logits[0, 0, 0], logits[1, 0, 1] = 2000, 2000
    (organ,) = streamed(logits, LabelSet(names=("background", "a"), ids=(0, 1)), [1], 1)
    assert vars(organ) == {"soft_dice": 1, "entropy_in": 0, "entropy_around": None, "share_around": 0}


@LABELS
def test_an_engine_that_judges_says_what_the_whole_logits_say(labels):
    image, member = hippocampus(), member_of(0, plan_of(labels))
    engine = engine_of(member, is_judged=True)
    (case,) = (views := views_of("a", image, engine)).values()
    answer = segment(views, engine, StageTimes())
    logits = predict_logits(
        member.network, torch.from_numpy(case.image), 0, member.plan.patch_sizes_voxels[0], overlap=engine.overlap
    )
    expected = by_hand(logits, labels)
    assert list(answer.confidences) == [it.name for it in labels.structures]
    assert_same(list(answer.confidences.values()), expected)
    assert answer.agreements == {}


CROP = Image(array=hippocampus().array[:, 5:30, 10:44, 4:38], affine=hippocampus().affine)


@LABELS
@pytest.mark.parametrize(
    ("seeds", "depths", "more"),
    [
        ((0,), (24,), {}),
        ((0, 1), (24, 24), {}),
        ((0, 1), (24, 12), {}),
        ((0,), (24,), {"mirror": ("left-right",)}),
    ],
    ids=["alone", "two", "two sweeps", "mirrored"],
)
@pytest.mark.parametrize("is_subset", [False, True], ids=["all", "subset"])
def test_label_maps_stay_the_same_to_the_bit(labels, seeds, depths, more, is_subset):
    members = [member_of(seed, plan_of(labels, depth=depth)) for seed, depth in zip(seeds, depths, strict=True)]
    chosen = (labels.structures[-1].name,) if is_subset else ()
    engine = engine_of(*members, chosen=chosen, **more)
    views = views_of("a", CROP, engine)
    plain = segment(views, engine, StageTimes())
    judged = segment(views, replace(engine, is_judged=True), StageTimes())
    assert np.array_equal(plain.label_map.array, judged.label_map.array)
    assert plain.confidences == plain.agreements == {}
    names = [it.name for it in engine.labels.structures]
    assert list(judged.confidences) == names
    if len(seeds) > 1 or more:
        assert list(judged.agreements) == names
        assert all(dice is None or 0 < dice <= 1 for dice in judged.agreements.values())
        assert min(dice for dice in judged.agreements.values() if dice is not None) < 0.99
    else:
        assert judged.agreements == {}


def agreements(engine: Engine) -> dict[str, float | None]:
    return segment(views_of("a", CROP, engine), engine, StageTimes()).agreements


@LABELS
def test_a_model_agrees_with_itself(labels):
    for other in (member_of(0, plan_of(labels)), member_of(0, plan_of(labels, depth=24, low=0.5))):
        found = agreements(engine_of(member_of(0, plan_of(labels)), other, is_judged=True))
        assert all(dice == pytest.approx(1, abs=1e-4) for dice in found.values())


def test_agreement_by_hand():
    agreement = Agreement(3, [0, 1, 2], has_regions=False)
    mean = torch.tensor([[0, 1, 1, 1]])
    agreement.add([torch.tensor([[0, 1, 1, 0]]), torch.tensor([[0, 1, 0, 0]])], mean)
    assert agreement.dice() == pytest.approx([2 * 2 / (2 * 1 + 2 + 3), 2 * 3 / (2 * 3 + 2 + 1), None])
    regions = Agreement(2, [1], has_regions=True)
    logits = torch.tensor([[[1.0, 1.0]], [[1.0, -1.0]]])  # (K, 1, 2)
    regions.add([regions.masks(logits, 0)], regions.masks(-logits, 0))
    assert regions.dice() == [0]


def test_outputs_that_were_not_asked_for_count_as_background_in_agreement():
    agreement = Agreement(4, [0, 2], has_regions=False)
    whole = torch.eye(4)[None].movedim(1, 1)  # (1, K, 4): one voxel of each class
    assert agreement.masks(whole, 1).tolist() == [[0, 0, 1, 0]]
    assert agreement.masks(torch.eye(2)[None], 1).tolist() == [[0, 1]]


@pytest.mark.parametrize("shape", [(1, 34, 34), (25, 34, 34)])
def test_an_image_of_one_slice_is_judged_too(shape):
    engine = engine_of(member_of(0, plan_of()), is_judged=True)
    image = Image(array=CROP.array[:, : shape[0]], affine=CROP.affine)
    answer = segment(views_of("a", image, engine), engine, StageTimes())
    assert answer.label_map.shape == orient(image.array[0], (0, 1, 2), (False,) * 3).shape
    assert all(0 <= it.soft_dice <= 1 for it in answer.confidences.values())
