"""Plans worked out by hand from small fingerprints."""

from __future__ import annotations

import pytest

from spadunet.errors import InputError
from spadunet.fingerprint import CaseFacts, Fingerprint, IntensityFacts
from spadunet.labels import LabelSet
from spadunet.plan import IntensityRule, Plan
from spadunet.plans.planner import is_ct, make_plan, median_shape
from spadunet.spacing import MAX_DA, Shape, Spacing

LABELS = LabelSet(names=("background", "liver"), ids=(0, 1))
CT_FACTS = IntensityFacts(percentile_00_5=-50, percentile_50=100, percentile_99_5=200, mean=100, std=30)
PER_IMAGE = IntensityRule(kind="percentiles", low=0.5, high=99.5)


def fingerprint_of(*cases: tuple[Spacing, Shape], num_channels: int = 1) -> Fingerprint:
    """A fingerprint of cases a, b, c, … with these spacings and shapes."""
    facts = [
        CaseFacts(name=name, spacing_mm=spacing, shape=shape)
        for name, (spacing, shape) in zip("abcdef", cases, strict=False)
    ]
    return Fingerprint(
        dataset_name="Dataset001_X", source_digest="0", cases=tuple(facts), intensities=(CT_FACTS,) * num_channels
    )


HIPPOCAMPUS = fingerprint_of(((1, 1, 1), (36, 50, 35)), ((1, 1, 1), (31, 50, 36)), ((1, 1, 1), (40, 45, 30)))
SUNNYBROOK = fingerprint_of(((8, 1.25, 1.25), (9, 256, 256)), ((8, 1.25, 1.25), (11, 256, 256)))
MIXED = fingerprint_of(((2, 1, 1), (100, 64, 64)), ((5, 1, 1), (40, 128, 128)), ((8, 1, 1), (20, 64, 256)))


def plan_of(fingerprint: Fingerprint, **options) -> Plan:
    """A plan for MR."""
    return make_plan(fingerprint, ("MRI",), LABELS, **options)


# --- spacing


def test_the_target_is_the_median_spacing_and_the_degree_follows():
    plan = plan_of(MIXED)
    assert (plan.target_spacing_mm, plan.degree_of_anisotropy, plan.is_native) == ((5, 1, 1), 2, False)


def test_native_keeps_the_spacing_of_each_case_and_tells_the_degree_of_the_median():
    plan = plan_of(MIXED, target_spacing="native")
    assert (plan.target_spacing_mm, plan.degree_of_anisotropy, plan.is_native) == ("native", 2, True)


def test_a_given_spacing_is_taken_as_it_is():
    plan = plan_of(MIXED, target_spacing=(1.5, 1.5, 1.5))
    assert (plan.target_spacing_mm, plan.degree_of_anisotropy) == ((1.5, 1.5, 1.5), 0)


def test_coarse_pixels_leave_128_of_the_longer_side():
    plan = plan_of(SUNNYBROOK, target_spacing="coarse")
    assert (plan.target_spacing_mm, plan.degree_of_anisotropy) == ((8, 2.5, 2.5), 1)
    oblong = fingerprint_of(((1, 0.5, 0.5), (300, 512, 256)))
    assert plan_of(oblong, target_spacing="coarse").target_spacing_mm == (2, 2, 2)  # slices no closer than pixels


def test_small_images_are_not_made_coarser():
    for fingerprint in (HIPPOCAMPUS, fingerprint_of(((0.5, 1, 1), (20, 128, 128)))):
        assert plan_of(fingerprint, target_spacing="coarse") == plan_of(fingerprint)


def test_single_slices_are_of_the_largest_degree_whatever_the_target():
    planar = fingerprint_of(((1, 0.5, 0.5), (1, 512, 512)))
    assert plan_of(planar).degree_of_anisotropy == MAX_DA
    assert plan_of(planar).patch_size_voxels == (1, 512, 512)
    assert plan_of(planar, target_spacing="native").degree_of_anisotropy == MAX_DA


# --- patch


def test_the_median_shape_is_that_at_the_target_spacing():
    assert median_shape(MIXED, 2, (5, 1, 1)) == (40, 64, 128)  # depths 40, 40, 32
    assert median_shape(MIXED, 0, (1, 2, 2)) == (200, 32, 64)  # depths 200, 200, 160


def test_the_native_median_shape_is_that_of_the_cases_of_the_same_degree():
    assert median_shape(MIXED, 1, None) == (100, 64, 64)
    assert median_shape(MIXED, 3, None) == (20, 64, 256)
    assert median_shape(MIXED, 4, None) == (10, 64, 128)  # there is none: of all, with depths 12.5, 10 and 10


