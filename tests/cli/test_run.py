"""What every command shares: logs that never get in the way."""

from __future__ import annotations

import argparse
import errno
import io
import logging
from pathlib import Path

import pytest

from spadunet.cli.run import close_log_files, log_files, log_to_file, make_parser, run_command
from spadunet.errors import InputError


class FullDisk(io.StringIO):
    """A file on a disk without space."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_under_the_log_is_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    log_to_file(tmp_path / "a.log")
    log_files()[0].setStream(FullDisk()).close()

    def work() -> int:
        logging.getLogger("spadunet").info("going on")
        raise InputError("a.nii: bad")

    with pytest.raises(SystemExit) as caught:
        run_command(make_parser("", ""), argparse.Namespace(debug=False), work)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.endswith("error: a.nii: bad\n")
    assert "Traceback" not in error
    assert "Logging error" not in error


def test_log_files_are_closed_and_others_left(tmp_path: Path):
    log_to_file(tmp_path / "a.log")
    logging.getLogger("spadunet").warning("hello")
    close_log_files()
    assert log_files() == []
    assert (tmp_path / "a.log").read_text().endswith("hello\n")
