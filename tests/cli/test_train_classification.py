"""`spadunet_train --task classification`, as a user calls it."""

from __future__ import annotations

import csv
import re
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cubes_file import cut_cubes, write_cubes
from small_model import make_model, shrink_presets

from spadunet.classification import search
from spadunet.classification.learner import ClassificationLearner
from spadunet.cli import runs, train
from spadunet.cli.classification_options import PAPER
from spadunet.cli.joint_options import adapter_of
from spadunet.evaluation.classification import ClassificationScores
from spadunet.files import sha256_of_file
from spadunet.formats import write_array
from spadunet.inference.classify import build_classifier
from spadunet.inference.predict import build_network
from spadunet.model import load_model, read_model_record, save_model
from spadunet.network.adapters import count_parameters
from spadunet.network.build import build_backbone
from spadunet.network.classify import encoder_of
from spadunet.pretrained import find_weights
from spadunet.task import AdapterRecord
from spadunet.training.report import write_report
from spadunet.training.runs import find_runs

QUICK = ("--num-workers", 0, "-device", "cpu", "--precision", "float32")
SMALL = ("--input-size", 8, "--epochs", 2, "--batch-size", 8, *QUICK)
INIT = find_weights("spad_unet_tiny")

Classify = Callable[..., int]


@pytest.fixture(autouse=True)
def small_and_undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of two levels, and no page."""
    shrink_presets(monkeypatch)
    monkeypatch.setattr("spadunet.training.follow.write_report", lambda folder: None)
    monkeypatch.setattr("spadunet.training.curves.Curves.draw", lambda self: None)


@pytest.fixture
def cubes(tmp_path: Path) -> Path:
    """Few cubes, by name in raw/."""
    (tmp_path / "raw").mkdir()
    return write_cubes(tmp_path / "raw/cubes.npz", side=8, num_train=4, num_val=2, num_test=1)


@pytest.fixture
def classify(run, cubes: Path, tmp_path: Path) -> Classify:
    """The command on these cubes."""

    def call(*words: object, dataset: object = cubes) -> int:
        return run(train.main, "--task", "classification", "-d", dataset, "--data", tmp_path, *words)

    return call


def test_one_command_plans_trains_and_validates_and_typed_again_says_so(
    classify: Classify, run, tmp_path: Path, capsys, caplog
):
    assert classify(*SMALL, dataset="cubes") == 0
    folder = tmp_path / "results/cubes/spad_unet_tiny/classification"
    model = load_model(folder)
    assert list(model.classifiers) == ["cubes"]
    assert (model.tasks, model.provenance["steps"]) == ({}, "2")
    assert model.classifiers["cubes"].plan.input_size_voxels == (8, 8, 8)
    build_classifier(model, "cubes")
    scores = ClassificationScores.from_json((folder / "validation/cubes/scores.json").read_text())
    assert scores.num_studies == 4
    assert "images interpolated to (8, 8, 8) voxels" in caplog.text
    assert re.search(r"AUC \d\.\d+.*\nACC ", caplog.text)
    assert run(runs.main, "--data", tmp_path) == 0
    assert f"AUC {scores.auc:.4f}" in capsys.readouterr().out
    assert classify(*SMALL) == 2
    assert "trained already (2 steps); --restart to start anew" in capsys.readouterr().err
    assert classify(*SMALL, "--input-size", 6) == 2
    assert "an earlier run had input_size 8 8 8, not 6 6 6; give the same options" in capsys.readouterr().err
    assert classify(*SMALL, "--epochs", 3) == 2
    assert "an earlier run had epochs 2, not 3; give the same options" in capsys.readouterr().err
    assert classify(*SMALL, "--restart", "--max-minutes", 0.001, "--pooling", "attention") == 0
    assert load_model(folder).classifiers["cubes"].pooling == "attention"


def test_the_search_takes_the_rate_with_the_best_validation_and_goes_on_where_it_was(
    classify: Classify, run, tmp_path: Path, monkeypatch, capsys, caplog
):
    monkeypatch.setattr("spadunet.training.follow.write_report", write_report)
    assert search.RATES == (5e-8, 1e-7, 5e-7, 1e-6, 5e-6, 1e-5, 5e-5, 1e-4, 5e-4)
    assert PAPER.options["learning_rate"] == "search"
    monkeypatch.setattr(search, "RATES", (1e-8, 1e-2, 1e-3))
    step = ClassificationLearner.step
    visited = []

    def note(self, batch):
        visited.append(self.options.learning_rate)
        if self.options.learning_rate == 1e-3 and fails:
            raise RuntimeError("the power is gone")
        return {"loss": float("nan")} if self.options.learning_rate == 1e-2 else step(self, batch)

    monkeypatch.setattr(ClassificationLearner, "step", note)
    folder, fails = tmp_path / "searched", True
    command = ("--learning-rate", "search", *SMALL, "-o", folder)
    assert classify(*command) == 1
    visited.clear()
    assert run(runs.main, tmp_path) == 0
    assert re.search(r" searched\n +search of the learning rate: at the 3. rate, 0.001\n", capsys.readouterr().out)
    assert len(find_runs(tmp_path)) == 1
    assert classify("--learning-rate", 1e-3, *SMALL, "-o", folder) == 2
    assert "an earlier run had learning_rate search, not 0.001; give --learning-rate search" in capsys.readouterr().err
    fails = False
    assert classify(*command) == 0
    assert set(visited) == {1e-2, 1e-3}  # the first is done, the second diverges again
    rows = {row["learning_rate"]: row for row in csv.DictReader((folder / "search.csv").read_text().splitlines())}
    assert (rows["0.01"]["remark"], rows["0.01"]["auc"]) == ("diverged", "")
    ranked = [max(("1e-08", "0.001"), key=lambda it: (float(rows[it]["auc"]), -float(rows[it]["loss"])))]
    assert [rate for rate in rows if rows[rate]["remark"] == "best"] == ranked
    model = load_model(folder)
    assert model.provenance["learning_rate"] == ranked[0]
    assert model.provenance["searched_rates"] == "1e-08 0.01 0.001"
    assert (folder / "validation/cubes/predictions.csv").is_file()
    assert not list(folder.glob("search/**/*.safetensors"))  # a whole backbone each
    assert {path.parent.name for path in folder.glob("search/*/curves.csv")} >= {"rate_1e-08", "rate_0.001"}
    winner = folder / f"search/rate_{ranked[0]}"
    for name in ("epochs.csv", "curves.csv", "report.html"):
        assert (folder / name).read_bytes() == (winner / name).read_bytes()
    (listed,) = find_runs(tmp_path)
    assert (listed.folder, listed.kind, listed.state) == (folder, "classification", "finished")
    assert listed.auc == pytest.approx(float(rows[ranked[0]]["auc"]), abs=1e-4)
    assert "learning rate  auc" in caplog.text
    assert classify(*command) == 2
    assert "trained already" in capsys.readouterr().err
    plain = ("--learning-rate", 1e-3, *SMALL, "-o", folder)
    assert classify(*plain, "--restart") == 0
    assert not (folder / "search").exists()
    assert classify(*command) == 2
    assert "an earlier run had learning_rate 0.001, not search; give the same" in capsys.readouterr().err


def test_experts_together_are_as_large_as_lora_unless_told_otherwise():
    def adapter(**given: object) -> AdapterRecord | None:
        return adapter_of(Namespace(**{"adapter": "experts", "rank": None, "experts": None, **given}))

    assert adapter(adapter="lora") == AdapterRecord(rank=8)
    assert adapter() == AdapterRecord(rank=2, num_experts=4)
    assert adapter(experts=16) == AdapterRecord(rank=1, num_experts=16)
    assert adapter(rank=8) == AdapterRecord(rank=8, num_experts=4)


def test_a_task_that_joins_leaves_the_others_as_they_were_to_the_bit(
    classify: Classify, tmp_path: Path, capsys, caplog
):
    model = tmp_path / "model"
    save_model(model, make_model())
    files = {path: sha256_of_file(path) for path in model.rglob("*.safetensors")}
    image = torch.rand(1, 2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    names = read_model_record(model).tasks
    with torch.no_grad():
        before = {name: build_network(load_model(model), name)(image, 2) for name in names}
    words = ("--init", model, "--add-task", "--adapter", "lora", "--rank", 2, *SMALL)
    assert classify(*words) == 0
    grown = load_model(model)
    assert (tuple(grown.tasks), tuple(grown.classifiers)) == (names, ("cubes",))
    assert {path: sha256_of_file(path) for path in files} == files
    with torch.no_grad():
        assert all(torch.equal(build_network(grown, name)(image, 2), before[name]) for name in names)
    build_classifier(grown, "cubes")
    assert grown.classifiers["cubes"].provenance["adapter"] == "rank 2"
    encoder = encoder_of(build_backbone("spad_unet", "tiny"))
    assert re.search(
        rf"adapter of the encoder \(rank 2\): [\d,]+ of {count_parameters(encoder):,} parameters, .* %, .* MB",
        caplog.text,
    )
    assert (model / "added/cubes/epochs.csv").is_file()
    assert classify(*words, "--restart") == 2
    assert "has a task cubes already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "brightness"), [("adrenalmnist3d", 0.5), ("vesselmnist3d_64", 0.5), ("nodulemnist3d", None)]
)
def test_the_papers_recipe_dims_shapes_alone(classify: Classify, tmp_path: Path, name: str, brightness, caplog):
    path = write_cubes(tmp_path / f"{name}.npz", side=8, num_train=2, num_val=1, num_test=1)
    small = ("--backbone", "spad_unet", "--preset", "tiny", "--learning-rate", 1e-3, "--input-size", 8, "--epochs", 1)
    quick = ("--num-workers", 0, "-device", "cpu")
    assert classify("--recipe", "paper-medmnist", *small, *quick, "-o", tmp_path / "run", dataset=path) == 0
    model = load_model(tmp_path / "run")
    assert model.classifiers[path.stem].plan.brightness == brightness
    told = model.provenance
    assert (told["schedule"], told["augmentation"], told["batch_size"]) == ("steps", "none", "32")
    assert told["dimmed"] == str(brightness is not None)
    assert "not as published: --epochs 1, not 100; --learning-rate 0.001, not search" in caplog.text
    assert (told["seed"], told["precision"]) == ("3407", "torch.float32")
    assert "seed 3407, precision float32" in caplog.text
    other = ("--seed", 1, "--precision", "bf16", "--dry-run")
    assert classify("--recipe", "paper-medmnist", *small, *quick, *other, dataset=path) == 0
    assert "--seed 1, not 3407; --precision bf16, not float32; " in caplog.text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images of six patients, of two sizes, without a split."""
    cubes, labels = cut_cubes(8, 6)
    path = tmp_path / "Sides"
    (path / "images").mkdir(parents=True)
    lines = ["image,patient,end"]
    for number, (cube, label) in enumerate(zip(cubes, labels[:, 0], strict=True)):
        write_array(path / f"images/c{number:02}.nii.gz", cube[: 7 + number % 2], np.diag([1.0, 1.0, 1.0, 1.0]))
        lines.append(f"c{number:02},p{number // 2},{('front', 'back')[label]}")
    (path / "labels.csv").write_text("\n".join(lines) + "\n")
    return path


