"""Tables, charts and the page of a classification."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from html_page import read_page

from spadunet.classes import UNKNOWN, ClassSet
from spadunet.evaluation.class_references import ClassReferences
from spadunet.evaluation.classification import ClassificationScores, roc_auc, score_classification
from spadunet.evaluation.classification_charts import MAX_POINTS, confusion_table, roc_chart, roc_points
from spadunet.evaluation.classification_intervals import with_intervals
from spadunet.evaluation.classification_report import write_classification_report
from spadunet.evaluation.classification_tables import csv_text, table_text

ORGANS = ClassSet(kind="multi-class", names=("liver", "spleen", "<b>kidney</b>"))
FINDINGS = ClassSet(kind="multi-label", names=("effusion", "mass"))
HEADER_END = ("cases", "others", "unknown")


def made(classes: ClassSet, labels: np.ndarray) -> tuple[ClassificationScores, ClassReferences, np.ndarray]:
    """Scores of random probabilities for labels (N, L)."""
    rng = np.random.default_rng(0)
    size = (len(labels), classes.num_outputs)
    probabilities = rng.dirichlet(np.ones(size[1]), size=size[0]) if classes.is_exclusive else rng.random(size)
    scores = score_classification(classes, labels, probabilities)
    scores = with_intervals(scores, labels, probabilities, resamples=50)
    names = tuple(f"study{number}" for number in range(len(labels)))
    references = ClassReferences(classes=classes, studies=names, labels=labels, patients=names)
    return scores, references, probabilities


@pytest.fixture(params=["exclusive", "findings"])
def scored(request: pytest.FixtureRequest) -> tuple[ClassificationScores, ClassReferences, np.ndarray]:
    rng = np.random.default_rng(1)
    if request.param == "exclusive":
        return made(ORGANS, rng.integers(2, size=(30, 1)))
    return made(FINDINGS, rng.choice([0, 1, UNKNOWN], size=(30, 2)))


def test_roc_curve_by_hand():
    labels, scores = np.array([1, 0, 1, 0, UNKNOWN]), np.array([0.9, 0.8, 0.5, 0.5, 1])
    assert roc_points(labels, scores).tolist() == [[0, 0], [0, 0.5], [0.5, 0.5], [1, 1]]


def test_area_below_the_curve_is_the_auc():
    rng = np.random.default_rng(2)
    labels, scores = rng.integers(2, size=5000), rng.integers(900, size=5000) / 900
    x, y = roc_points(labels, scores).T
    assert (np.diff(x) * (y[1:] + y[:-1]) / 2).sum() == pytest.approx(roc_auc(labels, scores), rel=1e-12)
    chart = roc_chart(np.stack([x, y], axis=1), "name", 0)
    (corners,) = [part.split('"')[0] for part in chart.split('points="')[1:]]
    assert len(corners.split()) <= MAX_POINTS
    assert corners.startswith("34.0,234.0") and corners.endswith("234.0,34.0")


def test_confusion_is_shaded_by_its_row():
    shown = confusion_table(["a", "b", "c"], [[3, 1, 0], [0, 0, 0], [0, 0, 2]])
    assert 'title="75.0% of 4">3</td>' in shown
    assert 'title="no such case">0</td>' in shown


def test_table_says_what_is_not_defined():
    scores, _, _ = made(ORGANS, np.array([0, 1] * 6)[:, None])
    lines = table_text(scores).splitlines()
    assert lines[0].split() == ["class", "AUC", "95", "%", "interval", "sensitivity", "specificity", *HEADER_END]
    assert lines[3].split()[:4] == ["<b>kidney</b>", "–", "–", "–"]
    assert "AUC of '<b>kidney</b>': not defined, no such case" in lines
    assert "AUC is the mean over the other 2 of 3" in lines
    assert "nan" not in "\n".join(lines)
    whole, _, _ = made(ORGANS, np.array([0, 1, 2] * 4)[:, None])
    assert "not defined" not in table_text(whole)


def test_table_without_any_auc_says_so():
    scores, _, _ = made(ClassSet(kind="binary", names=("no", "yes")), np.ones((8, 1), dtype=int))
    assert "AUC not defined: area under" in table_text(scores)
    assert "AUC of 'yes': not defined, every case is one" in table_text(scores)


def test_csv_has_a_row_a_class_and_one_of_means(scored):
    scores, _, _ = scored
    rows = list(csv.DictReader(csv_text(scores).splitlines()))
    assert [row["class"] for row in rows] == [*(it.name for it in scores.results), "mean"]
    for row, it in zip(rows, (*scores.results, scores), strict=False):
        assert row["auc"] == ("" if it.auc is None else str(it.auc))
        assert row["auc_low"] == ("" if it.auc_interval is None else str(it.auc_interval[0]))
    assert rows[-1]["accuracy_high"] == str(scores.accuracy_interval[1])


def test_the_page_holds_all_and_needs_nothing(scored, tmp_path: Path):
    scores, references, probabilities = scored
    path = tmp_path / "report.html"
    sources = [("predictions", tmp_path / "predictions.csv"), ("references", tmp_path / "labels.csv")]
    assert write_classification_report(path, scores, references, probabilities, sources=sources) == path
    content = path.read_text()
    found = read_page(content)
    rows = found.table_with("class", "AUC")
    assert [row[0] for row in rows] == [it.name for it in scores.results]
    num_curves = sum(it.auc is not None for it in scores.results)
    assert content.count("<polyline") == num_curves + 1  # and reliability
    if scores.confusion is not None:
        confusion = found.table_with("true \\ predicted")
        assert [[int(cell) for cell in row[1:]] for row in confusion] == [list(row) for row in scores.confusion]
        assert any("AUC of '<b>kidney</b>': not defined" in words for words in found.words)
    wrong = found.table_with("study", "predicted", "true")
    given = [float(row[-1]) for row in wrong]
    assert given == sorted(given)
    assert wrong[0][1] != wrong[0][2]
    assert found.facts()["predictions"] == str((tmp_path / "predictions.csv").resolve())
    assert found.facts()["AUC"] == scores.definitions["AUC"]


def test_the_page_of_perfect_answers_lists_none_wrong(tmp_path: Path):
    labels = np.array([0, 1, 2, 0])[:, None]
    probabilities = np.eye(3)[labels[:, 0]]
    names = tuple("abcd")
    references = ClassReferences(classes=ORGANS, studies=names, labels=labels, patients=names)
    scores = score_classification(ORGANS, labels, probabilities)
    path = tmp_path / "report.html"
    write_classification_report(path, scores, references, probabilities, sources=[("predictions", path)])
    assert "None." in read_page(path.read_text()).words
