"""Several processes of torchrun predict what one does, and leave one table, one log and one manifest."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from random_models import CLASSES, plan_of, write_model

import spadunet
from spadunet.cli import predict

IMAGES = Path(spadunet.__file__).parent / "demo/data/Dataset004_Hippocampus/imagesTs"
COMMAND = "from spadunet.cli.predict import main; main()"


def torchrun(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    script = folder / "predict.py"
    script.write_text(COMMAND)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script]
    return subprocess.run(
        [*map(str, (*launcher, *arguments))], capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.slow
def test_two_processes_predict_what_one_does(tmp_path: Path, run):
    model = write_model(tmp_path / "model", 0, plan_of(CLASSES))
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted(IMAGES.iterdir())[:3]:
        shutil.copy(path, images)
    words = ("-i", images, "-m", model, "-device", "cpu", "--precision", "float32", "--overlap", 0)
    assert run(predict.main, *words, "-o", tmp_path / "alone") == 0
    done = torchrun(tmp_path, *words, "-o", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("3 label maps written, 0 failed") == 1
    files = sorted(path.name for path in (tmp_path / "alone").iterdir())
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == files
    for file in files:
        if file.endswith((".nii.gz", ".csv")):
            assert (tmp_path / "two" / file).read_bytes() == (tmp_path / "alone" / file).read_bytes()
    (images / "broken_0000.nii.gz").write_bytes(b"no image")
    kept = (tmp_path / "two" / files[0]).stat().st_mtime_ns
    done = torchrun(tmp_path, *words, "-o", tmp_path / "two", "--continue")
    assert done.returncode == 1
    assert "3 of 4 label maps are there already and kept" in done.stderr
    assert "failed: " in done.stderr and "broken_0000.nii.gz" in done.stderr
    assert (tmp_path / "two" / files[0]).stat().st_mtime_ns == kept


def test_a_cluster_and_torchrun_together_are_refused(tmp_path: Path, run, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    words = ("-i", IMAGES, "-o", tmp_path / "out", "-m", tmp_path, "-device", "cpu", "--dask", "tcp://127.0.0.1:1")
    assert run(predict.main, *words) == 2
    assert "--dask tcp://127.0.0.1:1: does not go with torchrun; give one of them" in capsys.readouterr().err
