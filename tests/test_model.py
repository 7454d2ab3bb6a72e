"""The model folder: what is written comes back, and what was changed is refused."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_quality import calibration_of

from spadunet.classes import ClassSet
from spadunet.classification_plan import ClassificationPlan
from spadunet.errors import InputError, OutputError
from spadunet.files import sha256_of_file
from spadunet.labels import LabelSet
from spadunet.locks import flock
from spadunet.model import (
    BACKBONE_FILE,
    POSTPROCESSING_FILE,
    QUALITY_FILE,
    Model,
    extra_file,
    load_model,
    read_model_record,
    save_model,
    write_task,
)
from spadunet.model_changes import add_tasks, set_calibration, set_postprocessing
from spadunet.plan import IntensityRule, Plan
from spadunet.postprocessing import Postprocessing, Rule
from spadunet.task import ADAPTER_PREFIX, AdapterRecord, AnyTask, Classifier, Task
from spadunet.tensors import write_tensors

FILES = (
    "backbone.safetensors",
    "tasks/Dataset004_Hippocampus/task.json",
    "tasks/Dataset004_Hippocampus/task.safetensors",
    "tasks/Dataset101_SunnybrookLV/task.json",
    "tasks/Dataset101_SunnybrookLV/task.safetensors",
)


def make_model() -> Model:
    """Two tasks; weights that are easy to tell apart, in each type that occurs and in a layout that is not plain."""

    def task(name: str, number: float) -> Task:
        plan = Plan(
            dataset_name=name,
            channel_names=("MRI",),
            intensity=(IntensityRule(kind="percentiles", low=0.5, high=99.5),),
            target_spacing_mm=(1.0, 1.0, 1.0),
            degree_of_anisotropy=0,
            patch_sizes_voxels=dict.fromkeys(range(7), (8, 8, 8)),
            labels=LabelSet(names=("background", "organ"), ids=(0, 1)),
            memory_gb=1,
            fingerprint_digest="0",
        )
        return Task(plan=plan, state={"heads.0.weight": torch.full((2, 3), number)})

    return Model(
        backbone="spad_unet",
        preset="tiny",
        backbone_state={
            "transposed": torch.arange(6.0).view(2, 3).T,
            "half": torch.ones(2, dtype=torch.bfloat16),
            "scalar": torch.tensor(7.0),
        },
        tasks={"Dataset004_Hippocampus": task("Hippocampus", 4), "Dataset101_SunnybrookLV": task("LV", 101)},
        provenance={"steps": "3"},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved model."""
    save_model(tmp_path / "model", make_model())
    return tmp_path / "model"


def change_record(folder: Path, change: Callable[[dict], object]) -> None:
    """Edit model.json as a user might."""
    record = json.loads((folder / "model.json").read_text())
    change(record)
    (folder / "model.json").write_text(json.dumps(record))


def test_model_comes_back_as_it_was_saved(folder: Path):
    saved, loaded = make_model(), load_model(folder)
    assert (loaded.backbone, loaded.preset, loaded.provenance) == ("spad_unet", "tiny", {"steps": "3"})
    assert loaded.backbone_state.keys() == saved.backbone_state.keys()
    for name, value in saved.backbone_state.items():
        assert loaded.backbone_state[name].dtype == value.dtype
        assert torch.equal(loaded.backbone_state[name], value)
    assert list(loaded.tasks) == list(saved.tasks)
    for name, task in saved.tasks.items():
        assert loaded.tasks[name].plan == task.plan
        assert torch.equal(loaded.tasks[name].state["heads.0.weight"], task.state["heads.0.weight"])


def add(source: Path, folder: Path, tasks: Mapping[str, AnyTask], provenance: dict[str, str]) -> None:
    """Tasks trained on the backbone that the source has."""
    digest = read_model_record(source).sha256[BACKBONE_FILE]
    add_tasks(source, folder, tasks, provenance, backbone_sha256=digest)


