"""Scores as text, word for word."""

from __future__ import annotations

import json

from spadunet.evaluation.tables import csv_text, summary_json, table_text
from spadunet.labels import LabelSet, Region
from spadunet.scores import CaseScore, ClassScore, Scores

GOOD = ClassScore(dice=0.75, assd_mm=0.5, hd_mm=12.5, num_prediction_voxels=3, num_reference_voxels=5)
MISSED = ClassScore(dice=0.0, assd_mm=None, hd_mm=None, num_prediction_voxels=0, num_reference_voxels=5)
ABSENT = ClassScore(dice=None, assd_mm=None, hd_mm=None, num_prediction_voxels=0, num_reference_voxels=0)
LABELS = LabelSet(names=("background", "liver", "gall bladder, cyst"), ids=(0, 1, 4))
SCORES = Scores(
    cases=(
        CaseScore(case="a", classes={"liver": GOOD, "gall bladder, cyst": MISSED}),
        CaseScore(case="b", classes={"liver": GOOD, "gall bladder, cyst": ABSENT}),
    )
)


def test_csv_has_a_row_a_case_and_class_and_empty_cells_where_undefined():
    assert csv_text(SCORES).splitlines() == [
        "case,class,dice,assd_mm,hd_mm,num_prediction_voxels,num_reference_voxels",
        "a,liver,0.75,0.5,12.5,3,5",
        'a,"gall bladder, cyst",0.0,,,0,5',
        "b,liver,0.75,0.5,12.5,3,5",
        'b,"gall bladder, cyst",,,,0,0',
    ]


def test_table_has_a_row_a_class_and_one_of_means():
    assert table_text(SCORES).splitlines() == [
        "class                 Dice  ASSD mm  HD mm  cases  missed  false alarms",
        "liver               0.7500     0.50  12.50      2       0             0",
        "gall bladder, cyst  0.0000        -      -      2       1             0",
        "mean                0.3750     0.50  12.50      2       1             0",
        "Of 4 values (cases x classes), the means of ASSD and HD leave out 2 with an empty prediction or "
        "reference, those of Dice 1 with both empty.",
    ]


def test_table_remarks_only_on_what_is_left_out():
    whole = Scores(cases=(CaseScore(case="a", classes={"liver": GOOD}),))
    assert len(table_text(whole).splitlines()) == 3
    last_line = table_text(whole.model_copy(update={"not_predicted": ("b", "c")})).splitlines()[-1]
    assert last_line == "References without a prediction, not counted: 2"


def test_summary_has_the_keys_of_nnunet_and_null_where_undefined():
    summary = json.loads(summary_json(SCORES, LABELS))
    assert summary["foreground_mean"] == {"Dice": 0.375, "ASSD_mm": 0.5, "HD_mm": 12.5}
    assert summary["labels"] == {"1": "liver", "4": "gall bladder, cyst"}
    assert summary["mean"]["4"]["Dice"] == 0.0
    assert summary["mean"]["4"]["ASSD_mm"] is None
    assert summary["mean"]["4"]["num_missed"] == 1
    assert summary["metric_per_case"][0]["case"] == "a"
    metrics = {"Dice": 0.75, "ASSD_mm": 0.5, "HD_mm": 12.5, "n_pred": 3, "n_ref": 5}
    assert summary["metric_per_case"][0]["metrics"]["1"] == metrics


def test_summary_names_regions_by_all_their_ids():
    regions = (
        Region(name="liver", ids=(1, 4), painted_id=1),
        Region(name="gall bladder, cyst", ids=(4,), painted_id=4),
    )
    summary = json.loads(summary_json(SCORES, LABELS.model_copy(update={"regions": regions})))
    assert summary["labels"] == {"(1, 4)": "liver", "4": "gall bladder, cyst"}
    assert summary["mean"]["(1, 4)"]["Dice"] == 0.75


def test_texts_of_no_cases():
    nothing = Scores(cases=())
    assert len(csv_text(nothing).splitlines()) == 1
    assert table_text(nothing).splitlines()[-1].split() == ["mean", "-", "-", "-", "0", "0", "0"]
    assert json.loads(summary_json(nothing, LABELS))["mean"] == {}
