"""`spadunet_evaluate --protocol few-shot`: the paper's Table 5 of runs at several shares of the patients."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from btcv_release import AFFINE
from moved_labels import write_moved

from spadunet.cli import evaluate
from spadunet.evaluation.protocols.btcv import LABELS
from spadunet.evaluation.protocols.paper import TABLE_5
from spadunet.evaluation.protocols.report import ProtocolReport, Row
from spadunet.formats import read_channels, write_array
from spadunet.model import ModelRecord
from spadunet.record import write_record
from spadunet.scores import Scores

DATASET = "Dataset007_BTCV"


@pytest.fixture
def references(tmp_path: Path, organs) -> Path:
    """Three labelled scans in a raw folder, of which two are held out."""
    folder = tmp_path / f"raw/{DATASET}/labelsTr"
    for number in (1, 29, 30):
        write_array(folder / f"btcv_{number:04}.nii.gz", np.roll(organs, number % 3, axis=1), AFFINE)
    labels = ", ".join(f'"{name}": {number}' for number, name in enumerate(LABELS.names))
    (folder.parent / "dataset.json").write_text(f'{{"channel_names": {{"0": "CT"}}, "labels": {{{labels}}}}}')
    return folder


def write_run(folder: Path, references: Path, step: int, **provenance: object) -> None:
    """What spadunet_train leaves behind: model.json and the predictions of the held-out scans."""
    told = {"fraction": 1.0, "fraction_seed": 0, "seed": 0, "fold": 0, "init": None, "scratch_twin": False}
    told |= {"datasets": DATASET, "max_steps": 300, "batch_size": "auto", "learning_rate": 1e-4, **provenance}
    record = ModelRecord(
        backbone="spad_vit",
        preset="tiny",
        tasks=(DATASET,),
        provenance={name: str(value) for name, value in told.items()},
        sha256={},
    )
    write_record(folder / "model.json", record)
    write_moved(references.glob("btcv_00[23]*"), folder / "validation" / DATASET, step=step)


@pytest.fixture
def results(references: Path, tmp_path: Path) -> Path:
    """At a fifth, two seeds with twins; at the whole, one seed with a twin and one without."""
    folder = tmp_path / "results" / DATASET
    for seed in (0, 1):
        name, both = f"fold_0_fraction_0.2_seed_{seed}", {"fraction": 0.2, "fraction_seed": seed}
        write_run(folder / "spad_vit_tiny" / name, references, 1, **both, init="/weights")
        twin = folder / "spad_vit_tiny_twin" / name
        write_run(twin, references, 3 + seed, **both, init="/weights", scratch_twin=True)
    write_run(folder / "spad_vit_tiny/fold_0", references, 0, init="/weights")
    write_run(folder / "scratch/fold_0", references, 1)
    write_run(folder / "scratch/fold_0_repeats/seed_5", references, 2, seed=5)
    return folder


def rows_in(folder: Path) -> dict[str, dict[str, Row]]:
    report = ProtocolReport.from_json((folder / "protocol.json").read_text())
    return {table.title: {row.name: row for row in table.rows} for table in report.tables}


def test_table_5_has_means_over_seeds_gains_over_twins_and_the_papers_rows(
    results: Path, references: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    assert run(evaluate.main, "-p", results, "-r", references, "-o", out, "-np", 1, "--protocol", "few-shot") == 0
    scores = {path.parent.name: Scores.from_json(path.read_text()) for path in (out / "runs").rglob("scores.json")}
    assert len(scores) == 7
    assert all([case.case for case in each.cases] == ["btcv_0029", "btcv_0030"] for each in scores.values())
    tables = rows_in(out)
    for unit in ("mm", "voxels"):
        rows = tables[f"shares of the training patients, lengths in {unit}"]
        fifth = rows["20 %"]
        for metric, sign in (("dice", 1), (f"assd_{unit}", -1), (f"hd_{unit}", -1)):
            arms = [
                [scores[f"{arm}_fold_0_fraction_0.2_seed_{seed}"].mean(metric) for seed in (0, 1)]
                for arm in ("spad_vit_tiny_twin", "spad_vit_tiny")
            ]
            gains = sign * np.subtract(arms[1], arms[0])
            found = [fifth.values[f"{metric}:{arm}"] for arm in ("scratch", "pretrained", "gain")]
            assert found == pytest.approx([np.mean(arms[0]), np.mean(arms[1]), np.mean(gains)])
            assert fifth.deviations[f"{metric}:gain"] == pytest.approx(np.std(gains, ddof=1))
            assert found[2] > 0
    whole = tables["shares of the training patients, lengths in mm"]["100 %"]
    assert (whole.values["runs:scratch"], whole.values["runs:pretrained"]) == (2, 1)
    pair = scores["spad_vit_tiny_fold_0"].mean("dice") - scores["scratch_fold_0"].mean("dice")
    assert whole.values["dice:gain"] == pytest.approx(pair)
    assert "dice:gain" not in whole.deviations
    voxels = tables["shares of the training patients, lengths in voxels"]
    names = ["20 %", "published: 20 %", "published: 40 %", "published: 60 %", "published: 80 %", "100 %"]
    assert list(voxels) == [*names, "published: 100 %"]
    for name, share in (("published: 20 %", 0.2), ("published: 100 %", 1.0)):
        (dice, assd, hd), row = TABLE_5[share], voxels[name].values
        assert (row["dice:scratch"], row["dice:pretrained"]) == pytest.approx((dice[0] / 100, dice[1] / 100))
        assert (row["assd_voxels:gain"], row["hd_voxels:gain"]) == pytest.approx((assd[0] - assd[1], hd[0] - hd[1]))
    assert not any(row.is_published for row in tables["shares of the training patients, lengths in mm"].values())
    assert "runs without a twin, in no gain: scratch_fold_0_repeats_seed_5" in capsys.readouterr().out


def test_runs_that_do_not_belong_together_are_told_with_all_that_differs(
    results: Path, references: Path, run, capsys: pytest.CaptureFixture[str]
):
    write_run(results / "other/fold_0", references, 1, init="/other", seed=7, max_steps=20)
    write_run(results / "again/fold_0", references, 1, init="/weights")
    (results / "scratch/fold_0/validation" / DATASET / "btcv_0030.nii.gz").unlink()
    command = ("-p", results, "-r", references, "-np", 1, "--protocol", "few-shot")
    assert run(evaluate.main, *command) == 2
    error = capsys.readouterr().err
    assert f"{results}/scratch/fold_0: no prediction for 1 of 2 references: btcv_0030" in error
    assert "the runs differ in max_steps: 20, 300" in error
    assert "the runs started from different weights: /other, /weights" in error
    assert f"{results}/spad_vit_tiny/fold_0: the same share, seed and arm as {results}/again/fold_0" in error


def test_a_case_that_one_run_lacks_is_missing_there(
    results: Path, references: Path, run, capsys: pytest.CaptureFixture[str]
):
    lacking = results / "scratch/fold_0/validation" / DATASET
    (lacking / "btcv_0030.nii.gz").unlink()
    wrong = [results / arm / "fold_0/validation" / DATASET / "btcv_0029.nii.gz" for arm in ("scratch", "spad_vit_tiny")]
    for path in wrong:
        array, affine = read_channels(path)
        write_array(path, np.where(array[0] == 11, 99, array[0]), affine)
    command = ("-p", results, "-r", references, "-np", 1, "--protocol", "few-shot")
    assert run(evaluate.main, *command) == 2
    error = capsys.readouterr().err
    assert f"{results}/scratch/fold_0: no prediction for 1 of 2 references: btcv_0030" in error
    assert all(f"correct {path}, or name" in error for path in wrong)
    assert not (results / "protocol.json").exists()


def test_before_any_result_is_written_all_runs_are_looked_at(
    results: Path, references: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]
):
    bad = [results / f"spad_vit_tiny{twin}/fold_0_fraction_0.2_seed_0" for twin in ("", "_twin")]
    for folder in bad:
        path = folder / "validation" / DATASET / "btcv_0029.nii.gz"
        array, affine = read_channels(path)
        write_array(path, np.where(array[0] == 11, 99, array[0]), affine)
    out = tmp_path / "out"
    command = ("-p", results, "-r", references, "-o", out, "-np", 1, "--protocol", "few-shot", "--metrics", "dice")
    assert run(evaluate.main, *command) == 2
    error = capsys.readouterr().err
    for arm in ("", "_twin"):
        assert f"run spad_vit_tiny{arm}_fold_0_fraction_0.2_seed_0: 1 of 2 cases cannot be scored" in error
    assert not [*out.rglob("scores.json"), *out.rglob("scores.csv"), *out.rglob("protocol.*")]
    for folder in bad:
        shutil.copy(references / "btcv_0029.nii.gz", folder / "validation" / DATASET)
    assert run(evaluate.main, *command) == 0
    assert (out / "spadunet_evaluate.log").read_text().count("going on: 2 of 2 cases have been scored before") == 5
    assert len([*out.rglob("scores.json")]) == 7
    assert not [*out.rglob("scores.partial.jsonl")]


def test_labels_beside_any_runs_predictions_must_agree_also_in_a_dry_run(
    results: Path, references: Path, run, capsys: pytest.CaptureFixture[str]
):
    names = tuple("oesophagus" if name == "esophagus" else name for name in LABELS.names)
    beside = results / "scratch/fold_0/validation" / DATASET / "labels.json"
    beside.write_text(LABELS.model_copy(update={"names": names}).to_json())
    command = ("-p", results, "-r", references, "-np", 1, "--protocol", "few-shot", "--metrics", "dice")
    for more in ((), ("--dry-run",)):
        assert run(evaluate.main, *command, *more) == 2
        error = capsys.readouterr().err
        assert str(beside) in error
        assert "different label names: 5 is oesophagus and esophagus" in error
    assert not (results / "protocol.json").exists()


def test_every_runs_report_has_the_runs_name(results: Path, references: Path, tmp_path: Path, run):
    shutil.rmtree(results / "spad_vit_tiny_twin")
    shutil.rmtree(results / "scratch")
    command = ("-p", results, "-r", references, "-o", tmp_path, "-np", 1, "--protocol", "few-shot")
    assert run(evaluate.main, *command, "--metrics", "dice", "--report") == 0
    for name in ("spad_vit_tiny_fold_0", "spad_vit_tiny_fold_0_fraction_0.2_seed_0"):
        assert f"<title>Evaluation of {name}</title>" in (tmp_path / "runs" / name / "report.html").read_text()
    assert run(evaluate.main, *command, "--metrics", "dice") == 0
    assert not [*tmp_path.rglob("report.html")]


def test_organs_that_were_not_drawn_count_for_nothing(results: Path, references: Path, tmp_path: Path, run):
    description = references.parent / "dataset.json"
    text = description.read_text().removesuffix("}")
    description.write_text(text + ', "labelled_classes": {"btcv_0029": ["liver"]}}')
    assert run(evaluate.main, "-p", results, "-r", references, "-o", tmp_path, "-np", 1, "--protocol", "few-shot") == 0
    scores = Scores.from_json((tmp_path / "runs/scratch_fold_0/scores.json").read_text())
    assert {name: row.num_cases for name, row in scores.summary().items()} == {
        name: 2 if name == "liver" else 1 for name in LABELS.names[1:]
    }


def test_a_folder_without_runs_is_told(references: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "none").mkdir()
    assert run(evaluate.main, "-p", tmp_path / "none", "-r", references, "--protocol", "few-shot") == 2
    assert "no runs below it, that is folders with model.json and validation/" in capsys.readouterr().err