def make_classifier() -> Classifier:
    """A task that tells livers from kidneys, with a LoRA adapter."""
    plan = ClassificationPlan(
        dataset_name="organs",
        channel_names=("CT",),
        intensity=(IntensityRule(kind="window", low=0, high=255),),
        target_spacing_mm="native",
        degree_of_anisotropy=0,
        classes=ClassSet(kind="binary", names=("liver", "kidney")),
        fingerprint_digest="0",
    )
    state = {"head.bias": torch.tensor([1.0, 2.0]), f"{ADAPTER_PREFIX}stem.up": torch.zeros(2, 8)}
    return Classifier(plan=plan, pooling="mean", state=state, adapter=AdapterRecord(rank=8))


def test_a_task_that_classifies_lies_beside_those_that_segment(folder: Path):
    before = {file: (folder / file).read_bytes() for file in FILES}
    add(folder, folder, {"organs": make_classifier()}, {})

    record, loaded = read_model_record(folder), load_model(folder)
    assert (record.tasks, record.classifiers) == (("Dataset004_Hippocampus", "Dataset101_SunnybrookLV"), ("organs",))
    assert {file: (folder / file).read_bytes() for file in FILES} == before
    (found,) = loaded.classifiers.values()
    assert (found.plan, found.pooling, found.adapter) == (make_classifier().plan, "mean", AdapterRecord(rank=8))
    assert found.state.keys() == make_classifier().state.keys()
    assert torch.equal(found.state["head.bias"], torch.tensor([1.0, 2.0]))
    save_model(folder / "copy", loaded)
    assert read_model_record(folder / "copy").classifiers == ("organs",)


def test_no_two_tasks_of_different_kinds_have_one_name(folder: Path):
    change_record(folder, lambda record: record.update(classifiers=["Dataset004_Hippocampus"]))
    with pytest.raises(InputError, match="tasks and classifiers: expected names of folders in tasks/, each once"):
        read_model_record(folder)


def test_folder_holds_json_and_safetensors_only_each_with_its_hash(folder: Path):
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"model.json", *FILES}
    record = read_model_record(folder)
    assert record.sha256 == {file: sha256_of_file(folder / file) for file in FILES}
    for file in FILES:
        content = (folder / file).read_bytes()
        # A safetensors file starts with the length of its JSON header, eight bytes; a pickle would start with 0x80.
        header = content[8 : 8 + int.from_bytes(content[:8], "little")] if file.endswith("tensors") else content
        assert json.loads(header)


def test_weights_may_be_read_by_whom_other_files_may(folder: Path):
    (folder / "other").touch()
    modes = {path.stat().st_mode for path in (folder / "other", *folder.rglob("*.safetensors"))}
    assert len(modes) == 1


def test_saving_again_replaces_the_model(folder: Path):
    save_model(folder, make_model())
    assert load_model(folder).preset == "tiny"


@pytest.mark.parametrize("file", FILES)
def test_a_flipped_byte_is_told_with_its_file(folder: Path, file: str):
    content = bytearray((folder / file).read_bytes())
    content[-2] ^= 1
    (folder / file).write_bytes(content)
    with pytest.raises(InputError, match=f"{file}: does not have the SHA-256 that model.json states.*copy it again"):
        load_model(folder)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(folder: Path, file: str):
    (folder / file).unlink()
    with pytest.raises(InputError, match=f"{file}: model file missing"):
        load_model(folder)


def test_weights_that_are_no_safetensors_are_told_even_with_a_fitting_hash(folder: Path):
    (folder / "backbone.safetensors").write_bytes(b"\x80\x04not a pickle either")
    digest = sha256_of_file(folder / "backbone.safetensors")
    change_record(folder, lambda record: record["sha256"].update({"backbone.safetensors": digest}))
    with pytest.raises(InputError, match=r"backbone\.safetensors: cannot be read as safetensors"):
        load_model(folder)


def test_a_folder_without_model_json_is_no_model(tmp_path: Path):
    with pytest.raises(InputError, match=r"model\.json: not found; give a model folder, as spadunet_train writes it"):
        load_model(tmp_path)


