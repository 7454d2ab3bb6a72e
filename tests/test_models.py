"""Which model a command means."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from small_model import make_model, shrink_presets

from spadunet.errors import InputError
from spadunet.model import BACKBONE_FILE, ModelRecord, load_model, read_model_record, save_model
from spadunet.model_changes import add_tasks, set_postprocessing
from spadunet.models import choose_classifier, choose_task, find_model, find_models, find_task, is_classifier
from spadunet.postprocessing import Postprocessing
from spadunet.record import write_record

HIPPOCAMPUS, HEART = "Dataset004_Hippocampus", "Dataset101_SunnybrookLV"


def write_model(folder: Path, *tasks: str, minute: int, classifiers: tuple[str, ...] = ()) -> Path:
    """model.json alone, written at some minute."""
    record = ModelRecord(
        backbone="spad_unet", preset="tiny", tasks=tasks, classifiers=classifiers, provenance={}, sha256={}
    )
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
    for name in ("4", "004", "hippocampus", HIPPOCAMPUS, f"raw/{HIPPOCAMPUS}", f"{HIPPOCAMPUS}.npz"):
        assert find_task([HIPPOCAMPUS], name, asked=name, place=Path("model")) == HIPPOCAMPUS
    assert find_task([HIPPOCAMPUS], "Hippo", asked="Hippo", place=Path("model")) is None


def test_the_very_name_of_a_task_means_it_and_what_fits_several_is_refused():
    names = (HIPPOCAMPUS, "Dataset104_Hippocampus", "Hippocampus", f"{HIPPOCAMPUS}_findings")
    for name in names:
        assert find_task(names, name, asked=name, place=Path("model")) == name
    message = f"-d 4: fits several tasks of model: {HIPPOCAMPUS}, {HIPPOCAMPUS}_findings; give the whole name"
    with pytest.raises(InputError, match=f"^{message}$"):
        find_task(names, "4", asked="-d 4", place=Path("model"))
    with pytest.raises(InputError, match=rf"{HIPPOCAMPUS}, Dataset104_Hippocampus, Hippocampus; give the whole name"):
        find_task(names, "hippocampus", asked="hippocampus", place=Path("model"))


def test_a_name_tells_tasks_of_either_kind_apart(tmp_path: Path):
    model = write_model(tmp_path / "model", HIPPOCAMPUS, HEART, minute=1, classifiers=("Hippocampus", "Dataset004_Age"))
    assert is_classifier(model, "Hippocampus")
    assert choose_classifier(model, "Hippocampus") == "Hippocampus"
    assert not is_classifier(model, HIPPOCAMPUS)
    assert choose_task(model, HIPPOCAMPUS) == HIPPOCAMPUS
    with pytest.raises(InputError, match=f"-d 4: fits several tasks of {model}: {HIPPOCAMPUS}, Dataset004_Age; give"):
        is_classifier(model, "4")
    assert choose_task(model, "4") == HIPPOCAMPUS  # of a command that is for label maps alone


def test_a_model_trained_later_on_another_dataset_of_the_name_or_number_is_not_meant(results: Path):
    alike = write_model(results / "Hippocampus/spad_unet_tiny/fold_0", "Hippocampus", minute=2)
    assert find_model(results, dataset="Hippocampus", fold="0") == alike
    write_model(results / "Dataset004_Liver/spad_unet_tiny/fold_0", "Dataset004_Liver", minute=9)
    with pytest.raises(InputError, match=rf"-d 4: fits several tasks of {results}: .*Dataset004_Liver.*; give"):
        find_model(results, dataset="4", fold=None)


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


def test_what_joins_an_older_model_or_is_chosen_for_it_does_not_make_it_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shrink_presets(monkeypatch)
    whole = make_model(tasks=("Dataset001_A", "Dataset002_B"))
    added = {"Dataset002_B": whole.tasks["Dataset002_B"]}
    old, new = tmp_path / "old/fold_0", tmp_path / "new/fold_0"
    for minute, folder in ((1, old), (2, new)):
        save_model(folder, replace(whole, tasks={"Dataset001_A": whole.tasks["Dataset001_A"]}))
        for path in folder.rglob("*.*"):
            os.utime(path, (60 * minute, 60 * minute))
    backbone = read_model_record(old).sha256[BACKBONE_FILE]
    changes = (
        lambda: add_tasks(old, old, added, {}, backbone_sha256=backbone),
        lambda: set_postprocessing(old, "Dataset001_A", Postprocessing(rules=(), num_cases=1)),
    )
    for change in changes:
        change()
        assert find_model(tmp_path, dataset="A", fold=None) == new
        assert find_model(tmp_path, dataset=None, fold=None) == new  # has one task still, so that it need not be said
        assert find_models(tmp_path) == [old, new]
    assert find_model(tmp_path, dataset="B", fold=None) == old
    save_model(old, load_model(old))  # trained further
    assert find_model(tmp_path, dataset="A", fold=None) == old


def test_the_model_made_last_is_meant_even_if_it_is_damaged(results: Path):
    (write_model(results / "new/spad_unet_tiny/fold_0", HEART, minute=9) / "model.json").write_text("{")
    os.utime(results / "new/spad_unet_tiny/fold_0/model.json", (540, 540))
    assert find_model(results, dataset=None, fold=None) == results / "new/spad_unet_tiny/fold_0"
    assert find_model(results, dataset="101", fold=None) == results / HEART / "spad_unet_tiny/fold_0"
