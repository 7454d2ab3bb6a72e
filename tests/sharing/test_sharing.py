"""A model to one file and back: the same model, and nothing of the machine."""

from __future__ import annotations

import errno
import json
import zipfile
from pathlib import Path

import pytest
import torch
from made_quality import calibration_of
from small_model import TASKS, make_model, saved_model, shrink_presets

from spadunet.errors import InputError, OutputError
from spadunet.files import sha256_of_file
from spadunet.inference.predict import build_network
from spadunet.model import (
    MODEL_JSON,
    QUALITY_FILE,
    extra_file,
    load_model,
    read_model_record,
    save_model,
)
from spadunet.model_changes import set_calibration, set_postprocessing
from spadunet.postprocessing import Postprocessing
from spadunet.record import write_record
from spadunet.sharing import archive as archives
from spadunet.sharing.exporting import export_model, read_shared, without_paths
from spadunet.sharing.importing import import_model
from spadunet.sharing.package import CARD_FILE


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's folder, with other things in it."""
    shrink_presets(monkeypatch)
    folder = saved_model(tmp_path / "model")
    (folder / "state").mkdir()
    (folder / "state/checkpoint.safetensors").write_bytes(b"secret")
    (folder / "training.log").write_text("case patient_17")
    return folder


@pytest.fixture
def shared(model: Path, tmp_path: Path) -> Path:
    """The file."""
    export_model(model, tmp_path / "model.spadunet.zip", "# Card\n")
    return tmp_path / "model.spadunet.zip"


def test_a_model_comes_back_and_gives_the_same_logits_to_the_bit(model: Path, shared: Path, tmp_path: Path):
    package = import_model(shared, tmp_path / "deep/er/imported")
    assert package.model.tasks == TASKS
    first, second = load_model(model), load_model(tmp_path / "deep/er/imported")
    assert first.backbone_state.keys() == second.backbone_state.keys()
    image = torch.rand((1, 2, 4, 16, 16), generator=torch.Generator().manual_seed(1)) * 2 - 1
    for name in TASKS:
        assert first.tasks[name].plan == second.tasks[name].plan
        with torch.no_grad():
            assert torch.equal(*(build_network(it, name)(image, 2) for it in (first, second)))


def test_what_was_learned_of_its_answers_goes_with_a_model(model: Path, tmp_path: Path):
    set_calibration(model, TASKS[0], calibration_of("left|ear"))
    set_postprocessing(model, TASKS[1], Postprocessing(rules=(), num_cases=5))
    export_model(model, tmp_path / "model.zip", "# Card\n")
    import_model(tmp_path / "model.zip", tmp_path / "imported")
    first, second = load_model(tmp_path / "imported").tasks.values()
    assert (first.calibration, first.postprocessing) == (calibration_of("left|ear"), None)
    assert (second.calibration, second.postprocessing) == (None, Postprocessing(rules=(), num_cases=5))


def test_a_damaged_document_is_refused_though_its_hashes_fit(model: Path, tmp_path: Path):
    set_calibration(model, TASKS[0], calibration_of("left|ear"))
    record = read_model_record(model)
    path = model / extra_file(TASKS[0], QUALITY_FILE)
    path.write_text(path.read_text().replace('"scores": [', '"scores": [9,'))
    digests = {**record.sha256, extra_file(TASKS[0], QUALITY_FILE).as_posix(): sha256_of_file(path)}
    write_record(model / MODEL_JSON, record.model_copy(update={"sha256": digests}))
    with pytest.raises(
        InputError, match=r"quality\.json: field 'classes\.left\|ear\.fit': 3 scores but 2 values of Dice"
    ):
        export_model(model, tmp_path / "model.zip", "# Card\n")


def test_the_same_model_makes_the_same_file_after_the_way_too(model: Path, shared: Path, tmp_path: Path):
    export_model(model, tmp_path / "again.zip", "# Card\n")
    assert sha256_of_file(tmp_path / "again.zip") == sha256_of_file(shared)
    import_model(shared, tmp_path / "imported")
    export_model(tmp_path / "imported", tmp_path / "third.zip", "# Card\n")
    assert sha256_of_file(tmp_path / "third.zip") == sha256_of_file(shared)


