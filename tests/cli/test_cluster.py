"""A real Dask cluster of two workers, each a process of its own, one of which is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from random_models import CLASSES, plan_of, write_model

import spadunet
from spadunet.preprocessing.store import open_case

pytest.importorskip("distributed")
pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]

HIPPOCAMPUS = Path(spadunet.__file__).parent / "demo/data/Dataset004_Hippocampus"
COMMAND = "import sys; from spadunet.cli.{command} import main; main(sys.argv[1:])"
POISONOUS = "hippocampus_017_copy0"

POISON = f"""
import os, signal
def poisoned(source, target):
    if str(target).endswith("{POISONOUS}.json"):
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)
if os.replace.__name__ != "poisoned":  # Dask loads this twice
    real, os.replace = os.replace, poisoned
"""
"""What the workers load first, in place of a case that takes more memory than there is."""

StartCluster = Callable[..., tuple[str, list["subprocess.Popen[bytes]"]]]


def start(command: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(command=command), *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(is_true: Callable[[], object], what: str) -> None:
    """Wait at most five minutes."""
    end = time.monotonic() + 300
    while not is_true():
        assert time.monotonic() < end, what
        time.sleep(0.02)


@pytest.fixture
def start_cluster(tmp_path: Path) -> Iterator[StartCluster]:
    """Start a scheduler and two workers of one thread each; give its address and the workers' processes."""
    processes: list[subprocess.Popen[bytes]] = []
    folder = tmp_path / "cluster"
    folder.mkdir()

    def begin(name: str, *arguments: object) -> Path:
        log = folder / f"{name}.log"
        environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1", "OMP_NUM_THREADS": "1"}
        module = f"distributed.cli.dask_{name.split('-')[0]}"
        with log.open("wb") as output:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", module, *map(str, arguments)],
                    stdout=output,
                    stderr=output,
                    cwd=folder,
                    env=environment,
                )
            )
        return log

    def begin_all(*worker_options: object) -> tuple[str, list[subprocess.Popen[bytes]]]:
        file = folder / "scheduler.json"
        begin("scheduler", "--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--scheduler-file", file)
        wait_until(lambda: file.is_file() and file.read_text().rstrip().endswith("}"), "no scheduler")
        address = json.loads(file.read_text())["address"]
        options = ("--nthreads", 1, "--no-dashboard", "--host", "127.0.0.1", *worker_options)
        logs = [begin(f"worker-{number}", address, *options) for number in (1, 2)]
        for log in logs:
            wait_until(lambda log=log: "Registered to:" in log.read_text(), f"no worker: {log}")
        return address, processes[1:]

    yield begin_all
    for process in reversed(processes):  # workers first: they take leave of the scheduler
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def fill(folder: Path, *, num_cases: int, num_copies: int) -> list[str]:
    """Write a raw dataset of embedded hippocampi, each under several names; the names of its cases."""
    target, names = folder / "raw" / HIPPOCAMPUS.name, []
    for kind in ("imagesTr", "labelsTr"):
        (target / kind).mkdir(parents=True)
    shutil.copy(HIPPOCAMPUS / "dataset.json", target)
    for label in sorted((HIPPOCAMPUS / "labelsTr").iterdir())[:num_cases]:
        case = label.name.removesuffix(".nii.gz")
        for name in (f"{case}_copy{number}" for number in range(num_copies)):
            shutil.copy(HIPPOCAMPUS / f"imagesTr/{case}_0000.nii.gz", target / f"imagesTr/{name}_0000.nii.gz")
            shutil.copy(label, target / f"labelsTr/{name}.nii.gz")
            names.append(name)
    return names


def case_names(folder: Path) -> list[str]:
    """The cases that are stored."""
    return sorted(path.stem for path in folder.glob("*.json") if not path.name.startswith("."))


def stored(folder: Path) -> dict[str, tuple[object, ...]]:
    """Header and arrays of every stored case."""
    found = {}
    for name in case_names(folder):
        case = open_case(folder, name)
        image, classes = case.read_patch((0, 0, 0), case.header.geometry.shape)
        found[name] = (case.header, image.tobytes(), classes.tobytes(), np.asarray(case.foreground_voxels()).tobytes())
    return found


