"""Fine-tuning in several processes learns what one would. torchrun starts them, on this machine's cores."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import segmentation_run
import torch
from run_folder import plan_of

from spadunet.errors import InputError
from spadunet.preprocessing.store import classes_path, write_array
from spadunet.tensors import read_tensors
from spadunet.training import ranks, validate
from spadunet.training.curves import read_rows
from spadunet.training.loop import JointNetwork
from spadunet.training.patches import BatchStream
from spadunet.training.prepare import check_shares
from spadunet.training.ranks import Ranks
from spadunet.training.state import read_metadata, read_progress
from spadunet.training.variety import Variety

CHECKPOINT = "state/checkpoint.safetensors"


@pytest.fixture
def cases(make_task, tmp_path: Path) -> Path:
    """Two datasets; in the second a slice of each case is ignored."""
    for name in segmentation_run.NAMES:
        task = make_task(name, spacing_mm=(1.0, 1.0, 1.0), shape=(8, 24, 24))
    for case in task.cases:
        _, classes = case.read_patch((0, 0, 0), (8, 24, 24))
        classes[3] = 3
        write_array(classes_path(case.folder, case.name), classes.astype(np.uint8))
    return tmp_path / "cases"


@pytest.fixture
def weights_of_one(cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run of one process."""
    monkeypatch.setattr(BatchStream, "__getitem__", segmentation_run.in_float64)
    monkeypatch.setattr(JointNetwork, "deep_logits", segmentation_run.read_in_float64)
    segmentation_run.run(cases, tmp_path / "one", Ranks())
    return tmp_path / "one"


def run_two(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Two processes, until they end."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, segmentation_run.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)


def difference(folder: Path, other: Path) -> float:
    """The largest, over all tensors of two checkpoints: weights and the optimiser's moments."""
    one, two = read_tensors(folder / CHECKPOINT), read_tensors(other / CHECKPOINT)
    assert one.keys() == two.keys()
    return max(float((value - two[name]).abs().max()) for name, value in one.items())


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_the_same_batches(weights_of_one: Path, cases: Path, tmp_path: Path):
    """Dice, ignored voxels and validation are of the whole batch; heads that take no part in a step wait."""
    done = run_two(cases, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert difference(tmp_path / "two", weights_of_one) < 1e-9
    curves, validation = [
        [(folder / name).read_text().splitlines() for folder in (weights_of_one, tmp_path / "two")]
        for name in ("curves.csv", "validation.csv")
    ]
    assert len(curves[0]) == len(curves[1]) == 7
    assert validation[0] == validation[1]
    assert {line.split(",")[2] for line in curves[0][1:]} == set(segmentation_run.NAMES)


@pytest.mark.slow
def test_a_spad_vit_learns_one_dataset_in_two_processes_what_it_does_in_one(cases: Path, tmp_path: Path, monkeypatch):
    """Every parameter that learns takes part in every step, or the processes would wait for its gradient."""
    done = run_two(cases, tmp_path / "two", "vit")
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(BatchStream, "__getitem__", segmentation_run.in_float64)
    monkeypatch.setattr(JointNetwork, "deep_logits", segmentation_run.read_in_float64)
    segmentation_run.run(cases, tmp_path / "one", Ranks(), with_vit=True)
    assert difference(tmp_path / "two", tmp_path / "one") < 1e-8  # measured 2e-9


@pytest.mark.slow
def test_adapters_learn_in_two_processes_what_they_do_in_one(cases: Path, tmp_path: Path, monkeypatch):
    """And the curves have the experts' use of the whole batch."""
    done = run_two(cases, tmp_path / "two", "experts")
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(BatchStream, "__getitem__", segmentation_run.in_float64)
    monkeypatch.setattr(JointNetwork, "deep_logits", segmentation_run.read_in_float64)
    segmentation_run.run(cases, tmp_path / "one", Ranks(), with_experts=True)
    assert difference(tmp_path / "two", tmp_path / "one") < 1e-9
    rows = [read_rows(tmp_path / name / "curves.csv") for name in ("one", "two")]
    for one, two in zip(*rows, strict=True):
        for name in ("expert_1", "expert_2", "router_entropy"):
            assert float(one[name]) == pytest.approx(float(two[name]), abs=1e-6)


@pytest.mark.slow
def test_a_signal_stops_both_and_the_run_goes_on_in_one_process(
    weights_of_one: Path, cases: Path, tmp_path: Path, monkeypatch
):
    stopped = run_two(cases, tmp_path / "two", "signal")
    assert "segmentation_run.py: stopped; the same command goes on from here" in stopped.stderr
    assert read_progress(tmp_path / "two" / CHECKPOINT).step == 4
    segmentation_run.run(cases, tmp_path / "two", Ranks())
    assert difference(tmp_path / "two", weights_of_one) < 1e-9


@pytest.mark.slow
def test_where_memory_is_short_in_one_process_all_take_smaller_parts(weights_of_one: Path, cases: Path, tmp_path: Path):
    done = run_two(cases, tmp_path / "two", "short")
    assert done.returncode == 0, done.stderr
    assert difference(tmp_path / "two", weights_of_one) < 1e-9
    assert json.loads(read_metadata(tmp_path / "two" / CHECKPOINT)["numbers"])["num_parts"] == 2


@pytest.mark.slow
def test_a_case_that_is_not_finite_in_the_second_process_is_named_by_the_first(cases: Path, tmp_path: Path):
    done = run_two(cases, tmp_path / "two", "spoil")
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if line.startswith("segmentation_run.py")]
    assert len(told) == 1, done.stderr
    whole = BatchStream([segmentation_run.task_of(cases / name) for name in segmentation_run.NAMES], 0)[3]
    assert f"became nan at step 3 (task {whole.task}, da {whole.da}, case {whole.cases[3]}); the state" in told[0]
    assert read_progress(tmp_path / "two" / CHECKPOINT).step == 3


@pytest.mark.slow
def test_a_case_that_the_second_process_cannot_read_ends_both_with_their_state_saved(cases: Path, tmp_path: Path):
    done = run_two(cases, tmp_path / "two", "lost")
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if line.startswith("segmentation_run.py")]
    assert len(told) == 1, done.stderr
    assert told[0].endswith(
        "c1.b2nd: not found any more; run spadunet_preprocess; the same command then goes on from step 3"
    )
    assert read_progress(tmp_path / "two" / CHECKPOINT).step == 3


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_the_batch_that_one_would_draw(make_task, world_size: int):
    plain = make_task(batch_size=4)
    varied = replace(plain, variety=Variety(spacing_jitter=0.5, mirror=("anterior-posterior",), patches="paper-btcv"))
    for task in (plain, varied):
        for step in range(5):
            whole = BatchStream([task], 3)[step]
            parts = [BatchStream([task], 3, rank=rank, world_size=world_size)[step] for rank in range(world_size)]
            assert torch.equal(torch.cat([part.image for part in parts]), whole.image)
            assert torch.equal(torch.cat([part.classes for part in parts]), whole.classes)
            assert sum((part.cases for part in parts), ()) == whole.cases


