"""Rows of a benchmark that takes hours: a JSON line a run, never made twice, in a folder of one setting; and tables."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from spadunet.dataset import load_dataset
from spadunet.files import write_text
from spadunet.model import BACKBONE_FILE, read_model_record
from spadunet.network.device import choose_device
from spadunet.scores import Scores

Run = TypeVar("Run")

METRICS = {"dice": "Dice", "assd_mm": "ASSD mm", "hd_mm": "HD mm"}
SCORING = ("--metrics", *METRICS, "--missing", "zero")
"""Distances of missed classes are left out, as in the rows made so far."""
ROWS, SETTINGS = "rows.jsonl", "settings.json"
NOT_SETTINGS = (
    "output",
    "ratios",
    "seeds",
    "files",
    "raw",
    "name",
    "at_once",
    "num_workers",
    "keep",
    "report",
    "corpus",
)
"""Options that do not change what a run gives."""
WRITING = threading.Lock()


def settings_of(options: argparse.Namespace) -> dict[str, str]:
    """Options that decide what a run gives, in words."""
    settings = {name: str(value) for name, value in sorted(vars(options).items()) if name not in NOT_SETTINGS}
    settings["device"] = str(choose_device(options.device))
    if options.init is not None:
        settings["init"] = digest_of_weights(options.init)
    return settings


def keep_settings(options: argparse.Namespace) -> dict[str, str]:
    """Write settings.json; end if the folder has others.

    Whatever lies in the folder, rows, models and a backbone half pre-trained, was made with what is written there.
    """
    path, settings = options.output / SETTINGS, settings_of(options)
    if path.is_file():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        for name, value in settings.items():
            if earlier.get(name) != value:
                raise SystemExit(f"{path}: has {name} {earlier.get(name)}, not {value}; name another folder with -o")
    write_text(path, json.dumps(settings, indent=1) + "\n")
    return settings


def digest_of_weights(folder: Path) -> str:
    """SHA-256 of a pre-trained backbone."""
    return read_model_record(folder).sha256[BACKBONE_FILE]


def totals_of(scores: Scores) -> dict[str, float | None]:
    """What a row says of all cases and classes together."""
    classes = scores.summary().values()
    counts = {count: sum(getattr(each, count) for each in classes) for count in ("num_missed", "num_false_alarms")}
    return {metric: scores.mean(metric) for metric in METRICS} | counts


def add_row(path: Path, *rows: Any) -> None:
    """Append a line for each dataclass, all of them at once, one thread at a time."""
    with WRITING, path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(asdict(row)) + "\n" for row in rows))


def command(name: str, *arguments: str, log: Path, may_fail: Callable[[], bool] = lambda: False) -> None:
    """Run one of our commands as a process of its own; what it says goes to a file, shown where it fails.

    Args:
        may_fail: whether what matters was made nevertheless.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    code = f"from spadunet.cli.{name} import main; main()"
    with log.open("a", encoding="utf-8") as file:
        status = subprocess.call([sys.executable, "-c", code, *arguments], stdout=file, stderr=file)
    if status and not may_fail():
        lines = log.read_text(encoding="utf-8").splitlines()[-10:]
        raise SystemExit("\n".join([*lines, f"spadunet_{name} {' '.join(arguments)}: exit code {status}"]))


def run_at_once(make: Callable[[Run], None], runs: Sequence[Run], at_once: int) -> None:
    """Make runs, several at the same time, each with its share of the cores; of what is stopped, those in hand end."""
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // at_once))
    pool = ThreadPoolExecutor(at_once)
    futures = [pool.submit(make, run) for run in runs]
    try:
        for future in tqdm(as_completed(futures), total=len(futures), desc="Runs", unit="run"):
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def read_lines(path: Path) -> list[dict]:
    """What the lines of a file of rows hold; a last line that was cut off is none, and goes."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    whole, _, rest = text.rpartition("\n")
    if rest:
        write_text(path, whole + "\n" if whole else "")
    return [json.loads(line) for line in whole.splitlines()]


def aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns, to the right."""
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]


def spread(values: Sequence[float], sign: str = "") -> str:
    """Mean ± standard deviation, which one value has not; a dash for none."""
    if not values:
        return "-"
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{sign}.3f}{deviation}"


def mean_of(values: Sequence[float | None]) -> str:
    """As `spread`, of those that are defined."""
    return spread([value for value in values if value is not None])


def link_raw(raw: Path, data: Path) -> Path:
    """A raw dataset's place in a workspace of the benchmark's own, linked there."""
    link = data / "raw" / load_dataset(raw).name
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(raw.resolve())
    return link
