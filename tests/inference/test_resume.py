"""What a folder says of its label maps, and which of them a run may keep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from made_quality import calibration_of
from small_model import TASKS, make_model, saved_model, shrink_presets

from spadunet.errors import InputError
from spadunet.inference.resume import (
    MANIFEST,
    UNFINISHED_FILE,
    Made,
    ModelAsked,
    Request,
    Start,
    find_start,
    models_asked,
    read_made,
)
from spadunet.model import BACKBONE_FILE, read_model_record, save_model
from spadunet.model_changes import add_tasks, remove_task, set_calibration


@dataclass(frozen=True, kw_only=True)
class Folder:
    """An output folder, and runs in it that predict nothing but write its name into each file."""

    path: Path

    def start(self, request: Request, names: str, *, must_keep: bool = False, saves: bool = False) -> Start:
        paths = {name: self.path / f"{name}.nii.gz" for name in names}
        return find_start(self.path, request, paths, must_keep=must_keep, saves_probabilities=saves)

    def run(
        self, request: Request, names: str, *, must_keep: bool = False, num_done: int = 99, saves: bool = False
    ) -> Start:
        """A run, stopped after some cases."""
        start = self.start(request, names, must_keep=must_keep, saves=saves)
        start.clear()
        start.begin()
        todo = [name for name in names if name not in start.kept]
        for name in todo[:num_done]:
            (self.path / f"{name}.nii.gz").write_text(request.spacing)
            if saves:
                (self.path / f"{name}.npz").write_text(request.spacing)
        if num_done >= len(todo):
            (self.path / MANIFEST).write_text(f'{{"made": {start.made.to_json()}}}')
            start.end()
        return start

    def found(self) -> dict[str, str]:
        return {path.name[0]: path.read_text() for path in sorted(self.path.glob("*.nii.gz"))}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What `models_asked` needs of a source."""

    folder: Path
    task: str


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(path=tmp_path)


def request_for(spacing: str, **more: object) -> Request:
    """Requests that differ in the spacing, which stands for all that they may differ in."""
    return Request(
        images="/images",
        models=(ModelAsked(folder="/models/m0", task="Liver", sha256="12345678abc"),),
        overlap=0.5,
        precision="float32",
        label_format="nifti",
        spacing=spacing,
        mirror=(),
        channels=("_0000",),
        chosen=(),
        cleans=True,
    ).model_copy(update=more)


PLAN, NATIVE = request_for("plan"), request_for("native")


def test_what_an_interrupted_run_made_is_kept_and_a_finished_one_is_repeated(folder: Folder):
    assert folder.run(PLAN, "abc", num_done=1).kept == frozenset()
    assert folder.run(PLAN, "abc").kept == {"a"}
    assert not (folder.path / UNFINISHED_FILE).exists()
    again = folder.start(PLAN, "abc")
    assert (again.keeps, again.kept, len(again.outdated)) == (False, frozenset(), 3)
    assert folder.start(PLAN, "abc", must_keep=True).kept == {"a", "b", "c"}


def test_to_go_on_with_another_request_is_refused_and_says_what_differs(folder: Folder):
    other = ModelAsked(folder="/models/m1", task="Liver", sha256="9abcdef0123")
    folder.run(PLAN, "ab")
    with pytest.raises(InputError, match="--spacing plan → native; give the same options") as caught:
        folder.start(NATIVE, "ab", must_keep=True)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError) as caught:
        folder.start(request_for("plan", models=(other,), chosen=("liver",)), "ab", must_keep=True)
    change = "m0 (task Liver, SHA-256 12345678…) → /models/m1 (task Liver, SHA-256 9abcdef0…); --roi-subset all → liver"
    assert change in str(caught.value)
    moved = PLAN.models[0].model_copy(update={"folder": "/elsewhere"})
    assert folder.start(request_for("plan", models=(moved,)), "ab", must_keep=True).kept == {"a", "b"}
    folder.run(NATIVE, "ab", num_done=1)
    with pytest.raises(InputError, match="--spacing native → plan"):  # the unfinished run counts, not the one before
        folder.start(PLAN, "ab", must_keep=True)
    assert folder.found() == {"a": "native"}


@pytest.mark.parametrize("text", ["", "a request as older versions wrote it", "{}"])
def test_to_go_on_is_refused_where_nothing_says_what_was_asked(folder: Folder, text: str):
    folder.run(PLAN, "ab")
    (folder.path / UNFINISHED_FILE).write_text(text)
    assert read_made(folder.path) is None
    with pytest.raises(InputError, match="--continue: nothing in .* says what its label maps were made for"):
        folder.start(PLAN, "ab", must_keep=True)
    assert folder.start(PLAN, "ab").kept == frozenset()


def test_a_folder_without_anything_can_be_gone_on_with(folder: Folder):
    assert folder.start(PLAN, "ab", must_keep=True).kept == frozenset()


@pytest.mark.parametrize("num_done", [0, 1, 99])
def test_no_label_map_of_another_request_is_ever_kept(folder: Folder, num_done: int):
    """Of cases whose images come and go, whenever runs are stopped."""
    folder.run(PLAN, "abc")
    start = folder.run(NATIVE, "ab", num_done=num_done)
    assert start.left == ("c.nii.gz",)
    assert folder.found()["c"] == "plan"
    last = folder.run(NATIVE, "abc", must_keep=True)
    assert last.left == ()
    assert "c" not in last.kept
    assert set(folder.found().values()) == {"native"}