def test_a_flipped_byte_in_model_json_is_told(folder: Path):
    path = folder / "model.json"
    path.write_text(path.read_text().replace('"preset"', '"preseT"'))
    with pytest.raises(InputError, match=r"model\.json: field 'preset'"):
        load_model(folder)
    path.write_text("{")
    with pytest.raises(InputError, match=r"model\.json: Invalid JSON"):
        load_model(folder)


def test_a_newer_format_asks_to_update_spadunet(folder: Path):
    change_record(folder, lambda record: record.update(format_version=2, unheard_of="field"))
    with pytest.raises(InputError, match=r"format version 2 is newer than 1.*update spadunet"):
        load_model(folder)


def test_hashes_of_files_outside_the_folder_are_refused(folder: Path, tmp_path: Path):
    (tmp_path / "secret.txt").write_text("secret")
    change_record(folder, lambda record: record["sha256"].update({"../secret.txt": "0"}))
    with pytest.raises(InputError, match="its sha256 must list exactly"):
        load_model(folder)


def test_a_file_without_a_hash_is_refused(folder: Path):
    change_record(folder, lambda record: record["sha256"].pop("backbone.safetensors"))
    with pytest.raises(InputError, match="its sha256 must list exactly"):
        load_model(folder)


@pytest.mark.parametrize("name", ["../../x", "..", "", "a/b", "a\\b"])
def test_a_task_whose_name_leads_out_of_the_model_is_refused(folder: Path, name: str):
    change_record(folder, lambda record: record.update(tasks=[name]))
    with pytest.raises(InputError, match="tasks and classifiers: expected names of folders in tasks/"):
        load_model(folder)


def test_a_model_that_states_no_tasks_but_has_their_files_is_refused(folder: Path):
    change_record(folder, lambda record: record.update(tasks=[]))
    with pytest.raises(InputError, match="its sha256 must list exactly"):
        load_model(folder)


def test_a_disk_that_fills_up_leaves_no_model_and_no_half_file(tmp_path: Path, limited_files):
    large = Model(
        **{**vars(make_model()), "backbone_state": {"weight": torch.zeros(100_000)}}  # 400 kB
    )
    with limited_files(50_000), pytest.raises(OutputError, match=r"backbone\.safetensors: cannot be written"):
        save_model(tmp_path, large)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_pretrained_backbone_is_a_model_without_tasks(tmp_path: Path):
    save_model(tmp_path, replace(make_model(), tasks={}))
    assert {path.name for path in tmp_path.iterdir()} == {"model.json", "backbone.safetensors"}
    model = load_model(tmp_path)
    assert model.tasks == {}
    assert model.backbone_state.keys() == make_model().backbone_state.keys()


# --- models that grow


def new_task(number: float = 9) -> dict[str, Task]:
    """One that the model does not have."""
    task = make_model().tasks["Dataset101_SunnybrookLV"]
    return {"Dataset009_New": replace(task, state={"heads.0.weight": torch.full((2, 3), number)})}


@pytest.mark.parametrize("name", ["model", "copy"])
def test_a_task_is_added_and_no_other_file_changes(folder: Path, tmp_path: Path, name: str):
    source = folder.rename(tmp_path / "model")
    before = {file: (source / file).read_bytes() for file in FILES}
    add(source, tmp_path / name, new_task(), {"added": "today"})
    assert all((tmp_path / name / file).read_bytes() == content for file, content in before.items())
    grown = load_model(tmp_path / name)
    assert list(grown.tasks) == [*make_model().tasks, "Dataset009_New"]
    assert grown.tasks["Dataset009_New"].state["heads.0.weight"].eq(9).all()
    assert grown.provenance == {"steps": "3", "added": "today"}
    assert len(load_model(source).tasks) == (3 if name == "model" else 2)
    add(source, tmp_path / name, new_task(), {"added": "today"})  # again, as a run that goes on does
    assert len(load_model(tmp_path / name).tasks) == 3