def test_an_image_has_half_the_slices_at_each_further_degree():
    assert [median_shape(HIPPOCAMPUS, da, (1, 1, 1))[0] for da in range(4)] == [36, 18, 9, 4]
    assert [median_shape(SUNNYBROOK, da, (8, 1.25, 1.25))[0] for da in (1, 2, 3)] == [20, 10, 5]
    assert [median_shape(HIPPOCAMPUS, da, None)[0] for da in (0, 2)] == [36, 9]
    assert plan_of(HIPPOCAMPUS).patch_sizes_voxels[2] == (9, 52, 36)


def test_single_slices_do_not_count_for_the_shape_of_volumes():
    found = fingerprint_of(((1, 1, 1), (1, 999, 999)), ((1, 1, 1), (1, 999, 999)), ((4, 1, 1), (30, 64, 64)))
    assert median_shape(found, 2, (4, 1, 1)) == (30, 64, 64)


def test_a_shape_is_never_less_than_a_voxel():
    assert median_shape(fingerprint_of(((1, 1, 1), (2, 3, 4))), 0, (100, 100, 100)) == (1, 1, 1)


def test_small_images_are_trained_whole():
    assert plan_of(HIPPOCAMPUS).patch_size_voxels == (36, 52, 36)  # median 36, 50, 35
    assert plan_of(SUNNYBROOK).patch_size_voxels == (10, 256, 256)


def test_there_is_a_patch_for_every_degree_within_the_memory():
    large = fingerprint_of(((3, 0.7, 0.7), (200, 512, 512)))
    plan = plan_of(large, target_spacing="native")  # 8 GB
    assert sorted(plan.patch_sizes_voxels) == list(range(MAX_DA + 1))
    assert plan.patch_sizes_voxels[0] == (128, 128, 128)
    assert plan.patch_sizes_voxels[3] == (32, 256, 256)
    for depth, height, width in plan.patch_sizes_voxels.values():
        assert depth * height * width <= 128**3


# --- intensity


@pytest.mark.parametrize(
    ("name", "expected"),
    [("CT", True), ("ct", True), ("CT_arterial", True), ("low-dose ct", True), ("PET/CT", True), ("T1 CE", False)]
    + [("MRI", False), ("octopus", False), ("ADC", False), ("", False)],
)
def test_ct_is_told_by_the_word(name: str, expected: bool):
    assert is_ct(name) is expected


def test_ct_has_one_window_for_all_images_and_mr_percentiles_of_each():
    plan = make_plan(fingerprint_of(((1, 1, 1), (9, 9, 9)), num_channels=2), ("CT", "MRI"), LABELS)
    assert plan.intensity == (IntensityRule(kind="window", low=-50, high=200), PER_IMAGE)


def test_a_given_window_is_that_of_the_ct_channels_alone():
    found = fingerprint_of(((1, 1, 1), (9, 9, 9)), num_channels=2)
    plan = make_plan(found, ("CT", "MRI"), LABELS, window=(-160, 240))
    assert plan.intensity == (IntensityRule(kind="window", low=-160, high=240), PER_IMAGE)


def test_a_window_without_ct_is_refused():
    with pytest.raises(InputError) as caught:
        plan_of(HIPPOCAMPUS, window=(-160, 240))
    assert str(caught.value) == (
        "--window -160 240: none of the channels ['MRI'] is CT; "
        "name the channel CT in dataset.json or leave the window out"
    )


@pytest.mark.parametrize("window", [(240, -160), (1, 1), (0, float("inf")), (float("nan"), 1)])
def test_a_window_that_cannot_be_is_refused(window: tuple[float, float]):
    found = fingerprint_of(((1, 1, 1), (9, 9, 9)))
    with pytest.raises(InputError) as caught:
        make_plan(found, ("CT",), LABELS, window=window)
    assert str(caught.value) == f"--window {window[0]:g} {window[1]:g}: expected two numbers, the lower first"


def test_ct_that_is_the_same_everywhere_needs_a_given_window():
    constant = CT_FACTS.model_copy(update={"percentile_00_5": -1024, "percentile_99_5": -1024})
    found = fingerprint_of(((1, 1, 1), (9, 9, 9))).model_copy(update={"intensities": (constant,)})
    with pytest.raises(InputError) as caught:
        make_plan(found, ("CT",), LABELS)
    assert str(caught.value) == ("channel CT: window -1024 to -1024: low must be below high; give --window LOW HIGH")
    assert make_plan(found, ("CT",), LABELS, window=(-160, 240)).intensity[0].low == -160


# --- the rest


def test_a_plan_says_from_which_fingerprint_it_is():
    plan = plan_of(MIXED, memory_gb=6)
    assert (plan.dataset_name, plan.labels, plan.memory_gb) == ("Dataset001_X", LABELS, 6)
    assert plan.fingerprint_digest == MIXED.digest() != plan_of(HIPPOCAMPUS).fingerprint_digest
    assert Plan.from_json(plan.to_json()) == plan
