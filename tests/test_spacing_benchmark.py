"""benchmarks/spacing.py: thick slices go back where they came from, and the goal is judged by the rows.

nnU-Net is not there in tests: its trainer is played.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from spadunet.dataset import find_test_cases, load_dataset
from spadunet.image import LabelMap, read_image, read_label_map

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


def test_shares_are_interpolated_between_the_middles_of_thick_slices(script: ModuleType):
    change = script.Thicker(axis=2, factor=3.0, num_old=7)  # middles at the old slices 1 and 4; the last is not covered
    for last, expected in ((0.8, [0, 0, 0, 1, 1, 1, 1]), (0.7, [0, 0, 0, 0, 1, 1, 1]), (0.4, [0] * 7)):
        organ = np.array([0, last], np.float16).reshape(1, 1, 2)
        assert change.largest(np.stack([1 - organ, organ])).tolist() == [[expected]]
    single = script.Thicker(axis=0, factor=6.0, num_old=5)
    assert single.largest(np.array([0.4, 0.6]).reshape(2, 1, 1, 1)).ravel().tolist() == [1] * 5


def test_the_ceiling_is_the_reference_itself_but_for_what_thick_slices_lose(
    script: ModuleType, copy_demo, tmp_path: Path
):
    dataset = load_dataset(with_test_cases(copy_demo, tmp_path, num_cases=1))
    (case,) = find_test_cases(dataset)
    reference = read_label_map(case.label_path)

    def agreement(factor: float) -> tuple[float, float]:
        """Dice of all foreground by shares, and by whole thick slices."""
        change = script.change_of(case.image_paths[0], factor)
        shares = script.reference_shares(case, change, dataset.labels)
        assert shares.shape[1 + change.axis] == change.num_new
        np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-5)
        whole = LabelMap(array=shares.argmax(axis=0).astype(np.uint8), affine=reference.affine)
        found = (change.largest(shares), change.back(whole, reference.affine).array)
        first, second = (
            2 * ((it > 0) & (reference.array > 0)).sum() / ((it > 0).sum() + (reference.array > 0).sum())
            for it in found
        )
        return first, second

    assert agreement(1.0) == (1, 1)
    by_shares, by_slices = agreement(4.0)
    assert 0.85 < by_shares < 1
    assert by_shares > by_slices + 0.03


def test_probabilities_whose_axes_lie_otherwise_are_refused(script: ModuleType, copy_demo, tmp_path: Path):
    (case,) = find_test_cases(load_dataset(with_test_cases(copy_demo, tmp_path, num_cases=1)))
    change = script.change_of(case.image_paths[0], 3.0)
    shape = list(read_image(case.image_paths).shape)
    shape[change.axis] = change.num_new
    np.savez(tmp_path / f"{case.name}.npz", probabilities=np.ones((3, *shape)))
    assert script.read_shares(tmp_path, case, change).shape == (3, *shape)
    np.savez(tmp_path / f"{case.name}.npz", probabilities=np.ones((3, *shape[::-1])))
    with pytest.raises(SystemExit, match="its axes lie in another order"):
        script.read_shares(tmp_path, case, change)


def test_a_folder_of_rows_that_came_back_otherwise_is_refused(
    script: ModuleType, copy_demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    raw, output = with_test_cases(copy_demo, tmp_path, num_cases=1), tmp_path / "out"
    output.mkdir()
    earlier = {"dataset": str(raw), "device": "cpu", "init": "None", "max_steps": "1000", "plan": "[]", "train": "[]"}
    (output / "settings.json").write_text(json.dumps(earlier))
    monkeypatch.setattr("sys.argv", ["spacing.py", "-d", str(raw), "-o", str(output), "-device", "cpu"])
    with pytest.raises(
        SystemExit, match="has back None, not class shares, cubic splines along the slices; name another"
    ):
        script.main()


class Trainer:
    """Trains by counting, as nnU-Net's does by epochs, until it is killed."""

    def __init__(self, folder: Path, killed_in_epoch: int | None) -> None:
        self.output_folder, self.killed_in_epoch = str(folder), killed_in_epoch
        self.current_epoch, self.save_every, self.seen = 0, 50, []
        self.configuration_manager = SimpleNamespace(configuration={"batch_size": 9})

    def save_checkpoint(self, path: str) -> None:
        Path(path).write_text(str(self.current_epoch + 1))

    def load_checkpoint(self, path: str) -> None:
        self.current_epoch = int(Path(path).read_text())

    def run_training(self) -> None:
        latest = Path(self.output_folder) / "checkpoint_latest.pth"
        while self.current_epoch < self.num_epochs:
            self.seen.append((self.current_epoch, int(torch.randint(1 << 30, (1,)))))
            if self.current_epoch == self.killed_in_epoch:
                raise KeyboardInterrupt
            if (self.current_epoch + 1) % self.save_every == 0 and self.current_epoch != self.num_epochs - 1:
                self.save_checkpoint(str(latest))
            self.current_epoch += 1
        self.save_checkpoint(str(latest.with_name("checkpoint_final.pth")))
        latest.unlink()


