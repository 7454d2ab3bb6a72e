"""A whole model small enough to be packed and spoilt many times."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spadunet.classes import ClassSet
from spadunet.classification_plan import ClassificationPlan
from spadunet.labels import LabelSet
from spadunet.model import Model, save_model
from spadunet.network import build
from spadunet.network.adapters import Adapter
from spadunet.network.build import UNetSize, build_backbone, build_classification_task, build_task
from spadunet.plan import IntensityRule, Plan
from spadunet.spacing import Shape
from spadunet.task import ADAPTER_PREFIX, AdapterRecord, Classifier, Task

TASKS = ("Dataset004_Hippocampus", "Dataset101_SunnybrookLV")
CLASSIFIER = "Dataset303_Organs"
PATCHES: dict[int, Shape] = {
    0: (8, 8, 8),
    1: (8, 16, 8),
    2: (4, 16, 16),
    3: (4, 16, 16),
    4: (2, 16, 16),
    5: (1, 16, 16),
}


def shrink_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the U-Net's `tiny` preset a network of two levels, 60 kB of weights."""
    monkeypatch.setitem(build.UNET_PRESETS, "tiny", UNetSize(widths=(8, 8), num_blocks=(0, 1), num_heads=1))


def make_plan(name: str) -> Plan:
    """Of a dataset of two channels and two classes."""
    return Plan(
        dataset_name=name,
        channel_names=("T1", "CT"),
        intensity=(
            IntensityRule(kind="percentiles", low=0.5, high=99.5),
            IntensityRule(kind="window", low=-100, high=300),
        ),
        target_spacing_mm=(8.0, 1.25, 1.25),
        degree_of_anisotropy=2,
        patch_sizes_voxels=PATCHES | {6: (1, 16, 16)},
        labels=LabelSet(names=("background", "left|ear", "<b>right"), ids=(0, 1, 4)),
        memory_gb=1,
        fingerprint_digest="0",
    )


def make_model(preset: str = "tiny", backbone: str = "spad_unet", tasks: tuple[str, ...] = TASKS) -> Model:
    """Fresh weights; what it tells of where it comes from has the paths of a machine in it."""
    torch.manual_seed(0)
    provenance = {
        "datasets": " ".join(tasks),
        "training_cases": " ".join(str(4 + number) for number in range(len(tasks))),
        "init": "/home/anna/secret place/model_7",
        "steps": "3",
        "init_coverage": "of 1,000 parameters: 3/4 loaded",
        f"added {TASKS[-1]}": "2026-01-01T00:00:00+00:00, after 3 steps, by spadunet 0.1, to /home/anna/fold_0",
        "scratch_twin": "False",
    }
    state = build_backbone(backbone, preset).state_dict()
    plans = {name: make_plan(name) for name in tasks}
    return Model(
        backbone=backbone,
        preset=preset,
        backbone_state=state,
        tasks={
            name: Task(
                plan=plan,
                state=build_task(len(plan.channel_names), plan.labels.num_outputs, backbone, preset).state_dict(),
                provenance={"init": "C:\\Users\\anna\\m", "datasets": name, "training_cases": "9"} if number else {},
            )
            for number, (name, plan) in enumerate(plans.items())
        },
        provenance=provenance,
    )


def adapter_state(record: AdapterRecord, *, has_decoder: bool = True) -> dict[str, Tensor]:
    """Of an adapter that changes something."""
    torch.manual_seed(1)
    backbone = build_backbone("spad_unet", "tiny")
    adapter = Adapter(backbone, rank=record.rank, num_experts=record.num_experts, has_decoder=has_decoder)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return {ADAPTER_PREFIX + name: value for name, value in adapter.state_dict().items()}


def make_adapted_model(record: AdapterRecord) -> Model:
    """As `make_model`, the second task with an adapter, and a classifier with one."""
    model = make_model()
    adapted = replace(model.tasks[TASKS[1]], adapter=record, state=model.tasks[TASKS[1]].state | adapter_state(record))
    plan = make_plan(CLASSIFIER)
    classifier = Classifier(
        plan=ClassificationPlan(
            dataset_name=CLASSIFIER,
            channel_names=plan.channel_names,
            intensity=plan.intensity,
            target_spacing_mm="native",
            degree_of_anisotropy=6,
            input_size_voxels=(1, 16, 16),
            classes=ClassSet(kind="multi-class", names=("heart", "lung", "liver")),
            fingerprint_digest="0",
        ),
        pooling="mean",
        state=build_classification_task(2, 3, "spad_unet", "tiny").state_dict()
        | adapter_state(record, has_decoder=False),
        provenance={"init": "/home/anna/m", "datasets": CLASSIFIER, "training_cases": "7"},
        adapter=record,
    )
    return replace(model, tasks=model.tasks | {TASKS[1]: adapted}, classifiers={CLASSIFIER: classifier})


def saved_model(folder: Path, **options: object) -> Path:
    """Its folder."""
    save_model(folder, make_model(**options))  # type: ignore[arg-type]
    return folder
