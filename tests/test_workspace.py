"""Which data folder is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from spadunet.workspace import ENVIRONMENT_VARIABLE, Workspace, find_workspace


def test_the_flag_goes_before_the_environment_and_that_before_the_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "/from/environment")
    assert find_workspace(Path("/from/flag")) == Workspace(folder=Path("/from/flag"), origin="--data")
    assert find_workspace(None) == Workspace(folder=Path("/from/environment"), origin="SPADUNET_DATA")
    monkeypatch.delenv(ENVIRONMENT_VARIABLE)
    assert find_workspace(None) == Workspace(folder=Path("spadunet_data"), origin="default")


def test_an_empty_variable_counts_as_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "")
    assert find_workspace(None).origin == "default"


def test_the_folders_lie_inside_and_none_is_made(tmp_path: Path):
    workspace = find_workspace(tmp_path / "data")
    folders = (workspace.raw, workspace.preprocessed, workspace.corpora, workspace.results)
    assert [folder.relative_to(tmp_path).as_posix() for folder in folders] == [
        "data/raw",
        "data/preprocessed",
        "data/corpora",
        "data/results",
    ]
    assert list(tmp_path.iterdir()) == []
