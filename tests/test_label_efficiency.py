"""benchmarks/label_efficiency.py: a proof is worth what its splits, its check for test images and its table are."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import SimpleITK
import torch

import spadunet
from spadunet.cli import index
from spadunet.dataset import load_dataset
from spadunet.metrics import DEFAULT_METRICS
from spadunet.model import Model, save_model
from spadunet.record import write_record
from spadunet.scores import CaseScore, ClassScore, Scores

SCRIPT = Path(__file__).parents[1] / "benchmarks/label_efficiency.py"
RAW = Path(spadunet.__file__).parent / "demo/data/Dataset004_Hippocampus"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("label_efficiency", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["label_efficiency"] = module  # dataclasses look their module up
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        spec.loader.exec_module(module)
    return module


def options_for(output: Path, **more) -> argparse.Namespace:
    return argparse.Namespace(**{"output": output, "score": "test", "ratios": [0.05, 0.4], "seeds": [0, 1], **more})


def test_a_larger_share_holds_the_smaller_and_seeds_differ(script: ModuleType):
    dataset = load_dataset(RAW)
    names = [case.name for case in dataset.cases]
    shares = [set(script.choose_fraction(dataset, names, ratio, 0)) for ratio in (0.05, 0.4, 1.0)]
    assert [len(share) for share in shares] == [2, 16, 40]
    assert shares[0] < shares[1] < shares[2]
    assert set(script.choose_fraction(dataset, names, 0.4, 1)) != shares[1]


def test_validation_cases_are_never_trained_on(script: ModuleType):
    dataset = load_dataset(RAW)
    training, validation = script.split_of(dataset, "validation")
    names = {case.name for case in validation}
    assert len(training) + len(names) == 40 and len(names) == 8
    assert not names & set(script.choose_fraction(dataset, [case.name for case in training], 1.0, 0))
    assert script.split_of(dataset, "test") == (list(dataset.cases), [])


def test_a_fold_keeps_its_number_when_shares_and_seeds_are_added(script: ModuleType, tmp_path: Path):
    dataset = load_dataset(RAW)
    before = script.add_folds(dataset, options_for(tmp_path))
    path = tmp_path / "preprocessed" / dataset.name / "splits_final.json"
    cases = {key: json.loads(path.read_text())[number]["train"] for key, number in before.items()}
    after = script.add_folds(dataset, options_for(tmp_path, ratios=[0.01, 0.05, 0.4], seeds=[2, 0, 1]))
    assert len(after) == 9 and before.items() <= after.items()
    assert {key: json.loads(path.read_text())[number]["train"] for key, number in before.items()} == cases


def test_a_fold_of_other_cases_is_refused(script: ModuleType, tmp_path: Path):
    dataset = load_dataset(RAW)
    script.add_folds(dataset, options_for(tmp_path))
    with pytest.raises(SystemExit, match=r"fold 0 has other cases"):
        script.add_folds(dataset, options_for(tmp_path, score="validation"))


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A corpus with a training image, and one with a test image in another format under another name."""
    made = {}
    for folder in ("imagesTr", "imagesTs"):
        image = next(iter(sorted((RAW / folder).iterdir())))
        data = tmp_path_factory.mktemp(folder)
        (data / "scans").mkdir()
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(image)), str(data / "scans/scan.nrrd"))
        with pytest.raises(SystemExit, match="0"):
            index.main([str(data / "scans"), "-n", "c", "--data", str(data), "-np", "1"])
        made[folder] = data / "corpora/c"
    return made


def test_a_test_image_in_the_corpus_is_found_by_its_voxels(script: ModuleType, corpora: dict[str, Path]):
    datasets = [load_dataset(RAW)]
    script.require_no_test_images(datasets, [corpora["imagesTr"]])
    first = sorted((RAW / "imagesTs").iterdir())[0]
    with pytest.raises(SystemExit, match=rf"{first.name}: a test image, and in the corpus as .*scan.nrrd"):
        script.require_no_test_images(datasets, list(corpora.values()))


def write_noise(path: Path, *shape: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(sum(shape)).integers(0, 1000, shape).astype(np.int16)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values, isVector=False), str(path))


