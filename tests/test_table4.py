"""benchmarks/table4.py: what is scored, which arms run, and the table of the rows that are there."""

from __future__ import annotations

import argparse
import importlib
import json
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import pytest
import torch

import spadunet
from spadunet.dataset import load_dataset

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
DEMO = Path(spadunet.__file__).parent / "demo/data/Dataset004_Hippocampus"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("table4")


def row(script: ModuleType, dataset: str, arm: str, seed: int, dice: float):
    settings = {"max_steps": "7", "preset": "tiny", "device": "cpu"}
    one = {"dice": dice, "assd_mm": 2.0, "hd_mm": None}
    return script.Row(
        dataset=dataset,
        arm=arm,
        seed=seed,
        settings=settings,
        weights=None,
        num_cases=9,
        seconds=90.0,
        **one,
        num_missed=1,
        num_false_alarms=2,
        classes={"liver": one},
    )


def test_rows_come_back_and_a_line_that_was_cut_off_is_made_again(script: ModuleType, tmp_path: Path):
    rows = [row(script, "Dataset007_BTCV", "scratch", seed, 0.5) for seed in (0, 1)]
    path = tmp_path / script.ROWS
    path.write_text("".join(json.dumps(asdict(each)) + "\n" for each in rows) + '{"dataset": "Data')
    assert script.read_rows(path) == rows
    assert path.read_text().count("\n") == 2
    assert script.read_rows(path) == rows


def test_the_table_has_means_by_arm_and_class_and_the_papers_rows_beside(script: ModuleType):
    rows = [row(script, "Dataset007_BTCV", "scratch", 0, 0.5), row(script, "Dataset007_BTCV", "scratch", 1, 0.7)]
    lines = script.table([*rows, row(script, "Dataset007_BTCV", "nnunet", 0, 0.25)]).splitlines()
    (scratch,) = [line for line in lines if line.lstrip().startswith("SPAD-ViT, scratch")]
    assert scratch.split()[3:] == [
        "2",
        "0.600",
        "±",
        "0.141",
        "2.000",
        "±",
        "0.000",
        "-",
        "2",
        "4",
        "1.5",
        "84.86",
        "1.59",
        "18.9",
    ]
    (unimiss,) = [line for line in lines if line.lstrip().startswith("UniMiSS  ")]
    assert unimiss.split()[-3:] == ["85.17", "1.01", "17.78"]
    (liver,) = [line for line in lines if "liver, Dice" in line]
    assert liver.split()[2:] == ["0.600", "±", "0.141", "0.250"]
    assert "UniMiSS is left out" in lines[-1]
    other = script.table([row(script, "Dataset004_Hippocampus", "nnunet", 0, 0.25)])
    assert "paper's" not in other


def test_the_papers_table(script: ModuleType):
    """Luo et al. 2024, Table 4."""
    assert [script.PAPER["BTCV"][arm][0] for arm in ("scratch", "swin", "UniMiSS", "eva02", "ours")] == [
        84.86,
        81.06,
        85.17,
        86.51,
        87.31,
    ]
    assert [script.PAPER["CHAOS"][arm] for arm in ("swin", "ours")] == [(85.51, 6.66, 68.02), (92.09, 1.54, 19.85)]


def test_an_arm_without_what_it_needs_is_named(script: ModuleType, tmp_path: Path, monkeypatch):
    bench = script.Bench(
        dataset=load_dataset(DEMO), folder=tmp_path, fold="all", images=DEMO / "imagesTs", references=DEMO / "labelsTs"
    )
    nothing = argparse.Namespace(eva02=None, init=None, nnunet=None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert script.left_out(nothing, bench) == {
        "eva02": "no --eva02",
        "ours": "no --init",
        "nnunet": "no --nnunet",
        "swin": "MONAI's Swin UNETR needs einops",
    }
    monkeypatch.undo()
    whole = argparse.Namespace(eva02=tmp_path, init=tmp_path, nnunet=tmp_path)
    assert set(script.left_out(whole, bench)) <= {"swin"}


@pytest.mark.slow
def test_swin_unetr_takes_any_patch_and_gives_it_back_at_its_place(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("einops")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    backbone = importlib.import_module("swin_unetr").SwinBackbone(12)
    seen = []
    backbone.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    backbone.network.forward = lambda x: x.repeat(1, 4, 1, 1, 1)  # the padding is ours, the network MONAI's
    x = torch.rand(1, 3, 9, 70, 40)
    (features,) = backbone(x, 0)
    assert seen[0].shape == (1, 3, 32, 96, 64)
    assert torch.equal(features, x.repeat(1, 4, 1, 1, 1))
    assert (seen[0][:, :, 0] == -1).all()


@pytest.mark.slow
def test_swin_unetr_learns(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("einops")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    backbone = importlib.import_module("swin_unetr").SwinBackbone(12)
    (features,) = backbone(torch.rand(1, 3, 9, 20, 32), 0)
    assert features.shape == (1, 12, 9, 20, 32)
    features.mean().backward()
    assert all(each.grad is not None for each in backbone.network.decoder1.parameters())


@pytest.mark.slow
def test_the_arm_from_scratch_goes_from_raw_files_to_a_row_and_is_not_made_again(
    script: ModuleType, copy_demo, tmp_path: Path, monkeypatch, capsys
):
    raw = copy_demo("Dataset004_Hippocampus", tmp_path / "raw/Dataset004_Hippocampus", num_cases=5, size=(20, 24, 16))
    options = ["table4.py", "-d", str(raw), "-o", str(tmp_path / "out"), "--arms", "scratch", "--preset", "tiny"]
    options += ["--max-steps", "2", "--memory-gb", "0.03", "--batch-size", "1", "-device", "cpu"]
    monkeypatch.setattr("sys.argv", options)
    script.main()
    (made,) = script.read_rows(tmp_path / "out" / script.ROWS)
    assert (made.arm, made.seed, made.num_cases) == ("scratch", 0, 1)  # fold 0 of five patients
    assert set(made.classes) == {"Anterior", "Posterior"}
    assert "left out: nnU-Net (no --nnunet)" in capsys.readouterr().out
    script.main()
    assert len(script.read_rows(tmp_path / "out" / script.ROWS)) == 1
    rows = tmp_path / "out" / script.ROWS
    rows.write_text(rows.read_text().replace('"weights": null', '"weights": "0f"'))
    with pytest.raises(SystemExit, match="SPAD-ViT, scratch .TFS. has other weights; name another folder"):
        script.main()
    monkeypatch.setattr("sys.argv", [*options, "--learning-rate", "0.5"])
    with pytest.raises(SystemExit, match="has learning_rate None, not 0.5; name another folder"):
        script.main()