def test_all_cases_are_finished_when_a_worker_is_killed_in_the_middle(tmp_path: Path, start_cluster: StartCluster):
    names = fill(tmp_path, num_cases=40, num_copies=2)
    cases = tmp_path / "preprocessed" / HIPPOCAMPUS.name / "cases"
    address, workers = start_cluster("--no-nanny")
    command = start("plan_and_preprocess", "-d", 4, "--dask", address, "--data", tmp_path)
    wait_until(lambda: len(case_names(cases)) > 5, "no case is made")
    workers[0].send_signal(signal.SIGKILL)
    workers[0].wait()
    assert len(case_names(cases)) < len(names) - 10
    _, text = command.communicate()
    assert command.returncode == 0, text
    assert f"{len(names)} cases, on the cluster {address}" in text
    by_cluster = stored(cases)
    assert sorted(by_cluster) == sorted(names)
    assert workers[1].poll() is None

    shutil.rmtree(cases)
    alone = start("preprocess", "-d", 4, "-np", 1, "--data", tmp_path)
    _, text = alone.communicate()
    assert alone.returncode == 0, text
    assert stored(cases) == by_cluster


def test_a_case_that_kills_its_workers_is_named_and_the_others_finish(tmp_path: Path, start_cluster: StartCluster):
    names = fill(tmp_path, num_cases=8, num_copies=1)
    poison = tmp_path / "poison.py"
    poison.write_text(POISON)
    address, _ = start_cluster("--nanny", "--preload", poison)
    command = start("plan_and_preprocess", "-d", 4, "--dask", address, "--data", tmp_path)
    _, text = command.communicate()
    assert command.returncode == 1, text
    failed = [line for line in text.splitlines() if line.startswith("failed: ")]
    assert [line.startswith(f"failed: {POISONOUS}: KilledWorker: ") for line in failed] == [True], text
    made = case_names(tmp_path / "preprocessed" / HIPPOCAMPUS.name / "cases")
    assert made == [name for name in names if name != POISONOUS]


def test_a_cluster_without_workers_is_told_before_any_work(tmp_path: Path, start_cluster: StartCluster):
    fill(tmp_path, num_cases=1, num_copies=1)
    address, workers = start_cluster("--no-nanny")
    for worker in workers:
        worker.terminate()
        worker.wait()
    command = start("check", "-d", 4, "--dask", address, "--data", tmp_path)
    _, text = command.communicate()
    assert command.returncode == 2
    assert f"--dask {address}: has no workers; start some with `dask worker {address}`" in text
    assert not (tmp_path / "preprocessed").exists()


def test_cases_are_predicted_by_a_cluster_as_by_one_process(tmp_path: Path, start_cluster: StartCluster):
    """A broken image stops no other, and is named."""
    model = write_model(tmp_path / "model", 0, plan_of(CLASSES))
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted((HIPPOCAMPUS / "imagesTs").iterdir())[:3]:
        shutil.copy(path, images)
    (images / "broken_0000.nii.gz").write_bytes(b"no image")
    address, _ = start_cluster("--no-nanny")
    for name, more in (("cluster", ("--dask", address)), ("alone", ())):
        options = ("-i", images, "-o", tmp_path / name, "-m", model, "-device", "cpu", "--overlap", 0, *more)
        command = start("predict", *options)
        _, text = command.communicate()
        assert command.returncode == 1, text
        assert "failed: " in text and "broken_0000.nii.gz" in text and "3 label maps written, 1 failed" in text
        assert (f"on the cluster {address}" in text) == (name == "cluster")
    files = sorted(path.name for path in (tmp_path / "alone").glob("*.nii.gz"))
    assert len(files) == 3
    for file in (*files, "quality.csv"):
        assert (tmp_path / "cluster" / file).read_bytes() == (tmp_path / "alone" / file).read_bytes()


def test_cases_are_scored_by_a_cluster_as_by_one_process(tmp_path: Path, start_cluster: StartCluster):
    references = HIPPOCAMPUS / "labelsTs"
    address, _ = start_cluster("--no-nanny")
    found = []
    for name, workers in (("cluster", ("--dask", address)), ("alone", ("-np", 1))):
        output = tmp_path / name
        command = start("evaluate", "-p", references, "-r", references, "-o", output, *workers)
        _, text = command.communicate()
        assert command.returncode == 0, text
        assert (f"10 cases, on the cluster {address}" in text) == (name == "cluster")
        found.append((output / "scores.json").read_bytes())
    assert found[0] == found[1]
