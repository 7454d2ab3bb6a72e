"""`spadunet_evaluate` as a user calls it."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import spadunet
from spadunet.cli.evaluate import main
from spadunet.errors import OutputError
from spadunet.evaluation import report
from spadunet.formats import write_array
from spadunet.image import LabelMap, read_label_map, write_label_map
from spadunet.scores import Scores

DEMO = Path(spadunet.__file__).parent / "demo/data/Dataset004_Hippocampus"


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """Two of the demo's references shifted by a voxel; one without its posterior part."""
    folder = tmp_path / "predictions"
    for name in ("hippocampus_014.nii.gz", "hippocampus_038.nii.gz"):
        reference = read_label_map(DEMO / "labelsTs" / name)
        array = np.roll(reference.array, 1, axis=0)
        if name == "hippocampus_038.nii.gz":
            array[array == 2] = 0
        write_label_map(folder / name, LabelMap(array=array, affine=reference.affine))
    return folder


@pytest.fixture
def references(tmp_path: Path) -> Path:
    """The two references in a raw dataset's folder, beside its dataset.json."""
    folder = tmp_path / "raw/labelsTs"
    folder.mkdir(parents=True)
    shutil.copy(DEMO / "dataset.json", folder.parent)
    for name in ("hippocampus_014.nii.gz", "hippocampus_038.nii.gz"):
        shutil.copy(DEMO / "labelsTs" / name, folder)
    return folder


