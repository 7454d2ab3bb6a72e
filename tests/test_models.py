"""Which model a command means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spadunet.errors import InputError
from spadunet.model import ModelRecord
from spadunet.models import choose_task, find_model, find_models, named
from spadunet.record import write_record

HIPPOCAMPUS, HEART = "Dataset004_Hippocampus", "Dataset101_SunnybrookLV"


def write_model(folder: Path, *tasks: str, minute: int) -> Path:
    """model.json alone, written at some minute."""
    record = ModelRecord(backbone="spad_unet", preset="tiny", tasks=tasks, provenance={}, sha256={})
    write_record(folder / "model.json", record)
    os.utime(folder / "model.json", (60 * minute, 60 * minute))
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Hippocampus in two folds, the heart in one, and both together before them."""
    write_model(tmp_path / "joint/spad_unet_tiny/fold_all", HIPPOCAMPUS, HEART, minute=1)
    write_model(tmp_path / HIPPOCAMPUS / "spad_unet_tiny/fold_0", HIPPOCAMPUS, minute=4)
    write_model(tmp_path / HIPPOCAMPUS / "spad_unet_tiny/fold_1", HIPPOCAMPUS, minute=2)
    write_model(tmp_path / HEART / "spad_unet_tiny/fold_0", HEART, minute=3)
    return tmp_path


def test_models_are_listed_by_time(results: Path):
    names = [folder.relative_to(results).parts for folder in find_models(results)]
    assert [(name[0], name[-1]) for name in names] == [
        ("joint", "fold_all"),
        (HIPPOCAMPUS, "fold_1"),
        (HEART, "fold_0"),
        (HIPPOCAMPUS, "fold_0"),
    ]


def test_no_results_folder_holds_no_models(tmp_path: Path):
    assert find_models(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("dataset", "fold", "found"),
    [
        (None, None, f"{HIPPOCAMPUS}/spad_unet_tiny/fold_0"),
        ("4", None, f"{HIPPOCAMPUS}/spad_unet_tiny/fold_0"),
        ("Hippocampus", "1", f"{HIPPOCAMPUS}/spad_unet_tiny/fold_1"),
        (HIPPOCAMPUS, "all", "joint/spad_unet_tiny/fold_all"),
        ("/anywhere/Dataset101_SunnybrookLV/", None, f"{HEART}/spad_unet_tiny/fold_0"),
        ("SunnybrookLV", "all", "joint/spad_unet_tiny/fold_all"),
        (None, "1", f"{HIPPOCAMPUS}/spad_unet_tiny/fold_1"),
    ],
)
def test_the_last_model_that_fits_dataset_and_fold_is_found(results: Path, dataset, fold, found):
    assert find_model(results, dataset=dataset, fold=fold) == results / found


def test_no_fitting_model_lists_what_there_is(results: Path):
    with pytest.raises(InputError, match=rf"-d 7 -f 3: no trained model fits; .*{HEART}.*; train one or give -m"):
        find_model(results, dataset="7", fold="3")
    with pytest.raises(InputError, match=r"model: no trained model fits; models in .*: none; train one"):
        find_model(results / "nowhere", dataset=None, fold=None)


def test_the_task_of_a_joint_model_must_be_said(results: Path):
    joint = results / "joint/spad_unet_tiny/fold_all"
    with pytest.raises(InputError, match=rf"serves several datasets \({HIPPOCAMPUS}, {HEART}\); say which with -d"):
        choose_task(joint, None)
    assert choose_task(joint, "101") == HEART
    with pytest.raises(InputError, match=r"-d 7: the model .* serves .*; give one of these"):
        choose_task(joint, "7")


def test_the_only_task_needs_no_name(results: Path):
    assert choose_task(results / HEART / "spad_unet_tiny/fold_0", None) == HEART


def test_a_task_is_known_by_number_name_and_path():
    record = ModelRecord(backbone="spad_unet", preset="tiny", tasks=(HIPPOCAMPUS,), provenance={}, sha256={})
    for name in ("4", "004", "hippocampus", HIPPOCAMPUS, f"raw/{HIPPOCAMPUS}"):
        assert named(record.tasks, name) == HIPPOCAMPUS
    assert named(record.tasks, "Hippo") is None


def test_a_pretrained_backbone_is_no_model_to_predict_with(results: Path, tmp_path: Path):
    backbone = write_model(results / "pretraining/spad_unet_tiny", minute=9)
    assert find_models(results)[-1] == backbone
    assert find_model(results, dataset=None, fold=None) == results / HIPPOCAMPUS / "spad_unet_tiny/fold_0"
    message = f"a pre-trained backbone, .*fine-tune it with spadunet_train -d DATASET --init {backbone}$"
    for dataset in (None, "4"):
        with pytest.raises(InputError, match=message):
            choose_task(backbone, dataset)
    alone = write_model(tmp_path / "alone/pretraining/spad_unet_tiny", minute=1).parents[1]
    with pytest.raises(InputError, match="models in .*: none; train one"):
        find_model(alone, dataset=None, fold=None)


def test_the_model_made_last_is_meant_even_if_it_is_damaged(results: Path):
    (write_model(results / "new/spad_unet_tiny/fold_0", HEART, minute=9) / "model.json").write_text("{")
    os.utime(results / "new/spad_unet_tiny/fold_0/model.json", (540, 540))
    assert find_model(results, dataset=None, fold=None) == results / "new/spad_unet_tiny/fold_0"
    assert find_model(results, dataset="101", fold=None) == results / HEART / "spad_unet_tiny/fold_0"
