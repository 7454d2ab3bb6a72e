"""benchmarks/medmnist_tables.py: the paper's Tables 2 and 3, and our rows in their layout."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from spadunet.classes import ClassSet
from spadunet.evaluation.classification import score_classification
from spadunet.evaluation.classification_tables import write_classification_scores

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("medmnist_tables")


def test_the_papers_averages_are_those_of_its_numbers(script: ModuleType):
    """As far as its rounding to one place goes: so no number was copied wrongly by much."""
    for datasets, table in script.TABLES.values():
        for name, row in table.items():
            values = np.array(row).reshape(-1, 2)  # (datasets + average, 2)
            assert len(values) == len(datasets) + 1
            assert values[:-1].mean(axis=0) == pytest.approx(values[-1], abs=0.1001), name
    assert script.TABLE_2["Ours"][10:12] == (96.4, 91.5)
    assert script.TABLE_3["EVA-02-B"][2:4] == (77.8, 54.5)


def test_our_rows_stand_in_the_papers_columns(script: ModuleType):
    lines = script.medmnist_tables({"mine": {"Organ": (0.9876, 0.9), "Synapse": (None, 1.0), "Tissue": (0.5, 0.4)}})
    two, three = (part.splitlines() for part in lines.split("\n\n"))
    assert two[0].startswith("Table 2") and three[0].startswith("Table 3")
    assert two[1].split() == ["Method", "Organ", "Nodule", "Fracture", "Adrenal", "Vessel", "Synapse", "Average"]
    assert two[2].split() == ["AUC", "ACC"] * 7
    assert two[-1].split() == ["mine", "98.8", "90.0", *"--------", "-", "100.0", "-", "-"]
    assert three[-1].split() == ["mine", "-", "-", "-", "-", "50.0", "40.0", "-", "-"]
    assert [line.split()[0] for line in two[4:11]] == [name.split()[0] for name in script.TABLE_2]
    (paper,) = [line for line in two if line.startswith("Ours (paper)")]
    assert paper.split()[2:] == [f"{value:.1f}" for value in script.TABLE_2["Ours"]]
    for column in ("99.8", "92.2"):  # below each other, to the right
        assert paper.index(column) + 4 in [two[2].index("AUC") + 3, two[2].rindex("AUC") + 3]
    assert two[-1].index("98.8") == paper.index("99.8")


def test_an_average_is_of_all_datasets(script: ModuleType):
    row = {"Derma": (0.9, 0.7), "Retina": (0.7, None), "Tissue": (0.8, 0.3)}
    last = script.medmnist_tables({"mine": row}).splitlines()[-1]
    assert last.split() == ["mine", "90.0", "70.0", "70.0", "-", "80.0", "30.0", "80.0", "-"]


def test_rows_are_read_from_scores_by_either_name(script: ModuleType, tmp_path: Path, monkeypatch, capsys):
    classes = ClassSet(kind="binary", names=("no", "yes"))
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    scores = score_classification(classes, np.array([0, 0, 1, 1])[:, None], probabilities)
    write_classification_scores(tmp_path, scores)
    given = [f"nodulemnist3d={tmp_path}", f"Vessel={tmp_path / 'scores.json'}"]
    assert script.read_row(given) == {"Nodule": (0.75, 0.5), "Vessel": (0.75, 0.5)}
    with pytest.raises(ValueError, match="pathmnist: no dataset of Tables 2 and 3"):
        script.dataset_named("pathmnist")
    monkeypatch.setattr(sys, "argv", ["medmnist_tables.py", "mine", *given])
    script.main()
    assert "75.0" in capsys.readouterr().out
