"""A run's folder is one run's alone, from before it looks at what is there."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from spadunet.cli import train
from spadunet.cli.earlier_run import RunFiles, clear_earlier_run, take_folder
from spadunet.errors import InputError
from spadunet.files import sha256_of_file
from spadunet.training.status import hold, is_held, read_status

FILES = RunFiles(result="model.json", manifest="done.json", others=("validation.csv",))


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of all files but the log, which in one process two runs write to."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "training.log")
    return {str(path.relative_to(folder)): sha256_of_file(path) for path in paths}


@pytest.mark.parametrize("typed", [(), ("--restart",)])
@pytest.mark.parametrize(("name_of_module", "moment"), [("prepare", "prepare_run"), ("train", "train")])
def test_a_second_run_changes_nothing_of_one_that_just_begins(
    name_of_module: str,
    moment: str,
    typed: tuple[str, ...],
    joint_model: Path,
    planned: Path,
    tmp_path: Path,
    run,
    quick,
    monkeypatch,
    capsys,
):
    module = importlib.import_module(f"spadunet.training.{name_of_module}")

    folder = tmp_path / "model"
    (folder / "state").mkdir(parents=True)
    for name in ("validation.csv", "init_coverage.json", *(["model.json", "state/run.json"] if typed else [])):
        (folder / name).write_text("of the first")
    command = ("-d", 4, "-f", "all", "--max-steps", 1, *quick, "--data", planned, "-o", folder, *typed)
    real, codes = getattr(module, moment), []

    def meanwhile(*arguments: object, **options: object) -> object:
        if not codes:
            codes.append(None)
            before = contents(folder)
            codes.append(run(train.main, *command))
            assert contents(folder) == before
        return real(*arguments, **options)

    def stop(*_: object, **__: object) -> None:
        assert is_held(folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, moment, meanwhile)
    monkeypatch.setattr("spadunet.training.train.train_network", stop)
    assert run(train.main, *command) == 130
    assert codes == [None, 2]
    assert f"{folder}: this run is going on" in capsys.readouterr().err
    status = read_status(folder)
    assert status is not None and status.is_locked and status.state == "interrupted"
    assert not is_held(folder)


def test_a_restart_throws_all_away_but_the_lock(tmp_path: Path):
    state = tmp_path / "state"
    with hold(tmp_path):
        (state / "inner").mkdir()
        for path in (state / "run.json", state / "inner/file", tmp_path / "model.json", tmp_path / "validation.csv"):
            path.touch()
        inode = (state / "run.lock").stat().st_ino
        clear_earlier_run(tmp_path, FILES, None, restart=True)
        assert [path.name for path in tmp_path.rglob("*")] == ["state", "run.lock"]
        assert (state / "run.lock").stat().st_ino == inode
        assert is_held(tmp_path)


def test_a_dry_run_looks_only_and_other_processes_take_nothing(tmp_path: Path):
    with take_folder(tmp_path / "new", is_first=True, dry_run=True) as is_locked:
        assert not is_locked
    with take_folder(tmp_path / "new", is_first=False, dry_run=False) as is_locked:
        assert not is_locked
    assert list(tmp_path.iterdir()) == []
    taken = take_folder(tmp_path, is_first=True, dry_run=True)
    with hold(tmp_path), pytest.raises(InputError, match="this run is going on"), taken:
        pass
