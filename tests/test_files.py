"""Files are whole or absent, whatever happens on the way."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from spadunet.errors import InputError, OutputError
from spadunet.files import (
    atomic_folder,
    atomic_path,
    disk_error_reason,
    partial_path,
    require_writable,
    sha256_of_file,
    write_text,
)

NO_PROCESS = 99999999
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names(folder: Path) -> list[str]:
    """What lies in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_whole_and_folders_are_made(tmp_path: Path):
    path = tmp_path / "a" / "b" / "c.txt"
    with atomic_path(path) as partial:
        partial.write_text("half")
        assert not path.exists()
        assert partial.name.endswith("c.txt")  # libraries choose the format by the ending
    assert path.read_text() == "half"
    assert names(path.parent) == ["c.txt"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OutputError("line")])
def test_any_other_failure_leaves_the_older_file_and_nothing_else(tmp_path: Path, error: BaseException):
    path = tmp_path / "c.txt"
    write_text(path, "old")
    with pytest.raises(type(error)) as caught, atomic_path(path) as partial:
        partial.write_text("ne")
        raise error
    assert caught.value is error
    assert (names(tmp_path), path.read_text()) == (["c.txt"], "old")


def test_a_full_disk_is_told_in_one_line_and_the_older_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "c.txt"
    write_text(path, "old")

    def write_half(self: Path, text: str, encoding: str) -> None:
        self.write_bytes(text[: len(text) // 2].encode(encoding))
        raise FULL

    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(OutputError) as caught:
        write_text(path, "something new")
    assert str(caught.value) == (
        f"{path}: cannot be written: no space is left on the device; free some and run the same command again"
    )
    assert (names(tmp_path), path.read_text()) == (["c.txt"], "old")


def test_what_a_killed_run_left_is_deleted_and_what_a_running_one_writes_is_not(tmp_path: Path):
    dead, alive, other = (
        partial_path(tmp_path / name, process)
        for name, process in (("c.txt", NO_PROCESS), ("c.txt", os.getppid()), ("b.txt", NO_PROCESS))
    )
    elsewhere, forgotten = tmp_path / ".partial-far-away-99999999-c.txt", tmp_path / ".partial-gone-1-c.txt"
    for path in (dead, alive, other, elsewhere, forgotten):
        path.write_text("half")
    os.utime(forgotten, (0, 0))
    write_text(tmp_path / "c.txt", "new")
    assert names(tmp_path) == sorted([alive.name, other.name, elsewhere.name, "c.txt"])
    assert (tmp_path / "c.txt").read_text() == "new"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="without processes that have ended but are still listed")
def test_a_process_that_has_ended_is_gone_though_nobody_has_asked_for_its_exit_code(tmp_path: Path):
    """As in containers, where nobody asks after a killed worker's."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        while psutil.Process(ended.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        partial_path(tmp_path / "c.txt", ended.pid).write_text("half")
        write_text(tmp_path / "c.txt", "new")
        assert names(tmp_path) == ["c.txt"]


def test_what_must_outlive_a_power_cut_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch):
    seen = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (seen.append(os.fstat(file).st_size), sync(file)))
    monkeypatch.setattr(os, "replace", lambda *paths: (seen.append("name"), replace(*paths)))
    with atomic_path(tmp_path / "c.bin", is_durable=True) as partial:
        partial.write_bytes(bytes(77))
    assert seen == [77, "name"]
    write_text(tmp_path / "d.txt", "quick")
    assert seen == [77, "name", "name"]


def test_a_file_where_a_folder_should_be_is_told(tmp_path: Path):
    (tmp_path / "a").write_text("")
    with pytest.raises(OutputError, match=r"a/c\.txt: cannot be written: a file of that name is in the way"):
        write_text(tmp_path / "a" / "c.txt", "")
    with pytest.raises(OutputError, match=r"c\.txt: cannot be written: a part of the path is a file, not a folder"):
        write_text(tmp_path / "a" / "b" / "c.txt", "")


def test_a_folder_where_the_file_should_be_is_told(tmp_path: Path):
    (tmp_path / "c.txt").mkdir()
    with pytest.raises(OutputError, match=r"c\.txt: cannot be written: .*Is a directory"):
        write_text(tmp_path / "c.txt", "")
    assert names(tmp_path) == ["c.txt"]


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "the file system is read-only"),
    ],
)
def test_a_refused_write_says_why_and_what_to_do(number: int, reason: str):
    text = disk_error_reason(OSError(number, os.strerror(number)))
    assert text is not None
    assert text.startswith(f"{reason}; ")


def test_other_errors_are_none_of_the_disk():
    assert disk_error_reason(ValueError("no")) is None
    assert disk_error_reason(OSError("without a number")) is None


def test_a_writable_folder_is_made_and_left_empty(tmp_path: Path):
    require_writable(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == []


def test_a_folder_that_cannot_be_written_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a").write_text("")
    with pytest.raises(InputError, match=r"/a: cannot be written: a file of that name is in the way; choose another"):
        require_writable(tmp_path / "a")

    def refuse(**_: object) -> None:
        raise OSError(errno.ENXIO, "No such device")

    monkeypatch.setattr("spadunet.files.tempfile.TemporaryFile", refuse)
    with pytest.raises(InputError, match="cannot be written: No such device; choose another folder$"):
        require_writable(tmp_path)

    def forbid(**_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("spadunet.files.tempfile.TemporaryFile", forbid)
    message = f"^{tmp_path}: cannot be written: permission denied; choose a folder that you may write to$"
    with pytest.raises(InputError, match=message):
        require_writable(tmp_path)


def test_sha256_is_that_of_the_content(tmp_path: Path):
    for content in (b"", b"spad", bytes(3 << 20)):
        (tmp_path / "c").write_bytes(content)
        assert sha256_of_file(tmp_path / "c") == hashlib.sha256(content).hexdigest()


def test_a_folder_appears_when_it_is_whole_and_a_killed_runs_half_one_goes(tmp_path: Path):
    folder = tmp_path / "a" / "folder"
    orphan = partial_path(folder, NO_PROCESS)
    orphan.mkdir(parents=True)
    (orphan / "half.txt").write_text("half")
    with atomic_folder(folder) as partial:
        (partial / "file.txt").write_text("whole")
        assert names(folder.parent) == [partial.name]
    assert names(folder.parent) == ["folder"]
    assert names(folder) == ["file.txt"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_failure_leaves_no_folder(tmp_path: Path, error: BaseException):
    with pytest.raises(type(error)), atomic_folder(tmp_path / "folder") as partial:
        (partial / "file.txt").write_text("half")
        raise error
    assert names(tmp_path) == []


def test_a_folder_that_came_meanwhile_is_kept(tmp_path: Path):
    with pytest.raises(OutputError, match="folder: cannot be written"), atomic_folder(tmp_path / "folder") as partial:
        (partial / "file.txt").write_text("mine")
        write_text(tmp_path / "folder/file.txt", "theirs")
    assert names(tmp_path) == ["folder"]
    assert (tmp_path / "folder/file.txt").read_text() == "theirs"
