"""The plan of a classification: the image part of every plan, a size, and classes."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from spadunet.classes import ClassSet
from spadunet.classification_plan import ClassificationPlan
from spadunet.errors import InputError
from spadunet.plan import ImagePlan, IntensityRule, Plan
from spadunet.spacing import MAX_DA

GREY = IntensityRule(kind="window", low=0, high=255)
PLAN = ClassificationPlan(
    dataset_name="organmnist3d",
    channel_names=("grey",),
    intensity=(GREY,),
    target_spacing_mm="native",
    degree_of_anisotropy=0,
    input_size_voxels=(160, 160, 160),
    classes=ClassSet(kind="binary", names=("benign", "malignant")),
    fingerprint_digest="0123456789abcdef",
)


@pytest.mark.parametrize("size", [(160, 160, 160), None])
def test_json_gives_the_same_plan_back(size):
    plan = PLAN.model_copy(update={"input_size_voxels": size})
    assert ClassificationPlan.from_json(plan.to_json()) == plan
    assert '"kind": "classification"' in plan.to_json()


def test_both_plans_hold_the_image_part_first_and_in_one_order():
    image_part = list(ImagePlan.model_fields)
    assert list(Plan.model_fields)[: len(image_part)] == image_part
    assert list(ClassificationPlan.model_fields)[: len(image_part)] == image_part


def test_a_plan_of_segmentation_is_none_of_classification():
    with pytest.raises(InputError, match=r"plan\.json: field 'patch_sizes_voxels': field required"):
        Plan.from_json(PLAN.to_json(), source="plan.json")


def test_stored_images_depend_on_the_size_but_not_on_the_classes():
    other_classes = PLAN.model_copy(update={"classes": ClassSet(kind="ordinal", names=("a", "b", "c"))})
    other_size = PLAN.model_copy(update={"input_size_voxels": (64, 64, 64)})
    assert other_classes.preprocessing_digest() == PLAN.preprocessing_digest()
    assert other_size.preprocessing_digest() != PLAN.preprocessing_digest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"intensity": [GREY, GREY]}, "2 intensity rules for 1 channels"),
        ({"target_spacing_mm": (1, 1, 1)}, "either to input_size_voxels (160, 160, 160) or to target_spacing_mm"),
        ({"input_size_voxels": (1 << 12, 1 << 12, 1 << 12)}, "an image has at most 1073741824 voxels"),
        ({"input_size_voxels": (1, 160, 160)}, f"one slice has the degree of anisotropy {MAX_DA}"),
        ({"input_size_voxels": (0, 160, 160)}, "Input should be greater than or equal to 1"),
        ({"kind": "segmentation"}, "Input should be 'classification'"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(change: dict, message: str):
    with pytest.raises(ValidationError, match=re.escape(message)):
        ClassificationPlan.model_validate(PLAN.model_dump() | change)
