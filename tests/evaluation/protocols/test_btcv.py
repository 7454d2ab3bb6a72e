"""`spadunet_evaluate --protocol btcv` on trees in the release's layout, against MONAI."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from btcv_release import write_btcv
from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance
from moved_labels import write_moved

from spadunet.cli import convert_btcv, evaluate
from spadunet.evaluation.protocols.btcv import LABELS, case_of, notes, tables
from spadunet.evaluation.protocols.report import Column, ProtocolReport, Row, Table, csv_text
from spadunet.evaluation.protocols.runs import ProtocolRun
from spadunet.formats import read_channels, write_array
from spadunet.releases import BTCV_VALIDATION
from spadunet.scores import CaseScore, ClassScore, Scores

NINE = [f"btcv_{number:04}" for number in BTCV_VALIDATION]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory, volume, organs) -> Path:
    """As downloaded, with two more scans than the nine, to be read only."""
    return write_btcv(tmp_path_factory.mktemp("btcv") / "Abdomen", volume[0], organs, (1, 2, *BTCV_VALIDATION))


@pytest.fixture(scope="module")
def references(release: Path, tmp_path_factory: pytest.TempPathFactory, run) -> Path:
    """labelsTr of the converted release, to be read only."""
    data = tmp_path_factory.mktemp("data")
    assert run(convert_btcv.main, release, "--data", data) == 0
    return data / "raw/Dataset007_BTCV/labelsTr"


@pytest.fixture
def predictions(references: Path, tmp_path: Path) -> Path:
    """Of the nine."""
    write_moved([references / f"{name}.nii.gz" for name in NINE], tmp_path / "predictions")
    return tmp_path / "predictions"


def report_in(folder: Path) -> dict[str, Row]:
    """Rows of the only table."""
    report = ProtocolReport.from_json((folder / "protocol.json").read_text())
    (table,) = report.tables
    return {row.name: row for row in table.rows}


def monai_means(predictions: Path, references: Path) -> dict[str, float]:
    """Over the classes' means of the nine, by MONAI alone; voxels where it gets no spacing."""
    values: dict[str, list[np.ndarray]] = {}
    for name in NINE:
        paths = [folder / f"{name}.nii.gz" for folder in (predictions, references)]
        arrays = [torch.from_numpy(read_channels(path)[0][0].astype(np.int64)) for path in paths]
        one_hot = [torch.stack([array == number for number in range(14)])[None] for array in arrays]
        values.setdefault("dice", []).append(compute_dice(*one_hot, include_background=False)[0].numpy())
        spacing = [3.0, 0.75, 0.75]
        for unit, sides in (("mm", spacing), ("voxels", None)):
            assd = compute_average_surface_distance(*one_hot, symmetric=True, spacing=sides)
            values.setdefault(f"assd_{unit}", []).append(assd[0].numpy())
            hd = compute_hausdorff_distance(*one_hot, spacing=sides)
            values.setdefault(f"hd_{unit}", []).append(hd[0].numpy())
    return {name: float(np.mean(np.mean(found, axis=0))) for name, found in values.items()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI's own call
def test_the_nine_scans_have_monais_means_beside_the_papers_rows(
    predictions: Path, references: Path, release: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]
):
    command = ("-p", predictions, "-o", tmp_path / "out", "-np", 1, "--protocol", "btcv")
    assert run(evaluate.main, *command, "-r", references) == 0
    rows = report_in(tmp_path / "out")
    ours = rows["these predictions"]
    wanted = monai_means(predictions, references)
    assert {name: ours.values[name] for name in wanted} == pytest.approx(wanted, rel=1e-6)
    assert (ours.values["cases"], ours.values["missed"], ours.values["false_alarms"]) == (9, 0, 0)
    assert "  missing organs counted worst" not in rows
    paper = rows["published: SPAD-ViT pre-trained (Ours)"]
    assert paper.is_published
    assert paper.values == {"dice": 0.8731, "assd_voxels": 0.74, "hd_voxels": 13.12}
    scores = Scores.from_json((tmp_path / "out/scores.json").read_text())
    assert ([case.case for case in scores.cases], scores.definition) == (NINE, "monai")
    assert scores.classes == list(LABELS.names[1:])
    shown = capsys.readouterr().out
    assert "BTCV, 9 validation scans (21/9 split): mean over 13 organs" in shown
    assert "published: SPAD-ViT from scratch (TFS)  0.8486        -      -         1.59      18.90" in shown
    assert "protocol: btcv: metrics dice assd_mm hd_mm assd_voxels hd_voxels, definition monai" in shown
    assert (tmp_path / "out/protocol.csv").read_text().count("published: ") > 5

    # the release's own folder of labels, with its own names
    assert (
        run(evaluate.main, *command[:3], tmp_path / "raw", *command[4:], "-r", release / "RawData/Training/label") == 0
    )
    assert report_in(tmp_path / "raw") == rows


