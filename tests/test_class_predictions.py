"""predictions.csv: what is written comes back, and what is wrong is told by line, value and remedy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spadunet.class_predictions import decide, describe, names_in, read_predictions, write_predictions
from spadunet.classes import ClassSet
from spadunet.errors import InputError

SIDES = ClassSet(kind="binary", names=("left", "right"))
ORGANS = ClassSet(kind="multi-class", names=("liver", "spleen", "kidney"))
FINDINGS = ClassSet(kind="multi-label", names=("effusion", "mass"))


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def told(path: Path, classes: ClassSet) -> list[str]:
    """What is wrong with a file, without its path."""
    with pytest.raises(InputError) as caught:
        read_predictions(path, classes)
    return [line.removeprefix(f"{path}: ") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_written_comes_back_to_the_last_digit(tmp_path: Path, dtype: type):
    rows = np.random.default_rng(0).dirichlet((1, 1, 1), size=20).astype(dtype)
    studies = tuple(f"study {number}" for number in range(20))
    path = tmp_path / "out/predictions.csv"
    write_predictions(path, ORGANS, studies, rows)
    found = read_predictions(path, ORGANS)
    assert found.studies == studies
    assert np.array_equal(found.probabilities.astype(dtype), rows)
    assert names_in(path) == ORGANS.names


def test_names_with_commas_quotes_and_those_of_other_columns_stay_what_they_are(tmp_path: Path):
    classes = ClassSet(kind="multi-class", names=("study", 'a, "b"', "predicted", "p_", "=1+1", "a\nb"))
    path = tmp_path / "predictions.csv"
    write_predictions(path, classes, ["one, two"], np.full((1, 6), 1 / 6))
    assert names_in(path) == classes.names
    found = read_predictions(path, classes)
    assert found.studies == ("one, two",)
    assert (found.probabilities == 1 / 6).all()


def test_the_file_reads_as_one_expects(tmp_path: Path):
    path = tmp_path / "predictions.csv"
    write_predictions(path, SIDES, ["a", "b"], np.array([[0.25, 0.75], [0.5, 0.5]]))
    assert path.read_text() == "study,p_left,p_right,predicted\na,0.25,0.75,right\nb,0.5,0.5,left\n"
    write_predictions(path, FINDINGS, ["a", "b"], np.array([[0.6, 1.0], [0.5, 0.0]]))
    assert path.read_text() == "study,p_effusion,p_mass,predicted\na,0.6,1.0,effusion; mass\nb,0.5,0.0,\n"


def test_columns_come_in_any_order_and_others_do_not_matter(tmp_path: Path):
    path = write(tmp_path / "p.csv", "p_kidney,note,study,p_liver,p_spleen", "0.5,x,a,0.2,0.3", "", "1,y,b,0,0")
    assert read_predictions(path, ORGANS).probabilities.tolist() == [[0.2, 0.3, 0.5], [0, 0, 1]]


def test_what_is_decided():
    assert decide(SIDES, np.array([[0.5, 0.5], [0.4, 0.6]])).tolist() == [[0], [1]]
    assert decide(ORGANS, np.array([[0.4, 0.4, 0.2], [0.1, 0.2, 0.7]])).tolist() == [[0], [2]]
    assert decide(FINDINGS, np.array([[0.5, 0.51]])).tolist() == [[0, 1]]
    assert [describe(ORGANS, [2]), describe(FINDINGS, [1, 0]), describe(FINDINGS, [0, 0])] == ["kidney", "effusion", ""]


def test_all_wrong_lines_are_told_at_once(tmp_path: Path):
    path = write(
        tmp_path / "p.csv",
        "study,p_left,p_right",
        "a,0.5,0.5",
        "b,nan,0.5",
        "c,1.5,-0.5",
        "d,0.9,0.9",
        "a,0.1,0.9",
        ",0.1,0.9",
        "e,high,0.1",
        "f,0.33,0.66",
    )
    lines = told(path, SIDES)
    assert lines == [
        "line 3: p_left is nan, no probability from 0 to 1; predict this study again",
        "line 4: p_left is 1.5, no probability from 0 to 1; predict this study again",
        "line 5: the probabilities add up to 1.8, not to 1 as those of binary classes do; give the softmax of the "
        "outputs, or a multi-label set if several may be right",
        "line 6: study a is in line 2 already; remove one of them",
        "line 7: no name of the study; fill in the column study",
        "line 8: p_left is 'high', no number; predict study e again",
    ]
    both = write(tmp_path / "both.csv", "study,p_effusion,p_mass", "a,0.9,0.9")
    assert read_predictions(both, FINDINGS).probabilities.tolist() == [[0.9, 0.9]]


def test_what_a_spreadsheet_saved_is_read(tmp_path: Path):
    text = "\ufeffStudy;p_mild, early;p_severe, late;predicted\r\na;0.25;0.75;severe, late\r\n"
    path = write(tmp_path / "p.csv", text)
    classes = ClassSet(kind="binary", names=("mild, early", "severe, late"))
    assert read_predictions(path, classes).probabilities.tolist() == [[0.25, 0.75]]


def test_of_very_many_wrong_lines_the_first_are_told(tmp_path: Path):
    lines = told(write(tmp_path / "p.csv", "study,p_left,p_right", *(f"{it},2,2" for it in range(30))), SIDES)
    assert len(lines) == 11
    assert lines[-1] == "… and 20 more"


def test_columns_that_are_not_the_classes(tmp_path: Path):
    assert told(write(tmp_path / "p.csv", "study,p_left,p_rigth", "a,1,0"), SIDES) == [
        "line 1: no column p_right; add it",
        "line 1: column p_rigth is of no class; the references have left, right",
    ]
    assert (
        "line 1: no column 'study', only case, p_left"
        in told(write(tmp_path / "p.csv", "case,p_left", "a,1"), SIDES)[0]
    )
    assert "no column begins with p_" in told(write(tmp_path / "p.csv", "study,left", "a,1"), SIDES)[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "has no header"),
        (b"study,p_left,p_right\n", "has a header but no rows"),
        (b"study,p_left,p_left\na,1,0\n", "column 'p_left' is there twice"),
        (b"study,p_left,p_right\na,1\n", "line 2: 2 cells, where the header has 3"),
        (b"\xff\xfe\x00", "cannot be read as UTF-8 text"),
        (b'study,p_left,p_right\n"a,1,0\n', "line 2: unexpected end of data"),
    ],
)
def test_a_file_that_is_no_table(tmp_path: Path, text: bytes, words: str):
    path = tmp_path / "p.csv"
    path.write_bytes(text)
    assert words in told(path, SIDES)[0]


def test_a_missing_file_and_a_byte_order_mark(tmp_path: Path):
    assert "not found; expected a CSV with the columns study and p_NAME" in told(tmp_path / "none.csv", SIDES)[0]
    path = tmp_path / "p.csv"
    path.write_text("study,p_left,p_right\r\na,1,0\r\n", encoding="utf-8-sig", newline="")
    assert read_predictions(path, SIDES).studies == ("a",)


@pytest.mark.parametrize(
    ("studies", "row", "words"),
    [
        (["a", "b"], [[1, 0]], "a row for each study"),
        (["a", "a"], [[1, 0], [1, 0]], "none named twice"),
        (["a"], [[np.nan, 1]], "study a: p_left is nan"),
        (["a"], [[0.2, 0.2]], "study a: the probabilities add up to 0.4"),
    ],
)
def test_nothing_wrong_is_written(tmp_path: Path, studies: list[str], row: list[list[float]], words: str):
    with pytest.raises(ValueError, match=words):
        write_predictions(tmp_path / "p.csv", SIDES, studies, np.array(row, dtype=float))
    assert not list(tmp_path.iterdir())
