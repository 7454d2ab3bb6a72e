"""An image to a label map on the image's own grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from bright_network import BRIGHT, ORGAN_ID, engine_of, image_with_box, plan_of
from random_models import CLASSES, REGIONS
from torch import Tensor, nn

from spadunet.dataset import RawCase
from spadunet.errors import InputError
from spadunet.image import Image, geometry_difference, read_image, read_label_map
from spadunet.inference.pipeline import predict_cases, prediction_path
from spadunet.inference.predict import build_network, predict_image, segment, views_of
from spadunet.inference.stages import StageTimes
from spadunet.labels import LabelSet
from spadunet.model import Model
from spadunet.network.build import build_backbone, build_task
from spadunet.task import Task


def turned_affine(spacing) -> np.ndarray:
    """Axes permuted and two of them flipped, a little oblique, with an origin somewhere."""
    cosine, sine = np.cos(0.1), np.sin(0.1)
    rotation = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = (rotation @ np.array([[0, -1, 0], [0, 0, 1], [-1, 0, 0]])) * spacing
    affine[:3, 3] = (-31.5, 7.25, 400)
    return affine


@pytest.mark.parametrize(
    "affine", [np.diag([3.0, 1, 1, 1]), np.diag([-3.0, -1, 1, 1]), turned_affine((1, 3, 1)), turned_affine((1, 1, 3))]
)
def test_label_map_lies_on_the_images_own_grid_however_it_is_stored(affine: np.ndarray):
    image, organ = image_with_box((10, 14, 12), affine)
    label_map = predict_image(image, engine_of(plan_of("native")))
    assert np.array_equal(label_map.affine, affine)
    assert np.array_equal(label_map.array, organ * ORGAN_ID)


def test_label_map_has_the_images_size_after_resampling():
    image, organ = image_with_box((12, 16, 16), np.diag([2.0, 1, 1, 1]))
    label_map = predict_image(image, engine_of(plan_of((1.0, 1.0, 1.0))))
    assert label_map.shape == (12, 16, 16)
    # Voxels beside a face may change sides; of the box's 6·8·8 there are no more than its faces.
    assert ((label_map.array == ORGAN_ID) != organ).sum() <= 2 * (8 * 8 + 6 * 8 + 6 * 8)
    inner = np.zeros_like(organ)
    inner[4:8, 5:11, 5:11] = True
    assert (label_map.array[inner] == ORGAN_ID).all()


class Degree(nn.Module):
    """Organ everywhere; notes the degrees of anisotropy that it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: Tensor, da: int) -> Tensor:
        self.seen.append(da)
        return torch.cat([-torch.ones_like(x[:, :1]), torch.ones_like(x[:, :1])], dim=1)


@pytest.mark.parametrize(("thickness", "da"), [(1.9, 0), (2.1, 1), (8.0, 3)])
def test_a_model_of_a_fixed_spacing_predicts_at_the_images_own_if_told(thickness: float, da: int):
    image, organ = image_with_box((10, 14, 12), np.diag([thickness, 1.0, 1.0, 1.0]))
    plan, network = plan_of((1.0, 1.0, 1.0)), Degree()
    engine = replace(engine_of(plan), network=network)
    predict_image(image, engine)
    assert set(network.seen) == {0}
    network.seen.clear()
    label_map = predict_image(image, replace(engine, spacing="native"))
    assert set(network.seen) == {da}
    assert label_map.shape == image.shape
    exact = predict_image(image, replace(engine_of(plan), spacing="native"))
    assert np.array_equal(exact.array, organ * ORGAN_ID)  # nothing was resampled
    assert not plan.is_native


@pytest.mark.parametrize("shape", [(1, 20, 20), (20, 1, 20), (20, 20, 1)])
def test_one_slice_along_any_axis_is_a_2d_image(shape):
    image, organ = image_with_box(shape, np.diag([1.0, 1, 1, 1]))
    label_map = predict_image(image, engine_of(plan_of("native")))
    assert np.array_equal(label_map.array, organ * ORGAN_ID)


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_an_image_of_one_value_gives_background(value: float):
    image = Image(array=np.full((1, 4, 5, 6), value, np.float32), affine=np.eye(4))
    label_map = predict_image(image, engine_of(plan_of("native")))
    assert label_map.shape == (4, 5, 6)
    assert not label_map.array.any()


FORMATS = {
    "a.nii.gz": "a.nii.gz",
    "a.nii": "a.nii",
    "a.nrrd": "a.nrrd",
    "a.mha": "a.mha",
    "a.mhd": "a.mha",
    "a.png": "a.png",
    "a.tif": "a.tif",
    "a.bmp": "a.bmp",
    "a.jpg": "a.png",
}


VOLUMES = [name for name in FORMATS if name not in ("a.png", "a.bmp", "a.jpg")]


