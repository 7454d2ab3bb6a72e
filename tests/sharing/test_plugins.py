"""Tasks that go from model to model without the backbone: whole, safe, and nothing else changes."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_quality import calibration_of
from small_model import CLASSIFIER, TASKS, make_adapted_model, make_model, shrink_presets

from spadunet.errors import InputError, OutputError
from spadunet.files import sha256_of_file
from spadunet.inference.classify import build_classifier
from spadunet.inference.predict import build_network
from spadunet.model import (
    BACKBONE_FILE,
    MODEL_JSON,
    Model,
    load_model,
    load_task,
    read_model_record,
    save_model,
)
from spadunet.model_changes import remove_task, set_calibration
from spadunet.network import build
from spadunet.record import write_record
from spadunet.sharing.exporting import export_model
from spadunet.sharing.importing import import_model
from spadunet.sharing.plugins import copy_tasks, export_task, import_task
from spadunet.task import AdapterRecord, AnyTask

EXPERTS = AdapterRecord(rank=2, num_experts=3)
ALL = (*TASKS, CLASSIFIER)


@pytest.fixture(autouse=True)
def small_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_presets(monkeypatch)
    monkeypatch.setitem(build.UNET_PRESETS, "alike", build.UNET_PRESETS["tiny"])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that segments and classifies, with adapters."""
    save_model(tmp_path / "model", make_adapted_model(EXPERTS))
    return tmp_path / "model"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Its backbone alone."""
    save_model(tmp_path / "bare", replace(make_adapted_model(EXPERTS), tasks={}, classifiers={}, provenance={}))
    return tmp_path / "bare"


def answers(model: Model) -> dict[str, torch.Tensor]:
    """Logits of every task."""
    image = torch.rand((1, 2, 4, 16, 16), generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        found = {name: build_network(model, name)(image, 2) for name in model.tasks}
        return found | {name: build_classifier(model, name)([(image, 2)]) for name in model.classifiers}


def hashes(folder: Path) -> dict[str, str]:
    """Of every file but model.json."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != MODEL_JSON]
    return {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in files}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """To the bit."""
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_model_with_classifiers_and_adapters_is_shared_whole(model: Path, tmp_path: Path):
    export_model(model, tmp_path / "model.zip", "# Card\n")
    package = import_model(tmp_path / "model.zip", tmp_path / "imported")
    assert package.model.all_tasks == ALL
    first, second = load_model(model), load_model(tmp_path / "imported")
    assert second.tasks[TASKS[1]].adapter == second.classifiers[CLASSIFIER].adapter == EXPERTS
    assert same(answers(first), answers(second))


@pytest.mark.parametrize("name", ALL)
def test_weights_of_an_adapter_or_classifier_that_do_not_fit_are_refused(name: str, model: Path, tmp_path: Path):
    whole = load_model(model)
    task = whole.all_tasks[name]
    last = list(task.state)[-1]
    spoilt = replace(task, state=task.state | {last: torch.zeros(1, 2, 3)})
    kinds = {"tasks": whole.tasks, "classifiers": whole.classifiers}
    kinds = {kind: {**members, **({name: spoilt} if name in members else {})} for kind, members in kinds.items()}
    save_model(tmp_path / "spoilt", replace(whole, **kinds))
    with pytest.raises(InputError, match=f"task {name}: tensor {last} has the shape"):
        export_model(tmp_path / "spoilt", tmp_path / "model.zip", "# Card\n")
    without = replace(task, adapter=None if task.adapter else AdapterRecord(rank=3))
    kinds = {kind: {**members, **({name: without} if name in members else {})} for kind, members in kinds.items()}
    save_model(tmp_path / "other", replace(whole, **kinds))
    for dry_run in (True, False):
        with pytest.raises(InputError, match=f"task {name} lacks tensors"):
            export_task(tmp_path / "other", name, tmp_path / "task.zip", dry_run=dry_run)


def test_tasks_go_by_file_to_a_model_of_the_same_backbone_and_answer_to_the_bit(
    model: Path, bare: Path, tmp_path: Path
):
    set_calibration(model, TASKS[0], calibration_of("left|ear"))
    wanted = answers(load_model(model))
    for name in ALL:
        manifest = export_task(model, name, tmp_path / f"{name}.task.zip")
        assert manifest.backbone_sha256 == read_model_record(model).sha256[BACKBONE_FILE]
        before = hashes(bare)
        assert import_task(tmp_path / f"{name}.task.zip", bare).manifest.task == name
        assert before.items() <= hashes(bare).items()
    grown = load_model(bare)
    assert same(answers(grown), wanted)
    assert grown.tasks[TASKS[0]].calibration == calibration_of("left|ear")
    assert grown.tasks[TASKS[0]].provenance["steps"] == "3"  # what the model told of its first run goes along
    assert grown.provenance[f"added {CLASSIFIER}"] == f"from {CLASSIFIER}.task.zip"


