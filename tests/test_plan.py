"""The plan is spacing metadata, checked, and nothing else."""

from __future__ import annotations

import json
import math
import re

import pytest
from pydantic import ValidationError

from spadunet.errors import InputError
from spadunet.labels import LabelSet
from spadunet.plan import IntensityRule, Plan
from spadunet.record import digest_of
from spadunet.spacing import MAX_DA

MR = IntensityRule(kind="percentiles", low=0.5, high=99.5)
CT = IntensityRule(kind="window", low=-160, high=240)
PLAN = Plan(
    dataset_name="Dataset101_SunnybrookLV",
    channel_names=("MRI",),
    intensity=(MR,),
    target_spacing_mm=(8, 1.25, 1 / 3),
    degree_of_anisotropy=2,
    patch_sizes_voxels={da: (8, 16 + da, 16) for da in range(MAX_DA + 1)},
    labels=LabelSet(names=("background", "LV"), ids=(0, 1)),
    memory_gb=12,
    fingerprint_digest="0123456789abcdef",
)
NATIVE = PLAN.model_copy(update={"target_spacing_mm": "native"})


def keys_of(value: object) -> set[str]:
    """All keys of a JSON value at any depth."""
    if isinstance(value, dict):
        return {str(key) for key in value}.union(*map(keys_of, value.values()))
    return set().union(*map(keys_of, value)) if isinstance(value, list) else set()


def test_the_plan_says_nothing_of_the_network():
    """A plan that grows a key must be looked at: no layer, width, kernel or stride may enter it."""
    assert keys_of(json.loads(PLAN.to_json())) - {str(da) for da in range(MAX_DA + 1)} == {
        "format_version",
        "dataset_name",
        "channel_names",
        "intensity",
        "kind",
        "low",
        "high",
        "target_spacing_mm",
        "degree_of_anisotropy",
        "patch_sizes_voxels",
        "labels",
        "names",
        "ids",
        "memory_gb",
        "fingerprint_digest",
    }
    words = "layer|width|kernel|stride|feature|pool|conv|norm|stage|block|depth|batch|architecture|network"
    assert not re.search(words, json.dumps(sorted(keys_of(json.loads(PLAN.to_json())))))


@pytest.mark.parametrize("plan", [PLAN, NATIVE])
def test_json_gives_the_same_plan_back(plan: Plan):
    assert Plan.from_json(plan.to_json()) == plan
    assert Plan.from_json(plan.to_json()).digest() == plan.digest()


def test_native_is_told_and_the_patch_is_that_of_its_own_degree():
    assert (PLAN.is_native, NATIVE.is_native) == (False, True)
    assert PLAN.patch_size_voxels == (8, 18, 16)


def test_an_unknown_field_is_named():
    text = PLAN.to_json().replace('"memory_gb"', '"num_layers": 5, "memory_gb"')
    with pytest.raises(InputError, match=r"^plan\.json: field 'num_layers': extra inputs are not permitted$"):
        Plan.from_json(text, source="plan.json")


def test_a_plan_of_a_newer_version_is_refused():
    text = PLAN.to_json().replace('"format_version": 1', '"format_version": 2')
    text = text.replace('"memory_gb"', '"num_layers": 5, "memory_gb"')
    message = "plan.json: format version 2 is newer than 1, the newest known here; update spadunet"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        Plan.from_json(text, source="plan.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"intensity": [MR, CT]}, "2 intensity rules for 1 channels"),
        ({"patch_sizes_voxels": {0: (8, 8, 8)}}, "patch_sizes_voxels needs a patch for each degree 0 … 6"),
        ({"patch_sizes_voxels": dict.fromkeys(range(7), (0, 8, 8))}, "Input should be greater than or equal to 1"),
        ({"target_spacing_mm": (0, 1, 1)}, "Input should be greater than 0"),
        ({"target_spacing_mm": (math.nan, 1, 1)}, "Input should be"),
        ({"degree_of_anisotropy": 7}, "Input should be less than or equal to 6"),
        ({"memory_gb": 0}, "Input should be greater than 0"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(change: dict, message: str):
    with pytest.raises(ValidationError, match=re.escape(message)):
        Plan.model_validate(PLAN.model_dump() | change)


@pytest.mark.parametrize(
    ("kind", "low", "high", "message"),
    [
        ("window", 240, -160, r"low \(240.0\) must be below high \(-160.0\)"),
        ("window", 1, 1, r"low \(1.0\) must be below high \(1.0\)"),
        ("window", 0, math.nan, "Input should be a finite number"),
        ("percentiles", -1, 99, r"percentiles lie between 0 and 100, not -1.0 and 99.0"),
        ("percentiles", 1, 101, r"percentiles lie between 0 and 100, not 1.0 and 101.0"),
    ],
)
def test_an_intensity_rule_that_cannot_be_is_refused(kind: str, low: float, high: float, message: str):
    with pytest.raises(ValidationError, match=message):
        IntensityRule.model_validate({"kind": kind, "low": low, "high": high})


def test_optional_channels_are_channels_and_stand_in_json_only_where_there_are_any():
    optional = Plan.model_validate(PLAN.model_dump() | {"optional_channels": ("MRI",)})
    assert Plan.from_json(optional.to_json()) == optional
    assert '"optional_channels"' in optional.to_json()
    with pytest.raises(ValidationError, match=r"optional_channels \('T2',\) are not all among \('MRI',\)"):
        Plan.model_validate(PLAN.model_dump() | {"optional_channels": ("T2",)})


def test_plans_from_before_regions_ignore_and_optional_channels_keep_their_digests():
    # What stored cases and interrupted runs were made from: as format version 1 wrote it.
    text = (
        '{"format_version":1,"dataset_name":"A","channel_names":["MRI"],'
        '"intensity":[{"kind":"percentiles","low":0.5,"high":99.5}],"target_spacing_mm":"native",'
        '"degree_of_anisotropy":2,"patch_sizes_voxels":{"0":[8,16,16],"1":[8,16,16],"2":[8,16,16],"3":[8,16,16],'
        '"4":[8,16,16],"5":[8,16,16],"6":[8,16,16]},"labels":{"format_version":1,"names":["background","LV"],'
        '"ids":[0,1]},"memory_gb":12.0,"fingerprint_digest":"0"}'
    )
    plan = Plan.from_json(text)
    assert plan.digest() == digest_of(text)
    assert plan.preprocessing_digest() == digest_of(
        '{"channel_names":["MRI"],"intensity":[{"kind":"percentiles","low":0.5,"high":99.5}],'
        '"target_spacing_mm":"native","labels":{"format_version":1,"names":["background","LV"],"ids":[0,1]}}'
    )
