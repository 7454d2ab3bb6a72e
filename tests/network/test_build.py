"""One backbone for every dataset: four plans as different as they come, one set of weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from spadunet.fingerprint import CaseFacts, Fingerprint, IntensityFacts
from spadunet.labels import LabelSet
from spadunet.model import read_tensors, write_tensors
from spadunet.network.build import UNET_PRESETS, build_backbone, build_task
from spadunet.network.heads import SegmentationNetwork, load_matching
from spadunet.plan import Plan
from spadunet.plans.planner import make_plan
from spadunet.training.loss import deep_loss, make_loss

FACTS = IntensityFacts(percentile_00_5=0, percentile_50=50, percentile_99_5=100, mean=50, std=20)


def plan_of(spacing_mm, shape, channel_names: tuple[str, ...], num_classes: int) -> Plan:
    """The planner's decision for three like cases."""
    fingerprint = Fingerprint(
        dataset_name="Dataset001_Any",
        source_digest="0",
        cases=tuple(CaseFacts(name=f"case{n}", spacing_mm=spacing_mm, shape=shape) for n in range(3)),
        intensities=(FACTS,) * len(channel_names),
    )
    labels = LabelSet(
        names=("background", *(f"organ{n}" for n in range(1, num_classes))), ids=tuple(range(num_classes))
    )
    return make_plan(fingerprint, channel_names, labels, memory_gb=0.05)


PLANS = {
    "isotropic": plan_of((1.0, 1.0, 1.0), (40, 50, 40), ("MRI",), 3),
    "cine": plan_of((8.0, 1.25, 1.25), (10, 128, 128), ("MRI",), 2),
    "many organs": plan_of((3.0, 0.8, 0.8), (80, 200, 200), ("T1", "T2", "FLAIR"), 14),
    "2D RGB": plan_of((1.0, 0.5, 0.5), (1, 200, 200), ("R", "G", "B"), 2),
}


def build(plan: Plan) -> SegmentationNetwork:
    """The small network for a plan: the smallest with deep supervision."""
    task = build_task(len(plan.channel_names), plan.labels.num_classes, "small")
    return SegmentationNetwork(build_backbone("small"), task)


def test_the_four_plans_have_four_degrees_of_anisotropy():
    # 8 / 1.25 = 6.4 and 3 / 0.8 = 3.75 lie above 2^2 and 2^1; a single slice has the largest degree.
    assert [plan.degree_of_anisotropy for plan in PLANS.values()] == [0, 2, 1, 6]


def test_backbones_have_the_same_names_and_shapes_for_every_plan():
    shapes = [{name: value.shape for name, value in build(p).backbone.state_dict().items()} for p in PLANS.values()]
    assert all(other == shapes[0] for other in shapes)


def test_one_backbone_file_loads_into_every_plans_network(tmp_path: Path):
    torch.manual_seed(0)
    source = build(PLANS["isotropic"]).backbone.state_dict()
    write_tensors(tmp_path / "backbone.safetensors", source)
    for plan in PLANS.values():
        network = build(plan)
        network.backbone.load_state_dict(read_tensors(tmp_path / "backbone.safetensors"))
        assert all(torch.equal(value, source[name]) for name, value in network.backbone.state_dict().items())


@pytest.mark.parametrize("name", PLANS)
def test_every_plan_trains_the_whole_backbone(name: str):
    torch.manual_seed(0)
    plan = PLANS[name]
    da = plan.degree_of_anisotropy
    network = build(plan)
    image = torch.rand(1, len(plan.channel_names), max(32 >> da, 1), 32, 32) * 2 - 1
    classes = torch.randint(plan.labels.num_classes, (1, *image.shape[2:]))
    logits = network.deep_logits(image, da)
    assert logits[0].shape == (1, plan.labels.num_classes, *image.shape[2:])
    loss = deep_loss(make_loss(), logits, classes)
    loss.backward()
    assert loss.isfinite()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name


def test_one_grey_channel_enters_the_backbone_three_times():
    grey = torch.rand(1, 1, 2, 3, 4)
    mapped = build(PLANS["isotropic"]).task.channel_map(grey)
    assert torch.equal(mapped, grey.expand(1, 3, 2, 3, 4))


def test_several_channels_enter_as_their_mean():
    image = torch.tensor([0.0, 3.0, 9.0]).view(1, 3, 1, 1, 1)
    mapped = build(PLANS["many organs"]).task.channel_map(image)
    assert torch.allclose(mapped.flatten(), torch.full((3,), 4.0))


def test_a_task_of_other_channels_and_classes_takes_over_what_fits():
    one, other = build(PLANS["isotropic"]).task, build(PLANS["cine"]).task
    new = load_matching(other, one.state_dict())
    assert new == [f"heads.{level}.{kind}" for level in range(4) for kind in ("weight", "bias")]
    assert torch.equal(other.channel_map.weight, one.channel_map.weight)


@torch.no_grad()
def test_deep_logits_start_with_what_forward_gives():
    network = build(PLANS["cine"]).eval()
    image = torch.rand(1, 1, 2, 16, 16)
    assert torch.equal(network(image, 2), network.deep_logits(image, 2)[0])


def test_presets_are_named_and_an_unknown_one_is_an_error():
    assert list(UNET_PRESETS) == ["tiny", "small", "base", "large"]
    for build_part in (build_backbone, partial(build_task, 1, 2)):
        with pytest.raises(KeyError):
            build_part("huge")


def test_deep_supervision_on_four_levels_but_in_tiny():
    assert {name: len(build_task(1, 2, name).heads) for name in UNET_PRESETS} == {
        "tiny": 1,
        "small": 4,
        "base": 4,
        "large": 4,
    }