def test_a_file_of_a_task_has_no_backbone_no_path_and_a_card(model: Path, tmp_path: Path):
    export_task(model, CLASSIFIER, tmp_path / "task.zip")
    with zipfile.ZipFile(tmp_path / "task.zip") as archive:
        names, content = archive.namelist(), b"".join(archive.read(name) for name in archive.namelist())
        card = archive.read("MODEL_CARD.md").decode()
        manifest = json.loads(archive.read("manifest.json"))
    folder = f"tasks/{CLASSIFIER}"
    assert sorted(names) == ["MODEL_CARD.md", "manifest.json", f"{folder}/task.json", f"{folder}/task.safetensors"]
    assert b"/home/anna" not in content
    assert manifest["task_kind"] == "classification"
    for text in (
        "A classification model for spadunet",
        "| classes (multi-class) | heart, lung, liver |",
        "| adapter of the backbone | 3 experts of rank 2 |",
        "| training cases | 7 |",
    ):
        assert text in card


def test_another_backbone_another_task_of_the_name_and_unknown_tasks_are_refused(
    model: Path, bare: Path, tmp_path: Path
):
    export_task(model, TASKS[0], tmp_path / "task.zip")
    other = make_model(tasks=(TASKS[1],))
    other.backbone_state["encoder.stem.conv.weight"] += 1
    save_model(tmp_path / "other", other)
    with pytest.raises(InputError, match=r"was trained on a backbone of SHA-256 .*other has .* that very backbone"):
        import_task(tmp_path / "task.zip", tmp_path / "other")
    with pytest.raises(InputError, match="that very backbone"):
        copy_tasks(model, tmp_path / "other", [TASKS[0]])
    with pytest.raises(InputError, match=f"has a task {TASKS[0]} already, which stays as it is"):
        import_task(tmp_path / "task.zip", model)
    with pytest.raises(InputError, match="has no task Liver; its tasks: none, it is a pre-trained backbone"):
        export_task(bare, "Liver", tmp_path / "liver.zip")
    assert load_model(tmp_path / "other").tasks.keys() == {TASKS[1]}


def test_a_model_is_no_task_and_a_task_no_model(model: Path, bare: Path, tmp_path: Path):
    export_model(model, tmp_path / "model.zip", "# Card\n")
    with pytest.raises(InputError, match="holds a model, not a task; take it in with spadunet_import_model"):
        import_task(tmp_path / "model.zip", bare)
    export_task(model, CLASSIFIER, tmp_path / "task.zip")
    with pytest.raises(InputError, match="holds a task, not a model; spadunet_tasks import adds it to a model"):
        import_model(tmp_path / "task.zip", tmp_path / "imported")
    assert not (tmp_path / "imported").exists()


def change(path: Path, target: Path, edit) -> Path:
    """A task's file with other contents, its manifest made to fit, as an attacker does."""
    import hashlib

    from spadunet.sharing.archive import write_archive

    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(contents.pop("manifest.json"))
    edit(contents, manifest)
    manifest["files"] = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in contents.items()
    }
    write_archive(target, {"manifest.json": json.dumps(manifest).encode(), **contents})
    return target


