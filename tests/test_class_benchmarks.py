"""benchmarks/medmnist.py and adapters.py: which runs they make, and tables and verdicts of the rows that are there."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import pytest
from medmnist_file import members_of, write_medmnist

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Under another name, as `medmnist` is a package, too."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def adapters(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("adapters", monkeypatch)


@pytest.fixture
def medmnist(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("medmnist", monkeypatch)


def result_of(module: ModuleType, auc: float | None, **more):
    values = {"num_train": 10, "num_test": 4, "accuracy": 0.5, "validation_auc": 0.5, "seconds": 9.0}
    values |= {"epoch_seconds": 2.0, "router_entropy": None, "expert_use": ()}
    return module.Result(**{**values, "auc": auc, **more})


def adapter_row(adapters: ModuleType, arm: str, seed: int, auc: float | None, **more):
    run = adapters.Run(file="organs", digest="d", arm=arm, seed=seed)
    return adapters.Row(run=run, settings={}, parameters=1, result=result_of(adapters, auc, **more))


def test_adapters_of_equal_size_are_found(adapters: ModuleType):
    for backbone, rank, num_experts in (("spad_unet", 2, 4), ("spad_unet", 2, 2), ("spad_vit", 4, 2)):
        sizes = adapters.sizes_of(backbone, "tiny", rank, num_experts)
        assert 0 < sizes.apart <= 0.05 and abs(sizes.lora_rank - rank * num_experts) <= 2
        assert sizes.learning["head"] == 0 < sizes.learning["lora"] < sizes.learning["full"] <= sizes.backbone


def test_adapters_of_no_equal_size_are_refused(adapters: ModuleType, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(adapters, "MOST_APART", 1e-6)
    adapters.sizes_of.cache_clear()
    with pytest.raises(ValueError, match=r"4 experts of rank 2 have 23,524 parameters, LoRA of rank 8 has 23,456"):
        adapters.sizes_of("spad_unet", "tiny", 2, 4)


def test_arms_differ_in_what_learns_alone(adapters: ModuleType):
    options = {"init": Path("weights"), "epochs": 3, "input_size": ["32"], "train": "--pooling mean", "num_workers": 0}
    options |= {"backbone": None, "preset": None, "learning_rate": None, "frozen_rate": "1e-2", "rank": 2, "experts": 4}
    sizes = adapters.Sizes(lora_rank=8, learning={}, backbone=1)
    asked = {
        arm: adapters.options_of(
            adapters.Run(file="f", digest="d", arm=arm, seed=1), sizes, argparse.Namespace(**options)
        )
        for arm in adapters.ARMS
    }
    shared = asked["full"]
    assert " ".join(shared) == "--init weights --epochs 3 --input-size 32 --pooling mean --num-workers 0 --seed 1"
    assert asked["head"] == [*shared, "--learning-rate", "1e-2", "--freeze-backbone"]
    assert asked["lora"] == [*shared, "--learning-rate", "1e-2", "--adapter", "lora", "--rank", "8"]
    assert asked["experts"][-6:] == ["--adapter", "experts", "--rank", "2", "--experts", "4"]


def test_a_mixture_must_be_as_good_in_four_of_five_seeds(adapters: ModuleType):
    rows = [adapter_row(adapters, "lora", seed, 0.8) for seed in range(5)]
    rows += [adapter_row(adapters, "experts", seed, auc) for seed, auc in enumerate((0.8, 0.9, 0.85, 0.81))]
    four = [*rows, adapter_row(adapters, "experts", 4, 0.7)]
    assert "yes, in 4 of 5 seeds, by 0.012 ± " in adapters.verdict(four)
    rows[5] = adapter_row(adapters, "experts", 0, 0.79)
    assert "no, in 3 of 5 seeds" in adapters.verdict([*rows, adapter_row(adapters, "experts", 4, 0.7)])
    rows[6] = adapter_row(adapters, "experts", 1, None)  # not defined: no seed to count
    assert "no, in 2 of 3 seeds" in adapters.verdict(rows) and "(fewer than five seeds)" in adapters.verdict(rows)
    assert adapters.verdict(rows[:5]).endswith("no seed has both")


def test_the_table_of_adapters_has_shares_and_experts(adapters: ModuleType):
    sizes = adapters.Sizes(lora_rank=8, learning={"full": 500, "head": 0, "lora": 98, "experts": 100}, backbone=1000)
    rows = [adapter_row(adapters, arm, seed, 0.5 + seed / 10) for arm in ("full", "head") for seed in (0, 2)]
    use = {"expert_use": (0.75, 0.25), "router_entropy": 0.5, "epoch_seconds": 3.0}
    rows.append(adapter_row(adapters, "experts", 0, None, **use))
    lines = [line.split() for line in adapters.table(rows, sizes).splitlines()]
    assert lines[1] == [
        "full",
        "2",
        "0.600",
        "±",
        "0.141",
        "0.500",
        "±",
        "0.000",
        "500",
        "50.00%",
        "1.00",
        "×",
        "-",
        "-",
    ]
    assert len(lines) == 4 and lines[3] == [
        "experts",
        "1",
        "-",
        "0.500",
        "100",
        "10.00%",
        "1.50",
        "×",
        "75%",
        "25%",
        "0.500",
    ]


def medmnist_row(medmnist: ModuleType, file: str, seed: int, auc: float | None):
    run = medmnist.Run(file=file, digest="d", seed=seed)
    return medmnist.Row(run=run, settings={}, kind="binary", shape=(1, 28, 28), result=result_of(medmnist, auc))


def test_official_names_stand_in_the_papers_tables_and_others_in_their_own(medmnist: ModuleType):
    rows = [medmnist_row(medmnist, "nodulemnist3d_64", seed, auc) for seed, auc in enumerate((0.6, 0.8))]
    rows.append(medmnist_row(medmnist, "hippocampuspart2d", 0, 0.9))
    assert medmnist.means_of(rows) == {"Nodule": (pytest.approx(0.7), 0.5)}
    text = medmnist.text_of(rows, "mine")
    (mine,) = [line.split() for line in text.splitlines() if line.startswith("mine  ") and "70.0" in line]
    assert mine == ["mine", "-", "-", "70.0", "50.0", *["-"] * 10]
    assert text.splitlines()[-1].split()[:8] == [
        "hippocampuspart2d",
        "binary",
        "1×28×28",
        "10",
        "4",
        "1",
        "0.900",
        "0.500",
    ]
    assert "Table 2" not in medmnist.text_of(rows[2:], "mine")


def test_an_auc_that_one_seed_lacks_is_no_mean(medmnist: ModuleType):
    rows = [medmnist_row(medmnist, "retinamnist", seed, auc) for seed, auc in enumerate((0.6, None))]
    assert medmnist.means_of(rows) == {"Retina": (None, 0.5)}


def test_two_files_of_one_dataset_are_refused(medmnist: ModuleType):
    rows = [medmnist_row(medmnist, name, 0, 0.5) for name in ("retinamnist", "retinamnist_64")]
    with pytest.raises(SystemExit, match="retinamnist and retinamnist_64 are both Retina of the paper"):
        medmnist.means_of(rows)


def test_rows_come_back_as_they_were(medmnist: ModuleType, adapters: ModuleType, tmp_path: Path):
    for module, row in (
        (medmnist, medmnist_row(medmnist, "x", 0, None)),
        (adapters, adapter_row(adapters, "experts", 0, 0.5, expert_use=(0.25, 0.75))),
    ):
        path = tmp_path / f"{module.__name__}.jsonl"
        path.write_text(json.dumps(asdict(row)) + "\n")
        assert module.read_rows(path) == [row]


@pytest.mark.slow
def test_a_file_is_trained_and_scored_once(
    medmnist: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    file = write_medmnist(tmp_path / "small.npz", members_of((8, 8)))
    arguments = ["medmnist.py", str(file), "-o", str(tmp_path / "rows"), "--epochs", "1", "--input-size", "32"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--preset", "tiny", "-device", "cpu"])
    medmnist.main()
    rows = (tmp_path / "rows/rows.jsonl").read_text()
    medmnist.main()
    assert (tmp_path / "rows/rows.jsonl").read_text() == rows and rows.count("\n") == 1
    assert not (tmp_path / "rows/runs/small").exists() and "small" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*arguments[:-1], "64", "--preset", "tiny", "-device", "cpu"])
    with pytest.raises(SystemExit, match="has input_size"):
        medmnist.main()
