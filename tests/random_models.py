"""Small networks of random weights, of which no two agree, and a real image for them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from spadunet.image import Image, read_image
from spadunet.inference.ensemble import Member
from spadunet.inference.predict import Engine
from spadunet.labels import LabelSet, Region
from spadunet.model import Model, save_model
from spadunet.network.build import build_backbone, build_task
from spadunet.plan import IntensityRule, Plan
from spadunet.task import Task

DEMO = Path(__file__).parent.parent / "spadunet/demo/data"
CLASSES = LabelSet(names=("background", "a", "b", "c", "d"), ids=(0, 1, 2, 5, 7))
REGIONS = LabelSet(
    names=("background", "oedema", "core"),
    ids=(0, 1, 2),
    regions=(Region(name="whole", ids=(1, 2), painted_id=1), Region(name="core", ids=(2,), painted_id=2)),
)


def plan_of(labels: LabelSet = CLASSES, *, depth: int = 24, spacing="native", low: float = 0.5) -> Plan:
    """One channel; windows of a depth that shrinks with anisotropy."""
    return Plan(
        dataset_name="Dataset001_A",
        channel_names=("MRI",),
        intensity=(IntensityRule(kind="percentiles", low=low, high=99.5),),
        target_spacing_mm=spacing,
        degree_of_anisotropy=0,
        patch_sizes_voxels={da: (max(depth >> da, 1), 32, 32) for da in range(7)},
        labels=labels,
        memory_gb=1,
        fingerprint_digest="0",
    )


class Small(nn.Module):
    """Two convolutions: what a window says of a voxel depends on its surroundings, and on where the window ends."""

    def __init__(self, num_outputs: int):
        super().__init__()
        self.first, self.second = nn.Conv3d(1, 8, 3, padding=1), nn.Conv3d(8, num_outputs, 3, padding=1)

    def forward(self, x: Tensor, da: int) -> Tensor:
        return 8 * self.second((4 * self.first(x)).tanh())


class Levels(nn.Module):
    """Classes by how bright the surroundings are: as of a trained network, windows that overlap agree but for rims."""

    def __init__(self, num_outputs: int, side: int):
        super().__init__()
        self.centres, self.side = torch.linspace(-1, 0.6, num_outputs), side

    def forward(self, x: Tensor, da: int) -> Tensor:
        mean = functional.avg_pool3d(x, self.side, 1, self.side // 2, count_include_pad=False)
        return -8 * (mean - self.centres.view(1, -1, 1, 1, 1)).square()


@cache
def network_of(seed: int, num_outputs: int) -> Small:
    """The same for a seed."""
    torch.manual_seed(seed)
    return Small(num_outputs).eval()


def member_of(seed: int, plan: Plan) -> Member:
    """A network with its plan."""
    return Member(network=network_of(seed, plan.labels.num_outputs), plan=plan)


def engine_of(*members: Member, **more: object) -> Engine:
    """On the processor, in float32."""
    first, *others = members
    return Engine(
        network=first.network,
        plan=first.plan,
        others=tuple(others),
        device=torch.device("cpu"),
        precision=torch.float32,
        **more,
    )


@cache
def hippocampus() -> Image:
    """A real brain MR of about 35×50×36 voxels."""
    return read_image([sorted((DEMO / "Dataset004_Hippocampus/imagesTr").glob("*.nii.gz"))[0]])


def write_model(folder: Path, seed: int, plan: Plan) -> Path:
    """A model folder with random weights of the smallest preset."""
    torch.manual_seed(seed)
    head = build_task(1, plan.labels.num_outputs, "spad_unet", "tiny")
    with torch.no_grad():
        head.heads[0].weight *= 8  # so that many classes win somewhere
    task = Task(plan=plan, state=head.state_dict())
    model = Model(
        backbone="spad_unet",
        preset="tiny",
        backbone_state=build_backbone("spad_unet", "tiny").state_dict(),
        tasks={plan.dataset_name: task},
        provenance={},
    )
    save_model(folder, model)
    return folder
