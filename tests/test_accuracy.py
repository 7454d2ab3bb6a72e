"""benchmarks/accuracy.py: which runs it makes, and the table of the rows that are there."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
HEART, HIPPOCAMPUS = "Dataset101_SunnybrookLV", "Dataset004_Hippocampus"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("accuracy")


def row_of(script: ModuleType, tool: str, minutes: float, seed: int, dice: float, *, dataset: str = HEART):
    one = {"dice": dice, "assd_mm": 2.0, "hd_mm": None}
    return script.Row(
        run=script.Run(tool=tool, dataset=dataset, minutes=minutes, seed=seed),
        dataset=dataset,
        settings={"device": "cpu"},
        steps=100 + seed,
        **one,
        num_missed=1,
        num_false_alarms=2,
        classes={"ventricle": one},
    )


def test_short_runs_come_first_and_only_they_have_several_seeds(script: ModuleType):
    options = argparse.Namespace(minutes=[20, 10], seeds=[3, 4], tools=list(script.TOOLS), nnunet=Path("peer"))
    runs = list(script.runs_of([HEART, HIPPOCAMPUS], options))
    assert [(run.minutes, run.seed) for run in runs] == [(10, 3)] * 4 + [(10, 4)] * 4 + [(20, 3)] * 5
    assert {run.dataset for run in runs if run.tool == "together"} == {f"{HEART}+{HIPPOCAMPUS}"}
    assert {run.dataset for run in runs if run.tool == "nnunet"} == {HEART, HIPPOCAMPUS}
    assert len({run.name for run in runs}) == len(runs)


def test_without_nnunet_or_a_second_dataset_their_runs_are_left_out(script: ModuleType):
    options = argparse.Namespace(minutes=[10], seeds=[0], tools=list(script.TOOLS), nnunet=None)
    assert [run.tool for run in script.runs_of([HEART], options)] == ["spadunet"]


def test_runs_make_the_steps_that_fit_in_their_minutes(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Measured once for each tool and dataset; nnU-Net's last step is made to its end, and counts by its share."""
    made = []

    def run_command(name: str, *words: str, log: Path) -> None:
        made.append((name, *words))

    def train_peer(dataset: object, fold: str, length: str, seed: int, folder: Path, *, splits: None) -> None:
        made.append(("nnunet", length))
        said = {"steps": 8, "minutes": 3.2} if length == "3min" else {"steps": int(length)}
        (folder / "log.txt").write_text(f"epoch 1\n{json.dumps(said)}\n")

    monkeypatch.setattr(script, "command", run_command)
    monkeypatch.setattr(script, "read_model_record", lambda folder: argparse.Namespace(provenance={"steps": "300"}))
    peer = argparse.Namespace(train=train_peer)
    options = argparse.Namespace(output=tmp_path, train=[], device="cpu")
    runs = [script.Run(tool=tool, dataset=HEART, minutes=10, seed=0) for tool in ("spadunet", "nnunet")]
    for _ in range(2):
        paces = script.paces_of(runs, {HEART: None}, peer, options)
        assert paces == {("spadunet", HEART): 100, ("nnunet", HEART): 2.5}
    ours, theirs = made
    assert ours[ours.index("--max-minutes") + 1] == "3" and theirs == ("nnunet", "3min")
    script.train(runs[0], 1000, {HEART: None}, peer, tmp_path, options)
    assert made[-1][made[-1].index("--max-steps") + 1] == "1000" and "--max-minutes" not in made[-1]
    assert script.train(runs[1], 25, {HEART: None}, peer, tmp_path, options) == 25


def test_the_table_sets_tools_side_by_side_for_each_budget(script: ModuleType):
    rows = [
        row_of(script, "spadunet", 10, 0, 0.8),
        row_of(script, "spadunet", 10, 1, 0.9),
        row_of(script, "nnunet", 10, 0, 0.1),
        row_of(script, "nnunet", 20, 0, 0.2),
        row_of(script, "spadunet", 10, 0, 0.5, dataset=HIPPOCAMPUS),
    ]
    lines = script.table(rows, HEART).splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [["10", "spadunet"], ["10", "nnU-Net"], ["20", "nnU-Net"]]
    assert lines[2].split()[2:] == ["2", "100", "101", "0.850", "±", "0.071", "2.000", "±", "0.000", "-", "2", "4"] + [
        *("0.850", "±", "0.071", "2.000", "±", "0.000", "-")
    ]


def test_a_run_with_a_row_is_known_again(script: ModuleType, tmp_path: Path):
    row = row_of(script, "together", 10, 0, 0.8)
    script.add_row(tmp_path / script.ROWS, row, row)
    assert script.read_rows(tmp_path / script.ROWS) == [row, row]