def test_the_default_batch_is_rounded_up_to_the_number_of_processes_and_one_that_is_given_is_not(make_task):
    task = make_task()  # of 2 patches
    assert task.num_patches(0) == 2
    with pytest.raises(InputError, match="--batch-size 2: 4 processes cannot share it evenly; give a multiple of 4"):
        check_shares([task], Ranks(world_size=4))
    with pytest.raises(InputError, match="begun with batches of 4 patches, which 3 .*; go on with 1 or 2 or 4 proc"):
        check_shares([replace(task, batch_size=None, batch_multiple=2)], Ranks(world_size=3))
    automatic = [replace(task, batch_size=None, batch_multiple=multiple) for multiple in (1, 3)]
    assert [each.num_patches(0) for each in automatic] == [4, 6]  # small patches leave room for four


def test_batches_that_only_slices_merged_in_training_give_are_shared_too(make_task):
    """Thin slices: the stored cases have da 0, of which a batch has four patches; merged ones have larger patches."""
    task = make_task()
    sizes = {da: (8, 16, 16) if da == 0 else (8, 2048, 2048) for da in range(7)}
    plan = task.plan.model_copy(update={"patch_sizes_voxels": sizes})
    task = replace(task, plan=plan, batch_size=None, batch_multiple=1)
    check_shares([task], Ranks(world_size=4))
    with pytest.raises(
        InputError, match="batches of 2 or 4 patches, which 4 processes .*; go on with 1 or 2 processes"
    ):
        check_shares([replace(task, variety=Variety(slice_merging=0.5))], Ranks(world_size=4))


def test_whoever_is_free_takes_the_next_item():
    store = torch.distributed.HashStore()
    slow, fast = (Ranks(rank=rank, world_size=2, store=store) for rank in (0, 1))
    items = list("abcdefg")
    turns = slow.take_turns(items)
    assert next(turns) == "a"  # and is busy with it, while the other does all else
    assert list(fast.take_turns(items)) == list("bcdefg")
    assert list(turns) == []
    assert list(Ranks().take_turns(items)) == items


@pytest.mark.parametrize(("is_training", "days"), [(True, 0), (False, 30)])
def test_ranks_that_work_apart_wait_for_each_other_longer(is_training: bool, days: int, monkeypatch):
    found = {}

    def init(_, **options: object):
        found.update(options)
        raise KeyboardInterrupt

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(ranks, "share_cores", lambda: None)
    monkeypatch.setattr(ranks, "rendezvous", lambda *_, **__: iter([(torch.distributed.HashStore(), 0, 2)]))
    monkeypatch.setattr(torch.distributed, "init_process_group", init)
    level = ranks.log.level
    try:
        with pytest.raises(KeyboardInterrupt), ranks.open_ranks(torch.device("cpu"), is_training=is_training):
            pass
    finally:
        ranks.log.setLevel(level)
    assert found["timeout"].days == days


def test_a_validation_waits_as_long_for_another_rank_as_prediction_does(monkeypatch, tmp_path: Path):
    """Its last case may take hours, after a training in which nobody waits for half an hour."""
    opened, gathered = [], []

    def gather(everybody: list, found: object, group: object) -> None:
        everybody[:] = [found] * len(everybody)
        gathered.append(group)

    def new_group(**options: object) -> str:
        opened.append(options["timeout"])
        return "group"

    monkeypatch.setattr(torch.distributed, "new_group", new_group)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    monkeypatch.setattr(validate, "build_network", lambda *_: torch.nn.Identity())
    monkeypatch.setattr(validate, "Engine", lambda **_: None)
    monkeypatch.setattr(validate, "predict_cases", lambda *_, **__: opened.append("predicting") or [])
    plan = plan_of("Dataset001_A")
    options = SimpleNamespace(device=torch.device("cpu"), precision=torch.float32, overlap=0.5, mirror=())
    model = SimpleNamespace(tasks={"A": SimpleNamespace(plan=plan)})
    ranks_of_two = Ranks(rank=1, world_size=2)
    assert validate.validate(model, "A", [], tmp_path, ranks=ranks_of_two, options=options) == []
    assert opened == [ranks.PREDICTION_TIMEOUT, "predicting"]  # while the ranks are still together
    assert gathered == ["group"]
    assert Ranks().part_for_long() is None