def test_a_frame_of_a_test_image_in_the_corpus_is_found(script: ModuleType, tmp_path: Path):
    """A corpus stores every frame or channel of a file as an image of its own."""
    test_image = tmp_path / "set/imagesTs/case_0000.nii.gz"
    write_noise(test_image, 3, 4, 20, 20)
    write_noise(tmp_path / "scans/other.nii.gz", 4, 20, 24)
    index_scans = [str(tmp_path / "scans"), "-n", "c", "--data", str(tmp_path), "-np", "1"]
    datasets = [SimpleNamespace(name="set", folder=tmp_path / "set")]
    with pytest.raises(SystemExit, match="0"):
        index.main(index_scans)
    script.require_no_test_images(datasets, [tmp_path / "corpora/c"])
    frame = SimpleITK.ReadImage(str(test_image))[:, :, :, 1]
    SimpleITK.WriteImage(frame, str(tmp_path / "scans/frame.nrrd"))
    with pytest.raises(SystemExit, match="0"):
        index.main(index_scans)
    with pytest.raises(SystemExit, match=r"case_0000.nii.gz#1: a test image, and in the corpus as .*frame.nrrd"):
        script.require_no_test_images(datasets, [tmp_path / "corpora/c"])


def test_a_test_image_that_cannot_be_compared_is_a_line(
    script: ModuleType, corpora: dict[str, Path], tmp_path: Path, capsys
):
    datasets = [SimpleNamespace(name="set", folder=tmp_path)]
    write_noise(tmp_path / "imagesTs/a_0000.nii.gz", 4, 20, 20)
    SimpleITK.WriteImage(SimpleITK.Image((20, 20, 4), SimpleITK.sitkInt16), str(tmp_path / "imagesTs/b_0000.nii.gz"))
    script.require_no_test_images(datasets, [corpora["imagesTr"]])
    assert "b_0000.nii.gz: every voxel is 0; expected an image; no corpus can hold" in capsys.readouterr().out
    (tmp_path / "imagesTs/c_0000.nii.gz").write_bytes(b"no image")
    with pytest.raises(SystemExit, match=r"c_0000.nii.gz: damaged .*; so it cannot be told whether a corpus holds"):
        script.require_no_test_images(datasets, [corpora["imagesTr"]])


def test_of_shipped_weights_the_listed_files_are_compared(script: ModuleType, tmp_path: Path, monkeypatch):
    datasets = [load_dataset(RAW)]
    script.require_no_shipped_images(datasets)
    image = sorted((RAW / "imagesTs").iterdir())[0]
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    (tmp_path / "images.csv").write_text(f"file,sha256\nheart.nii.gz,{digest}\n", encoding="utf-8")
    monkeypatch.setattr(script.pretrained, "FOLDER", tmp_path)
    with pytest.raises(
        SystemExit, match=rf"{image.name}: a test image, and the weights were made of it as heart.nii.gz"
    ):
        script.require_no_shipped_images(datasets)


@pytest.mark.parametrize(
    ("provenance", "message"),
    [
        ({}, None),
        ({"corpus_digest": "0"}, "lacks the one that the backbone"),
        ({"tokenizer_corpus_digest": "0"}, "lacks the one that its tokenizer"),
        ({"init": "eva02.pt, SHA-256 0a"}, "started from eva02.pt, SHA-256 0a, whose images nobody knows"),
    ],
)
def test_weights_of_unknown_images_are_refused(
    script: ModuleType, corpora: dict[str, Path], tmp_path: Path, provenance: dict[str, str], message: str | None
):
    digest = hashlib.sha256((corpora["imagesTr"] / "corpus.json").read_bytes()).hexdigest()
    stated = {"corpus_digest": digest, "tokenizer_corpus_digest": digest, "init": "None"} | provenance
    state = {"weight": torch.zeros(1)}
    save_model(tmp_path, Model(backbone="b", preset="p", backbone_state=state, tasks={}, provenance=stated))
    if message is None:
        script.require_corpora(tmp_path, [corpora["imagesTr"]])
    else:
        with pytest.raises(SystemExit, match=message):
            script.require_corpora(tmp_path, [corpora["imagesTr"]])


def test_a_folder_holds_runs_of_one_setting(script: ModuleType, tmp_path: Path):
    options = options_for(tmp_path, device="cpu", init=None, max_steps=3)
    assert script.keep_settings(options) == {"device": "cpu", "init": "None", "max_steps": "3", "score": "test"}
    script.keep_settings(options_for(tmp_path, device="cpu", init=None, max_steps=3, seeds=[5]))
    with pytest.raises(SystemExit, match="has max_steps 3, not 4"):
        script.keep_settings(options_for(tmp_path, device="cpu", init=None, max_steps=4))


def row_of(script: ModuleType, ratio: float, seed: int, arm: str, dice: float, assd: float | None = 1.0):
    return script.Row(
        run=script.Run(dataset="D", ratio=ratio, seed=seed, arm=arm),
        settings={"score": "test", "max_steps": "300"},
        num_cases=3,
        seconds=1,
        dice=dice,
        assd_mm=assd,
        hd_mm=1.0,
        num_missed=seed,
        num_false_alarms=0,
    )


