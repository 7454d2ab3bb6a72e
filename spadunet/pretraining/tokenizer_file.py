"""The tokenizer on disk: what stage one leaves for stage two. No pickle.

tokenizer.json           format version, preset, provenance, SHA-256 of the weights
tokenizer.safetensors
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files import sha256_of_file
from ..model import TOKENIZER_JSON
from ..network.build import TOKENIZER_WIDTHS, build_tokenizer
from ..network.tokenizer import SpadTokenizer
from ..record import FormatVersion, Record, read_record, write_record
from ..tensors import read_tensors, write_tensors

TOKENIZER_FILE = "tokenizer.safetensors"


class TokenizerRecord(Record):
    """tokenizer.json."""

    format_version: FormatVersion = 1
    preset: str
    provenance: dict[str, str]
    sha256: str
    """Of tokenizer.safetensors."""


@dataclass(frozen=True, kw_only=True)
class LoadedTokenizer:
    """A tokenizer as it was trained, frozen and in evaluation mode."""

    network: SpadTokenizer
    preset: str
    provenance: dict[str, str]


def save_tokenizer(folder: Path, network: SpadTokenizer, preset: str, provenance: dict[str, str]) -> None:
    """Write a tokenizer's folder, tokenizer.json last: without it, or with another hash in it, it is none.

    Raises:
        OutputError: if the disk is full or the folder cannot be written.
    """
    path = folder / TOKENIZER_FILE
    write_tensors(path, network.state_dict())
    record = TokenizerRecord(preset=preset, provenance=provenance, sha256=sha256_of_file(path))
    write_record(folder / TOKENIZER_JSON, record)


def load_tokenizer(folder: Path) -> LoadedTokenizer:
    """Read a tokenizer's folder and check the weights against their hash; they may be float16 on disk.

    Raises:
        InputError: if a file is missing, damaged, changed, newer, or of an unknown preset.
    """
    remedy = "give a tokenizer's folder, as spadunet_pretrain_tokenizer writes it"
    record = read_record(folder / TOKENIZER_JSON, TokenizerRecord, remedy=remedy)
    if record.preset not in TOKENIZER_WIDTHS:
        raise InputError(
            f"{folder / TOKENIZER_JSON}: unknown preset '{record.preset}'; known are {', '.join(TOKENIZER_WIDTHS)}"
        )
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise InputError(f"{path}: not found; copy the whole folder again")
    if sha256_of_file(path) != record.sha256:
        raise InputError(
            f"{path}: does not have the SHA-256 that {TOKENIZER_JSON} states: damaged or changed; copy it again"
        )
    network = build_tokenizer(record.preset)
    try:
        network.load_state_dict(read_tensors(path))
    except RuntimeError as error:
        raise InputError(f"{path}: holds the weights of another network than preset {record.preset}") from error
    return LoadedTokenizer(
        network=network.eval().requires_grad_(False), preset=record.preset, provenance=record.provenance
    )
