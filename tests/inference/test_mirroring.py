"""Test-time mirroring: left is right in the mirror, and the mean knows no side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spadunet.image import Image
from spadunet.inference.mirroring import with_mirroring
from spadunet.inference.predict import Engine, predict_image
from spadunet.inference.predictor import image_of_array
from spadunet.labels import LabelSet
from spadunet.network.build import build_backbone, build_task
from spadunet.network.heads import SegmentationNetwork
from spadunet.orient import tells_orientation
from spadunet.plan import IntensityRule, Plan
from spadunet.preprocessing.mirror import MirrorAxis, mirror_axes
from spadunet.preprocessing.preprocess import preprocess
from spadunet.sides import PATIENT_AXES

LABELS = LabelSet(names=("background", "left kidney", "right kidney", "spleen"), ids=(0, 1, 2, 3))
PLAN = Plan(
    dataset_name="Dataset001_A",
    channel_names=("CT",),
    intensity=(IntensityRule(kind="window", low=0, high=1),),
    target_spacing_mm=(1.0, 1.0, 1.0),
    degree_of_anisotropy=0,
    patch_sizes_voxels={da: (8 if da < 6 else 1, 16, 16) for da in range(7)},
    labels=LABELS,
    memory_gb=1,
    fingerprint_digest="",
)
AFFINE = np.eye(4)[[2, 1, 0, 3]] + 3 * np.eye(4)[:, [1, 2, 0, 3]] * np.array([0, 0, 0, 1])
"""Storage axes run to the head, the back and the left."""


class Halves(nn.Module):
    """Says left kidney in the right half of the array (towards the patient's left) and right kidney in the other."""

    def forward(self, x: Tensor, da: int) -> Tensor:
        left = torch.linspace(-1, 1, x.shape[-1]).expand_as(x[:, 0])
        return torch.stack([0 * left, left, -left, 0 * left], dim=1)


def engine_of(network: nn.Module, **more: object) -> Engine:
    return Engine(network=network, plan=PLAN, device=torch.device("cpu"), precision=torch.float32, **more)


def image_of(*shape: int) -> Image:
    """Noise on the affine above."""
    array = np.random.default_rng(0).uniform(0.1, 1, (1, *shape)).astype(np.float32)
    return Image(array=array, affine=AFFINE)


def axes_of(image: Image) -> tuple[MirrorAxis, ...]:
    """All that the labels allow."""
    return mirror_axes(preprocess("a", image, None, PLAN).geometry, LABELS, PATIENT_AXES)


def test_a_network_that_knows_the_sides_is_not_confused_by_mirrors():
    image = image_of(8, 16, 16)
    plain, mirrored = (predict_image(image, engine_of(Halves(), mirror=axes)).array for axes in ((), PATIENT_AXES))
    assert np.array_equal(plain, mirrored)
    assert (plain[..., 8:] == 1).all()
    assert (plain[..., :8] == 2).all()
    # Without the swap the two would cancel out.
    x = torch.zeros(1, 1, 8, 16, 16)
    (axis,) = [axis for axis in axes_of(image) if axis.array_axis == 2]
    assert torch.allclose(with_mirroring(Halves(), [axis])(x, 0), Halves()(x, 0), atol=1e-6)
    unswapped = replace(
        axis, labels=LabelSet(names=LABELS.names, ids=LABELS.ids, mirror_pairs=()).mirrored("left-right")
    )
    assert torch.allclose(with_mirroring(Halves(), [unswapped])(x, 0), torch.zeros(1, 4, 8, 16, 16), atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("backbone", ["spad_unet", "spad_vit"])
def test_the_mean_over_mirrors_of_a_mirrored_image_is_the_mirrored_mean(backbone: str):
    torch.manual_seed(0)
    network = SegmentationNetwork(build_backbone(backbone, "tiny"), build_task(1, 4, backbone, "tiny")).eval()
    axes = axes_of(image_of(8, 16, 16))
    assert [axis.array_axis for axis in axes] == [0, 1, 2]
    x = torch.rand(1, 1, 8, 16, 16) * 2 - 1
    mean = with_mirroring(network, axes)
    assert not torch.allclose(mean(x, 0), network(x, 0), atol=1e-3)
    for axis in axes:
        dim = axis.array_axis + 2
        swapped = mean(x.flip(dim), 0).flip(dim)[:, list(axis.labels.outputs)]
        assert torch.allclose(swapped, mean(x, 0), atol=1e-4)


def test_an_array_lies_as_the_guide_says_and_is_mirrored_where_labels_name_sides():
    axes = axes_of(image_of_array(np.zeros((1, 8, 16, 16), np.float32), (1, 1, 1)))
    assert [axis.array_axis for axis in axes] == [0, 1, 2]
    assert axes[2].labels.classes == (0, 2, 1, 3)
    picture = image_of_array(np.zeros((1, 16, 16), np.float32), (1, 1))  # of which nobody knows more than of a file
    assert not tells_orientation(picture.affine)


def test_axes_that_labels_forbid_are_not_mirrored():
    network = Halves()
    plan = PLAN.model_copy(update={"labels": LabelSet(names=(*LABELS.names[:2], "liver", "x"), ids=LABELS.ids)})
    engine = replace(engine_of(network, mirror=("left-right",)), plan=plan)
    assert (predict_image(image_of(8, 16, 16), engine).array[..., 8:] == 1).all()
    assert with_mirroring(network, []) is network