def test_a_folder_is_planned_preprocessed_and_split_by_patient(
    classify: Classify, folder: Path, tmp_path: Path, caplog
):
    words = ("--epochs", 1, "--batch-size", 8, *QUICK)
    assert classify(*words, "-f", 1, dataset=folder) == 0
    made = tmp_path / "preprocessed/Sides/classification"
    assert len(list(made.glob("cases_*/*.b2nd"))) == 12
    model = load_model(tmp_path / "results/Sides/spad_unet_tiny/classification_fold_1")
    assert model.classifiers["Sides"].plan.input_size_voxels is None
    assert model.provenance["training_cases"] == "10"
    assert classify(*words, "-f", "all", "--spacing", "native", dataset=folder) == 0
    assert "12 images preprocessed, 0 kept" in caplog.text
    assert "fingerprint is up to date" in caplog.text
    assert not (tmp_path / "results/Sides/spad_unet_tiny/classification_fold_all/validation").exists()


def test_what_will_be_refused_is_refused_before_images_are_preprocessed(
    classify: Classify, folder: Path, tmp_path: Path, monkeypatch, capsys
):
    words = ("--epochs", 1, "--batch-size", 8, *QUICK)
    run_folder = ("-o", tmp_path / "run")
    assert classify(*words, *run_folder, dataset=folder) == 0

    def too_early(*_: object, **__: object) -> None:
        raise AssertionError("preprocessed")

    monkeypatch.setattr("spadunet.classification.preparation.prepare_folder", too_early)
    said = {
        (*words, "--pooling", "cls"): "--pooling cls: a U-Net has no cls token; use mean or attention",
        (*words, *run_folder): "trained already (1 steps); --restart to start anew",
        (*words, *run_folder, "--seed", 7): "an earlier run had seed 0, not 7; give the same options",
        (*words, *run_folder, "--spacing", "native"): "an earlier run had spacing median, not native",
        (*words, *run_folder, "--learning-rate", "search"): "an earlier run had learning_rate 0.001, not search",
    }
    for options, line in said.items():
        for more in ((), ("--dry-run",)):
            assert classify(*options, *more, dataset=folder) == 2
            assert line in capsys.readouterr().err


