"""Weights that users bring: what is read, and that nothing in a file is run."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spadunet.errors import InputError
from spadunet.tensors import write_tensors
from spadunet.weights import read_weights

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2).half()}


def assert_is_state(found: dict[str, Tensor]) -> None:
    assert list(found) == list(STATE)
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("key", [None, "module", "model", "state_dict"])
def test_state_dicts_are_found_bare_and_wrapped(key: str | None, tmp_path: Path):
    content = STATE if key is None else {key: STATE, "epoch": 3, "args": argparse.Namespace(lr=1e-3)}
    torch.save(content, tmp_path / "weights.pt")
    assert_is_state(read_weights(tmp_path / "weights.pt"))


def test_safetensors_are_read(tmp_path: Path):
    write_tensors(tmp_path / "weights.safetensors", STATE)
    assert_is_state(dict(sorted(read_weights(tmp_path / "weights.safetensors").items(), reverse=True)))


class Harmful:
    """Makes a file when unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_code_in_a_file_is_not_run(tmp_path: Path):
    torch.save({"model": STATE, "extra": Harmful(tmp_path / "harm")}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"weights\.pt: cannot be read as weights .*save its state dict"):
        read_weights(tmp_path / "weights.pt")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04 cut short"])
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_damaged_files_are_named(name: str, content: bytes, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: cannot be read as .*copy it again"):
        read_weights(tmp_path / name)


def test_missing_and_empty_ones_are_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"none\.pt: weights not found; give the path"):
        read_weights(tmp_path / "none.pt")
    for content in ({}, {"epoch": 3}, [torch.ones(1)], torch.ones(1)):
        torch.save(content, tmp_path / "weights.pt")
        with pytest.raises(InputError, match=r"weights\.pt: holds no tensors by name"):
            read_weights(tmp_path / "weights.pt")


def test_a_model_in_one_file_is_told_how_to_unpack(tmp_path: Path):
    path = tmp_path / "liver.spadunet.zip"
    path.write_bytes(b"PK")
    with pytest.raises(
        InputError, match=rf"{path}: a model in one file; unpack it with spadunet_import_model {path} -o"
    ):
        read_weights(path)