@pytest.fixture
def rows(script: ModuleType) -> list:
    """Three shares, three seeds, both arms; ASSD is defined for the first seed alone."""
    dice = {(0.05, "scratch"): 0.70, (0.05, "pretrained"): 0.76, (0.6, "scratch"): 0.80, (0.6, "pretrained"): 0.82}
    dice |= {(1.0, "scratch"): 0.81, (1.0, "pretrained"): 0.83}
    return [
        row_of(script, ratio, seed, arm, value + 0.01 * seed, None if seed else 2.0 if arm == "scratch" else 1.5)
        for (ratio, arm), value in dice.items()
        for seed in (0, 1, 2)
    ]


def test_the_table_follows_from_the_rows_and_so_do_the_statements(script: ModuleType, rows: list):
    first = next(line for line in script.table(rows, "D").splitlines() if "5%" in line).split("  ")
    cells = [cell.strip() for cell in first if cell.strip()]
    assert cells[:3] == ["5%", "3", "3"]
    assert cells[3:6] == ["0.710 ± 0.010", "0.770 ± 0.010", "+0.060 ± 0.000"]
    assert cells[6:9] == ["2.000", "1.500", "+0.500"]  # a distance that falls is a gain; one value has no deviation
    assert cells[-4:] == ["3", "3", "0", "0"]
    assert script.statements(rows, "D") == [
        "gain at every share: yes",
        "largest at the smallest: yes",
        "60 % with pre-training at least 100 % without: yes (0.8300, 0.8200)",
    ]
    arms = {"scratch": "pretrained", "pretrained": "scratch"}
    swapped = [replace(row, run=replace(row.run, arm=arms[row.run.arm])) for row in rows]
    assert [line.split(": ")[1].split()[0] for line in script.statements(swapped, "D")] == ["no", "no", "no"]


def test_a_seed_that_has_one_arm_only_counts_in_neither(script: ModuleType, rows: list):
    assert script.table([*rows, row_of(script, 0.05, 7, "scratch", 0.99)], "D") == script.table(rows, "D")
    assert script.statements(rows[:3], "D") == ["too few rows for the paper's statements"]


def test_rows_come_back_and_a_line_that_was_cut_off_is_dropped(script: ModuleType, rows: list, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    for row in rows:
        script.add_row(path, row)
    assert script.read_rows(path) == rows
    path.write_text(path.read_text()[:-5])
    assert script.read_rows(path) == rows[:-1]
    script.add_row(path, rows[-1])
    assert script.read_rows(path) == rows


def test_runs_that_are_done_are_not_made_again_and_one_that_fails_leaves_the_rows_of_the_others(
    script: ModuleType, corpora: dict[str, Path], tmp_path: Path, monkeypatch
):
    made = []

    def command(name: str, *arguments: str, **_) -> None:
        words = dict(zip(arguments, arguments[1:], strict=False))
        if name == "train":
            made.append(("--scratch-twin" in arguments, words["--seed"]))
            if made[-1] == (False, "1") and fails:
                raise SystemExit("no memory left")
        if name == "evaluate":
            values = dict.fromkeys(DEFAULT_METRICS, 0.5)
            score = ClassScore(values=values, num_prediction_voxels=1, num_reference_voxels=1)
            scores = Scores(cases=(CaseScore(case="a", classes={"organ": score}),))
            write_record(Path(words["-p"]) / "scores.json", scores)

    monkeypatch.setattr(script, "command", command)
    digest = hashlib.sha256((corpora["imagesTr"] / "corpus.json").read_bytes()).hexdigest()
    provenance = {"corpus_digest": digest, "tokenizer_corpus_digest": digest}
    state = {"weight": torch.zeros(1)}
    save_model(tmp_path / "w", Model(backbone="b", preset="p", backbone_state=state, tasks={}, provenance=provenance))
    words = ["-d", RAW, "-o", tmp_path / "out", "--init", tmp_path / "w", "--corpus", corpora["imagesTr"]]
    words += ["--ratios", 0.05, "--seeds", 0, 1, "--at-once", 1]
    monkeypatch.setattr(sys, "argv", ["label_efficiency.py", *map(str, words)])
    fails = True
    with pytest.raises(SystemExit, match="no memory left"):
        script.main()
    assert made == [(True, "0"), (False, "0"), (True, "1"), (False, "1")]
    assert len(script.read_rows(tmp_path / "out/rows.jsonl")) == 3
    fails = False
    made.clear()
    script.main()
    assert made == [(False, "1")]
    assert "+0.000 ± 0.000" in (tmp_path / "out/table.txt").read_text()
    assert (tmp_path / "out/label_efficiency.png").is_file()