def test_of_two_runs_that_add_at_once_the_second_waits(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Each writes its task slowly: without waiting both would begin with the same model.json."""
    writing: list[str] = []

    def write_slowly(place: Path, name: str, task: Task) -> list[Path]:
        writing.append(name)
        time.sleep(0.1)
        assert writing == [name]
        files = write_task(place, name, task)
        writing.remove(name)
        return files

    monkeypatch.setattr("spadunet.model_changes.write_task", write_slowly)
    (task,) = new_task().values()
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: add(folder, folder, {name: task}, {name: "today"}), ["X", "Y", "Z"]))
    grown = load_model(folder)
    assert set(grown.tasks) == {*make_model().tasks, "X", "Y", "Z"}
    assert grown.provenance == {"steps": "3", "X": "today", "Y": "today", "Z": "today"}


def test_a_task_that_another_run_added_meanwhile_is_kept_without_locks(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def write_late(place: Path, name: str, task: Task) -> list[Path]:
        monkeypatch.setattr("spadunet.model_changes.write_task", write_task)
        add(place, place, {"Other": task}, {})
        return write_task(place, name, task)

    monkeypatch.setattr("spadunet.locks.fcntl", None)  # Windows
    monkeypatch.setattr("spadunet.model_changes.write_task", write_late)
    add(folder, folder, new_task(), {})
    assert list(load_model(folder).tasks) == [*make_model().tasks, "Other", "Dataset009_New"]


def test_a_task_of_a_name_that_is_there_is_refused_unless_it_is_the_same(folder: Path, tmp_path: Path):
    add(folder, folder, new_task(), {})
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for place in (folder, tmp_path / "copy"):
        with pytest.raises(InputError, match="has another task Dataset009_New already, which is never changed"):
            add(folder, place, new_task(10), {})
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "copy").exists()


def test_a_disk_that_fills_up_while_a_task_is_added_leaves_the_model_as_it_was(
    folder: Path, tmp_path: Path, full_disk: None
):
    before = {file: (folder / file).read_bytes() for file in (*FILES, "model.json")}
    for place in (folder, tmp_path / "copy"):
        with pytest.raises(OutputError, match="no space is left"):
            add(folder, place, new_task(), {})
    assert {file: (folder / file).read_bytes() for file in before} == before
    assert list(load_model(folder).tasks) == list(make_model().tasks)
    assert not (tmp_path / "copy/model.json").exists()


def test_a_model_of_another_backbone_gets_no_task(folder: Path, tmp_path: Path):
    before = read_model_record(folder)
    for place in (folder, tmp_path / "copy"):
        with pytest.raises(OutputError, match="has got another backbone since this run began; start anew"):
            add_tasks(folder, place, new_task(), {}, backbone_sha256="0" * 64)
    assert read_model_record(folder) == before
    assert not (tmp_path / "copy").exists()


def test_nobody_adds_to_a_model_while_another_is_saved_in_its_place(folder: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("fcntl", reason="no locks on Windows")
    written: list[str] = []

    def look(path: Path, tensors: dict[str, torch.Tensor]) -> None:
        number = os.open(folder, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            flock(number)
        os.close(number)
        written.append(path.name)
        write_tensors(path, tensors)

    monkeypatch.setattr("spadunet.model.write_tensors", look)
    save_model(folder, make_model())
    assert written == [BACKBONE_FILE, "task.safetensors", "task.safetensors"]
    assert load_model(folder).tasks.keys() == make_model().tasks.keys()


def test_a_damaged_model_gets_no_task(folder: Path):
    (folder / FILES[2]).write_bytes(b"x")
    with pytest.raises(InputError, match="does not have the SHA-256 that model.json states"):
        add(folder, folder, new_task(), {})


LARGEST = Rule(structure="organ", action="keep largest", num_cases=7, dice=(0.8, 0.9), hd95_mm=(9, 3))
CHOSEN = Postprocessing(rules=(LARGEST,), num_cases=2)
HIPPOCAMPUS = "Dataset004_Hippocampus"


def test_post_processing_is_kept_with_its_task_and_can_be_changed_and_forgotten(folder: Path):
    before = read_model_record(folder)
    set_postprocessing(folder, HIPPOCAMPUS, CHOSEN)
    loaded = load_model(folder)
    assert [task.postprocessing for task in loaded.tasks.values()] == [CHOSEN, None]
    other = CHOSEN.model_copy(update={"rules": ()})
    set_postprocessing(folder, HIPPOCAMPUS, other)
    assert load_model(folder).tasks[HIPPOCAMPUS].postprocessing == other
    set_postprocessing(folder, HIPPOCAMPUS, None)
    assert read_model_record(folder) == before
    assert not (folder / extra_file(HIPPOCAMPUS, POSTPROCESSING_FILE)).exists()


def test_changed_or_missing_post_processing_is_refused(folder: Path):
    set_postprocessing(folder, HIPPOCAMPUS, CHOSEN)
    path = folder / extra_file(HIPPOCAMPUS, POSTPROCESSING_FILE)
    path.write_text(path.read_text().replace("keep largest", "fill holes"))
    with pytest.raises(InputError, match=r"postprocessing.json: does not have the SHA-256 that model.json states"):
        load_model(folder)
    path.unlink()
    with pytest.raises(InputError, match=r"postprocessing.json: model file missing"):
        load_model(folder)


def test_post_processing_goes_where_the_model_goes(folder: Path, tmp_path: Path):
    set_postprocessing(folder, HIPPOCAMPUS, CHOSEN)
    model = load_model(folder)
    save_model(tmp_path / "copy", model)
    assert load_model(tmp_path / "copy").tasks[HIPPOCAMPUS].postprocessing == CHOSEN
    third = {"Third": model.tasks["Dataset101_SunnybrookLV"]}
    add(folder, tmp_path / "grown", third, {})
    assert [bool(task.postprocessing) for task in load_model(tmp_path / "grown").tasks.values()] == [True, False, False]
    save_model(tmp_path / "copy", make_model())  # trained anew: what was chosen for the old weights does not count
    assert load_model(tmp_path / "copy").tasks[HIPPOCAMPUS].postprocessing is None


def test_what_dice_to_expect_is_kept_beside_post_processing(folder: Path, tmp_path: Path):
    calibration = calibration_of("organ")
    set_calibration(folder, HIPPOCAMPUS, calibration)
    set_postprocessing(folder, HIPPOCAMPUS, CHOSEN)
    save_model(tmp_path / "copy", load_model(folder))
    add(folder, tmp_path / "grown", {"Third": load_model(folder).tasks["Dataset101_SunnybrookLV"]}, {})
    for place in (folder, tmp_path / "copy", tmp_path / "grown"):
        task = load_model(place).tasks[HIPPOCAMPUS]
        assert (task.calibration, task.postprocessing) == (calibration, CHOSEN)
    set_postprocessing(folder, HIPPOCAMPUS, None)
    assert load_model(folder).tasks[HIPPOCAMPUS].calibration == calibration
    path = folder / extra_file(HIPPOCAMPUS, QUALITY_FILE)
    path.write_text(path.read_text().replace("0.5", "0.4"))
    with pytest.raises(InputError, match=r"quality.json: does not have the SHA-256 that model.json states"):
        load_model(folder)


@pytest.mark.parametrize("num_written", [0, 1, 2])
def test_a_model_stays_valid_wherever_the_change_is_interrupted(folder: Path, monkeypatch, num_written: int):
    import spadunet.model_changes as module

    set_postprocessing(folder, HIPPOCAMPUS, CHOSEN)
    written: list[Path] = []
    write = module.write_record

    def stop(path: Path, record) -> None:
        if len(written) == num_written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, record)

    monkeypatch.setattr(module, "write_record", stop)
    with pytest.raises(KeyboardInterrupt):
        set_postprocessing(folder, HIPPOCAMPUS, CHOSEN.model_copy(update={"cases": ("c",)}))
    found = load_model(folder).tasks[HIPPOCAMPUS].postprocessing
    assert found == (CHOSEN if num_written == 0 else None)
