"""Several models as one: the mean of their probabilities, in a stream."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_models import CLASSES, REGIONS, engine_of, hippocampus, member_of, network_of, plan_of, write_model
from small_model import shrink_presets
from torch import Tensor
from whole_logits import predict_logits

from spadunet.errors import InputError
from spadunet.image import Image
from spadunet.inference.ensemble import as_one, check_members, in_step, mean_logits
from spadunet.inference.predict import Engine, answer_image, predict_image, sweep_models, views_of
from spadunet.inference.sliding import Slab, sweep_logits
from spadunet.inference.sources import build_engine, open_sources, rules_of
from spadunet.inference.stages import StageTimes
from spadunet.inference.storage import HOST, Storage
from spadunet.model import BACKBONE_FILE, load_model, read_model_record
from spadunet.model_changes import add_tasks, set_postprocessing
from spadunet.orient import orient
from spadunet.postprocessing import Postprocessing, Rule

LABELS = pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])


def probabilities(logits: Tensor, labels) -> Tensor:
    """(K, D, H, W)."""
    return logits.sigmoid() if labels.regions else logits.softmax(0)


def blended(engine: Engine, image: Image) -> Tensor:
    """Mean logits of all models for a whole image."""
    views = views_of("a", image, engine)
    slabs = sweep_models(HOST, 1, views, engine, StageTimes(), 0)
    return torch.cat([slab.logits.float().clone() for slab in slabs], dim=1)


def small_image() -> Image:
    """A part of a real image, no larger than one window."""
    image = hippocampus()
    return Image(array=image.array[:, 5:25, 10:36, 4:30], affine=image.affine)


@LABELS
@pytest.mark.parametrize("spacing", ["native", (1.3, 0.9, 1.1)], ids=["native", "resampled"])
def test_a_model_beside_itself_gives_what_it_gives_alone(labels, spacing):
    image, member = hippocampus(), member_of(0, plan_of(labels, spacing=spacing))
    alone = predict_image(image, engine_of(member)).array
    assert len(np.unique(alone)) > 1
    for beside in (member, member_of(0, plan_of(labels, spacing=spacing, depth=24))):
        twice = predict_image(image, engine_of(member, beside)).array
        assert (twice != alone).mean() < 1e-4  # where two outputs are equal but for rounding


@LABELS
def test_the_mean_of_two_models_is_that_computed_by_hand(labels):
    image, plan = small_image(), plan_of(labels)
    one, other = (member_of(seed, plan) for seed in (0, 1))
    (case,) = views_of("a", image, engine_of(one)).values()
    x = torch.from_numpy(case.image)
    logits = [predict_logits(it.network, x, case.geometry.da, plan.patch_sizes_voxels[0]) for it in (one, other)]
    expected = sum(probabilities(it, labels) for it in logits) / 2
    found = blended(engine_of(one, other), image)
    torch.testing.assert_close(probabilities(found, labels), expected, atol=1e-6, rtol=0)
    label_map = predict_image(image, engine_of(one, other)).array
    if labels.regions:
        by_hand = np.zeros(case.geometry.shape, int)
        for region, share in zip(labels.regions, expected, strict=True):
            by_hand[share.numpy() > 0.5] = region.painted_id
    else:
        by_hand = np.array(labels.ids)[expected.argmax(0).numpy()]
    geometry = case.geometry
    (a, b), (c, d), (e, f) = geometry.crop
    oriented = orient(label_map, geometry.axes, geometry.flips)
    assert np.array_equal(oriented[a:b, c:d, e:f], by_hand)
    for alone in logits:  # neither decides alone
        assert (probabilities(alone, labels) - expected).abs().max() > 0.05


@LABELS
@pytest.mark.parametrize("depths", [(24, 24, 24), (24, 12, 12), (10, 24, 7)], ids=["alike", "two sweeps", "three"])
def test_the_order_of_models_does_not_matter(labels, depths):
    members = [member_of(seed, plan_of(labels, depth=depth)) for seed, depth in enumerate(depths)]
    image = small_image()
    expected = probabilities(blended(engine_of(*members), image), labels)
    for order in ((2, 0, 1), (1, 2, 0)):
        found = probabilities(blended(engine_of(*(members[number] for number in order)), image), labels)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "storage",
    [pytest.param(HOST, marks=pytest.mark.slow), Storage(place="disk", dtype=torch.float16)],
    ids=str,
)
def test_models_of_other_windows_and_intensities_are_swept_side_by_side(storage):
    members = [member_of(0, plan_of(depth=24)), member_of(1, plan_of(depth=9)), member_of(2, plan_of(low=2.0))]
    image, engine = hippocampus(), engine_of(*members)
    views = views_of("a", image, engine)
    assert len(views) == 2
    slabs = [
        Slab(planes=slab.planes, logits=slab.logits.float().clone())
        for slab in sweep_models(storage, 1, views, engine, StageTimes(), 0)
    ]
    stops = [slab.planes.stop for slab in slabs]
    assert [slab.planes.start for slab in slabs] == [0, *stops[:-1]]
    found = torch.cat([slab.logits for slab in slabs], dim=1).softmax(0)
    shares = []
    for member in members:
        case = views[member.plan.intensity]
        x, patch = torch.from_numpy(case.image), member.plan.patch_sizes_voxels[case.geometry.da]
        sweep = sweep_logits(member.network, x, case.geometry.da, patch, axis=0)
        shares.append(torch.cat([slab.logits.clone() for slab in sweep], dim=1).softmax(0))
    atol = 1e-5 if storage == HOST else 0.02
    torch.testing.assert_close(found, sum(shares) / 3, atol=atol, rtol=0)


def test_a_task_that_joins_a_model_changes_no_older_one_with_post_processing_or_in_an_ensemble(tmp_path, monkeypatch):
    """Of the older task to the bit: label maps and probabilities, of its model alone and of the mean of two."""
    shrink_presets(monkeypatch)
    plan = plan_of()
    folders = [write_model(tmp_path / name, seed, plan) for seed, name in enumerate(("grows", "stays"))]
    image = small_image()
    rule = Rule(structure="a", action="keep largest", num_cases=1, dice=(0.5, 0.6), hd95_mm=(9, 8))
    for folder in folders:
        set_postprocessing(folder, "Dataset001_A", Postprocessing(rules=(rule,), num_cases=1))

    def answers(used) -> list[np.ndarray]:
        sources = open_sources(used, "A", "plan")
        engine = build_engine(
            sources,
            device=torch.device("cpu"),
            precision=torch.float32,
            overlap=0.5,
            spacing="plan",
            mirror=(),
            chosen=(),
            rules=rules_of(sources, ())[0],
            memory_gb=None,
            folder=tmp_path,
            keeps_probabilities=True,
        )
        label_map, answer = answer_image(image, engine)
        assert answer.probabilities is not None
        assert not np.array_equal(label_map.array, answer.label_map.array)  # the rule does something
        return [label_map.array, answer.probabilities]

    alone, together = answers(folders[:1]), answers(folders)
    assert not np.array_equal(alone[1], together[1])  # and so does the other model
    joining = load_model(write_model(tmp_path / "other", 7, plan_of(REGIONS).model_copy(update={"dataset_name": "B"})))
    backbone = read_model_record(folders[0]).sha256[BACKBONE_FILE]
    add_tasks(folders[0], folders[0], joining.tasks, {}, backbone_sha256=backbone)
    assert read_model_record(folders[0]).tasks == ("Dataset001_A", "B")
    for before, used in ((alone, folders[:1]), (together, folders)):
        assert all(np.array_equal(one, other) for one, other in zip(before, answers(used), strict=True))


def test_a_sweep_that_finishes_more_at_a_time_waits_for_the_others():
    def stream(value: float, *stops: int):
        begin = 0
        for stop in stops:
            logits = torch.full((2, stop - begin, 1, 1), 0.0)
            logits[1] = value + torch.arange(begin, stop)[:, None, None]
            yield Slab(planes=slice(begin, stop), logits=logits)
            logits.fill_(float("nan"))  # gone when the next slab is asked for
            begin = stop

    slabs = in_step([stream(0, 3, 7, 8), stream(1, 2, 8)], [1, 3], 0, has_regions=False)
    found = torch.cat([slab.logits.clone() for slab in slabs], dim=1).softmax(0)[1].flatten()
    steps = torch.arange(8)
    torch.testing.assert_close(found, (steps.sigmoid() + 3 * (steps + 1).sigmoid()) / 4)


def test_sure_models_are_averaged_without_overflow():
    parts = [(torch.tensor([[900.0, -900.0]]), 0.5), (torch.tensor([[-900.0, 900.0]]), 0.5)]
    for has_regions in (False, True):
        logits = mean_logits(parts, dim=1, has_regions=has_regions)
        torch.testing.assert_close(logits[0, 0], logits[0, 1])
        assert logits.isfinite().all()


def test_one_network_stays_as_it_is():
    network = network_of(0, 5)
    assert as_one([network], has_regions=False) is network


def test_models_that_cannot_be_averaged_are_named_with_what_can_be_done():
    plan = plan_of()
    check_members([plan, plan_of(depth=8, low=2.0)], ["x", "y"])
    with pytest.raises(InputError, match=r"x and y cannot be averaged: their labels differ \(background, a, b, c, d "):
        check_members([plan, plan_of(REGIONS)], ["x", "y"])
    other = plan.model_copy(update={"channel_names": ("T2",)})
    with pytest.raises(InputError, match=r"x and z cannot be averaged: their channels differ \(MRI against T2\)"):
        check_members([plan, plan, other], ["x", "y", "z"])
    with pytest.raises(InputError, match=r"\(native against 1×1×2 mm\); give --spacing native"):
        check_members([plan, plan_of(spacing=(1.0, 1.0, 2.0))], ["x", "y"])
