"""Names of surface metrics, and what they mean."""

from __future__ import annotations

import pytest

from spadunet.evaluation.definitions import DEFINITIONS


@pytest.mark.parametrize(
    ("definition", "metric", "parts"),
    [
        ("default", "assd_mm", ["both directions pooled", "beyond the image counts as outside", "MONAI 1.6"]),
        ("default", "masd_mm", ["mean of the two directions' mean distance in mm", "MONAI 1.6 has no MASD, this"]),
        ("default", "hd95_mm", ["as MONAI 1.6 in double precision"]),
        ("monai", "masd_mm", ["MONAI 1.6 has no MASD, this follows its borders"]),
        ("medpy", "masd_mm", ["MedPy 0.5 has no MASD, this follows its borders"]),
        ("medpy", "hd_mm", ["as MedPy 0.5"]),
        ("medpy", "hd99.5_mm", ["MedPy 0.5 has no HD99.5, this follows its borders"]),
        ("surface-distance", "masd_mm", ["surface-distance 0.1 has no MASD, this follows its borders"]),
        ("surface-distance", "hd99_mm", ["as surface-distance 0.1"]),
        ("monai", "hd95_mm", ["percentile 95, interpolated linearly", "larger of the two directions", "MONAI 1.6"]),
        ("medpy", "hd95_mm", ["of both directions pooled", "as MedPy 0.5"]),
        ("medpy", "nsd_2mm", ["border voxels at most 2 mm from", "MedPy 0.5 has no NSD"]),
        ("medpy", "asd_mm", ["mean distance in mm from the border voxels of the prediction to", "as MedPy 0.5"]),
        ("chaos", "asd_mm", ["has no ASD, this follows its borders"]),
        ("surface-distance", "asd_mm", ["surface elements of the prediction", "weighted by area"]),
        ("chaos", "hd_mm", ["largest distance in mm", "beyond the image counts as inside", "CHAOS"]),
        ("chaos", "hd95_mm", ["of both directions pooled", "evaluation has no HD95, this follows its borders"]),
        ("surface-distance", "assd_mm", ["weighted by area, both directions pooled", "0.1 has no ASSD"]),
        ("surface-distance", "nsd_0.5mm", ["surface area at most 0.5 mm from", "marching cubes"]),
        ("surface-distance", "hd95_mm", ["95 % of the area"]),
        ("default", "hd99.5_voxels", ["percentile 99.5", "distance in voxels"]),
    ],
)
def test_a_definition_is_a_sentence(definition: str, metric: str, parts: list[str]):
    sentence = DEFINITIONS[definition].describe(metric)
    assert [part for part in parts if part not in sentence] == []


def test_nsd_is_compared_in_single_precision_whichever_the_rest_has():
    sentence = DEFINITIONS["default"].describe("nsd_2mm")
    assert "compared in single precision" in sentence
    assert sentence.endswith("as MONAI 1.6")
    assert "single" not in DEFINITIONS["surface-distance"].describe("nsd_2mm")


def test_all_definitions_are_there_by_name_and_differ():
    assert list(DEFINITIONS) == ["default", "monai", "medpy", "chaos", "surface-distance"]
    assert all(name == definition.name for name, definition in DEFINITIONS.items())
    assert len({definition.describe("hd95_mm") for definition in DEFINITIONS.values()}) == 5


def test_an_unknown_metric_has_no_definition():
    with pytest.raises(ValueError, match="dice is no surface metric"):
        DEFINITIONS["default"].describe("dice")
