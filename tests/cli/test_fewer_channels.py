"""Prediction of a model of two contrasts from images that have one of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_model import TASKS, make_model, shrink_presets

from spadunet.cli import predict
from spadunet.image import LabelMap, read_label_map, write_label_map
from spadunet.model import Model, save_model
from spadunet.training.variety import VarietyOptions


def model_of(dropout: float, optional: tuple[str, ...] = ()) -> Model:
    """Of T1 and CT."""
    model = make_model(tasks=TASKS[:1])
    task = model.tasks[TASKS[0]]
    plan = task.plan.model_copy(update={"optional_channels": optional, "target_spacing_mm": "native"})
    told = model.provenance | {"variety": str(VarietyOptions(channel_dropout=dropout))}
    return replace(model, tasks={TASKS[0]: replace(task, plan=plan)}, provenance=told)


def test_a_model_trained_with_contrast_dropout_needs_only_the_channels_that_are_named(
    tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    shrink_presets(monkeypatch)
    save_model(tmp_path / "dropped", model_of(0.2))
    save_model(tmp_path / "always", model_of(0))
    save_model(tmp_path / "optional", model_of(0.2, ("CT",)))
    (tmp_path / "images").mkdir()
    array = np.random.default_rng(0).integers(0, 200, (6, 12, 10)).astype(np.uint8)
    write_label_map(tmp_path / "images/a_0000.nii.gz", LabelMap(array=array, affine=np.eye(4)))

    def predicted(name: str, *more: str) -> int:
        words = ("-m", tmp_path / name, "-i", tmp_path / "images", "-o", tmp_path / f"of {name}", *more)
        return run(predict.main, *words, "-device", "cpu", "--data", tmp_path)

    assert predicted("dropped") == 2
    assert "expected 2, numbered from _0000; add the missing or" in (said := capsys.readouterr().err)
    assert "is told by --channels which are there" in said
    assert predicted("always", "--channels", "T1") == 2
    assert "--channels names T1, without CT, which the model needs: no patch of its training lacked" in (
        capsys.readouterr().err
    )
    assert predicted("dropped", "--channels", "T1") == 0
    assert predicted("optional") == 0
    one, other = (read_label_map(tmp_path / f"of {name}/a.nii.gz").array for name in ("dropped", "optional"))
    assert np.array_equal(one, other)
    assert len(np.unique(one)) > 1
