"""Names of metrics: what they say, and what is no name."""

from __future__ import annotations

import pytest

from spadunet.errors import InputError
from spadunet.metrics import DEFAULT_METRICS, FIXED, LESION_METRICS, complete_names, metric_of


@pytest.mark.parametrize(
    ("name", "title", "kind", "unit", "length_unit"),
    [
        ("dice", "Dice", "overlap", "", ""),
        ("assd_mm", "ASSD mm", "distance", "mm", "mm"),
        ("masd_voxels", "MASD voxels", "distance", "voxels", "voxels"),
        ("asd_mm", "ASD mm", "distance", "mm", "mm"),
        ("rvd_percent", "RVD %", "signed difference", "%", ""),
        ("hd_mm", "HD mm", "distance", "mm", "mm"),
        ("hd95_voxels", "HD95 voxels", "distance", "voxels", "voxels"),
        ("hd97.5_mm", "HD97.5 mm", "distance", "mm", "mm"),
        ("nsd_2mm", "NSD 2 mm", "overlap", "", "mm"),
        ("nsd_0.5voxels", "NSD 0.5 voxels", "overlap", "", "voxels"),
        ("ravd_percent", "RAVD %", "volume difference", "%", ""),
        ("volume_ml", "volume ml", "volume", "ml", ""),
    ],
)
def test_a_name_tells_kind_and_unit(name: str, title: str, kind: str, unit: str, length_unit: str):
    metric = metric_of(name)
    assert (metric.name, metric.title, metric.kind, metric.unit, metric.length_unit) == (
        name,
        title,
        kind,
        unit,
        length_unit,
    )


def test_more_is_better_of_overlaps_and_less_of_distances():
    found = {
        name: metric_of(name).is_higher_better
        for name in ("iou", "nsd_2mm", "hd95_mm", "ravd_percent", "rvd_percent", "volume_ml")
    }
    assert found == {
        "iou": True,
        "nsd_2mm": True,
        "hd95_mm": False,
        "ravd_percent": False,
        "rvd_percent": None,
        "volume_ml": None,
    }


@pytest.mark.parametrize(
    ("unit", "names"), [("mm", ("dice", "hd95_mm", "nsd_2mm")), ("voxel", ("dice", "hd95_voxels", "nsd_2voxels"))]
)
def test_names_without_a_unit_get_the_one_asked_for(unit: str, names: tuple[str, ...]):
    assert complete_names(["dice", "hd95", "nsd_2", "hd95"], unit) == names  # type: ignore[arg-type]
    assert complete_names(["hd_mm", "hd_voxels"], unit) == ("hd_mm", "hd_voxels")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["hd95", "hd95.0", "hd095", "hd95_mm", "hd095.00_mm"], ("hd95_mm",)),
        (["hd", "hd100", "hd100.0_mm", "hd_mm"], ("hd_mm",)),
        (["nsd_2", "nsd_2.0", "nsd_02mm", "nsd_2mm"], ("nsd_2mm",)),
        (["nsd_0.50", "nsd_00.5"], ("nsd_0.5mm",)),
        (["hd99.50", "hd97.1234567", "nsd_10", "nsd_100.0"], ("hd99.5_mm", "hd97.1234567_mm", "nsd_10mm", "nsd_100mm")),
        (["dice", "assd", "masd_voxels"], ("dice", "assd_mm", "masd_voxels")),
    ],
)
def test_a_metric_has_one_name_however_its_number_is_typed(words: list[str], names: tuple[str, ...]):
    assert complete_names(words, "mm") == names


@pytest.mark.parametrize(
    "name", ["", "hd", "HD95_mm", "hd0_mm", "hd101_mm", "hd_cm", "nsd_mm", "nsd_2", "dice_mm", "f1"]
)
def test_what_is_no_full_name_is_told_with_those_that_are(name: str):
    with pytest.raises(InputError, match=rf"^'{name}' is no metric; known are dice, iou, .*hd95 \(or any percentile\)"):
        metric_of(name)


def test_names_in_tables_are_their_own():
    assert all(name == metric.name for name, metric in FIXED.items())
    assert set(FIXED) > LESION_METRICS
    assert all(metric_of(name) for name in DEFAULT_METRICS)


@pytest.mark.parametrize(
    ("name", "surface", "number", "unit"),
    [
        ("assd_mm", "assd", None, "mm"),
        ("masd_voxels", "masd", None, "voxels"),
        ("asd_mm", "asd", None, "mm"),
        ("hd_mm", "hd", 100, "mm"),
        ("hd95_mm", "hd", 95, "mm"),
        ("hd99.5_voxels", "hd", 99.5, "voxels"),
        ("nsd_2mm", "nsd", 2, "mm"),
        ("nsd_0.5voxels", "nsd", 0.5, "voxels"),
        ("dice", "", None, ""),
    ],
)
def test_a_surface_metrics_name_tells_what_it_is_its_number_and_its_unit(name, surface, number, unit):
    metric = metric_of(name)
    assert (metric.surface, metric.number, metric.length_unit) == (surface, number, unit)


@pytest.mark.parametrize(
    "name", ["hd95", "hd-5_mm", "nsd_mm", "nsd_2", "assd_cm", "hd95_mm ", "HD_mm", "hd0_mm", "hd101_mm", "assd95_mm"]
)
def test_a_name_that_is_none_is_told_with_those_that_are_known(name: str):
    with pytest.raises(InputError, match=f"'{name}' is no metric; known are dice"):
        metric_of(name)
