"""How a volume is stored does not matter: real volumes, their axes in any order and direction, one answer in space."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

import spadunet
from spadunet.image import Image, LabelMap
from spadunet.inference.predict import Engine, predict_image
from spadunet.labels import LabelSet
from spadunet.network.build import build_backbone, build_task
from spadunet.network.heads import SegmentationNetwork
from spadunet.plan import IntensityRule, Plan

DEMO = Path(spadunet.__file__).parent / "demo/data"
HIPPOCAMPUS = DEMO / "Dataset004_Hippocampus/imagesTs/hippocampus_042_0000.nii.gz"
HEART = DEMO / "Dataset101_SunnybrookLV/imagesTs/SC-HYP-08_ph00_0000.nii.gz"


def read(path: Path, spacing_mm: tuple[float, float, float] | None = None, sides: int = 40) -> Image:
    """A real volume cut to its middle, resampled by ITK where a spacing (x, y, z) is given."""
    image = sitk.ReadImage(str(path), sitk.sitkFloat32)
    if spacing_mm is not None:
        sizes = zip(image.GetSize(), image.GetSpacing(), spacing_mm, strict=True)
        size = [round(number * own / wanted) for number, own, wanted in sizes]
        image = sitk.Resample(
            image, size, sitk.Transform(), sitk.sitkBSpline, image.GetOrigin(), spacing_mm, image.GetDirection()
        )
    first = [max((number - sides) // 2, 0) for number in image.GetSize()]
    image = sitk.RegionOfInterest(image, [min(number, sides) for number in image.GetSize()], first)
    affine = np.eye(4)
    affine[:3, :3] = (np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing()))[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    return Image(array=sitk.GetArrayFromImage(image)[None], affine=affine)


def stored_as(image: Image, order: tuple[int, ...], flips: tuple[bool, ...]) -> Image:
    """The same volume in space with its array axes in another order and direction."""
    array = image.array.transpose(0, *(1 + axis for axis in order))
    affine = image.affine[:, [*order, 3]].copy()
    for axis, is_flipped in enumerate(flips):
        if is_flipped:
            array = np.flip(array, 1 + axis)
            affine[:3, 3] += affine[:3, axis] * (array.shape[1 + axis] - 1)
            affine[:3, axis] *= -1
    return Image(array=np.ascontiguousarray(array), affine=affine)


def back(label_map: LabelMap, order: tuple[int, ...], flips: tuple[bool, ...]) -> np.ndarray:
    """The array of `stored_as`'s label map in the first storage."""
    flipped = np.flip(label_map.array, [axis for axis in range(3) if flips[axis]])
    return flipped.transpose(np.argsort(order))


@pytest.fixture(scope="module")
def network() -> SegmentationNetwork:
    """Of random weights: it has no reason to be symmetric."""
    torch.manual_seed(0)
    return SegmentationNetwork(build_backbone("spad_unet", "tiny"), build_task(1, 3, "spad_unet", "tiny")).eval()


@pytest.mark.parametrize("is_resampled", [False, True], ids=["native", "resampled"])
@pytest.mark.parametrize(
    "image",
    [
        pytest.param(read(HIPPOCAMPUS), marks=pytest.mark.slow),
        pytest.param(read(HIPPOCAMPUS, (0.98, 0.98, 0.8)), marks=pytest.mark.slow),
        read(HEART),
    ],
    ids=["isotropic", "near-isotropic", "thick"],
)
def test_any_storage_gives_the_same_prediction_in_space(network, image: Image, is_resampled: bool):
    depth, height, width = (1.3 * side for side in sorted(image.spacing_mm, reverse=True))
    plan = Plan(
        dataset_name="Dataset001_A",
        channel_names=("MRI",),
        intensity=(IntensityRule(kind="percentiles", low=0.5, high=99.5),),
        target_spacing_mm=(depth, height, width) if is_resampled else "native",
        degree_of_anisotropy=0,
        patch_sizes_voxels={da: (max(24 >> da, 1), 32, 32) for da in range(7)},
        labels=LabelSet(names=("background", "a", "b"), ids=(0, 1, 2)),
        memory_gb=1,
        fingerprint_digest="0",
    )
    engine = Engine(network=network, plan=plan, device=torch.device("cpu"), precision=torch.float32)
    expected = predict_image(image, engine).array
    shares = np.bincount(expected.ravel(), minlength=3) / expected.size
    assert np.sort(shares)[-2] > 0.05  # not one class everywhere
    for number, order in enumerate(itertools.permutations(range(3))):
        flips = (number % 2 == 0, number % 3 == 0, number > 2)
        stored = stored_as(image, order, flips)
        label_map = predict_image(stored, engine)
        np.testing.assert_allclose(label_map.affine, stored.affine)
        found = back(label_map, order, flips)
        for label_id in (0, 1, 2):
            one, other = found == label_id, expected == label_id
            if other.any():
                assert 2 * (one & other).sum() / (one.sum() + other.sum()) > 0.999
