"""benchmarks/label_efficiency.py: a proof is worth what its splits, its check for test images and its table are."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import spadunet
from spadunet.dataset import load_dataset
from spadunet.model import Model, save_model
from spadunet.pretraining.corpus import CorpusImage, CorpusIndex
from spadunet.record import write_record

SCRIPT = Path(__file__).parents[1] / "benchmarks/label_efficiency.py"
RAW = Path(spadunet.__file__).parent / "demo/data/Dataset004_Hippocampus"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("label_efficiency", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["label_efficiency"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def options_for(output: Path, **more) -> argparse.Namespace:
    return argparse.Namespace(**{"output": output, "score": "test", "ratios": [0.05, 0.4], "seeds": [0, 1], **more})


def test_a_larger_share_holds_the_smaller_and_seeds_differ(script: ModuleType):
    dataset = load_dataset(RAW)
    shares = [set(script.choose_subset(dataset, dataset.cases, ratio, 0)) for ratio in (0.05, 0.4, 1.0)]
    assert [len(share) for share in shares] == [2, 16, 40]
    assert shares[0] < shares[1] < shares[2]
    assert set(script.choose_subset(dataset, dataset.cases, 0.4, 1)) != shares[1]


def test_validation_cases_are_never_trained_on(script: ModuleType):
    dataset = load_dataset(RAW)
    training, validation = script.split_of(dataset, "validation")
    names = {case.name for case in validation}
    assert len(training) + len(names) == 40 and len(names) == 8
    assert not names & set(script.choose_subset(dataset, training, 1.0, 0))
    assert script.split_of(dataset, "test") == (list(dataset.cases), [])


def test_a_fold_keeps_its_number_when_shares_and_seeds_are_added(script: ModuleType, tmp_path: Path):
    dataset = load_dataset(RAW)
    before = script.add_folds(dataset, options_for(tmp_path))
    path = tmp_path / "preprocessed" / dataset.name / "splits_final.json"
    cases = {key: json.loads(path.read_text())[number]["train"] for key, number in before.items()}
    after = script.add_folds(dataset, options_for(tmp_path, ratios=[0.01, 0.05, 0.4], seeds=[2, 0, 1]))
    assert len(after) == 9 and before.items() <= after.items()
    assert {key: json.loads(path.read_text())[number]["train"] for key, number in before.items()} == cases


@pytest.mark.parametrize(("folder", "is_refused"), [("imagesTr", False), ("imagesTs", True)])
def test_a_test_image_in_the_corpus_is_found_by_its_content(
    script: ModuleType, tmp_path: Path, folder: str, is_refused: bool
):
    image = next(iter(sorted((RAW / folder).iterdir())))
    copy = tmp_path / "scan.nii.gz"  # under another name
    copy.write_bytes(image.read_bytes())
    entry = CorpusImage(
        key="scan",
        source=str(copy),
        dataset="d",
        modality="MRI",
        shape=(1, 1, 1),
        spacing_mm=(1, 1, 1),
        num_channels=1,
        weight=1,
    )
    write_record(tmp_path / "corpus.json", CorpusIndex(name="c", images=(entry,)))
    digest = hashlib.sha256((tmp_path / "corpus.json").read_bytes()).hexdigest()
    for name, stated in (("weights", digest), ("others", "0")):
        state = {"weight": torch.zeros(1)}
        model = Model(backbone="b", preset="p", backbone_state=state, tasks={}, provenance={"corpus_digest": stated})
        save_model(tmp_path / name, model)
    arguments = [load_dataset(RAW)], tmp_path / "weights", tmp_path
    if is_refused:
        with pytest.raises(SystemExit, match=rf"{image.name}: a test image, and in the corpus as .*scan"):
            script.require_no_test_images(*arguments)
    else:
        script.require_no_test_images(*arguments)
    with pytest.raises(SystemExit, match="not the corpus"):
        script.require_no_test_images(arguments[0], tmp_path / "others", tmp_path)


def test_the_table_and_the_statements_follow_from_the_rows(script: ModuleType, tmp_path: Path):
    settings = script.Settings(
        weights="w",
        scored_on="test",
        max_steps=300,
        batch_size=None,
        learning_rate=0.003,
        spacing=("8", "2.5", "2.5"),
        memory_gb=0.8,
    )
    dice = {(0.05, "scratch"): 0.70, (0.05, "pretrained"): 0.76, (0.6, "scratch"): 0.80, (0.6, "pretrained"): 0.82}
    dice |= {(1.0, "scratch"): 0.81, (1.0, "pretrained"): 0.83}
    rows = [
        script.Row(
            run=script.Run(dataset="D", ratio=ratio, seed=seed, arm=arm),
            settings=settings,
            num_cases=3,
            seconds=1,
            dice=value + 0.01 * seed,
            assd_mm=None if seed else 2.0 if arm == "scratch" else 1.5,
            hd_mm=1.0,
            num_missed=seed,
            num_false_alarms=0,
        )
        for (ratio, arm), value in dice.items()
        for seed in (0, 1, 2)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(script.asdict(row)) + "\n" for row in rows))
    assert script.read_rows(path) == rows
    first = next(line for line in script.table(rows, "D").splitlines() if "5%" in line)
    assert "0.710 ± 0.010" in first and "0.770 ± 0.010" in first and "+0.060" in first
    assert "+0.500" in first  # a distance that falls is a gain; undefined values are left out
    assert "3 / 3" in first and "0 / 0" in first
    assert script.statements(rows, "D") == [
        "gain at every share: yes",
        "largest at the smallest: yes",
        "60 % with pre-training at least 100 % without: yes (0.8300, 0.8200)",
    ]
    swapped = [
        script.Row(
            **{
                **{field.name: getattr(row, field.name) for field in script.fields(row)},
                "run": script.Run(
                    dataset="D",
                    ratio=row.run.ratio,
                    seed=row.run.seed,
                    arm="scratch" if row.run.arm == "pretrained" else "pretrained",
                ),
            }
        )
        for row in rows
    ]
    assert [line.split(": ")[1].split()[0] for line in script.statements(swapped, "D")] == ["no", "no", "no"]