def test_nnunet_goes_on_from_its_last_short_epoch(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    trainers = [Trainer(tmp_path, 2), Trainer(tmp_path, None)]
    waiting = iter(trainers)
    names = ("run.run_training", "training.nnUNetTrainer.nnUNetTrainer")
    for name in ("nnunetv2", *(f"nnunetv2.{it}" for it in names)):
        module = SimpleNamespace(get_trainer_from_args=lambda *_, **more: next(waiting), nnUNetTrainer=Trainer)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "nnunet_run", raising=False)
    run = importlib.import_module("nnunet_run")
    monkeypatch.setattr("sys.argv", ["nnunet_run.py", "Dataset004_Hippocampus", "all", "49", "3", "cpu"])
    with pytest.raises(KeyboardInterrupt):
        run.main()
    monkeypatch.setattr("sys.argv", [*sys.argv, "2"])
    run.main()
    first, second = trainers
    assert (first.num_epochs, first.num_iterations_per_epoch) == (17, 3)
    assert [epoch for epoch, _ in first.seen] == [0, 1, 2]
    assert [epoch for epoch, _ in second.seen] == list(range(2, 17))
    assert second.seen[0][1] != first.seen[0][1]  # other numbers than those of the start
    assert second.configuration_manager.configuration["batch_size"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_final.pth"]
    said = capsys.readouterr().out.splitlines()  # before it trains: who finds the final checkpoint finds it too
    assert [json.loads(line) for line in said] == [{"steps": 51}] * 2


def test_nnunet_has_one_augmenting_process_on_a_processor_and_its_own_choice_on_a_gpu(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    peers = importlib.import_module("nnunet_peer")
    handicaps = {"nnUNet_n_proc_DA", "nnUNet_compile"}
    for name in handicaps:
        monkeypatch.delenv(name, raising=False)
    for device in ("cpu", "cuda"):
        monkeypatch.setattr(peers, "choose_device", lambda given, device=device: device if given == "auto" else given)
        peer = peers.open_peer(Path("bin"), tmp_path, "auto")
        assert peer.device == device
        assert handicaps & set(peer.environment(tmp_path)) == (handicaps if device == "cpu" else set())
    assert peers.open_peer(None, tmp_path, "auto") is None


@pytest.mark.parametrize(("ours", "is_met"), [(0.86, "yes"), (0.82, "no")])
def test_the_goal_is_half_of_what_the_peer_loses(script: ModuleType, ours: float, is_met: str):
    rows = [row(script, "nnunet", 1.0, 0.88), row(script, "nnunet", 4.0, 0.78), row(script, "native", 1.0, 0.88)]
    assert script.verdict(rows) == "too few rows for the goal"
    rows += [row(script, "native", 4.0, 0.70), row(script, "merging", 1.0, 0.90), row(script, "merging", 4.0, ours)]
    native, merging = script.verdict(rows).splitlines()
    assert native.endswith(": no (0.180, 0.100)")
    assert "spadunet, trained with slice merging" in merging
    assert merging.endswith(f": {is_met} ({0.90 - ours:.3f}, 0.100)")
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
            (arm, factor) for arm in ("native", "merging", "resampled", "ceiling") for factor in (1.0, 4.0)
        ]
        ceiling = {it.run.factor: it.dice for it in rows if it.run.arm == "ceiling"}
        assert ceiling[1.0] == 1 > ceiling[4.0] > 0.8
    assert (tmp_path / "out/spacing.png").stat().st_size > 1000
