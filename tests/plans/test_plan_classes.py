"""Plans of classifications, worked out by hand from small folders and files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from medmnist_file import members_of, write_medmnist
from study_folder import write_studies, write_study_image

from spadunet.errors import InputError
from spadunet.fingerprint import CaseFacts, Fingerprint, IntensityFacts
from spadunet.medmnist import open_medmnist
from spadunet.plan import IntensityRule
from spadunet.plans.plan_classes import da_at_size, fingerprint_studies, plan_medmnist, plan_studies
from spadunet.preprocessing.preprocess import orient_and_crop
from spadunet.preprocessing.views import read_view
from spadunet.spacing import MAX_DA
from spadunet.study import LabelledStudies
from spadunet.study_labels import read_studies

GREY_LEVELS = IntensityRule(kind="window", low=0, high=255)
TABLE = "image,split,grade\na,train,x\nb,train,y\nc,val,x\nd,test,y\n"
SPACINGS = {"a": (4, 1, 1), "b": (6, 1, 1), "c": (5, 2, 1), "d": (100, 100, 100)}


@pytest.mark.parametrize(
    ("shape", "channels", "size", "da"),
    [
        ((28, 28, 28), ("grey",), (160, 160, 160), 0),
        ((28, 28), ("grey",), (1, 160, 160), MAX_DA),
        ((28, 28, 3), ("red", "green", "blue"), (1, 160, 160), MAX_DA),
    ],
)
def test_medmnist_is_planned_as_in_the_paper(tmp_path: Path, shape, channels, size, da):
    plan = plan_medmnist(open_medmnist(write_medmnist(tmp_path / "mine.npz", members_of(shape))))
    assert (plan.dataset_name, plan.channel_names, plan.input_size_voxels) == ("mine", channels, size)
    assert (plan.degree_of_anisotropy, plan.is_native, set(plan.intensity)) == (da, True, {GREY_LEVELS})


@pytest.fixture
def studies(tmp_path: Path) -> LabelledStudies:
    for name, spacing in SPACINGS.items():
        write_study_image(tmp_path / "images" / f"{name}.nii.gz", spacing_mm=spacing)
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "CT"}}')
    return read_studies(write_studies(tmp_path, TABLE, ()))


def fingerprint_of(studies: LabelledStudies) -> Fingerprint:
    return fingerprint_studies(studies, read=partial(read_view, num_channels=1), orient=orient_and_crop)


def test_a_folder_is_planned_from_all_but_its_test_images(studies: LabelledStudies):
    fingerprint = fingerprint_of(studies)
    assert [facts.name for facts in fingerprint.cases] == ["a", "b", "c"]
    plan = plan_studies(fingerprint, studies)
    assert (plan.target_spacing_mm, plan.degree_of_anisotropy, plan.input_size_voxels) == ((5, 1, 1), 2, None)
    (facts,) = fingerprint.intensities
    window = IntensityRule(kind="window", low=facts.percentile_00_5, high=facts.percentile_99_5)
    assert plan.intensity == (window,)
    assert (plan.classes, plan.fingerprint_digest) == (studies.classes, fingerprint.digest())
    assert plan_studies(fingerprint, studies, window=(-100, 200)).intensity[0].low == -100
    assert plan_studies(fingerprint, studies, target_spacing="native").is_native


def test_a_size_takes_the_place_of_a_spacing(studies: LabelledStudies):
    fingerprint = fingerprint_of(studies)
    plan = plan_studies(fingerprint, studies, input_size_voxels=(20, 60, 50))  # of 20×6×5 mm: 1×0.1×0.1 mm
    assert (plan.is_native, plan.input_size_voxels, plan.degree_of_anisotropy) == (True, (20, 60, 50), 3)
    with pytest.raises(InputError, match="images are brought to either; give one of them"):
        plan_studies(fingerprint, studies, target_spacing=(1, 1, 1), input_size_voxels=(20, 60, 50))
    with pytest.raises(InputError, match="one slice, but a has 4; give a depth"):
        plan_studies(fingerprint, studies, input_size_voxels=(1, 60, 50))


def test_slices_have_the_largest_degree_at_any_size():
    facts = IntensityFacts(percentile_00_5=0, percentile_50=1, percentile_99_5=2, mean=1, std=1)
    slices = CaseFacts(name="a", spacing_mm=(1, 1, 1), shape=(1, 8, 8))
    fingerprint = Fingerprint(dataset_name="X", source_digest="0", cases=(slices,), intensities=(facts,))
    assert da_at_size(fingerprint, (1, 16, 16)) == da_at_size(fingerprint, (16, 16, 16)) == MAX_DA


def test_images_that_cannot_be_used_are_told_together(studies: LabelledStudies):
    for name in "ab":
        (studies.folder / f"images/{name}.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.nii\.gz: the file is empty[^\n]*\n[^\n]*b\.nii\.gz: the file is empty"):
        fingerprint_of(studies)