WEIGHTS = f"tasks/{TASKS[0]}/task.safetensors"
ATTACKS = {
    "pickle": (lambda c, m: c.update({WEIGHTS: b"\x80\x04K\x01."}), "may run code when it is loaded"),
    "other ending": (lambda c, m: c.update({"tasks/x.pkl": b"x"}), "may run code when it is loaded"),
    "backbone along": (lambda c, m: c.update({"backbone.safetensors": c[WEIGHTS]}), "is no file of the task"),
    "path": (lambda c, m: m.update(task="../evil"), "which is no name of a folder"),
    "no weights": (lambda c, m: c.pop(WEIGHTS), "task.safetensors' is missing"),
    "damaged": (lambda c, m: c.update({WEIGHTS: c[WEIGHTS][:-4]}), "task.safetensors"),
    "other kind": (lambda c, m: m.update(task_kind="classification"), "task.json"),
    "a model": (lambda c, m: m.update(kind="spadunet model"), "kind"),
    "another network": (lambda c, m: m.update(preset="alike"), "for a network spad_unet alike, .* is spad_unet tiny; "),
    "unknown network": (lambda c, m: m.update(preset="gigantic"), "update spadunet"),
    "newer": (lambda c, m: m.update(format_version=9), "format"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_or_damaged_file_leaves_the_model_as_it_was(attack: str, model: Path, bare: Path, tmp_path: Path):
    export_task(model, TASKS[0], tmp_path / "task.zip")
    edit, message = ATTACKS[attack]
    before, record = hashes(bare), read_model_record(bare)
    with pytest.raises(InputError, match=message) as caught:
        import_task(change(tmp_path / "task.zip", tmp_path / "evil.zip", edit), bare)
    assert "\n" not in str(caught.value)
    assert (hashes(bare), read_model_record(bare)) == (before, record)


def test_a_file_that_is_refused_is_to_be_had_again_from_the_command_that_writes_tasks(bare: Path, tmp_path: Path):
    (tmp_path / "evil.zip").write_bytes(b"no zip")
    with pytest.raises(InputError, match="refused: .*; get it again .*, as spadunet_tasks export wrote it"):
        import_task(tmp_path / "evil.zip", bare)
    with pytest.raises(InputError, match="cannot be read .*; give a file of spadunet_tasks export$"):
        import_task(tmp_path / "none.zip", bare)


def test_a_model_of_another_network_gets_no_task_though_the_backbone_is_the_same(
    model: Path, bare: Path, tmp_path: Path
):
    write_record(bare / MODEL_JSON, read_model_record(bare).model_copy(update={"preset": "alike"}))
    with pytest.raises(InputError, match=f"task {TASKS[0]} is for a network spad_unet tiny, {bare} is spad_unet alike"):
        copy_tasks(model, bare, [TASKS[0]])
    assert read_model_record(bare).all_tasks == ()


@pytest.mark.parametrize("way", ["file", "model"])
def test_a_model_that_was_trained_anew_while_a_task_was_read_is_left_alone(
    way: str, model: Path, bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    export_task(model, TASKS[0], tmp_path / "task.zip")

    def read_meanwhile(*arguments: Any, **further: Any) -> AnyTask:
        other = make_model(tasks=())
        other.backbone_state["encoder.stem.conv.weight"] += 1
        save_model(bare, other)
        return load_task(*arguments, **further)

    monkeypatch.setattr("spadunet.sharing.plugins.load_task", read_meanwhile)
    with pytest.raises(OutputError, match=f"{bare}: has got another backbone since this run began; start anew"):
        import_task(tmp_path / "task.zip", bare) if way == "file" else copy_tasks(model, bare, [TASKS[0]])
    assert load_model(bare).all_tasks == {}


def test_tasks_of_another_model_join_and_the_others_answer_as_before(model: Path, bare: Path, tmp_path: Path):
    wanted = answers(load_model(model))
    copy_tasks(model, bare, [TASKS[1]], dry_run=True)
    assert read_model_record(bare).all_tasks == ()
    copy_tasks(model, bare, [TASKS[1]])
    first = hashes(bare)
    copy_tasks(model, bare, [CLASSIFIER, TASKS[0]])
    assert first.items() <= hashes(bare).items()
    assert same(answers(load_model(bare)), wanted)


@pytest.mark.parametrize("name", ALL)
def test_a_removed_task_is_gone_and_the_others_keep_every_byte_and_bit(name: str, model: Path):
    files, before = hashes(model), answers(load_model(model))
    remove_task(model, name)
    left = {path: digest for path, digest in files.items() if not path.startswith(f"tasks/{name}/")}
    assert hashes(model) == left
    assert not (model / "tasks" / name).exists()
    assert same(answers(load_model(model)), {task: value for task, value in before.items() if task != name})
    assert f"added {name}" not in read_model_record(model).provenance
    with pytest.raises(InputError, match=f"has no task {name}; its tasks: "):
        remove_task(model, name)


def test_without_its_last_task_a_model_is_a_pretrained_backbone(model: Path):
    for name in ALL:
        remove_task(model, name)
    assert load_model(model).all_tasks == {}
    assert list(hashes(model)) == [BACKBONE_FILE]


def test_a_removal_that_is_interrupted_leaves_a_sound_model(model: Path, monkeypatch: pytest.MonkeyPatch):
    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("spadunet.model_changes.write_record", die)
        remove_task(model, TASKS[0])
    assert tuple(load_model(model).all_tasks) == ALL
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", die)
        remove_task(model, TASKS[0])
    assert tuple(load_model(model).all_tasks) == ALL[1:]
    whole = make_adapted_model(EXPERTS)
    save_model(model.parent / "again", replace(whole, provenance={"steps": "3"}))
    copy_tasks(model.parent / "again", model, [TASKS[0]])  # what was left of it is no hindrance
    assert same(answers(load_model(model)), answers(whole))
