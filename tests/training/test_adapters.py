"""Adapters that are trained beside their tasks: what learns, what stays, and a run that is interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spadunet.network.adapters import Adapter
from spadunet.network.heads import SegmentationTask
from spadunet.network.unet import SpadUNet
from spadunet.task import AdapterRecord
from spadunet.training import steps
from spadunet.training.curves import read_rows
from spadunet.training.loop import JointNetwork, train_network

EXPERTS = AdapterRecord(rank=2, num_experts=3)


def network_of(record: AdapterRecord | None, num_tasks: int = 1) -> JointNetwork:
    """Three levels of sixteen channels."""
    torch.manual_seed(0)
    tasks = [SegmentationTask(1, 3, [16, 16]) for _ in range(num_tasks)]
    backbone = SpadUNet([16, 16, 16], [1, 1, 1])
    if record is None:
        return JointNetwork(backbone, tasks)
    kind = {"rank": record.rank, "num_experts": record.num_experts}
    return JointNetwork(backbone, tasks, [Adapter(backbone, **kind) for _ in tasks])


def states(network: JointNetwork) -> dict[str, torch.Tensor]:
    """Copies of backbone, tasks and adapters."""
    parts = {"backbone": network.backbone, "tasks": network.tasks, "adapters": network.adapters}
    return {f"{part}.{key}": value.clone() for part, it in parts.items() for key, value in it.state_dict().items()}


@pytest.mark.parametrize("record", [pytest.param(AdapterRecord(rank=2), marks=pytest.mark.slow), EXPERTS])
def test_adapters_and_heads_learn_and_the_backbone_keeps_every_bit_through_an_interruption(
    record, make_task, make_options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    frozen = {"freezes_backbone": True, "adapter": record, "max_steps": 3}
    tasks, options, often = [make_task()], make_options(**frozen, checkpoint_minutes=60.0), make_options(**frozen)
    monkeypatch.setattr("spadunet.training.curves.draw", lambda *_: None)
    whole, real_save = network_of(record), steps.save_state
    before = states(whole)
    train_network(whole, tasks, tmp_path / "whole", options, run={}, held_out=[tasks[0].cases[:1]])
    after = states(whole)
    for name, value in before.items():
        assert torch.equal(value, after[name]) == name.startswith("backbone."), name

    def save_until_step_2(path, learned, progress) -> None:
        if progress.step > 2:
            raise KeyboardInterrupt
        real_save(path, learned, progress)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(steps, "save_state", save_until_step_2)
        train_network(network_of(record), tasks, tmp_path / "parts", often, run={})
    resumed = network_of(record)
    train_network(resumed, tasks, tmp_path / "parts", options, run={}, held_out=[tasks[0].cases[:1]])
    found = states(resumed)
    assert all(torch.equal(value, found[name]) for name, value in after.items())


def test_curves_tell_what_each_expert_counts_and_the_entropy_of_the_router(make_task, make_options, tmp_path: Path):
    options = make_options(freezes_backbone=True, adapter=EXPERTS, max_steps=2, checkpoint_minutes=60.0)
    train_network(network_of(EXPERTS), [make_task()], tmp_path, options, run={})
    rows = read_rows(tmp_path / "curves.csv")
    for row in rows:
        assert sum(float(row[f"expert_{number}"]) for number in (1, 2, 3)) == pytest.approx(1, abs=1e-6)
        assert 0 <= float(row["router_entropy"]) <= torch.tensor(3.0).log() + 1e-6
    assert float(rows[0]["expert_2"]) == pytest.approx(1 / 3)  # a fresh router prefers none
    assert "expert_4" not in rows[0]


@pytest.mark.parametrize("record", [AdapterRecord(rank=2), EXPERTS], ids=["lora", "experts"])
def test_a_batch_in_parts_has_the_gradient_and_gates_of_the_whole(record):
    whole, parts = network_of(record).double(), network_of(record).double()
    for network in (whole, parts):  # a fresh router gives every image the same gates
        torch.manual_seed(1)
        for parameter in network.adapters.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    x = torch.rand(4, 1, 4, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for network, num_parts in ((whole, 1), (parts, 4)):
        torch.stack([level.square().mean() for level in network(x, 1, 0, num_parts)]).sum().backward()
    for (name, one), other in zip(whole.named_parameters(), parts.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None) == name.startswith("backbone."), name
        if one.grad is not None:
            assert torch.allclose(one.grad, other.grad, rtol=1e-9, atol=1e-12), name
    if record.num_experts == 1:
        assert whole.gates is parts.gates is None
    else:
        assert whole.gates.shape == (4, 3)
        assert torch.allclose(whole.gates, parts.gates)


def test_each_task_has_an_adapter_of_its_own():
    """What one learns does not change what the other computes."""
    network = network_of(EXPERTS, num_tasks=2)
    x = torch.rand(1, 1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = [network.deep_logits(x, 0, number)[0] for number in (0, 1)]
        for parameter in network.adapters[0].parameters():
            parameter += 0.1
        after = [network.deep_logits(x, 0, number)[0] for number in (0, 1)]
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
