"""Fine-tuning as torchrun starts it in each process, in float64.
`segmentation_run.py CASES FOLDER [what happens]`.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from spadunet.cli.run import make_parser, run_command
from spadunet.errors import InputError
from spadunet.fingerprint import CaseFacts, Fingerprint, IntensityFacts
from spadunet.labels import LabelSet
from spadunet.network.adapters import Adapter
from spadunet.network.heads import SegmentationTask
from spadunet.network.pyramid import SpadViTUNet
from spadunet.network.unet import SpadUNet
from spadunet.network.vit import SpadViT
from spadunet.plans.planner import make_plan
from spadunet.preprocessing.store import open_case
from spadunet.training.loop import JointNetwork, RunOptions, train_network
from spadunet.training.patches import Batch, BatchStream, TrainingTask
from spadunet.training.ranks import Ranks, open_ranks

NUM_STEPS, GLOBAL_BATCH = 6, 4
WHAT = sys.argv[3] if len(sys.argv) > 3 else ""
NAMES = ("Dataset001_A", "Dataset002_B")
FACTS = IntensityFacts(percentile_00_5=0, percentile_50=50, percentile_99_5=100, mean=50, std=20)


def task_of(folder: Path) -> TrainingTask:
    """The task of three stored cases; the second dataset has ignored voxels."""
    cases = tuple(open_case(folder, f"c{number}") for number in range(3))
    geometry = cases[0].header.geometry
    facts = tuple(CaseFacts(name=case.name, spacing_mm=geometry.spacing_mm, shape=geometry.shape) for case in cases)
    ignored = {"ignore_id": 9} if folder.name == NAMES[1] else {}
    labels = LabelSet(names=("background", "organ1", "organ2"), ids=(0, 1, 2), **ignored)
    fingerprint = Fingerprint(dataset_name=folder.name, source_digest="0", cases=facts, intensities=(FACTS,))
    plan = make_plan(fingerprint, ("MRI",), labels)
    plan = plan.model_copy(update={"patch_sizes_voxels": dict.fromkeys(range(7), (4, 16, 16))})
    return TrainingTask(name=folder.name, plan=plan, cases=cases, batch_size=GLOBAL_BATCH)


def run(cases: Path, folder: Path, ranks: Ranks, *, with_vit: bool = False, with_experts: bool = False) -> None:
    """Two datasets through one U-Net, with adapters of it or without, or the first through a SPAD-ViT."""
    torch.manual_seed(ranks.rank)  # the first one's weights count
    if with_vit:
        vit = SpadViT(width=16, depth=2, num_heads=2, hidden_width=16)
        names, backbone = NAMES[:1], SpadViTUNet(vit, [8, 8, 16, 16, 16, 16])
    else:
        names, backbone = NAMES, SpadUNet([8, 8, 8], [1, 1, 1])
    adapters = [Adapter(backbone, rank=2, num_experts=2) for _ in names] if with_experts else []
    network = JointNetwork(backbone, [SegmentationTask(1, 3, [8, 8]) for _ in names], adapters).double()
    options = RunOptions(
        max_steps=NUM_STEPS,
        max_minutes=None,
        learning_rate=3e-3,
        weight_decay=0.01,
        seed=0,
        device=ranks.device,
        precision=torch.float32,
        num_workers=0,
        checkpoint_minutes=60.0,
        validate_every=2,
        freezes_backbone=with_experts,
    )
    tasks = [task_of(cases / name) for name in names]
    train_network(network, tasks, folder, options, run={}, held_out=[task.cases[:1] for task in tasks], ranks=ranks)


def in_float64(stream: BatchStream, step: int) -> Batch:
    """A batch of that precision."""
    if WHAT == "lost" and step == 3 and stream.rank == 1:
        raise InputError("c1.b2nd: not found any more; run spadunet_preprocess")
    batch = drawn(stream, step)
    if WHAT == "signal" and step == 3 and stream.rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    if WHAT == "spoil" and step == 3 and stream.rank == 1:
        batch.image[1] = float("nan")
    return replace(batch, image=batch.image.double())


drawn, deep_logits = BatchStream.__getitem__, JointNetwork.deep_logits


def in_small_memory(self: JointNetwork, x: Tensor, da: int, task: int) -> list[Tensor]:
    """Room for the activations of one patch, in the second process."""
    if len(x) > 1 and torch.distributed.get_rank() == 1:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return deep_logits(self, x.double(), da, task)


def read_in_float64(self: JointNetwork, x: Tensor, da: int, task: int) -> list[Tensor]:
    """Validation reads float32."""
    return deep_logits(self, x.double(), da, task)


def work() -> int:
    """The run."""
    BatchStream.__getitem__ = in_float64
    JointNetwork.deep_logits = in_small_memory if WHAT == "short" else read_in_float64
    with open_ranks(torch.device("cpu")) as ranks:
        run(Path(sys.argv[1]), Path(sys.argv[2]), ranks, with_vit=WHAT == "vit", with_experts=WHAT == "experts")
    return 0


if __name__ == "__main__":
    parser = make_parser("Fine-tuning.", "")
    run_command(parser, parser.parse_args([]), work, if_stopped="the same command goes on from here")
