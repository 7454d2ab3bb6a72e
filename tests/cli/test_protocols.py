"""Protocols on what training leaves behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from spadunet.cli import evaluate, train
from spadunet.evaluation.protocols.report import ProtocolReport

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

HIPPOCAMPUS = "Dataset004_Hippocampus"


def test_runs_at_two_shares_and_their_twin_become_a_table(planned: Path, tmp_path: Path, run, quick, capsys):
    for part in ("raw", "preprocessed"):
        shutil.copytree(planned / part / HIPPOCAMPUS, tmp_path / part / HIPPOCAMPUS)
    command = ("-d", 4, "--max-steps", 1, *quick, "--data", tmp_path)
    assert run(train.main, *command) == 0
    weights = tmp_path / "results" / HIPPOCAMPUS / "spad_unet_tiny/fold_0"
    weights = Path(shutil.move(weights, tmp_path / "weights"))
    for share in (0.5, 1):
        assert run(train.main, *command, "--init", weights, "--fraction", share) == 0
    assert run(train.main, *command, "--init", weights, "--scratch-twin", "--fraction", 0.5) == 0
    results, references = tmp_path / "results" / HIPPOCAMPUS, tmp_path / "raw" / HIPPOCAMPUS / "labelsTr"
    capsys.readouterr()
    arguments = ("-p", results, "-r", references, "-o", tmp_path / "table", "-np", 1, "--protocol", "few-shot")
    assert run(evaluate.main, *arguments) == 0
    report = ProtocolReport.from_json((tmp_path / "table/protocol.json").read_text())
    half, whole = report.tables[0].rows
    assert (half.name, whole.name) == ("50 %", "100 %")
    assert half.values["dice:gain"] == pytest.approx(half.values["dice:pretrained"] - half.values["dice:scratch"])
    assert (whole.values["runs:scratch"], whole.values["runs:pretrained"]) == (0, 1)
    assert "runs without a twin, in no gain: spad_unet_tiny_fold_0" in capsys.readouterr().out