def exit_code(*arguments: object) -> int:
    """What the command leaves with."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def rows_of(path: Path) -> list[dict[str, str]]:
    """Rows of a scores.csv."""
    return list(csv.DictReader(path.read_text().splitlines()))


def test_writes_scores_summary_table_and_manifest(
    predictions: Path, references: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "scores"
    assert exit_code("-p", predictions, "-r", references, "-o", output, "-np", 1) == 0
    table = capsys.readouterr().out
    assert table.startswith("class ")
    assert "Anterior" in table
    scores = Scores.from_json((output / "scores.json").read_text())
    assert scores.summary()["Anterior"].hd_mm == 1.0
    assert scores.summary()["Posterior"].num_missed == 1
    summary = json.loads((output / "summary.json").read_text())
    assert summary["foreground_mean"]["Dice"] == scores.mean("dice")
    assert [
        Path(case[key]) for case in summary["metric_per_case"] for key in ("reference_file", "prediction_file")
    ] == [folder / f"{case.case}.nii.gz" for case in scores.cases for folder in (references, predictions)]
    assert len(rows_of(output / "scores.csv")) == 2 * 2
    manifest = json.loads((output / "spadunet_evaluate.json").read_text())
    assert manifest["options"]["references"] == str(references)
    assert manifest["files"] == [str(output / name) for name in ("scores.json", "summary.json", "scores.csv")]


def test_writes_beside_the_predictions_unless_told_and_can_be_repeated(predictions: Path, references: Path):
    for _ in range(2):
        assert exit_code("--predictions", predictions, "--references", references, "--num-processes", 1) == 0
    assert (predictions / "scores.json").is_file()


def test_missing_predictions_are_an_error_unless_allowed(
    predictions: Path, references: Path, capsys: pytest.CaptureFixture[str]
):
    (predictions / "hippocampus_014.nii.gz").unlink()
    assert exit_code("-p", predictions, "-r", references) == 2
    error = capsys.readouterr().err
    assert "no prediction for 1 of 2 references: hippocampus_014" in error
    assert not (predictions / "scores.json").exists()
    assert exit_code("-p", predictions, "-r", references, "--allow-missing") == 0
    assert "References without a prediction, counted as missed: 1" in capsys.readouterr().out
    scores = Scores.from_json((predictions / "scores.json").read_text())
    assert scores.not_predicted == ("hippocampus_014",)
    assert json.loads((predictions / "summary.json").read_text())["metric_per_case"][0]["prediction_file"] is None
    assert {name: (row.num_cases, row.num_missed) for name, row in scores.summary().items()} == {
        "Anterior": (2, 1),
        "Posterior": (2, 2),
    }


def test_every_output_says_what_its_numbers_mean(
    predictions: Path, references: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    metrics = ("iou", "hd95", "nsd_2", "ravd_percent", "cldice", "masd_voxels")
    full = ("iou", "hd95_mm", "nsd_2mm", "ravd_percent", "cldice", "masd_voxels")
    output = tmp_path / "scores"
    arguments = ("-p", predictions, "-r", references, "-o", output, "-np", 1, "--missing", "nan")
    assert exit_code(*arguments, "--metrics", *metrics, "--definition", "medpy") == 0
    scores = Scores.from_json((output / "scores.json").read_text())
    assert (scores.metrics, scores.definition, scores.missing) == (full, "medpy", "nan")
    assert list(scores.definitions) == [*full, "missing", "mean"]
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["definitions"], summary["definition"]) == (scores.definitions, "medpy")
    table = capsys.readouterr().out
    for name, sentence in scores.definitions.items():
        assert f"\n{name}: {sentence}\n" in table
    for word in ("border", "pooled", "percentile", "mm"):
        assert word in scores.definitions["hd95_mm"]
    assert "voxels" in scores.definitions["masd_voxels"]
    header = table.splitlines()[0].split("  ")
    assert [cell.strip() for cell in header if cell][1:7] == [
        *("IoU", "HD95 mm", "NSD 2 mm", "RAVD %", "clDice", "MASD voxels")
    ]
    row = rows_of(output / "scores.csv")[-1]
    assert (row["case"], row["class"], row["outcome"]) == ("hippocampus_038", "Posterior", "missed")
    assert (row["definition"], row["missing"]) == ("medpy", "nan")
    assert (row["iou"], row["hd95_mm"], row["ravd_percent"]) == ("0.0", "", "100.0")
    assert scores.summary()["Posterior"].num_counted["iou"] == 1  # nan: the missed one is left out


def test_voxels_and_millimetres_differ_by_the_headers_spacing(predictions: Path, references: Path, tmp_path: Path):
    for folder in (predictions, references):
        for path in folder.glob("*.nii.gz"):
            label_map = read_label_map(path)
            write_label_map(path, LabelMap(array=label_map.array, affine=np.diag([2.0, 2.0, 2.0, 1.0])))
    values = {}
    for unit, metric in (("mm", "assd_mm"), ("voxel", "assd_voxels")):
        output = tmp_path / unit
        assert exit_code("-p", predictions, "-r", references, "-o", output, "-np", 1, "--unit", unit) == 0
        scores = Scores.from_json((output / "scores.json").read_text())
        values[unit] = scores.mean(metric)
        assert scores.unit == {"mm": "mm", "voxel": "voxels"}[unit]
    assert values["mm"] == pytest.approx(2 * values["voxel"])


def test_a_missed_class_counts_the_diagonal_unless_told_otherwise(predictions: Path, references: Path, tmp_path: Path):
    means = {}
    for policy in ("worst", "zero", "nan"):
        output = tmp_path / policy
        given = () if policy == "worst" else ("--missing", policy)
        assert exit_code("-p", predictions, "-r", references, "-o", output, "-np", 1, *given) == 0
        scores = Scores.from_json((output / "scores.json").read_text())
        assert scores.missing == policy
        means[policy] = (scores.summary()["Posterior"].dice, scores.summary()["Posterior"].hd_mm)
    reference = read_label_map(references / "hippocampus_038.nii.gz")
    diagonal_mm = float(np.linalg.norm(np.array(reference.shape) * reference.spacing_mm))
    assert means["worst"] == pytest.approx((means["nan"][0] / 2, (1.0 + diagonal_mm) / 2))
    assert means["zero"] == pytest.approx((means["nan"][0] / 2, 1.0))
    assert means["nan"][1] == 1.0


def test_metrics_that_need_another_library_say_so_before_work(
    predictions: Path, references: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert exit_code("-p", predictions, "-r", references, "--metrics", "dice", "lesion_f1") == 2
    assert "--metrics: lesion_f1: needs panoptica; pip install 'spadunet[lesions]'" in capsys.readouterr().err
    assert not (predictions / "scores.json").exists()


SCORE_FILES = ("scores.json", "scores.csv", "summary.json", "spadunet_evaluate.json")


def spoil(path: Path, change: Callable[[LabelMap], tuple[np.ndarray, np.ndarray]]) -> None:
    """Write a label map again with another array and affine."""
    array, affine = change(read_label_map(path))
    write_array(path, array, affine)


def test_all_bad_input_is_told_at_once_before_any_score_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    predictions, references = tmp_path / "p", tmp_path / "raw/labelsTs"
    for folder in (predictions, references):
        shutil.copytree(DEMO / "labelsTs", folder)
    shutil.copy(DEMO / "dataset.json", references.parent)
    (predictions / "labels.json").write_text('{"names": ["background", "Anterior", "tail"], "ids": [0, 1, 2]}')
    names = sorted(path.name for path in predictions.glob("*.nii.gz"))
    missing, damaged, cut, moved, larger, unknown, floats, truth, good = (predictions / name for name in names[:9])
    twice = references / names[9].removesuffix(".gz")
    write_label_map(twice, read_label_map(references / names[9]))
    missing.unlink()
    damaged.write_bytes(b"")
    cut.write_bytes(cut.read_bytes()[:-200])
    spoil(moved, lambda it: (it.array, it.affine + np.array([[0] * 3 + [7.5], *[[0] * 4] * 3])))
    spoil(larger, lambda it: (np.pad(it.array, 2), it.affine))
    spoil(unknown, lambda it: (np.where(it.array == 2, 7, it.array), it.affine))
    spoil(floats, lambda it: (it.array.astype(np.float32) * 0.7, it.affine))
    spoil(references / truth.name, lambda it: (np.where(it.array == 1, 9, it.array), it.affine))
    assert exit_code("-p", predictions, "-r", references, "-np", 1) == 2
    error = capsys.readouterr().err
    for line in (
        f"{predictions}/labels.json and {tmp_path}/raw/dataset.json: different label names: 2 is tail and Posterior",
        f"{predictions}: no prediction for 1 of 10 references: {names[0].removesuffix('.nii.gz')}",
        f"{references / names[9]}: {twice.name} beside it is the same case; keep one of them",
        f"{damaged}: the file is empty",
        f"{cut}: damaged",
        f"{moved}: does not lie on the grid of {references / moved.name}: corners lie up to 7.5 mm apart",
        f"{larger}: does not lie on the grid of {references / larger.name}: shape ",
        f"{unknown.name.removesuffix('.nii.gz')}: the prediction holds the values [7], but the labels are [0, 1, 2]; "
        f"correct {unknown}, or name",
        f"{floats}: holds the label value 0.7, not a whole number",
        f"{truth.name.removesuffix('.nii.gz')}: the reference holds the values [9]",
    ):
        assert line in error, line
    (told,) = [line for line in error.splitlines() if line.startswith(str(larger))]
    assert told.endswith(" mm; compare in the space of the original image")
    assert good.name not in error
    assert not any((predictions / name).exists() for name in SCORE_FILES)
    assert "the file is empty" in (predictions / "spadunet_evaluate.log").read_text()


def test_a_case_whose_voxels_are_wrong_stops_all_and_the_others_need_not_be_scored_again(
    predictions: Path, references: Path, capsys: pytest.CaptureFixture[str]
):
    bad = predictions / "hippocampus_014.nii.gz"
    spoil(bad, lambda it: (np.where(it.array == 2, 7, it.array), it.affine))
    assert exit_code("-p", predictions, "-r", references, "-np", 1) == 2
    told = capsys.readouterr().err
    assert "1 of 2 cases cannot be scored; correct the files and run the same again: the other 1 are not scored" in told
    assert "hippocampus_014: the prediction holds the values [7]" in told
    assert not any((predictions / name).exists() for name in SCORE_FILES)
    spoil(bad, lambda it: (np.where(it.array == 7, 2, it.array), it.affine))
    assert exit_code("-p", predictions, "-r", references, "-np", 1) == 0
    assert "going on: 1 of 2 cases have been scored before" in (predictions / "spadunet_evaluate.log").read_text()
    assert len(Scores.from_json((predictions / "scores.json").read_text()).cases) == 2
    assert not (predictions / "scores.partial.jsonl").exists()


def test_label_names_that_differ_are_settled_by_the_file_given(
    predictions: Path, references: Path, capsys: pytest.CaptureFixture[str]
):
    (predictions / "labels.json").write_text('{"names": ["background", "head", "Posterior"], "ids": [0, 1, 2]}')
    assert exit_code("-p", predictions, "-r", references, "-np", 1) == 2
    assert "different label names: 1 is head and Anterior" in capsys.readouterr().err
    assert exit_code("-p", predictions, "-r", references, "-np", 1, "--dry-run") == 2
    assert "different label names: 1 is head and Anterior" in capsys.readouterr().err
    assert exit_code("-p", predictions, "-r", references, "-np", 1, "--labels", references.parent / "dataset.json") == 0
    assert "Anterior" in capsys.readouterr().out


def test_the_chaos_definition_gives_the_challenges_score(predictions: Path, references: Path, tmp_path: Path):
    assert exit_code("-p", predictions, "-r", references, "-o", tmp_path, "-np", 1, "--definition", "chaos") == 0
    scores = Scores.from_json((tmp_path / "scores.json").read_text())
    assert scores.metrics == ("dice", "ravd_percent", "assd_mm", "hd_mm", "chaos_score")
    shifted, missed = (scores.cases[number].classes["Posterior"] for number in (0, 1))
    assert (missed.outcome, missed.values["chaos_score"]) == ("missed", 0)
    dice, ravd, assd, mssd = (shifted.values[name] for name in scores.metrics[:4])
    assert (ravd, mssd) == (0, 1)
    points = (100 * dice if dice > 0.8 else 0, 100, 100 * (1 - assd / 15), 100 * (1 - 1 / 60))  # Kavur et al. 2021
    assert shifted.values["chaos_score"] == pytest.approx(sum(points) / 4)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["mean"]["2"]["chaos_score"] == pytest.approx(sum(points) / 8)
    assert "60 mm" in summary["definitions"]["chaos_score"]
    assert rows_of(tmp_path / "scores.csv")[-1]["chaos_score"] == "0.0"


def test_the_chaos_score_needs_the_chaos_definition(
    predictions: Path, references: Path, capsys: pytest.CaptureFixture[str]
):
    assert exit_code("-p", predictions, "-r", references, "--metrics", "chaos_score") == 2
    assert "chaos_score: is of the surface metrics that CHAOS defines, not default" in capsys.readouterr().err


def test_a_report_is_one_page_with_the_images(
    predictions: Path, references: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "scores"
    asked = ("-p", predictions, "-r", references, "-o", output, "-np", 1, "--report", "--images", DEMO / "imagesTs")
    assert exit_code(*asked, "--dry-run") == 0
    assert "report.html" in capsys.readouterr().out
    assert exit_code(*asked) == 0
    page = (output / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/webp") == 2 * 3
    manifest = json.loads((output / "spadunet_evaluate.json").read_text())
    assert manifest["files"][-1] == str(output / "report.html")


def test_reports_and_protocols_of_an_earlier_evaluation_do_not_stay_beside_other_scores(
    predictions: Path, references: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "scores"
    asked = ("-p", predictions, "-r", references, "-o", output, "-np", 1, "--metrics", "dice")
    output.mkdir()
    (output / "protocol.csv").write_text("not ours")
    assert exit_code(*asked, "--report") == 0
    assert exit_code(*asked, "--dry-run") == 0
    assert f"removes, of an earlier evaluation\n  {output}/report.html\n" in capsys.readouterr().out
    assert (output / "report.html").exists()
    assert exit_code(*asked) == 0
    assert not (output / "report.html").exists()
    log = (output / "spadunet_evaluate.log").read_text()
    assert f"removed, since it is of an earlier evaluation: {output}/report.html" in log
    (output / "report.html").write_text("a training run's")
    assert exit_code(*asked) == 0
    assert (output / "report.html").exists() and (output / "protocol.csv").exists()


def test_scores_outlive_a_report_that_cannot_be_drawn(
    predictions: Path, references: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> Path:
        raise OutputError("no space left")

    monkeypatch.setattr(report, "write_report", fail)
    assert exit_code("-p", predictions, "-r", references, "-o", tmp_path, "-np", 1, "--report") != 0
    assert len(Scores.from_json((tmp_path / "scores.json").read_text()).cases) == 2
    assert (tmp_path / "scores.partial.jsonl").is_file()


def test_images_that_the_report_cannot_use_are_told_before_anything_is_scored(
    predictions: Path, references: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "scores"
    asked = ("-p", predictions, "-r", references, "-o", output)
    assert exit_code(*asked, "--images", DEMO / "imagesTs") == 2
    assert "images are for the report; add --report" in capsys.readouterr().err
    assert exit_code(*asked, "--report", "--images", tmp_path / "nowhere") == 2
    assert "nowhere: folder not found" in capsys.readouterr().err
    assert exit_code(*asked, "--report", "--images", DEMO / "imagesTr") == 2
    assert "holds no image of any case; expected names such as hippocampus_014_0000.nii.gz" in capsys.readouterr().err
    assert not any((output / name).exists() for name in SCORE_FILES)


def test_labels_are_named_by_the_file_given(
    predictions: Path, references: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    names = tmp_path / "names.json"
    names.write_text('{"channel_names": {"0": "MR"}, "labels": {"background": 0, "head": 1, "tail": 2}}')
    assert exit_code("-p", predictions, "-r", references, "--labels", names, "-np", 1) == 0
    assert "tail" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "nowhere", "-r", "."], "-p nowhere: folder not found"),
        (["-p", ".", "-r", "nowhere"], "-r nowhere: folder not found"),
        (["-p", ".", "-r", ".", "-np", "0"], "argument -np/--num-processes: 0 is not above zero"),
        (["-p", "."], "the following arguments are required: -r/--references"),
        (["-p", ".", "-r", ".", "--tolerance", "2"], "unrecognized arguments: --tolerance 2"),
        (["-p", ".", "-r", ".", "--metrics", "hd95", "f1"], "--metrics: 'f1' is no metric; known are dice, iou"),
        (["-p", ".", "-r", ".", "--metrics", "f1", "dice", "hd0"], "--metrics: 'f1', 'hd0_mm' are no metrics; known"),
        (["-p", ".", "-r", ".", "--metrics", "hd101"], "--metrics: 'hd101_mm' is no metric"),
        (["-p", ".", "-r", ".", "--metrics"], "argument --metrics: expected at least one argument"),
        (["-p", ".", "-r", ".", "--definition", "mine"], "argument --definition: invalid choice: 'mine'"),
        (["-p", ".", "-r", ".", "--unit", "cm"], "argument --unit: invalid choice: 'cm'"),
        (["-p", ".", "-r", ".", "--missing", "best"], "argument --missing: invalid choice: 'best'"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert exit_code(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_help_imports_no_heavy_library():
    code = """
import sys
from spadunet.cli.evaluate import main
try:
    main(["--help"])
except SystemExit as stop:
    assert stop.code == 0
heavy = {"torch", "monai", "scipy", "SimpleITK", "numpy", "pydantic"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout
