"""What a network that classifies sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from study_folder import AXIAL, write_studies, write_study_image

from spadunet.classes import ClassSet
from spadunet.classification_plan import ClassificationPlan
from spadunet.errors import InputError
from spadunet.formats import write_array
from spadunet.orient import unorient
from spadunet.plan import IntensityRule
from spadunet.preprocessing.crop import uncrop
from spadunet.preprocessing.memory import BYTES_TO_MAKE, BYTES_TO_PREPROCESS, memory_to_view
from spadunet.preprocessing.run import preprocess_studies
from spadunet.preprocessing.store import open_case
from spadunet.preprocessing.views import view_of_array, views_of_study
from spadunet.spacing import MAX_DA
from spadunet.study_labels import read_studies

GREY_LEVELS = IntensityRule(kind="window", low=0, high=255)
NATIVE = ClassificationPlan(
    dataset_name="X",
    channel_names=("grey",),
    intensity=(GREY_LEVELS,),
    target_spacing_mm="native",
    degree_of_anisotropy=0,
    classes=ClassSet(kind="binary", names=("x", "y")),
    fingerprint_digest="0",
)
SIZED = NATIVE.model_copy(update={"input_size_voxels": (8, 12, 10)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_study_image(tmp_path / "images/a.nii.gz", spacing_mm=(4, 1, 1))
    write_study_image(tmp_path / "images/b.mha", shape=(1, 6, 5))
    write_studies(tmp_path, "image,study,grade\na,s,x\nb,s,x\nc,c,y\nd,d,y\n", "cd")
    return tmp_path


def test_each_view_comes_at_its_own_size_and_spacing_and_can_be_put_back(folder: Path):
    study = read_studies(folder).studies[0]
    thick, flat = views_of_study(study, NATIVE)
    assert (thick.name, thick.array.shape, thick.array.dtype, thick.da) == ("a", (1, 4, 6, 5), np.float32, 2)
    assert (flat.name, flat.array.shape, flat.da) == ("b", (1, 1, 6, 5), MAX_DA)
    assert thick.geometry is not None
    rng = np.random.default_rng(sum(b"a.nii.gz"))
    stored = rng.integers(1, 200, (4, 6, 5))
    whole = uncrop(thick.array, thick.geometry.crop, thick.geometry.oriented_shape)
    back = unorient(whole, thick.geometry.axes, thick.geometry.flips)
    np.testing.assert_allclose(back[0], stored / 127.5 - 1, atol=1e-6)


def test_whole_images_are_brought_to_a_size_and_a_slice_stays_one(folder: Path):
    studies = read_studies(folder).studies
    volume, flat = views_of_study(studies[0], SIZED)
    assert (volume.array.shape, flat.array.shape) == ((1, 8, 12, 10), (1, 1, 12, 10))
    assert (volume.da, flat.da) == (2, MAX_DA)  # half as many mm along each axis
    assert volume.geometry is not None
    assert volume.geometry.spacing_mm == (2, 0.5, 0.5)


def test_a_dark_border_belongs_to_the_whole_image(folder: Path):
    array = np.zeros((4, 6, 5), np.uint8)
    array[1:3, 2:4, 2:4] = 100
    write_array(folder / "images/c.nii.gz", array, AXIAL)
    study = read_studies(folder).studies[1]
    (cropped,), (whole,) = views_of_study(study, NATIVE), views_of_study(study, SIZED)
    assert cropped.array.shape == (1, 2, 2, 2)
    assert whole.geometry is not None
    assert whole.geometry.crop == ((0, 4), (0, 6), (0, 5))
    assert whole.array[0, 0, 0, 0] == -1


def test_a_constant_image_and_a_volume_for_a_slice_are_refused_by_name(folder: Path):
    study = read_studies(folder).studies[0]
    sliced = NATIVE.model_copy(update={"input_size_voxels": (1, 12, 10)})
    with pytest.raises(InputError, match=r"a\.nii\.gz: a volume of 4 slices cannot become one slice of 12×10"):
        list(views_of_study(study, sliced))
    write_array(folder / "images/a.nii.gz", np.full((4, 6, 5), 7, np.uint8), AXIAL)
    with pytest.raises(InputError, match=r"a\.nii\.gz: every voxel is 7; expected an image"):
        list(views_of_study(study, NATIVE))


def test_an_image_of_medmnist_keeps_its_size_and_has_no_place():
    array = np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 3)
    view = view_of_array("train_00000", array, NATIVE)
    np.testing.assert_allclose(view.array.ravel(), [-1, -0.6, 1], atol=1e-6)
    assert (view.da, view.geometry, view.array.dtype) == (0, None, np.float32)


@pytest.mark.parametrize("plan", [NATIVE, SIZED])
def test_stored_views_are_those_read_from_the_images(folder: Path, plan: ClassificationPlan):
    found = read_studies(folder)
    first = preprocess_studies(found, plan, folder / "stored")
    again = preprocess_studies(found, plan, folder / "stored")
    assert (first.num_made, first.problems, again.num_made, again.num_kept) == (4, (), 0, 4)
    assert sorted(path.name for path in (folder / "stored").glob("a.*")) == ["a.b2nd", "a.json"]
    for study in found.studies:
        for view in views_of_study(study, plan):
            stored = open_case(folder / "stored", view.name)
            assert (stored.da, stored.header.geometry, stored.header.is_labelled) == (view.da, view.geometry, False)
            np.testing.assert_allclose(stored.read_image(), view.array, atol=1e-3)


def test_a_stored_view_is_made_again_when_its_file_or_the_plan_changes(folder: Path):
    found = read_studies(folder)
    preprocess_studies(found, NATIVE, folder / "stored")
    write_study_image(folder / "images/c.nii.gz", shape=(5, 5, 5))
    assert preprocess_studies(found, NATIVE, folder / "stored").num_made == 1
    assert preprocess_studies(found, SIZED, folder / "stored").num_made == 4


def test_memory_counts_what_a_size_makes_of_an_image(folder: Path):
    raw = read_studies(folder).studies[0].views[0]  # 120 voxels become 960
    assert memory_to_view(raw, plan=SIZED) == 120 * BYTES_TO_PREPROCESS + 960 * BYTES_TO_MAKE
    assert memory_to_view(raw, plan=NATIVE) == 120 * (BYTES_TO_PREPROCESS + BYTES_TO_MAKE)
