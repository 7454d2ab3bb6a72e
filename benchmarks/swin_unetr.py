"""MONAI's Swin UNETR (Hatamizadeh et al. 2022) in our training loop, for benchmarks/table4.py."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from monai.networks.nets import SwinUNETR
from torch import Tensor, nn
from torch.nn import functional

from spadunet.cli.fine_tuning import FINE_TUNING, OVERLAP, USUAL_OVERLAP
from spadunet.cli.options import default_workers
from spadunet.cli.stages import read_plan
from spadunet.dataset import Dataset
from spadunet.inference.cases import find_cases
from spadunet.inference.pipeline import predict_cases
from spadunet.inference.predict import Engine
from spadunet.network.device import choose_device, choose_precision
from spadunet.network.heads import SegmentationNetwork, SegmentationTask
from spadunet.network.unet import INPUT_CHANNELS
from spadunet.sides import PATIENT_AXES
from spadunet.training.loop import JointNetwork, RunOptions, train_network
from spadunet.training.patch_recipes import USUAL
from spadunet.training.patches import TrainingTask
from spadunet.training.prepare import TrainingDataset, open_planned_case
from spadunet.training.recipes import RECIPES
from spadunet.training.schedule import WARM_UP
from spadunet.training.splits import choose_cases
from spadunet.training.variety import VarietyOptions

MULTIPLE = 32
"""Of its sides."""


class SwinBackbone(nn.Module):
    """Its last decoded map, (B, 3, D, H, W) to one (B, F, D, H, W); sizes that it cannot take are padded with -1."""

    def __init__(self, num_features: int):
        super().__init__()
        self.network = SwinUNETR(in_channels=INPUT_CHANNELS, out_channels=1, feature_size=num_features)
        self.network.out = nn.Identity()

    def forward(self, x: Tensor, da: int) -> list[Tensor]:
        """`da` is ignored."""
        size = x.shape[2:]
        padded = [-(-side // MULTIPLE) * MULTIPLE for side in size]
        if max(padded) == MULTIPLE:  # of one voxel at its deepest level InstanceNorm has nothing to normalise
            padded[-1] *= 2
        before = [(large - side) // 2 for large, side in zip(padded, size, strict=True)]
        pads = [(first, large - side - first) for first, large, side in zip(before, padded, size, strict=True)]
        y = self.network(functional.pad(x, [pad for pair in reversed(pads) for pad in pair], value=-1.0))
        for axis, (first, side) in enumerate(zip(before, size, strict=True), start=2):
            y = y.narrow(axis, first, side)
        return [y]


def train_swin(
    dataset: Dataset, preprocessed: Path, fold: str, seed: int, folder: Path, options: argparse.Namespace
) -> Engine:
    """Train it as SPAD-ViT is from scratch: the same patches, optimiser and schedule; goes on where it was stopped."""
    plan = read_plan(preprocessed, dataset)
    member = TrainingDataset(dataset=dataset, plan=plan, folder=preprocessed)
    recipe = FINE_TUNING.get(options.recipe)
    numbers = recipe.train.options if recipe else {}
    variety = (
        VarietyOptions(
            channel_dropout=0, slice_merging=0, spacing_jitter=0, mirror=PATIENT_AXES, patches=options.recipe
        )
        if recipe
        else VarietyOptions(patches=USUAL)
    )
    task = TrainingTask(
        name=dataset.name,
        plan=plan,
        cases=tuple(open_planned_case(member, name) for name in choose_cases(dataset, preprocessed, fold)[0]),
        batch_size=options.batch_size or numbers.get("batch_size"),
        variety=variety.for_plan(plan),
    )
    usual, device = RECIPES["spad_vit"], choose_device(options.device)
    run_options = RunOptions(
        max_steps=options.max_steps,
        max_minutes=None,
        learning_rate=options.learning_rate or numbers.get("learning_rate") or usual.learning_rate(options.preset),
        weight_decay=usual.weight_decay,
        seed=seed,
        device=device,
        precision=choose_precision("auto", device),
        num_workers=default_workers(),
        checkpoint_minutes=5.0,
        spares_vectors=usual.spares_vectors,
        warm_up_share=recipe.train.warm_up_share if recipe else WARM_UP,
        lowest_rate=recipe.train.lowest_rate if recipe else 0.0,
    )
    torch.manual_seed(seed)
    backbone = SwinBackbone(options.swin_features)
    head = SegmentationTask(len(plan.channel_names), plan.labels.num_outputs, [options.swin_features])
    train_network(JointNetwork(backbone, [head]), [task], folder, run_options, run={"seed": str(seed)})
    return Engine(
        network=SegmentationNetwork(backbone, head).eval(),
        plan=plan,
        device=device,
        precision=run_options.precision,
        overlap=OVERLAP if recipe else USUAL_OVERLAP,
        mirror=PATIENT_AXES if recipe else (),
    )


def predict_swin(engine: Engine, images: Path, folder: Path) -> None:
    """A label map for each image of a folder.

    Raises:
        SystemExit: if one failed.
    """
    plan = engine.plan
    optional = [plan.channel_names.index(name) for name in plan.optional_channels]
    for outcome in predict_cases(find_cases(images, len(plan.channel_names), optional), engine, folder):
        if outcome.problem:
            raise SystemExit(outcome.problem)
