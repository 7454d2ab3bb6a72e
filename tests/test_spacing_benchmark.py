"""benchmarks/spacing.py: thick slices go back where they came from, and the goal is judged by the rows."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from spadunet.dataset import find_test_cases, load_dataset
from spadunet.image import LabelMap, read_image

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
HIPPOCAMPUS = "Dataset004_Hippocampus"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("spacing")


def with_test_cases(copy_demo, folder: Path, **options) -> Path:
    """A raw dataset whose training cases are its test cases, too."""
    raw = copy_demo(HIPPOCAMPUS, folder / HIPPOCAMPUS, **options)
    for name in ("images", "labels"):
        shutil.copytree(raw / f"{name}Tr", raw / f"{name}Ts")
    return raw


def row(script: ModuleType, arm: str, factor: float, dice: float):
    run = script.Run(arm=arm, factor=factor, seed=0)
    return script.Row(run=run, settings={}, dice=dice, assd_mm=1.0, hd_mm=3.0, num_missed=0, num_false_alarms=0)


def test_thick_slices_are_means_and_labels_go_back_to_the_slices_within(script: ModuleType, copy_demo, tmp_path: Path):
    dataset = load_dataset(with_test_cases(copy_demo, tmp_path, num_cases=1))
    folder = script.thick_images(dataset, 3.0, tmp_path)
    cases = find_test_cases(dataset)
    assert len(cases) == 1
    for case in cases:
        own, thick = read_image(case.image_paths), read_image([folder / case.image_paths[0].name])
        change = script.change_of(case.image_paths[0], 3.0)
        assert thick.spacing_mm[change.axis] == pytest.approx(3 * own.spacing_mm[change.axis])
        moved = np.moveaxis(own.array, change.axis + 1, 1)
        first = np.moveaxis(thick.array, change.axis + 1, 1)[:, 0]
        np.testing.assert_allclose(first, moved[:, :3].mean(1), rtol=1e-5)
        numbered = np.broadcast_to(
            np.arange(thick.shape[change.axis]).reshape([-1 if it == change.axis else 1 for it in range(3)]),
            thick.shape,
        )
        back = change.back(LabelMap(array=numbered.astype(np.uint8), affine=thick.affine), own.affine)
        assert back.shape == own.shape
        assert list(np.moveaxis(back.array, change.axis, 0)[:7, 0, 0]) == [0, 0, 0, 1, 1, 1, 2]


@pytest.mark.parametrize(("ours", "is_met"), [(0.86, "yes"), (0.82, "no")])
def test_the_goal_is_half_of_what_the_peer_loses(script: ModuleType, ours: float, is_met: str):
    rows = [row(script, "nnunet", 1.0, 0.88), row(script, "nnunet", 4.0, 0.78), row(script, "native", 1.0, 0.88)]
    assert script.verdict(rows) == "too few rows for the goal"
    rows += [row(script, "native", 4.0, 0.70), row(script, "merging", 1.0, 0.90), row(script, "merging", 4.0, ours)]
    assert f": {is_met} ({0.90 - ours:.3f}, 0.100)" in script.verdict(rows)
    assert "spadunet, trained with slice merging" in script.verdict(rows)
    text = script.table(rows)
    assert text.count("\n") == 6 and "0.100" in text


@pytest.mark.slow
def test_rows_are_made_once_and_a_table_and_a_plot_come_out(
    script: ModuleType, copy_demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    raw = with_test_cases(copy_demo, tmp_path, num_cases=2, size=(20, 24, 24))
    words = ["spacing.py", "-d", raw, "-o", tmp_path / "out", "--max-steps", 2, "--factors", 1, 4, "-device", "cpu"]
    words += ["--plan", "--memory-gb 0.03 -np 1", "--train", "--preset tiny --num-workers 0 --batch-size 1"]
    monkeypatch.setattr("sys.argv", [str(word) for word in words])
    for _ in range(2):
        script.main()
        assert "too few rows for the goal" in capsys.readouterr().out
        rows = script.read_rows(tmp_path / "out" / script.ROWS)
        assert [(it.run.arm, it.run.factor) for it in rows] == [
            (arm, factor) for arm in ("native", "merging", "resampled") for factor in (1.0, 4.0)
        ]
    assert (tmp_path / "out/spacing.png").stat().st_size > 1000
