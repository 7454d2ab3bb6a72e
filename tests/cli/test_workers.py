"""Who works, as told on the command line; a cluster that cannot be used is told before any work."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from spadunet.cli import check, evaluate

HIPPOCAMPUS = "Dataset004_Hippocampus"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, copy_demo) -> Path:
    """A workspace with two tiny cases."""
    folder = tmp_path_factory.mktemp("workers")
    copy_demo(HIPPOCAMPUS, folder / "raw" / HIPPOCAMPUS, num_cases=2, size=(12, 12, 12))
    return folder


@pytest.mark.parametrize("flag", ["-np", "--ram-gb"])
def test_options_of_this_machine_do_not_go_with_a_cluster(raw: Path, run, capsys, flag: str):
    assert run(check.main, "-d", 4, "--dask", "tcp://127.0.0.1:1", flag, 2, "--data", raw) == 2
    assert f"error: {flag} 2: is for this machine only; a cluster's workers have their own" in capsys.readouterr().err


def test_without_the_extra_the_remedy_is_told(raw: Path, run, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert run(check.main, "-d", 4, "--dask", "tcp://127.0.0.1:1", "--data", raw) == 2
    assert "Dask is not installed; pip install 'spadunet[cluster]'" in capsys.readouterr().err
    assert not (raw / "preprocessed").exists()


def test_a_scheduler_that_does_not_answer_is_one_line(raw: Path, run, capsys, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("spadunet.workers.CONNECT_SECONDS", 0.5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"  # nobody listens here
        labels = raw / "raw" / HIPPOCAMPUS / "labelsTr"
        assert run(evaluate.main, "-p", labels, "-r", labels, "-o", raw / "scores", "--dask", address) == 2
    assert f"error: --dask {address}: no scheduler answers there; give the address that" in capsys.readouterr().err
    assert not (raw / "scores").exists()


@pytest.mark.parametrize("address", ["node7", "0", "tcp://node7", "phone://node7:8786"])
def test_an_address_that_is_none_is_one_line(address: str, raw: Path, run, capsys, monkeypatch):
    distributed = pytest.importorskip("distributed")
    made = []
    monkeypatch.setattr(distributed.Client, "__init__", lambda *_, **__: made.append(address))
    assert run(check.main, "-d", 4, "--dask", address, "--data", raw) == 2
    assert f"error: --dask {address}: no scheduler answers there" in capsys.readouterr().err
    assert not made  # it would never be closed, and complain at the end of the process


def test_a_case_larger_than_the_memory_that_was_set_runs_and_is_told(raw: Path, run, capsys, caplog):
    caplog.set_level("WARNING", "spadunet")
    assert run(check.main, "-d", 4, "-np", 2, "--ram-gb", 1e-6, "--data", raw) == 0
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert all(line.endswith("more than the 1e-06 GB that is set or free; it runs alone") for line in lines)
