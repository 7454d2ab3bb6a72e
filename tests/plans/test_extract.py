"""Fingerprints of small images worked out by hand, and of embedded ones."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from spadunet.dataset import Dataset, RawCase, load_dataset
from spadunet.errors import InputError
from spadunet.fingerprint import CaseFacts, IntensityFacts
from spadunet.image import Image, LabelMap, read_image, read_label_map
from spadunet.plans.extract import VOXELS_PER_CASE, digest_of_dataset, extract_case, extract_fingerprint, summarise
from spadunet.preprocessing.integrity import read_checked
from spadunet.preprocessing.preprocess import orient_and_crop

DATA = Path(__file__).parent.parent.parent / "spadunet/demo/data"
AXIAL = np.eye(4)[[2, 1, 0, 3]]  # the first array axis goes up, the second back, the third left
RAW = RawCase(name="a", image_paths=(), label_path=None)


def first_cases(name: str, number: int) -> Dataset:
    """The first cases of an embedded dataset."""
    dataset = load_dataset(DATA / name)
    return dataclasses.replace(dataset, cases=dataset.cases[:number])


def extract(array: np.ndarray, labels: np.ndarray | None, affine: np.ndarray = AXIAL):
    """Facts and voxels of one image in memory."""
    return extract_of(array, labels, affine)


def extract_of(array: np.ndarray, labels: np.ndarray | None, affine: np.ndarray = AXIAL, ignore_id: int | None = None):
    """The same, with a label to ignore."""
    image = Image(array=array.astype(np.float32), affine=affine)
    label_map = None if labels is None else LabelMap(array=labels, affine=affine)
    return extract_case(RAW, read=lambda case: (image, label_map), orient=orient_and_crop, ignore_id=ignore_id)


def test_only_labelled_voxels_count_and_all_channels_are_taken_there():
    array = np.arange(1, 17).reshape(2, 2, 2, 2)
    labels = np.zeros((2, 2, 2), np.uint8)
    labels[0, 0, 1], labels[1, 1, 0] = 1, 2
    facts, voxels = extract(array, labels)
    assert facts == CaseFacts(name="a", spacing_mm=(1, 1, 1), shape=(2, 2, 2))
    np.testing.assert_array_equal(voxels, [[2, 7], [10, 15]])


@pytest.mark.parametrize("labels", [None, np.zeros((2, 2, 2), np.uint8)])
def test_without_a_label_every_voxel_counts(labels: np.ndarray | None):
    _, voxels = extract(np.arange(1, 9).reshape(1, 2, 2, 2), labels)
    np.testing.assert_array_equal(voxels, [np.arange(1, 9)])


def test_facts_are_those_after_turning_and_cropping():
    array = np.zeros((1, 9, 8, 7))
    array[0, 1:5, 2:8, 3:4] = 1
    array[0, 2, 3, 3] = 5
    labels = (array[0] == 5).astype(np.uint8)
    thick_last = np.array([[0.0, 1, 0, 0], [1.0, 0, 0, 0], [0, 0, 6.0, 0], [0, 0, 0, 1]])
    facts, voxels = extract(array, labels, thick_last)
    assert facts == CaseFacts(name="a", spacing_mm=(6, 1, 1), shape=(1, 4, 6))
    np.testing.assert_array_equal(voxels, [[5]])


def test_large_images_are_sampled_evenly():
    array = np.zeros((1, 20, 100, 100), np.float32) + np.arange(1, 101)  # a stride of twenty would see five columns
    _, voxels = extract(array, None)
    assert voxels.shape == (1, VOXELS_PER_CASE)
    assert set(voxels[0].tolist()) == set(range(1, 101))
    np.testing.assert_array_equal(voxels, extract(array, None)[1])


def test_intensities_are_summed_up_by_their_percentiles_mean_and_deviation():
    facts = IntensityFacts(percentile_00_5=0.5, percentile_50=50, percentile_99_5=99.5, mean=50, std=850**0.5)
    assert summarise(np.arange(101, dtype=np.float32)).model_dump() == pytest.approx(facts.model_dump())


def test_a_single_value_has_no_deviation():
    assert summarise(np.full(1, 7, np.float32)).std == 0


def test_a_real_dataset_has_the_intensities_of_its_labelled_voxels():
    dataset = first_cases("Dataset004_Hippocampus", 3)
    read = partial(read_checked, labels=dataset.labels, num_channels=1)
    found = extract_fingerprint(dataset, read=read, orient=orient_and_crop)
    values = np.concatenate(
        [
            read_image(case.image_paths).array[0][read_label_map(case.label_path).array > 0]
            for case in dataset.cases
            if case.label_path
        ]
    )
    [facts] = found.intensities
    assert facts.mean == pytest.approx(values.mean(), rel=1e-5)
    assert facts.std == pytest.approx(values.std(), rel=1e-4)
    expected = pytest.approx(np.percentile(values, (0.5, 50, 99.5)))
    assert [facts.percentile_00_5, facts.percentile_50, facts.percentile_99_5] == expected
    assert [case.name for case in found.cases] == ["hippocampus_011", "hippocampus_017", "hippocampus_035"]
    assert found.median_spacing_mm() == (1, 1, 1)
    assert found.cases[0].shape == (31, 50, 36)


def test_slices_of_real_hearts_are_thick():
    dataset = first_cases("Dataset101_SunnybrookLV", 1)
    read = partial(read_checked, labels=dataset.labels, num_channels=1)
    found = extract_fingerprint(dataset, read=read, orient=orient_and_crop)
    assert found.cases[0].spacing_mm == (8, 1.25, 1.25)
    assert found.cases[0].da == 2


def test_all_problems_are_told_at_once_sorted():
    dataset = first_cases("Dataset004_Hippocampus", 3)

    def refuse(case: RawCase):
        raise InputError(f"{case.name}.nii.gz: not found")

    with pytest.raises(InputError) as caught:
        extract_fingerprint(dataset, read=refuse, orient=orient_and_crop)
    assert str(caught.value).splitlines() == [f"{case.name}.nii.gz: not found" for case in dataset.cases]


def test_the_digest_changes_with_any_file_and_with_nothing_else(tmp_path: Path):
    paths = [tmp_path / name for name in ("image", "label")]
    for path in paths:
        path.write_bytes(b"x")
    case = RawCase(name="a", image_paths=(paths[0],), label_path=paths[1])
    dataset = dataclasses.replace(load_dataset(DATA / "Dataset004_Hippocampus"), cases=(case,))
    digests = [digest_of_dataset(dataset)]
    for path in paths:
        path.write_bytes(b"y")
        digests.append(digest_of_dataset(dataset))
    assert len(set(digests)) == 3
    paths[0].write_bytes(b"y")
    assert digest_of_dataset(dataset) == digests[-1]


def test_ignored_voxels_are_no_foreground():
    array = np.arange(1, 9).reshape(1, 2, 2, 2)
    labels = np.array([[[0, 9], [1, 9]], [[2, 0], [0, 0]]])
    _, voxels = extract_of(array, labels, ignore_id=9)
    np.testing.assert_array_equal(voxels, [[3, 5]])
    _, voxels = extract_of(array, np.where(labels, 9, 0), ignore_id=9)  # nothing is labelled
    np.testing.assert_array_equal(voxels, [np.arange(1, 9)])


def test_what_is_ignored_is_part_of_the_digest():
    dataset = first_cases("Dataset004_Hippocampus", 1)
    ignoring = dataset.labels.model_copy(update={"ignore_id": 9})
    assert digest_of_dataset(dataset) != digest_of_dataset(dataclasses.replace(dataset, labels=ignoring))


def test_intensities_of_a_channel_come_from_the_cases_that_have_it():
    array = np.arange(1, 9, dtype=np.float32).reshape(1, 2, 2, 2)
    images = {
        "a": Image(array=np.insert(array, 0, 0, axis=0), affine=AXIAL, missing_channels=(0,)),
        "b": Image(array=np.insert(100 * array, 1, 0, axis=0), affine=AXIAL, missing_channels=(1,)),
        "c": Image(array=np.concatenate([100 * array, array]), affine=AXIAL),
    }
    dataset = first_cases("Dataset004_Hippocampus", 0)
    cases = tuple(RawCase(name=name, image_paths=(), label_path=None) for name in images)
    found = extract_fingerprint(
        dataclasses.replace(dataset, cases=cases),
        read=lambda case: (images[case.name], None),
        orient=orient_and_crop,
    )
    assert [facts.mean for facts in found.intensities] == [450, 4.5]
    assert [facts.percentile_50 for facts in found.intensities] == [450, 4.5]
    assert images["a"].array[0].max() == 0  # the image itself stays as it is
