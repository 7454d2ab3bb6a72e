"""Scores as they are read: our own and nnU-Net's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spadunet.errors import InputError
from spadunet.evaluation.compare.comparison import compare
from spadunet.evaluation.compare.model_scores import names_of, read_models
from spadunet.evaluation.compare.paired import pair_models
from spadunet.missing import Missing
from spadunet.record import write_record
from spadunet.scores import CaseScore, ClassScore, Scores

# Keys and kinds of values as nnU-Net 2.8.1 writes them; the second case misses one class, the other is nowhere in it.
NNUNET = """{
    "foreground_mean": {"Dice": 0.8, "FN": 281.875, "FP": 240.7, "IoU": 0.7, "TN": 62188.4, "TP": 1347.1, "n_pred": 1587.8,
        "n_ref": 1628.9},
    "metric_per_case": [
        {"metrics": {
            "1": {"Dice": 0.8544927536231884, "FN": 251, "FP": 251, "IoU": 0.7459514170040485, "TN": 67144, "TP": 1474,
                "n_pred": 1725, "n_ref": 1725},
            "2": {"Dice": 0.8384766907419566, "FN": 246, "FP": 246, "IoU": 0.7218, "TN": 67351, "TP": 1277,
                "n_pred": 1523, "n_ref": 1523}},
         "prediction_file": "/data/predictions/hippocampus_014.nii.gz", "reference_file": "/data/ref/hippocampus_014.nii.gz"},
        {"metrics": {
            "1": {"Dice": 0.0, "FN": 251, "FP": 0, "IoU": 0.0, "TN": 67144, "TP": 0, "n_pred": 0, "n_ref": 251},
            "2": {"Dice": NaN, "FN": 0, "FP": 0, "IoU": NaN, "TN": 67351, "TP": 0, "n_pred": 0, "n_ref": 0}},
         "prediction_file": "/data/predictions/hippocampus_038.nii.gz", "reference_file": "/data/ref/hippocampus_038.nii.gz"}
    ]
}"""  # noqa: E501


@pytest.fixture
def nnunet(tmp_path: Path) -> Path:
    """A folder of nnU-Net's predictions, as far as it is read."""
    folder = tmp_path / "deep/nnunet"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(NNUNET)
    return folder


def test_nnunets_summary_has_dice_and_iou_and_nan_is_not_defined(nnunet: Path):
    model = read_models([nnunet, write_copy(nnunet)])[0]
    assert (model.name, model.classes, model.metrics) == ("nnunet", ("1", "2"), ("dice", "iou"))
    assert list(model.cases) == ["hippocampus_014", "hippocampus_038"]
    second = model.cases["hippocampus_038"]
    assert second["1"].values == {"dice": 0.0, "iou": 0.0}
    assert not second["1"].is_absent
    assert second["2"].values == {"dice": None, "iou": None}
    assert second["2"].is_absent


def write_copy(folder: Path) -> Path:
    """The same scores in a folder beside."""
    copy = folder.parent / "copy"
    copy.mkdir()
    (copy / "summary.json").write_text((folder / "summary.json").read_text())
    return copy


@pytest.mark.parametrize("place", [".", "..", "../.."])
def test_classes_of_nnunet_have_the_names_of_the_dataset_json_beside_or_above(nnunet: Path, place: str):
    names = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "head": 1, "tail": 2}}
    (nnunet / place / "dataset.json").write_text(json.dumps(names))
    assert read_models([nnunet, write_copy(nnunet)])[0].classes == ("head", "tail")


def test_regions_of_nnunet_go_by_their_tuple_of_ids(nnunet: Path):
    (nnunet / "summary.json").write_text(NNUNET.replace('"1":', '"(1, 2)":'))
    names = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "whole": [1, 2], "tail": 2},
        "regions_class_order": [1, 2],
    }
    (nnunet / "dataset.json").write_text(json.dumps(names))
    assert read_models([nnunet, write_copy(nnunet)])[0].classes == ("whole", "tail")


@pytest.mark.parametrize("key", ["2", "(2,)"])
@pytest.mark.parametrize("given", [2, [2]])
def test_a_region_of_one_id_goes_by_it_and_by_its_tuple(nnunet: Path, key: str, given: object):
    (nnunet / "summary.json").write_text(NNUNET.replace('"1":', '"(1, 2)":').replace('"2":', f'"{key}":'))
    names = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "whole": [1, 2], "tail": given},
        "regions_class_order": [1, 2],
    }
    (nnunet / "dataset.json").write_text(json.dumps(names))
    assert read_models([nnunet, write_copy(nnunet)])[0].classes == ("whole", "tail")


