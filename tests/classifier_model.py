"""Model folders that classify, of random weights and the smallest presets."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from spadunet.classes import ClassSet
from spadunet.classification_plan import ClassificationPlan
from spadunet.inference.class_sources import ClassSource
from spadunet.model import Model, save_model
from spadunet.network.build import build_backbone, build_classification_task, build_vit
from spadunet.network.classify import View, patch_shape
from spadunet.plan import IntensityRule
from spadunet.spacing import MAX_DA
from spadunet.task import Classifier, Task

SIDES = ClassSet(kind="binary", names=("left", "right"))
KINDS = {"cls": ("spad_vit", "cls"), "mean": ("spad_unet", "mean"), "attention": ("spad_vit", "attention")}
"""Backbone and pooling."""


def classification_plan(
    classes: ClassSet = SIDES, *, spacing="native", size=None, channel_names: tuple[str, ...] = ("grey",)
) -> ClassificationPlan:
    """From 0 and 255 to -1 and 1."""
    return ClassificationPlan(
        dataset_name="cubes",
        channel_names=channel_names,
        intensity=(IntensityRule(kind="window", low=0, high=255),) * len(channel_names),
        target_spacing_mm=spacing,
        degree_of_anisotropy=MAX_DA if size and size[0] == 1 else 0,
        input_size_voxels=size,
        classes=classes,
        fingerprint_digest="0",
    )


def write_classifier(
    folder: Path,
    classes: ClassSet = SIDES,
    *,
    kind: str = "mean",
    seed: int = 0,
    plan: ClassificationPlan | None = None,
    tasks: dict[str, Task] | None = None,
    **more,
) -> Path:
    """A model folder with a classifier `cubes`, and perhaps tasks that segment.

    Args:
        kind: one of KINDS.
    """
    backbone, pooling = KINDS[kind]
    plan = plan or classification_plan(classes, **more)
    torch.manual_seed(seed)
    task = build_classification_task(len(plan.channel_names), plan.classes.num_outputs, backbone, "tiny", pooling)
    with torch.no_grad():
        task.head.weight *= 20  # so that studies differ
    model = Model(
        backbone=backbone,
        preset="tiny",
        backbone_state=build_backbone(backbone, "tiny").state_dict(),
        tasks=tasks or {},
        provenance={},
        classifiers={"cubes": Classifier(plan=plan, pooling=pooling, state=task.state_dict())},
    )
    save_model(folder, model)
    return folder


class Bright(nn.Module):
    """Attends to bright patches alone, and says right where one of them is bright: the mechanics of a trained one."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = build_vit("tiny")

    def brightness(self, views: list[View]) -> list[Tensor]:
        """Mean of each patch, (B, d, h, w) by view."""
        found = []
        for x, da in views:
            patch = patch_shape(self.backbone, da)
            found.append(functional.avg_pool3d(x, patch, ceil_mode=True)[:, 0])
        return found

    def attention_weights(self, views: list[View]) -> list[Tensor]:
        """As of a `ClassificationNetwork`."""
        found = self.brightness(views)
        weights = torch.cat([it.flatten(1) for it in found], 1).mul(40).softmax(1)
        parts = weights.split([it[0].numel() for it in found], 1)
        return [part.view_as(it) for part, it in zip(parts, found, strict=True)]

    def forward(self, views: list[View]) -> Tensor:
        """Logits (B, 2)."""
        highest = torch.cat([it.flatten(1) for it in self.brightness(views)], 1).amax(1)
        return torch.stack([-highest, highest], 1).add(torch.tensor([-0.5, 0.5])).mul(8)


def bright_source(**more) -> ClassSource:
    """As of a model's folder."""
    return ClassSource(folder=Path("bright"), task="cubes", plan=classification_plan(**more), network=Bright().eval())
