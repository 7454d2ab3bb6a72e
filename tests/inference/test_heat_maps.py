"""Heat maps: weights on the image's own grid, with the sum that the network gave."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from classifier_model import KINDS, bright_source, write_classifier
from PIL import Image as Picture
from study_folder import AXIAL

from spadunet.formats import read_channels, write_array
from spadunet.heat_picture import draw_heat, heaviest_slices
from spadunet.inference.asked_studies import find_studies
from spadunet.inference.class_sources import ClassSource, open_class_sources
from spadunet.inference.heat_maps import regrid, write_heat_maps
from spadunet.inference.predict_classes import ClassAnswer, predict_studies
from spadunet.network.classify import spread


def answers(path: Path, *sources: ClassSource) -> list[ClassAnswer]:
    """Of all studies, with their weights."""
    studies = find_studies(path, sources[0].plan)
    outcomes = predict_studies(
        studies, studies.names, sources, device=torch.device("cpu"), precision=torch.float32, has_focus=True
    )
    return [outcome.result for outcome in outcomes]


def test_weights_on_the_networks_own_grid_are_those_of_spread():
    weights = torch.rand(1, 2, 3, 2)
    size, patch = (7, 12, 5), (4, 4, 4)  # the first and last axes hang over
    assert np.allclose(regrid(weights[0].numpy(), size, size, patch), spread(weights, size, patch)[0], atol=1e-7)


def test_a_patch_is_shared_out_by_what_voxels_cover_of_it():
    weights = np.array([6.0, 2.0]).reshape(2, 1, 1)
    # Two patches of 4 voxels, the second with 2 inside: 6 voxels on 3 new ones, of which the last is the second patch.
    assert regrid(weights, (3, 1, 1), (6, 1, 1), (4, 1, 1)).ravel().tolist() == [3, 3, 2]
    assert regrid(weights, (1, 1, 1), (6, 1, 1), (4, 1, 1)).ravel().tolist() == [8]


@pytest.mark.parametrize("kind", KINDS)
def test_heat_maps_lie_on_the_images_own_grid(tmp_path: Path, kind: str):
    rng = np.random.default_rng(0)
    array = np.zeros((9, 20, 14), np.uint8)
    array[2:8, 3:, :12] = rng.integers(1, 200, (6, 17, 12))  # a crop
    affine = AXIAL[:, [2, 0, 1, 3]] * np.array([-1.2, 2.0, 0.7, 1])  # turned, flipped, anisotropic
    affine[:3, 3] = 7, -8, 9
    path = tmp_path / "images/a.nii.gz"
    path.parent.mkdir()
    write_array(path, array, affine)
    model = write_classifier(tmp_path / "model", kind=kind, spacing=(1.0, 1.0, 1.0))
    (answer,) = answers(path.parent, *open_class_sources([model], None))

    heat_path, picture = write_heat_maps(tmp_path / "out", answer)

    assert (heat_path, picture) == (tmp_path / "out/heat_maps/a.nii.gz", tmp_path / "out/heat_maps/a.jpg")
    (heat,), found = read_channels(heat_path)
    assert heat.shape == array.shape
    assert np.allclose(found, affine, atol=1e-4)
    assert heat.sum() == pytest.approx(1, abs=1e-4)
    assert heat[2:8, 3:, :12].sum() == pytest.approx(1, abs=1e-4)  # nothing outside the crop
    assert heat.min() >= 0
    assert Picture.open(io.BytesIO(picture.read_bytes())).size[0] > 100


def test_weights_find_their_way_back_to_where_they_were_given(tmp_path: Path):
    """Attention that counts bright patches alone: the heat is where the image is bright, whatever way it is stored."""
    array = np.ones((32, 32, 32), np.uint8)
    array[4:12, 20:28, 2:10] = 200
    for number, order in enumerate(((0, 1, 2), (2, 0, 1), (1, 0, 2))):
        signs = np.array([-1.0, 1, 1, 1]) if number else np.ones(4)
        folder = tmp_path / str(number)
        folder.mkdir()
        write_array(folder / "a.nii.gz", array.transpose(order), AXIAL[:, [*order, 3]] * signs)
        (answer,) = answers(folder, bright_source())
        write_heat_maps(folder / "out", answer)
        heat = read_channels(folder / "out/heat_maps/a.nii.gz")[0][0].transpose(np.argsort(order))
        assert heat[:16, 16:, :16].sum() > 0.9


def test_views_of_a_study_share_the_weight(tmp_path: Path):
    for name, scale in (("a", 1), ("b", 2)):
        path = tmp_path / "images" / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        write_array(path, np.random.default_rng(scale).integers(1, 99, (8, 8 * scale, 8)).astype(np.uint8), AXIAL)
    (tmp_path / "studies.csv").write_text("image,study\na,s\nb,s\n")
    models = [write_classifier(tmp_path / f"m{seed}", kind="attention", seed=seed) for seed in range(2)]
    (answer,) = answers(tmp_path, *open_class_sources(models, None))
    written = write_heat_maps(tmp_path / "out", answer)
    assert [path.name for path in written] == ["a.nii.gz", "a.jpg", "b.nii.gz", "b.jpg"]
    assert sum(read_channels(path)[0].sum() for path in written[::2]) == pytest.approx(1, abs=1e-4)


def test_slices_with_most_weight_are_shown_and_neighbours_are_not():
    heat = np.zeros((32, 2, 2), np.float32)
    heat[8:12], heat[12:14], heat[20], heat[30] = 4, 3.9, 2, 1
    assert heaviest_slices(heat) == [9, 20, 30]
    assert heaviest_slices(np.ones((1, 4, 4))) == [0]
    assert heaviest_slices(np.zeros((6, 4, 4))) == [3]
    sheet = draw_heat(np.random.default_rng(0).random((32, 8, 4)), np.ones((32, 8, 4)), (1, 1, 2))
    width, height = Picture.open(io.BytesIO(sheet)).size
    assert height == 420
    assert width == pytest.approx(3 * 420 / 0.96, abs=2)