@pytest.mark.parametrize(("name", "num_axes"), [*((name, 2) for name in FORMATS), *((name, 3) for name in VOLUMES)])
def test_label_maps_have_the_images_format_and_number_of_axes(tmp_path: Path, name: str, num_axes: int):
    is_flat = num_axes == 2
    image, organ = image_with_box((1, 16, 16) if is_flat else (6, 16, 16), np.eye(4)[[2, 1, 0, 3]])
    values = image.array[0].astype(np.uint8)
    path = tmp_path / "in" / name
    path.parent.mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(values[0] if is_flat else values), str(path))
    if name == "a.tif" and not is_flat:
        (path.parent / "a.json").write_text('{"spacing": [1, 1, 1]}')
    case = RawCase(name="a", image_paths=(path,), label_path=None)
    for label_format, expected in (("input", FORMATS[name]), ("nifti", "a.nii.gz")):
        output = tmp_path / label_format
        (outcome,) = predict_cases([case], engine_of(plan_of("native")), output, label_format=label_format)
        assert outcome.result == output / expected, outcome.problem
        found = {path.name for path in output.iterdir()} - {"a.json"}
        assert found == {expected}
        assert sitk.ReadImage(str(outcome.result)).GetDimension() == num_axes
        label_map = read_label_map(outcome.result)
        assert np.array_equal(label_map.array, organ * ORGAN_ID)
        assert geometry_difference(label_map, image) is None


def test_a_2d_image_that_is_turned_keeps_its_grid(tmp_path: Path):
    image = sitk.GetImageFromArray(image_with_box((1, 16, 16), np.eye(4))[0].array[0, 0])
    image.SetSpacing((0.5, 0.25))
    image.SetOrigin((3, 4))
    image.SetDirection((0.8, -0.6, 0.6, 0.8))
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    case = RawCase(name="a", image_paths=(tmp_path / "a.nii.gz",), label_path=None)
    (outcome,) = predict_cases([case], engine_of(plan_of("native")), tmp_path / "out")
    before, after = (sitk.ReadImage(str(path)) for path in (tmp_path / "a.nii.gz", outcome.result))
    for get in ("GetSize", "GetSpacing", "GetOrigin"):
        assert getattr(after, get)() == getattr(before, get)()
    np.testing.assert_allclose(after.GetDirection(), before.GetDirection(), atol=1e-6)


def write_case(folder: Path, name: str) -> RawCase:
    """A NIfTI file with a bright box."""
    image, _ = image_with_box((6, 10, 10), np.eye(4))
    path = folder / f"{name}_0000.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(image.array[0]), str(path))
    return RawCase(name=name, image_paths=(path,), label_path=None)


def test_a_broken_image_does_not_stop_the_others(tmp_path: Path):
    cases = [write_case(tmp_path, name) for name in ("a", "b", "c")]
    cases[1].image_paths[0].write_bytes(b"")
    output = tmp_path / "out"
    outcomes = {outcome.item.name: outcome for outcome in predict_cases(cases, engine_of(plan_of("native")), output)}
    assert outcomes["b"].result is None
    assert "b_0000.nii.gz: the file is empty" in (outcomes["b"].problem or "")
    assert sorted(path.name for path in output.iterdir()) == ["a.nii.gz", "c.nii.gz"]
    written, image = read_label_map(prediction_path(output, "a")), read_image(cases[0].image_paths)
    assert np.array_equal(written.array == ORGAN_ID, image.array[0] == BRIGHT)
    assert np.allclose(written.affine, image.affine)


def test_a_full_disk_is_told_for_every_case_and_leaves_no_half_label_map(tmp_path: Path, full_disk):
    cases = [write_case(tmp_path, name) for name in ("a", "b")]
    outcomes = list(predict_cases(cases, engine_of(plan_of("native")), tmp_path / "out"))
    assert all("no space is left on the device" in (outcome.problem or "") for outcome in outcomes)
    assert not list((tmp_path / "out").iterdir())


def model_of(preset: str = "tiny", *, stated: str = "tiny") -> Model:
    """Fresh weights of a preset under the name of another."""
    backbone, plan = build_backbone("spad_unet", preset), plan_of("native")
    task = Task(plan=plan, state=build_task(1, 2, "spad_unet", preset).state_dict())
    return Model(
        backbone="spad_unet",
        preset=stated,
        backbone_state=backbone.state_dict(),
        tasks={"A": task},
        provenance={},
    )


def test_a_models_network_has_its_weights_and_is_in_evaluation_mode():
    model = model_of()
    network = build_network(model, "A")
    assert not network.training
    for name, value in network.backbone.state_dict().items():
        assert torch.equal(value, model.backbone_state[name])


@pytest.mark.parametrize(("preset", "stated"), [("tiny", "small"), ("tiny", "colossal")])
def test_weights_that_do_not_fit_their_preset_are_an_error(preset, stated):
    with pytest.raises(InputError, match=rf"model spad_unet {stated}, task A: weights do not fit"):
        build_network(model_of(preset, stated=stated), "A")


class Same(nn.Module):
    """One value everywhere, of every output."""

    def __init__(self, value: float, num_outputs: int) -> None:
        super().__init__()
        self.value, self.num_outputs = value, num_outputs

    def forward(self, x: Tensor, da: int) -> Tensor:
        return x.new_full((len(x), self.num_outputs, *x.shape[2:]), self.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_logits_that_are_no_finite_numbers_fail_the_case_by_name(labels: LabelSet, value: float):
    plan = plan_of("native").model_copy(update={"labels": labels})
    engine = replace(engine_of(plan), network=Same(value, labels.num_outputs), is_judged=True)
    image, _ = image_with_box((10, 14, 12), np.eye(4))
    with pytest.raises(InputError, match="^liver_3: the network gave values that are no finite numbers; give"):
        segment(views_of("liver_3", image, engine), engine, StageTimes())
