"""spadunet_index from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import DEMO, Run

from spadunet.cli import index, info
from spadunet.measure import measure
from spadunet.pretraining.corpus import Corpus, load_corpus

HIPPOCAMPUS = "Dataset004_Hippocampus"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A raw dataset of three real images, with labels and a test image."""
    folder = tmp_path / "raw" / HIPPOCAMPUS
    for part, number in (("imagesTr", 3), ("labelsTr", 3), ("imagesTs", 1)):
        (folder / part).mkdir(parents=True)
        for path in sorted((DEMO / HIPPOCAMPUS / part).iterdir())[:number]:
            shutil.copy(path, folder / part)
    shutil.copy(DEMO / HIPPOCAMPUS / "dataset.json", folder)
    return folder.parent


def corpus_of(tmp_path: Path, name: str) -> Corpus:
    return load_corpus(tmp_path / "data/corpora" / name)


def test_a_corpus_is_made_shown_and_listed(raw: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]):
    options = ("-n", "mine", "--data", tmp_path / "data", "-np", 1)
    assert run(index.main, raw, *options, "--weight", f"{HIPPOCAMPUS}=0.5") == 0
    corpus = corpus_of(tmp_path, "mine")
    assert [image.weight for image in corpus.index.images] == [0.5] * 3
    assert len(corpus.held_out) == 1
    folder = corpus.folder
    assert sorted(path.name for path in folder.iterdir()) == [
        "corpus.json",
        "corpus.png",
        "images",
        "sources.jsonl",
        "spadunet_index.json",
        "spadunet_index.log",
    ]
    assert (folder / "corpus.png").read_bytes().startswith(b"\x89PNG")
    log = (folder / "spadunet_index.log").read_text()
    assert "passed over: 1 files in imagesTs of raw datasets" in log
    capsys.readouterr()
    assert run(index.main, "--show", "mine", "--data", tmp_path / "data") == 0
    out = capsys.readouterr().out
    assert f"{HIPPOCAMPUS}  MRI       3" in out
    assert "0: 3" in out
    assert run(info.main, "--data", tmp_path / "data") == 0
    assert "mine  (3 images of 1 datasets)" in capsys.readouterr().out


def test_skipped_images_are_listed_and_the_exit_code_is_1(
    raw: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
):
    (raw / HIPPOCAMPUS / "imagesTr/bad_0000.nii.gz").write_bytes(b"")
    assert run(index.main, raw / HIPPOCAMPUS, "--data", tmp_path / "data", "-np", 1) == 1
    (problem,) = corpus_of(tmp_path, HIPPOCAMPUS).index.skipped
    assert "the file is empty" in problem.reason
    log = (tmp_path / "data/corpora" / HIPPOCAMPUS / "spadunet_index.log").read_text()
    assert f"skipped: {problem.reason}" in log
    assert "1 images skipped" in log


def test_a_manifest_names_weighs_and_counts(raw: Path, tmp_path: Path, run: Run):
    (raw / HIPPOCAMPUS).rename(raw / "mine")
    datasets = [
        {"name": "Mine", "modalities": ["MRI/T1"], "weight": 0.25, "num_images": 4},
        {"name": "Theirs", "modalities": ["CT"]},
    ]
    manifest = tmp_path / "all.json"
    manifest.write_text(json.dumps({"format_version": 1, "datasets": datasets}))
    assert run(index.main, raw, "--manifest", manifest, "-n", "all", "--data", tmp_path / "data", "-np", 1) == 0
    found = {(image.dataset, image.modality, image.weight) for image in corpus_of(tmp_path, "all").index.images}
    assert found == {("Mine", "MRI/T1", 0.25)}
    log = (tmp_path / "data/corpora/all/spadunet_index.log").read_text()
    assert "Mine: 3 images, the manifest says 4" in log


def test_a_dry_run_writes_nothing_and_says_what_would_be(
    raw: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("spadunet.preprocessing.estimate.measure_apart", measure)
    before = sorted(tmp_path.rglob("*"))
    assert run(index.main, raw, "--data", tmp_path / "data", "-np", 1, "--dry-run") == 0
    assert sorted(tmp_path.rglob("*")) == before
    out = capsys.readouterr().out
    assert f"{HIPPOCAMPUS}  3 " in out
    assert "images/: those of 3 sources made" in out
    assert "disk    about" in out
    assert "3 files in labelsTr of raw datasets" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no FOLDER is given"),
        (["{tmp}/nowhere"], "nowhere: folder not found"),
        (["{tmp}/none"], "none: holds no images; expected DICOM files or .nii.gz"),
        (["{raw}", "--modality", "MRI/T9"], "did you mean"),
        (["{raw}", "--modality", "scans=CT"], "no dataset is called scans; there are Dataset004_Hippocampus"),
        (["{raw}", "--weight", "scans=0"], "--weight scans=0: expected DATASET=W with a number above zero"),
        (["{raw}", "--weight", "3"], "--weight 3: expected DATASET=W, e.g. 3=0.5"),
        (["{raw}", "-n", "a/b"], "-n a/b: is no name of a folder"),
        (["{raw}", "--manifest", "{tmp}/none.json"], "none.json: not found"),
        (["{raw}", "{tmp}", "--manifest", "paper"], "expected one FOLDER"),
        (["{raw}", "--manifest", "paper"], "raw: holds no dataset of the manifest"),
        (["--show", "none"], "none: corpus not found"),
    ],
)
def test_wrong_use_is_told_before_work(
    arguments: list[str], words: str, raw: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "none").mkdir()
    given = [text.format(raw=raw, tmp=tmp_path) for text in arguments]
    assert run(index.main, *given, "--data", tmp_path / "data", "-np", 1) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in error
    assert not list(tmp_path.glob("data/corpora/*/images"))


def test_nothing_but_bad_images_is_an_error_that_names_them(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "bad").mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(np.full((3, 20, 20), 4, np.int16)), str(tmp_path / "bad/a.nii.gz"))
    assert run(index.main, tmp_path / "bad", "--data", tmp_path / "data", "-np", 1) == 2
    log = (tmp_path / "data/corpora/bad/spadunet_index.log").read_text()
    assert "a.nii.gz: every voxel is 4" in log
    assert "no image of" in log
