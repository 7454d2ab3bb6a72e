"""Damaged files are refused in a line that names them, or read as what they say; nothing crashes, hangs or moves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NUM_WORKERS = 2


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound files of every format."""
    folder = tmp_path_factory.mktemp("sources")
    code = "import sys, pathlib, sources; sources.write_all(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, env=environment(), capture_output=True)
    return folder


def environment() -> dict[str, str]:
    """Of a process that finds the modules beside this one and those of all tests."""
    paths = [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def read_mutants(sources: Path, folder: Path, seed: int, number: int) -> tuple[Counter[str], list[str]]:
    """How many damaged files were taken in which way, and all that were taken wrongly."""
    workers = []
    for first in range(NUM_WORKERS):
        words = [sources, folder / str(first), folder / f"{first}.jsonl", seed, first, number, NUM_WORKERS]
        words[1].mkdir(parents=True)
        command = [sys.executable, HERE / "worker.py", *map(str, words)]
        workers.append(subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    ends = [worker.communicate()[0] for worker in workers]
    mutants: dict[int, list[str]] = {}
    verdicts: dict[int, str] = {}
    for first in range(NUM_WORKERS):
        for line in (folder / f"{first}.jsonl").read_text().splitlines():
            key, *said = json.loads(line)
            if key in mutants:
                verdicts[key] = said[0]
            else:
                mutants[key] = said
    wrong = [f"{key} {mutants[key]}: {said}" for key, said in verdicts.items() if said.startswith("WRONG")]
    wrong += [
        f"{key} {mutants[key]}: the process died or hung: {ends[key % NUM_WORKERS][-2000:]!r}"
        for key in mutants.keys() - verdicts.keys()
    ]
    wrong += [f"a worker ended with {worker.returncode}" for worker in workers if worker.returncode]
    return Counter(verdicts.values()), wrong


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "number"), [(0, 100), (1, 700)])
def test_damaged_files_are_refused_in_a_line_or_read_as_what_they_say(
    sources: Path, tmp_path: Path, seed: int, number: int
):
    counts, wrong = read_mutants(sources, tmp_path, seed, number)
    assert not wrong, "\n".join(wrong)
    assert sum(counts.values()) == number
    assert counts["refused"] > number / 3
    assert counts["same place"] > number / 20
    assert counts["as another reader has it"] > 0