def test_what_is_typed_beside_the_protocol_wins_and_is_said(
    predictions: Path, references: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]
):
    command = ("-p", predictions, "-r", references, "-o", tmp_path, "-np", 1, "--protocol", "btcv")
    assert run(evaluate.main, *command, "--missing", "worst", "--metrics", "dice") == 0
    said = capsys.readouterr().out
    assert (
        "not as published: --metrics dice, not dice assd_mm hd_mm assd_voxels hd_voxels; --missing worst, not zero"
        in said
    )
    report = ProtocolReport.from_json((tmp_path / "protocol.json").read_text())
    assert report.settled[1] in said
    assert Scores.from_json((tmp_path / "scores.json").read_text()).missing == "worst"


def test_an_organ_that_is_missed_shows(predictions: Path, references: Path, tmp_path: Path, run):
    path = predictions / f"{NINE[0]}.nii.gz"
    array, affine = read_channels(path)
    write_array(path, np.where(array[0] == 11, 0, array[0]), affine)
    assert run(evaluate.main, "-p", predictions, "-r", references, "-np", 1, "--protocol", "btcv") == 0
    rows = report_in(predictions)
    ours, worst = rows["these predictions"], rows["  missing organs counted worst"]
    assert ours.values["missed"] == 1
    diagonal = np.linalg.norm(array.shape[1:])
    scores = Scores.from_json((predictions / "scores.json").read_text())
    found = [it.classes["pancreas"].values["hd_voxels"] for it in scores.cases[1:]]
    without, with_worst = np.mean(found), np.mean([*found, diagonal])
    assert worst.values["hd_voxels"] - ours.values["hd_voxels"] == pytest.approx((with_worst - without) / 13)
    assert worst.values["dice"] == ours.values["dice"]


def test_folds_are_told_apart_and_put_together(references: Path, tmp_path: Path, run):
    paths = sorted(references.glob("*.nii.gz"))
    run_folder = tmp_path / "spad_vit_base"
    for fold in range(5):
        write_moved(paths[fold::5], run_folder / f"fold_{fold}/validation/Dataset007_BTCV", step=fold)
    command = ("-p", run_folder, "-r", references, "-o", tmp_path / "out", "-np", 1, "--protocol", "btcv")
    assert run(evaluate.main, *command) == 0
    rows = report_in(tmp_path / "out")
    folds = [rows[f"fold {fold}"] for fold in range(5)]
    assert [row.values["cases"] for row in folds] == [3, 2, 2, 2, 2]
    assert folds[0].values["dice"] > folds[3].values["dice"]
    mean = rows["mean of 5 folds"]
    dice = [row.values["dice"] for row in folds]
    assert (mean.values["dice"], mean.deviations["dice"]) == pytest.approx((np.mean(dice), np.std(dice, ddof=1)))
    assert rows["all scans"].values["cases"] == 11
    assert not any(row.is_published for row in rows.values())  # they are of 30 scans
    beside = run_folder / "fold_1/validation/Dataset007_BTCV/labels.json"
    beside.write_text(LABELS.to_json().replace("spleen", "milt"))
    assert run(evaluate.main, *command) == 2
    beside.unlink()
    shutil.copy(
        next((run_folder / "fold_1/validation/Dataset007_BTCV").iterdir()),
        run_folder / "fold_2/validation/Dataset007_BTCV",
    )
    assert run(evaluate.main, *command) == 2


def scores_of(num_scans: int) -> Scores:
    """One organ in that many scans."""
    score = ClassScore(values={"dice": 0.8}, num_prediction_voxels=1, num_reference_voxels=1)
    cases = tuple(CaseScore(case=f"btcv_{number:04}", classes={"liver": score}) for number in range(num_scans))
    return Scores(metrics=("dice",), missing="zero", cases=cases)