def test_models_are_named_after_their_folders_as_far_as_these_differ():
    assert names_of([Path("x/a"), Path("x/b")]) == ["a", "b"]
    assert names_of([Path("x/a/fold_0/validation"), Path("x/b/fold_0/validation")]) == ["a", "b"]
    with pytest.raises(InputError, match="the folders are called alike; name the models with --names"):
        names_of([Path("x/a"), Path("y/a"), Path("z/b")])


def test_wrong_paths_and_names_are_refused(nnunet: Path, tmp_path: Path):
    copy = write_copy(nnunet)
    damaged = tmp_path / "damaged.json"
    damaged.write_text("{")
    older = tmp_path / "summary.json"
    older.write_text(NNUNET.replace("prediction_file", "prediction"))
    empty = tmp_path / "empty.json"
    empty.write_text('{"metric_per_case": []}')
    for paths, names, message in (
        ([nnunet], None, "give at least two models to compare"),
        ([nnunet, nnunet / "summary.json"], None, "given twice; give each model once"),
        ([nnunet, tmp_path / "none"], None, "none: not found; give a folder or file that spadunet_evaluate wrote"),
        ([nnunet, nnunet.parent], None, "deep: holds neither scores.json nor summary.json"),
        ([nnunet, copy], ["a"], "--names a: give 2 different names, one a model"),
        ([nnunet, copy], ["a", "a"], "--names a a: give 2 different names, one a model"),
        ([nnunet, damaged], None, r"damaged\.json: .*give a folder or file that spadunet_evaluate wrote"),
        ([nnunet, older], None, r"summary\.json: field 'metric_per_case.0.prediction_file': field required; only nnU-"),
        ([nnunet, empty], None, r"empty\.json: holds no case"),
    ):
        with pytest.raises(InputError, match=message):
            read_models(paths, names)


def write_livers(folder: Path, metric: str, values: list[float | None], missing: Missing) -> Path:
    """Scores of 10 voxels of liver in images of 3 x 4 x 12 mm; None is missed, of which RAVD is 100 %."""
    cases = []
    for number, value in enumerate(values):
        measured = 100.0 if value is None and metric == "ravd_percent" else value
        liver = ClassScore(
            values={metric: measured},
            num_prediction_voxels=0 if value is None else 25,
            num_reference_voxels=10,
        )
        cases.append(
            CaseScore(case=f"c{number:02}", classes={"liver": liver}, shape_voxels=(3, 4, 12), spacing_mm=(1, 1, 1))
        )
    definitions = {metric: "how", "missing": missing, "mean": "of means"}
    scores = Scores(metrics=(metric,), missing=missing, cases=tuple(cases), definitions=definitions)
    write_record(folder / "scores.json", scores)
    return folder


@pytest.mark.parametrize("missing", ["zero", "nan", "worst"])
@pytest.mark.parametrize(
    ("metric", "finds_all", "misses", "worst", "winner"),
    [
        ("ravd_percent", [150.0] * 20, [10.0] * 3 + [None] * 17, 100 * (144 - 10) / 10, "finds"),
        ("hd_mm", [3.0] * 20, [None] * 20, 13.0, "finds"),
        ("hd_mm", [3.0 + number / 10 for number in range(20)], [1.0] * 10 + [None] * 10, 13.0, None),
    ],
)
def test_missing_an_organ_counts_the_worst_whatever_policy_the_scores_were_made_with(
    tmp_path: Path, metric: str, finds_all: list, misses: list, worst: float, winner: str | None, missing: Missing
):
    models = read_models(
        [
            write_livers(tmp_path / "finds", metric, finds_all, missing),
            write_livers(tmp_path / "misses", metric, misses, "zero"),
        ]
    )
    assert models[1].cases["c19"]["liver"].values == {metric: worst}
    liver = compare(pair_models(models), resamples=200, seed=0).differences[0]
    assert (liver.winner, liver.num_filled_second) == (winner, 0)
    assert liver.mean_second == pytest.approx(sum(worst if it is None else it for it in misses) / 20)
    assert liver.mean_second > liver.mean_first


def test_scores_of_version_1_keep_their_policy(tmp_path: Path):
    """They do not tell how large the images are."""
    score = {"dice": 0.0, "assd_mm": None, "hd_mm": None, "num_prediction_voxels": 0, "num_reference_voxels": 9}
    document = {"format_version": 1, "cases": [{"case": "a", "classes": {"liver": score}}]}
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
        (folder / "scores.json").write_text(json.dumps(document))
    model = read_models(folders)[0]
    assert model.cases["a"]["liver"].values == {"dice": 0.0, "assd_mm": None, "hd_mm": None}
    assert model.stated["missing"] == "zero"