def test_a_dry_run_writes_nothing(classify: Classify, folder: Path, tmp_path: Path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert classify("--dry-run", dataset=folder) == 0
    assert re.search(r"train +8 +4 +4 +4\n +val +4 +2 +2 +2\n", capsys.readouterr().out)
    assert classify("--dry-run", *SMALL) == 0
    said = capsys.readouterr().out
    assert "8 studies to learn from, 4 to validate" in said
    assert "2 steps, light augmentation" in said
    assert re.search(r"time +about \d.*: 2 epochs of .* s, by a trial here with one study of 8×8×8 voxels", said)
    assert sorted(tmp_path.rglob("*")) == before


def test_wrong_options_are_refused_by_name(classify: Classify, run, folder: Path, tmp_path: Path, capsys):
    one_kind = tmp_path / "One"
    (one_kind / "images").mkdir(parents=True)
    for name in "abcd":
        write_array(one_kind / f"images/{name}.nii.gz", cut_cubes(8, 1)[0][0], np.eye(4))
    (one_kind / "labels.csv").write_text("image,end\na,front\nb,front\nc,front\nd,front\n")
    said = {
        ("--slice-merging", 0.2): "--slice-merging: is for segmentation; leave it out",
        ("--repeats", 2): "--repeats: is for segmentation",
        ("--recipe", "paper-btcv"): "--recipe paper-btcv: is not for --task classification; give paper-medmnist",
        ("--spacing", "native"): "tells no spacing; give --input-size",
        ("--input-size", 8, 8): "--input-size 8 8: expected one number",
        ("--input-size", 1, 32, 32): "--input-size 1 32 32: one slice, but the images are volumes; give a depth",
        ("--input-size", 5000): "--input-size 5000: an image has at most",
        ("--input-size", 1, 32, 32, "-d", folder): "--input-size 1 32 32: one slice, but the images are volumes",
        ("--input-size", 5000, "-d", folder): "--input-size 5000: an image has at most",
        ("-f", 1): "says which studies train and which validate",
        ("--pooling", "cls", *SMALL): "--pooling cls: a U-Net has no cls token; use mean or attention",
        ("--adapter", "lora"): "--adapter lora: changes a frozen backbone; give it with --init MODEL",
        ("--rank", 4): "--rank 4: is of an adapter; give --adapter lora too",
        ("--freeze-backbone",): "--freeze-backbone: needs the model whose backbone is kept",
        ("--learning-rate", "search", "-f", "all"): "-f all holds out no study to compare rates by",
        ("--learning-rate", "search", "--add-task", "--init", INIT): "search without --add-task",
        ("--add-task", "--init", INIT, "--dry-run"): "comes with spadunet and stays as it is; give a folder for",
        ("--deterministic", "--max-minutes", 1): "--deterministic: with --max-minutes 1",
        ("--init", tmp_path / "raw/cubes.npz"): "cubes.npz: holds no weights of PyTorch; give a .pt, .pth",
        ("-d", "nothing.npz"): "-d nothing.npz: not found",
        ("-d", "cubes", "cubes"): "learns from one dataset",
        ("-d", one_kind): "every label is 'front'; expected at least two",
        ("-d", folder, "-f", 7): "has folds 0 to 4; give one of them or all",
    }
    for words, line in said.items():
        assert classify(*words) == 2, words
        assert line in capsys.readouterr().err, words
    assert run(train.main, "-d", tmp_path / "raw/cubes.npz", "--data", tmp_path) == 2
    assert "cubes.npz: studies with a class each, no label maps; give --task classification" in capsys.readouterr().err
    assert run(train.main, "--epochs", 3, "--data", tmp_path) == 2
    assert "--epochs: is for --task classification; leave it out" in capsys.readouterr().err
    assert run(train.main, "--learning-rate", "search", "--data", tmp_path) == 2
    assert "--learning-rate search: is for --task classification" in capsys.readouterr().err
    assert run(train.main, "--recipe", "paper-medmnist", "--data", tmp_path) == 2
    assert "--recipe paper-medmnist: is not for --task segmentation" in capsys.readouterr().err


def test_studies_of_several_views_are_learned_beside_those_of_one(classify: Classify, folder: Path, tmp_path: Path):
    table = (folder / "labels.csv").read_text().splitlines()
    lines = [f"{table[0]},study", *(f"{line},{line[:3]}" for line in table[1:])]
    for number in range(0, 12, 3):
        shutil.copy(folder / f"images/c{number:02}.nii.gz", folder / f"images/c{number:02}_again.nii.gz")
        image, rest = lines[number + 1].split(",", 1)
        lines.append(f"{image}_again,{rest}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    words = ("--epochs", 2, "--pooling", "attention", *QUICK, "-o", tmp_path / "run")
    assert classify(*words, dataset=folder) == 0
    scores = (tmp_path / "run/validation/Sides/predictions.csv").read_text().splitlines()
    assert len(scores) == 1 + 4  # a row a study, and not a view
    assert load_model(tmp_path / "run").provenance["fold"] == "0"


def test_a_split_without_validation_keeps_the_last_weights_and_says_so(
    classify: Classify, folder: Path, tmp_path: Path, caplog
):
    table = (folder / "labels.csv").read_text().splitlines()
    lines = [f"{table[0]},split", *(f"{line},{'test' if ',p5,' in line else 'train'}" for line in table[1:])]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    assert classify("--epochs", 1, *QUICK, "-o", tmp_path / "run", dataset=folder) == 0
    assert "no study has the split val, so nothing tells which epoch is the best" in caplog.text
    assert load_model(tmp_path / "run").provenance["training_cases"] == "10"