@pytest.mark.parametrize(("num_folds", "num_scans"), [(5, 30), (5, 11), (2, 30)])
def test_published_folds_stand_beside_five_of_all_scans_alone(num_folds: int, num_scans: int):
    scores = scores_of(num_scans)
    names = [case.case for case in scores.cases]
    groups = {f"fold {fold}": tuple(names[fold::num_folds]) for fold in range(num_folds)}
    runs = [(ProtocolRun(predictions=Path(), pairs=[], groups=groups), scores)]
    rows = {row.name: row.values for row in tables(runs)[0].rows}
    if (num_folds, num_scans) == (5, 30):
        assert rows["published: nnU-Net"] == {"dice": 0.8308}
        assert notes(runs)[0].startswith("published: Isensee et al. 2024")
    else:
        assert "published: nnU-Net" not in rows
        assert not notes(runs)


def test_scans_that_are_not_predicted_are_allowed_but_told(
    predictions: Path, references: Path, run, capsys: pytest.CaptureFixture[str]
):
    (predictions / f"{NINE[3]}.nii.gz").unlink()
    write_moved([references / "btcv_0001.nii.gz"], predictions)
    (predictions / "btcv_0001.nii.gz").rename(predictions / "other.nii.gz")
    write_moved([references / "btcv_0001.nii.gz"], predictions)
    command = ("-p", predictions, "-r", references, "-np", 1, "--protocol", "btcv", "--metrics", "dice")
    assert run(evaluate.main, *command, "--allow-missing") == 0
    report = ProtocolReport.from_json((predictions / "protocol.json").read_text())
    assert report.settled[1].endswith("; --allow-missing")
    assert report.notes[-1] == f"counted as missed, since there is no prediction: {NINE[3]}"
    log = (predictions / "spadunet_evaluate.log").read_text()
    assert f"{predictions}: names that tell no case of the protocol, not scored: other.nii.gz" in log
    assert "predictions without a reference among those that are scored, left out: 1" in log


def test_names_with_a_hash_come_through_the_csv():
    report = ProtocolReport(
        protocol="btcv",
        settled=("protocol: btcv: metrics dice", "not as published: --labels a#b"),
        tables=(Table(title="#1", columns=(Column(key="dice", title="Dice"),), rows=(Row(name="#2", values={}),)),),
        notes=(),
        definitions={},
    )
    (row,) = csv.DictReader(csv_text(report).splitlines())
    assert (row["table"], row["row"], row["value"]) == ("#1", "#2", "")
    assert row["settled"] == "protocol: btcv: metrics dice; not as published: --labels a#b"


def test_bad_input_is_told_with_the_protocols_cases_and_labels(
    predictions: Path, references: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]
):
    (predictions / f"{NINE[3]}.nii.gz").unlink()
    names = list(LABELS.names)
    names[5] = "oesophagus"
    (predictions / "labels.json").write_text(LABELS.model_copy(update={"names": tuple(names)}).to_json())
    assert run(evaluate.main, "-p", predictions, "-r", references, "-np", 1, "--protocol", "btcv") == 2
    error = capsys.readouterr().err
    assert "no prediction for 1 of 9 references: btcv_0032" in error
    assert "different label names: 5 is esophagus and oesophagus" in error
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(references / "btcv_0029.nii.gz", few)
    shutil.copy(references / "btcv_0029.nii.gz", few / "label0029.nii.gz")
    nowhere = ("--report", "--images", tmp_path / "nowhere")
    assert run(evaluate.main, "-p", predictions, "-r", few, "-np", 1, "--protocol", "btcv", *nowhere) == 2
    error = capsys.readouterr().err
    assert "no reference for btcv_0030, btcv_0031" in error
    assert f"{few}/label0029.nii.gz: {few}/btcv_0029.nii.gz is the same case, btcv_0029; keep one of them" in error
    assert "nowhere: folder not found" in error
    assert "different label names" in error


@pytest.mark.slow
def test_a_dry_run_knows_the_protocols_cases_and_labels(
    predictions: Path, release: Path, run, capsys, caplog: pytest.LogCaptureFixture
):
    command = ("-p", predictions, "-r", release / "RawData/Training/label", "-np", 1, "--protocol", "btcv")
    assert run(evaluate.main, *command, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "9 predictions and as many references" in said
    assert "protocol.json: new" in said
    assert not (predictions / "protocol.json").exists()
    assert "classes are called by their ids" not in caplog.text


def test_scans_go_by_their_numbers():
    assert [case_of(name) for name in ("label0029", "img0029", "btcv_0029", "29", "scan_a")] == [
        *["btcv_0029"] * 3,
        None,
        None,
    ]
