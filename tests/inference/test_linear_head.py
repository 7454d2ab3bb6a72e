"""Features added up instead of logits: the same answer, and less that is held."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from random_models import Small, hippocampus, plan_of

from spadunet.image import Image
from spadunet.inference.budget import Budget, tell_choice
from spadunet.inference.linear_head import logits_in_parts, with_features
from spadunet.inference.predict import Engine, answer_image, predict_image
from spadunet.labels import LabelSet, Region
from spadunet.network.build import build_backbone, build_task
from spadunet.network.heads import SegmentationNetwork

CPU = torch.device("cpu")


def network_of(num_outputs: int) -> SegmentationNetwork:
    """Of random weights, in which many classes win somewhere; 16 features."""
    torch.manual_seed(0)
    task = build_task(1, num_outputs, "spad_unet", "tiny")
    with torch.no_grad():
        task.heads[0].weight *= 8
    return SegmentationNetwork(build_backbone("spad_unet", "tiny"), task).eval()


def engine_of(*, spacing="native", has_regions: bool = False, **more: object) -> Engine:
    """Of 30 classes, or of as many regions."""
    count = 31 if has_regions else 30
    names = ("background", *(f"class {number}" for number in range(1, count)))
    regions = [Region(name=f"region {n}", ids=(n, n % 30 + 1), painted_id=n) for n in range(1, count)]
    labels = LabelSet(names=names, ids=tuple(range(count)), regions=tuple(regions) if has_regions else ())
    plan = plan_of(labels, spacing=spacing).model_copy(
        update={"patch_sizes_voxels": {da: (8 if da < 6 else 1, 16, 16) for da in range(7)}}
    )
    return Engine(network=network_of(30), plan=plan, device=CPU, precision=torch.float32, **more)


def part_of_brain() -> Image:
    """Real, (1, 14, 18, 20)."""
    whole = hippocampus()
    return Image(array=whole.array[:, 10:24, 14:32, 8:28], affine=whole.affine)


@pytest.mark.parametrize("spacing", ["native", (1.3, 1.1, 0.9)], ids=str)
@pytest.mark.parametrize("has_regions", [False, True])
def test_label_map_and_confidence_are_those_of_added_up_logits(
    has_regions: bool, spacing, monkeypatch: pytest.MonkeyPatch
):
    engine = engine_of(spacing=spacing, has_regions=has_regions, is_judged=True)
    assert engine.by_features is engine.network
    found, answer = answer_image(part_of_brain(), engine)
    monkeypatch.setattr("spadunet.inference.predict.with_features", lambda network: None)
    assert engine.by_features is None
    expected, other = answer_image(part_of_brain(), engine)
    assert len(np.unique(expected.array)) > 3
    assert (found.array == expected.array).mean() > 0.9999  # but where two classes are alike
    for name, confidence in answer.confidences.items():
        assert confidence.soft_dice == pytest.approx(other.confidences[name].soft_dice, abs=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("device_bytes", [0, 1 << 30], ids=["in the host's memory", "in the device's"])
def test_features_on_a_gpu_give_the_same(device_bytes: int):
    engine = engine_of(is_judged=True)
    expected, answer = answer_image(part_of_brain(), engine)
    gpu = torch.device("cuda")
    budget = Budget(host_bytes=None, device_bytes=device_bytes)
    found, other = answer_image(
        part_of_brain(), replace(engine, network=engine.network.to(gpu), device=gpu, budget=budget)
    )
    assert (found.array == expected.array).mean() > 0.99  # TF32 in the convolutions
    for name, confidence in answer.confidences.items():
        assert confidence.soft_dice == pytest.approx(other.confidences[name].soft_dice, abs=0.05)


def test_features_on_disk_give_the_same(tmp_path: Path):
    engine = engine_of()
    expected = predict_image(part_of_brain(), engine).array
    on_disk = replace(engine, budget=Budget(host_bytes=0, folder=tmp_path))
    assert (predict_image(part_of_brain(), on_disk).array == expected).mean() > 0.99  # float16


def test_logits_are_made_a_few_planes_at_a_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("spadunet.inference.linear_head.MAX_PART_BYTES", 2 * 4 * 30 * 4 * 6)
    head = network_of(30).head
    features = torch.randn(16, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    parts = list(logits_in_parts(features, head, 0))
    assert [part.shape[1] for part in parts] == [2, 2, 1]
    torch.testing.assert_close(torch.cat(parts, dim=1), head(features[None])[0].detach())


def test_features_are_added_up_where_they_are_fewer_and_their_mean_is_what_counts():
    assert with_features(network_of(16)) is None
    assert with_features(Small(30)) is None
    engine = engine_of()
    for more in ({"mirror": ("left-right",)}, {"chosen": ("class 3",)}, {"others": engine.members}):
        assert replace(engine, **more).by_features is None
    demand = engine.demand((100, 90, 80), 0)
    assert (demand.num_outputs, demand.num_logits) == (16, 16)
    assert "features of 16 channels are added up as" in tell_choice("a", demand, Budget(host_bytes=None), CPU)
