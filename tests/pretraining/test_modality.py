"""What an image shows."""

from __future__ import annotations

import pytest

from spadunet.errors import InputError
from spadunet.pretraining.modality import check_modality, modality_in, more_telling, of_colour


@pytest.mark.parametrize(
    ("name", "expected"),
    [("CT", "CT"), ("ct", "CT"), ("MR", "MRI"), ("mri/t2-flair", "MRI/T2-FLAIR"), ("X-ray", "gray/XR")],
)
def test_names_of_the_vocabulary_and_usual_words_are_understood(name: str, expected: str):
    assert check_modality(name) == expected


@pytest.mark.parametrize(("name", "nearest"), [("MRI/T1w", "MRI/T1"), ("RGB/fundis", "RGB/fundus"), ("CTT", "CT")])
def test_a_wrong_name_is_told_with_the_nearest_right_one(name: str, nearest: str):
    with pytest.raises(InputError, match=f"{name}' is none that is known; did you mean '{nearest}'"):
        check_modality(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mr_spine_t2s.nii.gz", "MRI/T2-star"),
        ("BraTS-GLI-00000-000-t1c.nii.gz", "MRI/T1-contrast"),
        ("sub-01_T1w.nii.gz", "MRI/T1"),
        ("chaos_T2-SPIR", "MRI/T2-SPIR"),
        ("liver_12.nii.gz", "unknown"),
        ("context.nii.gz", "unknown"),
    ],
)
def test_file_and_channel_names_tell(text: str, expected: str):
    assert modality_in(text) == expected


def test_the_first_source_wins_unless_another_says_the_same_and_more():
    assert more_telling("unknown", "MRI", "MRI/T1") == "MRI/T1"
    assert more_telling("CT", "MRI/T1") == "CT"
    assert more_telling("unknown") == "unknown"


def test_grey_or_colour_is_told_by_the_stored_image():
    assert of_colour("RGB/US", 1) == "gray/US"
    assert of_colour("gray", 3) == "RGB"
    assert of_colour("CT", 3) == "CT"
