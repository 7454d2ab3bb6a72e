"""Scores as text, word for word."""

from __future__ import annotations

import csv

import pytest

from spadunet.evaluation.scoring import Scoring, gather_scores
from spadunet.evaluation.summary_json import summary_json
from spadunet.evaluation.tables import csv_text, meaning, table_text
from spadunet.labels import LabelSet
from spadunet.missing import Extent, counted
from spadunet.scores import NOT_ANNOTATED, CaseScore, ClassScore, Scores

METRICS = ("dice", "assd_mm", "hd_mm")


def score_of(dice: float | None, assd_mm: float | None, hd_mm: float | None, *counts: int) -> ClassScore:
    """Of a class with so many voxels in the prediction and the reference."""
    values = {"dice": dice, "assd_mm": assd_mm, "hd_mm": hd_mm}
    return ClassScore(values=values, num_prediction_voxels=counts[0], num_reference_voxels=counts[1])


GOOD = score_of(0.75, 0.5, 12.5, 3, 5)
MISSED = score_of(0.0, None, None, 0, 5)
ABSENT = score_of(None, None, None, 0, 0)


def scores_of(*cases: dict[str, ClassScore], **changes: object) -> Scores:
    """Cases a, b, … in images with a diagonal of 13 mm."""
    extent = {"shape_voxels": (3, 4, 12), "spacing_mm": (1.0, 1.0, 1.0)}
    found = [
        CaseScore.model_validate({"case": name, "classes": classes, **extent})
        for name, classes in zip("abc", cases, strict=False)
    ]
    return Scores.model_validate({"metrics": METRICS, "cases": found, **changes})


SCORES = scores_of(
    {"liver": GOOD, "gall bladder, cyst": MISSED}, {"liver": GOOD, "gall bladder, cyst": ABSENT}, missing="worst"
)


def test_csv_has_a_row_a_case_and_class_and_empty_cells_where_undefined():
    assert csv_text(SCORES).splitlines() == [
        "case,class,dice,assd_mm,hd_mm,num_prediction_voxels,num_reference_voxels,outcome,definition,missing",
        "a,liver,0.75,0.5,12.5,3,5,valid,default,worst",
        'a,"gall bladder, cyst",0.0,,,0,5,missed,default,worst',
        "b,liver,0.75,0.5,12.5,3,5,valid,default,worst",
        'b,"gall bladder, cyst",,,,0,0,absent,default,worst',
    ]


def test_csv_keeps_whatever_is_in_a_name():
    names = {"case": "case#7", "class": 'lesion #1, "left"'}
    extent = {"shape_voxels": (3, 4, 12), "spacing_mm": (1.0, 1.0, 1.0)}
    case = CaseScore.model_validate({"case": names["case"], "classes": {names["class"]: GOOD}, **extent})
    scores = gather_scores([case], Scoring(metrics=METRICS, definition="chaos", missing="zero"))
    lines = csv_text(scores).splitlines()
    assert lines[0].startswith("case,class,dice")  # nothing above the table that a reader would have to skip
    row = dict(zip(*csv.reader(lines), strict=True))
    assert row == names | {
        "dice": "0.75",
        "assd_mm": "0.5",
        "hd_mm": "12.5",
        "num_prediction_voxels": "3",
        "num_reference_voxels": "5",
        "outcome": "valid",
        "definition": "chaos",
        "missing": "zero",
    }


def test_table_has_a_row_a_class_and_one_of_means_with_the_ledger_beside():
    assert table_text(SCORES).splitlines() == [
        "class                 Dice  ASSD mm  HD mm  cases  valid  missed  false alarms",
        "liver               0.7500     0.50  12.50      2      2       0             0",
        "gall bladder, cyst  0.0000    13.00  13.00      2      0       1             0",
        "mean                0.3750     6.75  12.75      2      2       1             0",
        "Of 4 values (cases x classes), the means leave out: 1 in Dice, ASSD mm, HD mm",
    ]


def test_table_says_how_many_values_each_mean_leaves_out():
    lines = table_text(SCORES.model_copy(update={"missing": "zero"})).splitlines()
    assert lines[2].split()[3:6] == ["0.0000", "-", "-"]
    assert lines[3].split()[:4] == ["mean", "0.3750", "0.50", "12.50"]
    assert lines[4] == "Of 4 values (cases x classes), the means leave out: 1 in Dice; 2 in ASSD mm, HD mm"


def test_table_remarks_only_on_what_is_left_out():
    whole = scores_of({"liver": GOOD})
    assert len(table_text(whole).splitlines()) == 3
    last_line = table_text(whole.model_copy(update={"not_predicted": ("b", "c")})).splitlines()[-1]
    assert last_line == "References without a prediction, counted as missed: 2"


def test_a_class_that_was_not_annotated_is_in_no_count():
    line = table_text(scores_of({"liver": NOT_ANNOTATED}, {"liver": GOOD})).splitlines()[1]
    assert line.split() == ["liver", "0.7500", "0.50", "12.50", "1", "1", "0", "0"]


def test_table_ends_with_what_the_numbers_mean():
    scores = gather_scores([])
    assert table_text(scores).splitlines()[-len(meaning(scores)) :] == meaning(scores)
    assert meaning(scores)[1].startswith("dice: 2 |P and R| / (|P| + |R|)")


def test_texts_of_no_cases():
    nothing = Scores(cases=())
    assert len(csv_text(nothing).splitlines()) == 1
    assert table_text(nothing).splitlines()[-1].split() == ["mean", *"----", *"0000"]


def test_texts_of_many_cases_look_at_each_value_once(monkeypatch: pytest.MonkeyPatch):
    """With thousands of cases, every further look takes seconds."""
    seen: dict[str, int] = {"values": 0, "images": 0}

    def count_values(*arguments: object, **options: object) -> float | None:
        seen["values"] += 1
        return counted(*arguments, **options)  # type: ignore[arg-type]

    def count_images(**options: object) -> Extent:
        seen["images"] += 1
        return Extent(**options)  # type: ignore[arg-type]

    classes = {f"class {number}": score_of(0.75, 0.5, 12.5, 3, 5) for number in range(7)}
    scores = scores_of(*[classes] * 3)
    monkeypatch.setattr("spadunet.scores.counted", count_values)
    monkeypatch.setattr("spadunet.scores.Extent", count_images)
    table_text(scores)
    assert seen == {"values": 3 * 7 * len(METRICS), "images": 3}
    labels = LabelSet(names=("background", *classes), ids=tuple(range(8)))
    seen.update(values=0, images=0)
    summary_json(scores, labels)
    assert seen == {"values": 3 * 7 * (len(METRICS) + 1), "images": 2 * 3}  # with IoU; for the means and for TN
