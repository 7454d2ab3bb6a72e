"""One backbone for every dataset: four plans as different as they come, one set of weights."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from spadunet.fingerprint import CaseFacts, Fingerprint, IntensityFacts
from spadunet.labels import LabelSet
from spadunet.network.build import BACKBONES, UNET_PRESETS, VIT_PRESETS, build_backbone, build_task, build_vit
from spadunet.network.heads import SegmentationNetwork
from spadunet.plan import Plan
from spadunet.plans.planner import make_plan
from spadunet.tensors import read_tensors, write_tensors
from spadunet.training.loop import JointNetwork, RunOptions, train_step
from spadunet.training.loss import deep_loss
from spadunet.training.patches import Batch, TrainingTask

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
OPTIONS = RunOptions(
    max_steps=4,
    max_minutes=None,
    learning_rate=1e-3,
    weight_decay=0.01,
    seed=0,
    device=torch.device("cpu"),
    precision=torch.float32,
    num_workers=0,
    checkpoint_minutes=5,
)


def build(plan: Plan) -> SegmentationNetwork:
    """The small network for a plan: the smallest with deep supervision."""
    task = build_task(len(plan.channel_names), plan.labels.num_classes, "spad_unet", "small")
    return SegmentationNetwork(build_backbone("spad_unet", "small"), task)


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
    loss = deep_loss(logits, classes, plan.labels)
    loss.backward()
    assert loss.isfinite()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name


@pytest.mark.slow
def test_the_four_plans_take_turns_in_training_one_shared_backbone():
    torch.manual_seed(0)
    tasks = [
        build_task(len(plan.channel_names), plan.labels.num_classes, "spad_unet", "small") for plan in PLANS.values()
    ]
    network = JointNetwork(build_backbone("spad_unet", "small"), tasks)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for number, (name, plan) in enumerate(PLANS.items()):
        da, size = plan.degree_of_anisotropy, plan.patch_size_voxels
        image = torch.rand(2, len(plan.channel_names), *size) * 2 - 1
        classes = torch.randint(plan.labels.num_classes, (2, *size))
        batch = Batch(task=name, da=da, cases=("a", "b"), image=image, classes=classes)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        task = TrainingTask(name=name, plan=plan, cases=(), batch_size=2)
        assert 0 < train_step(network, number, batch, task, optimiser, OPTIONS) < math.inf
        after = network.state_dict()
        assert all(value.isfinite().all() for value in after.values())
        changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
        assert changed == {key for key in after if key.startswith(("backbone.", f"tasks.{number}."))}


def test_one_grey_channel_enters_the_backbone_three_times():
    grey = torch.rand(1, 1, 2, 3, 4)
    mapped = build(PLANS["isotropic"]).task.channel_map(grey)
    assert torch.equal(mapped, grey.expand(1, 3, 2, 3, 4))


def test_several_channels_enter_as_their_mean():
    image = torch.tensor([0.0, 3.0, 9.0]).view(1, 3, 1, 1, 1)
    mapped = build(PLANS["many organs"]).task.channel_map(image)
    assert torch.allclose(mapped.flatten(), torch.full((3,), 4.0))


def test_missing_channels_add_nothing_and_the_strength_that_they_leave_out_makes_no_difference_at_the_start():
    torch.manual_seed(0)
    several, one = build_task(3, 2, "spad_unet", "tiny"), build_task(1, 2, "spad_unet", "tiny")
    one.heads.load_state_dict(several.heads.state_dict())
    backbone = build_backbone("spad_unet", "tiny")
    image = torch.rand(1, 3, 4, 32, 32) * 2 - 1
    image[:, [0, 2]] = 0
    assert torch.allclose(several.channel_map(image), image[:, 1:2].expand(-1, 3, -1, -1, -1) / 3)
    logits = SegmentationNetwork(backbone, several)(image, 1)
    expected = SegmentationNetwork(backbone, one)(image[:, 1:2], 1)
    assert (logits - expected).abs().max() < 1e-2 * expected.std()  # the norm's epsilon is left


@torch.no_grad()
def test_deep_logits_start_with_what_forward_gives():
    network = build(PLANS["cine"]).eval()
    image = torch.rand(1, 1, 2, 16, 16)
    assert torch.equal(network(image, 2), network.deep_logits(image, 2)[0])


def count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("preset", "widths", "num_blocks", "num_heads", "num_parameters"),
    [
        ("tiny", (16, 32, 64, 96, 128, 128), (0, 1, 1, 1, 1, 1), 1, 5_710_752),
        ("small", (24, 48, 96, 160, 224, 224), (1, 2, 2, 2, 2, 2), 4, 23_897_800),
        ("base", (32, 64, 128, 256, 320, 320), (1, 3, 4, 6, 6, 6), 4, 111_240_416),
        pytest.param(
            *("large", (48, 96, 192, 384, 512, 512), (1, 3, 4, 6, 6, 6), 4, 274_177_360), marks=pytest.mark.slow
        ),
    ],
)
def test_presets_have_the_sizes_of_the_method(preset: str, widths, num_blocks, num_heads: int, num_parameters: int):
    """The finest level of tiny has no encoder block, and just a convolution in the decoder.

    Parameters of the backbone, counted by hand with widths w_n, c = w_n, a block of c channels 2·27·c² + 4·c:
    stem 27·3·w_0 + 2·w_0; b_n blocks a level; each of five downs 8·w_n·w_(n+1) + w_(n+1), each of five ups
    8·w_(n+1)·w_n + w_n; in the decoder a block of 2·c to c channels, 27·(2·c² + c²) + 4·c + (2·c + 1)·c, on levels 0 to
    4, or a convolution, 27·2·c² + 2·c.
    """
    backbone = build_backbone("spad_unet", preset)
    assert backbone.widths == widths
    assert tuple(len(stage.blocks) for stage in backbone.encoder.stages) == num_blocks
    assert len(backbone.encoder.downs) == len(backbone.decoder.ups) == 5  # halvings
    assert [type(block).__name__ for block in backbone.decoder.blocks] == [
        "ResidualBlock" if blocks else "ConvNormAct" for blocks in num_blocks[:-1]
    ]
    assert count(backbone) == num_parameters
    task = build_task(2, 3, "spad_unet", preset)
    assert len(task.heads) == num_heads
    # the channel map, 2 channels to 3; a head of 3 classes on each supervised level
    assert count(task) == (2 + 1) * 3 + sum((width + 1) * 3 for width in widths[:num_heads])


@pytest.mark.parametrize(
    ("preset", "width", "num_in_vit", "num_in_pyramid", "num_in_path"),
    [
        ("tiny", 192, 5_131_776, 968_352, 60_880),
        ("small", 384, 26_231_808, 3_816_384, 167_064),
        ("base", 768, 94_930_944, 14_955_264, 295_968),
        ("large", 1024, 315_498_432, 26_822_336, 663_600),
    ],
)
def test_vit_presets_have_the_sizes_of_the_method(preset, width, num_in_vit, num_in_pyramid, num_in_path):
    """Counted by hand, with a ViT of width c before levels 2 to 5 of widths w_n: five norms 2·c, three doublings
    8·c² + c, laterals c·w_n + w_n + 2·w_n. The convolution path as the two finest levels of a U-Net, one block each."""
    with torch.device("meta"):
        backbone, unet = build_backbone("spad_vit", preset), build_backbone("spad_unet", preset)
    widths = UNET_PRESETS[preset].widths
    assert backbone.widths == widths
    assert count(backbone.vit) == num_in_vit
    laterals = sum(width * w + 3 * w for w in widths[2:])
    assert count(backbone.pyramid) == num_in_pyramid == 5 * 2 * width + 3 * (8 * width**2 + width) + laterals
    assert count(backbone.full_resolution) == num_in_path
    assert count(backbone.decoder) == count(unet.decoder)
    assert count(backbone) == num_in_vit + num_in_pyramid + num_in_path + count(unet.decoder)
    assert len(build_task(2, 3, "spad_vit", preset).heads) == UNET_PRESETS[preset].num_heads


def test_presets_are_named_and_an_unknown_one_is_an_error():
    assert list(UNET_PRESETS) == list(VIT_PRESETS) == ["tiny", "small", "base", "large"]
    assert list(BACKBONES) == ["spad_unet", "spad_vit"]
    with pytest.raises(KeyError):
        build_vit("huge")
    for build_part in (build_backbone, partial(build_task, 1, 2)):
        for backbone, preset in (("spad_unet", "huge"), ("unet", "tiny")):
            with pytest.raises(KeyError):
                build_part(backbone, preset)
