"""A tokenizer's folder: what was saved comes back, what was damaged is named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from spadunet.errors import InputError
from spadunet.files import sha256_of_file
from spadunet.network.build import build_tokenizer
from spadunet.network.tokenizer import SpadTokenizer
from spadunet.pretraining.tokenizer_file import (
    TOKENIZER_FILE,
    TOKENIZER_JSON,
    TokenizerRecord,
    load_tokenizer,
    save_tokenizer,
)
from spadunet.tensors import read_tensors, write_tensors

PROVENANCE = {"corpus": "Everything", "steps": "7"}


@pytest.fixture
def network() -> SpadTokenizer:
    torch.manual_seed(0)
    return build_tokenizer("tiny")


@pytest.fixture
def folder(network: SpadTokenizer, tmp_path: Path) -> Path:
    save_tokenizer(tmp_path / "tokenizer", network, "tiny", PROVENANCE)
    return tmp_path / "tokenizer"


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_tokenizer(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite(folder: Path, **changes: object) -> None:
    path = folder / TOKENIZER_JSON
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_was_saved_comes_back_frozen_with_its_provenance(folder, network):
    loaded = load_tokenizer(folder)
    assert (loaded.preset, loaded.provenance) == ("tiny", PROVENANCE)
    assert not loaded.network.training
    assert not any(parameter.requires_grad for parameter in loaded.network.parameters())
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value), name


def test_a_file_in_half_precision_is_read_as_float32(folder, network):
    half = {name: value.half() for name, value in read_tensors(folder / TOKENIZER_FILE).items()}
    write_tensors(folder / TOKENIZER_FILE, half)
    rewrite(folder, sha256=sha256_of_file(folder / TOKENIZER_FILE))
    loaded = load_tokenizer(folder).network
    assert loaded.codebook.weight.dtype == torch.float32
    assert torch.equal(loaded.codebook.weight, network.codebook.weight.half().float())


def test_record_survives_the_way_through_json():
    record = TokenizerRecord(preset="base", provenance=PROVENANCE, sha256="0" * 64)
    assert TokenizerRecord.from_json(record.to_json()) == record


def test_a_folder_that_is_no_tokenizer_is_refused_with_the_remedy(tmp_path):
    assert refusal(tmp_path) == (
        f"{tmp_path}/tokenizer.json: not found; give a tokenizer's folder, as spadunet_pretrain_tokenizer writes it"
    )


def test_missing_and_changed_weights_are_named(folder):
    path = folder / TOKENIZER_FILE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert re.fullmatch(re.escape(f"{path}: ") + "does not have the SHA-256 .* copy it again", refusal(folder))
    path.unlink()
    assert refusal(folder) == f"{path}: not found; copy the whole folder again"


def test_unknown_and_wrong_presets_are_refused(folder):
    rewrite(folder, preset="huge")
    assert "unknown preset 'huge'; known are tiny, small, base" in refusal(folder)
    rewrite(folder, preset="small")
    assert "holds the weights of another network than preset small" in refusal(folder)
    rewrite(folder, preset="tiny", format_version=2)
    assert "update spadunet" in refusal(folder)
