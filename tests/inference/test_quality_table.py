"""quality.csv: written whole, read again, and kept through interruptions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_quality import calibration_of

from spadunet.errors import InputError
from spadunet.image import LabelMap
from spadunet.inference.confidence import Confidence
from spadunet.inference.predict import Answer
from spadunet.inference.quality_table import (
    QUALITY_CSV,
    UNFINISHED_CSV,
    Judgement,
    QualityTable,
    csv_text,
    read_table,
    review_path,
)
from spadunet.labels import LabelSet
from spadunet.quality import Calibration

LABELS = LabelSet(names=("background", "liver", "a, b"), ids=(0, 1, 2))
CALIBRATION = calibration_of("liver", "a, b")


def judged(calibration: Calibration | None, reject_below: float | None = None) -> Judgement:
    return Judgement(labels=LABELS, calibration=calibration, reject_below=reject_below)


def answer_of(soft_dice: float, *, is_empty: bool = False) -> Answer:
    array = np.zeros((2, 2, 3), np.uint8)
    if not is_empty:
        array[0], array[1] = 1, 2
    one = Confidence(soft_dice=soft_dice, entropy_in=0.1, entropy_around=None, share_around=0.3)
    return Answer(
        label_map=LabelMap(array=array, affine=np.diag([10.0, 10.0, 10.0, 1.0])),
        confidences={"liver": one, "a, b": one},
        agreements={},
    )


def add(table: QualityTable, case: str, soft_dice: float, **more) -> Path:
    answer = answer_of(soft_dice, **more)
    return table.add(case, table.folder / f"{case}.nii.gz", answer.label_map, answer)


def test_rows_come_back_and_doubtful_cases_go_to_review(tmp_path: Path):
    table = QualityTable(tmp_path, judged(CALIBRATION, 0.5))
    assert add(table, "good", 0.9) == tmp_path / "good.nii.gz"
    assert add(table, "bad", 0.6) == tmp_path / "review/bad.nii.gz"
    assert add(table, "empty", 0.9, is_empty=True) == tmp_path / "review/empty.nii.gz"
    (missing, rejected) = table.finish(())
    assert missing.endswith("references have it: empty (liver), empty (a, b)")
    assert rejected.startswith("2 of 3 label maps lie in review/: mean expected Dice below 0.5: bad (0.20), empty")
    found = read_table(tmp_path / QUALITY_CSV)
    assert list(found) == ["bad", "empty", "good"]
    assert not (tmp_path / UNFINISHED_CSV).exists()
    rows = {case: rows[-1] for case, rows in found.items()}
    assert {case: row.review for case, row in rows.items()} == {"bad": True, "empty": True, "good": False}
    assert {case: row.expected_dice for case, row in rows.items()} == pytest.approx(
        {"bad": 0.2, "empty": 0, "good": 0.8}
    )
    liver, other, _ = found["good"]
    assert (liver.volume_ml, other.name, liver.entropy_around) == (6, "a, b", None)
    assert csv_text(found) == (tmp_path / QUALITY_CSV).read_text()
    head = (tmp_path / QUALITY_CSV).read_text().splitlines()[0]
    assert head.startswith("case,class,volume_ml,volume_z,confidence,entropy_in,entropy_around")


def test_what_an_interrupted_run_had_is_kept_but_for_a_torn_line(tmp_path: Path):
    table = QualityTable(tmp_path, judged(None))
    add(table, "a", 0.9)
    add(table, "b", 0.8)
    text = (tmp_path / UNFINISHED_CSV).read_text()
    (tmp_path / UNFINISHED_CSV).write_text(text[:-5])
    table = QualityTable(tmp_path, judged(None), keep=True)
    assert list(table.table) == ["a"]
    assert QualityTable(tmp_path, judged(None)).table == {}
    assert not (tmp_path / UNFINISHED_CSV).exists()


def test_a_case_that_is_tried_again_has_the_rows_of_the_last_attempt(tmp_path: Path):
    table = QualityTable(tmp_path, judged(None))
    for case, soft_dice in (("a", 0.5), ("b", 0.6), ("a", 0.7)):
        add(table, case, soft_dice)
    found = read_table(tmp_path / UNFINISHED_CSV, is_unfinished=True)
    assert {case: [row.confidence for row in rows] for case, rows in found.items()} == {"a": [0.7] * 3, "b": [0.6] * 3}


@pytest.mark.parametrize("num_lost", range(1, 100, 9))
def test_a_run_that_is_interrupted_twice_goes_on(tmp_path: Path, num_lost: int):
    add(QualityTable(tmp_path, judged(None)), "a", 0.9)
    for _ in range(2):
        table = QualityTable(tmp_path, judged(None), keep=True)
        assert list(table.table) == ["a"]
        add(table, "b", 0.8)
        path = tmp_path / UNFINISHED_CSV
        path.write_bytes(path.read_bytes()[:-num_lost])
    table = QualityTable(tmp_path, judged(None), keep=True)
    assert list(table.table) == ["a"]
    add(table, "b", 0.7)
    again = QualityTable(tmp_path, judged(None), keep=True)
    again.finish(())
    found = read_table(tmp_path / QUALITY_CSV)
    assert {case: [row.name for row in rows] for case, rows in found.items()} == dict.fromkeys(
        "ab", ["liver", "a, b", "mean"]
    )
    assert found["b"][0].confidence == pytest.approx(0.7)


def test_a_case_that_failed_has_no_row(tmp_path: Path):
    table = QualityTable(tmp_path, judged(None))
    add(table, "a", 0.9)
    add(table, "b", 0.8)
    assert table.finish({"b"}) == []
    assert list(read_table(tmp_path / QUALITY_CSV)) == ["a"]


def test_kept_label_maps_go_where_another_threshold_has_them(tmp_path: Path):
    paths = {case: tmp_path / f"{case}.nii.gz" for case in ("a", "b", "unknown")}
    table = QualityTable(tmp_path, judged(CALIBRATION))
    add(table, "a", 0.9)
    add(table, "b", 0.6)
    table.finish(())
    probabilities = {case: tmp_path / f"{case}.npz" for case in ("a", "unknown")}
    for path in (*paths.values(), *probabilities.values()):
        path.write_bytes(b"x")
    for reject_below, rejected in ((0.5, {"b"}), (0.9, {"a", "b"}), (0.1, set())):
        table = QualityTable(tmp_path, judged(CALIBRATION, reject_below), keep=True)
        table.sort(paths)
        table.finish(())
        for case, path in paths.items():
            assert review_path(path).is_file() == (case in rejected) != path.is_file()
        for case, path in probabilities.items():
            assert review_path(path).is_file() == (case in rejected) != path.is_file()
        found = read_table(tmp_path / QUALITY_CSV)
        assert {case for case, rows in found.items() if rows[-1].review} == rejected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("confidence", "trust"), "its columns are others"),
        (lambda text: text.replace("0.9", "much"), "line 2: field 'confidence'"),
        (lambda text: text.replace(",no\n", "\n"), "line 2: has 11 cells, not 12"),
        (lambda text: "\n".join(text.splitlines()[:-1]) + "\n", "a has no row of its mean"),
        (lambda text: "", "its columns are others"),
    ],
)
def test_a_table_that_is_none_is_told(tmp_path: Path, change, message: str):
    table = QualityTable(tmp_path, judged(None))
    add(table, "a", 0.9)
    table.finish(())
    path = tmp_path / QUALITY_CSV
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=message):
        read_table(path)


def test_each_process_of_a_run_has_its_own_file_and_the_first_gathers_all(tmp_path: Path):
    first = QualityTable(tmp_path, judged(CALIBRATION))
    second = QualityTable(tmp_path, judged(CALIBRATION), rank=1)
    add(first, "a", 0.9)
    add(second, "b", 0.9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["quality.unfinished.1.csv", UNFINISHED_CSV]
    going_on = QualityTable(tmp_path, judged(CALIBRATION), keep=True)
    assert sorted(going_on.table) == ["a", "b"]
    going_on.finish(())
    assert [path.name for path in tmp_path.iterdir()] == [QUALITY_CSV]
    assert sorted(read_table(tmp_path / QUALITY_CSV)) == ["a", "b"]
