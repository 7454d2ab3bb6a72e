"""spadunet_pretrain_tokenizer from a corpus to a tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_corpus import make_corpus, noise

from spadunet.cli.pretrain_tokenizer import PAPER, PRESETS, main
from spadunet.network.build import TOKENIZER_WIDTHS
from spadunet.pretraining.tokenizer_file import load_tokenizer
from spadunet.training.curves import read_rows

COMMON = ["-device", "cpu", "--num-workers", "0", "--batch-size", "2", "--crop-tokens", "2", "1"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a corpus of 2D pictures, whose crops are small."""
    folder = tmp_path_factory.mktemp("workspace")
    make_corpus(
        folder / "corpora/flat", {"grey": (noise(1, 1, 40, 50), (1, 1, 1)), "colour": (noise(3, 1, 40, 30), (1, 1, 1))}
    )
    return folder


@pytest.fixture
def call(workspace: Path, run):
    def call(*arguments: object) -> int:
        return run(main, *COMMON, "--data", workspace, *arguments)

    return call


def test_a_run_leaves_a_tokenizer_with_its_provenance_pictures_and_numbers(call, workspace: Path, caplog):
    assert call("--max-steps", 2) == 0
    folder = workspace / "results/pretraining/tokenizer_tiny"
    assert "perceptual term: structural similarity, since no --perceptual-weights are given" in caplog.text
    loaded = load_tokenizer(folder)
    assert loaded.preset == "tiny"
    provenance = loaded.provenance
    assert (provenance["corpus"], provenance["steps"], provenance["perceptual"]) == (
        "flat",
        "2",
        "structural similarity",
    )
    assert {
        "codebook.png",
        "reconstructions.png",
        "held_out.json",
        "curves.png",
        "spadunet_pretrain_tokenizer.json",
    } <= {path.name for path in folder.iterdir()}
    assert json.loads((folder / "held_out.json").read_text())["step"] == 2
    rows = read_rows(folder / "curves.csv")
    assert len(rows) == 2
    assert {"l1", "perceptual", "gan", "discriminator", "gate_is_open", "entropy", "perplexity", "codebook_use"} <= set(
        rows[0]
    )


def test_dry_run_tells_and_writes_nothing(call, workspace: Path, capsys, tmp_path):
    assert call("--dry-run", "-o", tmp_path / "new", "--max-steps", 2) == 0
    assert not (tmp_path / "new").exists()
    assert "tokenizer tiny, 2 steps, batches of 2 crops" in capsys.readouterr().out


def test_weights_that_are_not_there_are_told_before_anything_is_made(call, tmp_path, capsys):
    assert call("--perceptual-weights", tmp_path / "none.pth", "-o", tmp_path / "new") == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert f"--perceptual-weights {tmp_path}/none.pth: weights not found" in error
    assert not (tmp_path / "new").exists()


def test_the_papers_recipe():
    """Luo et al. 2024, section 5.1; learning rates and weights as SPAD-Nets was trained."""
    assert PAPER.options == {
        "preset": "base",
        "max_steps": 600_000,
        "batch_size": 48,
        "crop_tokens": [8, 4],
        "learning_rate": 1e-4,
        "discriminator_learning_rate": 1e-3,
        "gan_weight": 3e-3,
        "prior_weights": [1.0, 0.2],
    }
    assert PAPER.warm_up_share * 600_000 == pytest.approx(25_000)
    assert PAPER.lowest_rate == 1e-6
    assert tuple(TOKENIZER_WIDTHS) == PRESETS