def test_the_file_holds_the_model_its_card_and_a_manifest_and_nothing_of_the_machine(shared: Path, tmp_path: Path):
    with zipfile.ZipFile(shared) as file:
        assert file.testzip() is None
        names = file.namelist()
        manifest = json.loads(file.read("manifest.json"))
        content = b"".join(file.read(name) for name in names)
    tasks = [f"tasks/{task}/task.{ending}" for task in TASKS for ending in ("json", "safetensors")]
    assert names == ["manifest.json", CARD_FILE, "model.json", "backbone.safetensors", *tasks]
    assert set(manifest["files"]) == set(names[1:])
    for secret in (b"anna", b"home", b"Users", b"secret", b"patient_17", str(tmp_path).encode()):
        assert secret not in content + shared.read_bytes()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/anna/a b/model", "model"),
        ("C:\\Users\\anna\\model", "model"),
        ("D:/anna/model", "model"),
        ("\\\\server\\anna\\model", "model"),
        ("~/model", "model"),
        ("~anna/model", "model"),
        ("../anna/model", "model"),
        ("./model", "model"),
        ("file:///home/anna/model", "file:model"),
        ("made of /home/anna/model", "made of model"),
        ("a=/home/anna/x,b=/home/anna/y", "a=y"),
        ('"/home/anna/model"', '"model"'),
        ("of 1,000 parameters: 3/4 loaded", "of 1,000 parameters: 3/4 loaded"),
        ("1.5e-05", "1.5e-05"),
    ],
)
def test_paths_are_cut_to_the_name_at_their_end(text: str, left: str):
    assert without_paths({"key": text}) == {"key": left}


def test_a_pretrained_backbone_with_a_part_of_the_tensors_is_shared_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shrink_presets(monkeypatch)
    model = make_model(tasks=())
    state = {name: value for name, value in model.backbone_state.items() if name.startswith("encoder.")}
    save_model(tmp_path / "model", type(model)(**{**vars(model), "backbone_state": state}))
    export_model(tmp_path / "model", tmp_path / "model.zip", "")
    import_model(tmp_path / "model.zip", tmp_path / "imported")
    assert load_model(tmp_path / "imported").backbone_state.keys() == state.keys() != model.backbone_state.keys()


def test_a_folder_or_file_that_is_there_is_never_written_over(model: Path, shared: Path, tmp_path: Path):
    before = sha256_of_file(shared)
    with pytest.raises(InputError, match=r"model\.spadunet\.zip: is there already; remove it or give another name"):
        export_model(model, shared, "")
    assert sha256_of_file(shared) == before
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for there in (model, shared, tmp_path / "dangling"):
        with pytest.raises(InputError, match="is there already; remove it, or give another folder with -o"):
            import_model(shared, there)


def test_another_ending_is_told(model: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"a shared model is a \.zip file; name it model\.spadunet\.zip"):
        export_model(model, tmp_path / "model.pt", "")


def test_a_damaged_model_is_not_exported(model: Path, tmp_path: Path):
    (model / "backbone.safetensors").write_bytes(b"else")
    with pytest.raises(InputError, match="does not have the SHA-256"):
        export_model(model, tmp_path / "model.zip", "")


def test_what_nobody_could_import_is_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shrink_presets(monkeypatch)
    folder = saved_model(tmp_path / "model", tasks=("a:b",))
    with pytest.raises(InputError, match="cannot be shared, since nobody could import it.*not a plain one"):
        export_model(folder, tmp_path / "model.zip", "")
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_a_model_too_large_for_one_file_is_told(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match="bytes are more than 1000, which one file may hold"):
        export_model(model, tmp_path / "model.zip", "")
    assert not (tmp_path / "model.zip").exists()


def test_a_disk_that_fills_up_leaves_no_half_model_and_no_half_file(
    model: Path, shared: Path, tmp_path: Path, limited_files
):
    before = sorted(tmp_path.iterdir())
    with limited_files(10_000):
        with pytest.raises(OutputError, match=r"imported: cannot be written: the file is larger"):
            import_model(shared, tmp_path / "imported")
        with pytest.raises(OutputError, match=r"second\.zip: cannot be written: the file is larger"):
            export_model(model, tmp_path / "second.zip", "")
    assert sorted(tmp_path.iterdir()) == before


def test_stopped_at_the_last_moment_leaves_nothing(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = sorted(tmp_path.iterdir())

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("spadunet.files.os.replace", refuse)
    with pytest.raises(OutputError, match="no space is left on the device"):
        import_model(shared, tmp_path / "imported")
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_shared_of_a_task_that_joined_later_has_no_paths_either(model: Path):
    shared = read_shared(model)
    assert shared.tasks[TASKS[1]].provenance["init"] == "m"
    assert shared.model.provenance[f"added {TASKS[1]}"].endswith("by spadunet 0.1, to fold_0")