def test_label_maps_without_an_image_are_told_and_stay(folder: Folder):
    folder.run(PLAN, "abc")
    start = folder.run(PLAN, "b")
    assert start.left == ("a.nii.gz", "c.nii.gz")
    assert "2 label maps of earlier runs, without an image in -i" in start.tell_left()
    assert "a.nii.gz, c.nii.gz; move away" in start.tell_left()
    assert folder.start(PLAN, "abc", must_keep=True).kept == {"a", "b", "c"}  # of the same request
    for name in "ac":
        (folder.path / f"{name}.nii.gz").unlink()
    assert folder.start(PLAN, "b").tell_left() == ""


def test_label_maps_in_review_count_too(folder: Folder):
    folder.run(PLAN, "ab")
    (folder.path / "review").mkdir()
    (folder.path / "a.nii.gz").rename(folder.path / "review/a.nii.gz")
    assert folder.start(PLAN, "ab", must_keep=True).kept == {"a", "b"}
    assert folder.path / "review/a.nii.gz" in folder.start(NATIVE, "ab").outdated
    assert folder.start(NATIVE, "b").left == ("a.nii.gz",)


def test_a_case_is_done_only_with_its_probabilities_where_they_are_asked_for(folder: Folder):
    folder.run(PLAN, "ab")
    assert folder.start(PLAN, "ab", must_keep=True, saves=True).kept == frozenset()
    folder.run(PLAN, "ab", saves=True)
    (folder.path / "a.npz").unlink()
    again = folder.start(PLAN, "ab", must_keep=True, saves=True)
    assert again.kept == {"b"}
    assert again.outdated == (folder.path / "a.nii.gz",)
    assert folder.start(PLAN, "ab", must_keep=True).kept == {"a", "b"}


def test_no_probabilities_outlive_the_label_map_that_they_were_made_with(folder: Folder):
    folder.run(PLAN, "abc", saves=True)
    (folder.path / "review").mkdir()
    for ending in ("nii.gz", "npz"):
        (folder.path / f"a.{ending}").rename(folder.path / f"review/a.{ending}")
    folder.run(NATIVE, "ab", num_done=1)
    assert [path.name for path in folder.path.rglob("*.npz")] == ["c.npz"]
    folder.run(NATIVE, "ab")
    made = read_made(folder.path)
    assert made is not None
    assert made.probabilities == ("c.npz",)
    folder.run(NATIVE, "abc", must_keep=True)
    assert not list(folder.path.rglob("*.npz"))


def test_files_of_probabilities_that_no_run_made_are_not_touched(folder: Folder):
    (folder.path / "b.npz").write_text("of another program")
    for _ in range(2):
        folder.run(PLAN, "ab")
        with pytest.raises(InputError, match=r"holds b\.npz, which spadunet_predict did not write"):
            folder.start(PLAN, "ab", saves=True)
    assert (folder.path / "b.npz").read_text() == "of another program"


@pytest.mark.parametrize("must_keep", [False, True])
def test_a_file_that_no_run_made_is_not_touched(folder: Folder, must_keep: bool):
    folder.run(PLAN, "a")
    (folder.path / "b.nii.gz").write_text("drawn by hand")
    with pytest.raises(InputError, match=r"holds b\.nii\.gz, which spadunet_predict did not write"):
        folder.start(PLAN, "ab", must_keep=must_keep)


def test_a_task_is_the_same_whatever_others_join_or_leave_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shrink_presets(monkeypatch)
    model, asked = saved_model(tmp_path / "model"), Asked(folder=tmp_path / "model", task=TASKS[0])
    (before,) = models_asked([asked])
    remove_task(model, TASKS[1])
    assert models_asked([asked]) == (before,)
    plain, digest = make_model(), read_model_record(model).sha256[BACKBONE_FILE]
    new = {"Dataset009_New": plain.tasks[TASKS[1]]}
    add_tasks(model, model, new, {"added Dataset009_New": "today"}, backbone_sha256=digest)
    assert models_asked([asked]) == (before,)
    set_calibration(model, "Dataset009_New", calibration_of("left|ear"))
    assert models_asked([asked]) == (before,)
    set_calibration(model, TASKS[0], calibration_of("left|ear"))
    assert models_asked([asked]) != (before,)
    set_calibration(model, TASKS[0], None)
    assert models_asked([asked]) == (before,)
    plain.backbone_state["encoder.stem.conv.weight"] += 1
    save_model(model, plain)
    assert models_asked([asked]) != (before,)


def test_what_an_older_version_wrote_counts_as_made_otherwise(folder: Folder):
    """It had the SHA-256 of model.json."""
    older = request_for("plan", models=(PLAN.models[0].model_copy(update={"sha256": "of the whole model.json"}),))
    folder.run(older, "ab")
    with pytest.raises(InputError, match=r"were made otherwise: model /models/m0 \(task Liver, SHA-256 of the w…\) → "):
        folder.start(PLAN, "ab", must_keep=True)
    folder.run(older, "ab", num_done=1)
    assert folder.run(PLAN, "ab").kept == frozenset()


def test_the_record_is_the_same_once_read(folder: Folder):
    made = Made(request=PLAN, label_maps=("a.nii.gz",), others=("b.nii.gz",), probabilities=("a.npz",))
    assert Made.from_json(made.to_json()) == made
