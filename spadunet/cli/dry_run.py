"""What a command prints with `--dry-run`: tables of files, and what the work needs beside what there is."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..files import nearest_existing
from ..measure import Amount, Needs
from ..memory import available_bytes
from ..workers import num_cores

if TYPE_CHECKING:
    from ..dataset import RawCase
    from ..preprocessing.estimate import HeaderCase

MAX_ROWS = 12
"""A longer table is shortened, which it says."""
KB = 1000
UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")
TIMES = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


def begin(command: str) -> None:
    """First line of every dry run."""
    print(f"{command} --dry-run: nothing is written")


def show(title: str, lines: Iterable[str]) -> None:
    """A title and lines below it."""
    print("\n".join([title, *(f"  {line}" for line in lines)]))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], what: str, *, max_rows: int = MAX_ROWS) -> list[str]:
    """Aligned columns; after `max_rows` rows, a line that says how many more there are.

    Args:
        what: the rows are, in the plural.
    """
    shown = [tuple(header), *map(tuple, rows[:max_rows])]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]
    if len(rows) > max_rows:
        lines.append(f"… and {len(rows) - max_rows} more {what}, {len(rows)} in all")
    return lines


def read_headers(cases: Sequence[RawCase], num_channels: int | None) -> tuple[dict[str, HeaderCase], list[str]]:
    """Headers by case name, without zip files, and what they show to be wrong."""
    from ..preprocessing.estimate import read_case_headers

    found, problems = {}, []
    for case in cases:
        try:
            header = read_case_headers(case, num_channels)
        except InputError as error:
            problems.append(str(error))
            continue
        if header is not None:
            found[case.name] = header
    return found, problems


def pairing_table(
    cases: Sequence[RawCase],
    headers: dict[str, HeaderCase],
    columns: Sequence[str],
    folder: Path,
    *,
    label: str | None = "labels",
) -> list[str]:
    """Case, image file of each channel, label map, and what the headers say.

    Args:
        columns: names of the channels; a single file may hold all of them.
        folder: files are named from there.
        label: heads the column of label maps; None leaves it out.
    """
    num_files = max(len(case.image_paths) for case in cases)
    images = list(columns) if num_files == len(columns) else ["+".join(columns), *[""] * (num_files - 1)]
    header = ["case", *images, *([label] if label else []), "voxels", "spacing (mm)", "type"]
    rows = []
    for case in cases:
        files = [name_of(path, folder) for path in case.image_paths]
        files += [""] * (num_files - len(files))
        if label:
            files.append(name_of(case.label_path, folder))
        rows.append([case.name, *files, *facts_of(headers.get(case.name))])
    return table(header, rows, "cases")


def name_of(path: Path | None, folder: Path) -> str:
    """A file's path below a folder; a dash where there is no file."""
    if path is None:
        return "–"
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def facts_of(found: HeaderCase | None) -> list[str]:
    """Shape, spacing and voxel type in storage order."""
    from ..image import format_spacing, spacing_of

    if found is None:
        return ["unknown", "", ""]
    shape, spacing_mm = found.image.shape, spacing_of(found.image.affine)
    return ["×".join(map(str, shape)), format_spacing(spacing_mm), str(found.image.voxel_type)]


def bytes_of(paths: Iterable[Path]) -> int:
    """Of files, and of all files in folders."""
    files = (inner for path in paths for inner in (path.rglob("*") if path.is_dir() else (path,)))
    return sum(file.stat().st_size for file in files if file.is_file())


def state_of(path: Path, if_there: str = "replaced") -> str:
    """A line about a file that would be written."""
    return f"{path.name}: {if_there if path.exists() else 'new'}"


def show_needs(needs: Needs, folder: Path) -> None:
    """Time, memory and disk with where each number comes from, and a warning where there is not enough.

    Args:
        folder: that would be written into.
    """
    available = available_bytes()
    free = shutil.disk_usage(nearest_existing(folder)).free
    lines = [
        line("time", needs.time, time_text),
        line("memory", needs.memory, size_text, available, "available"),
        line("disk", needs.disk, size_text, free, "free"),
    ]
    if needs.device_memory is not None:
        lines.insert(2, line("GPU", needs.device_memory, size_text))
    show("estimate", lines)
    too_much = [
        f"WARNING: {name}: about {size_text(amount.value)} needed, {size_text(there)} there; {remedy}"
        for name, amount, there, remedy in (
            ("memory", needs.memory, available, "close other programs, or give fewer processes or smaller work"),
            ("disk", needs.disk, free, f"free some space at {folder}, or choose another folder"),
        )
        if amount.value is not None and there is not None and amount.value > there
    ]
    for warning in too_much:
        print(warning)


def line(
    name: str, amount: Amount, text: Callable[[float], str], there: int | None = None, what_there: str = ""
) -> str:
    """One estimate."""
    value = "unknown" if amount.value is None else f"about {text(amount.value)}"
    beside = "" if there is None else f" ({text(there)} {what_there})"
    return f"{name:7} {value}{beside}: {amount.basis}"


def time_text(seconds: float) -> str:
    """Two digits in the largest unit that fits."""
    unit, name = next(((unit, name) for unit, name in TIMES if seconds >= 1.5 * unit), TIMES[-1])
    return f"{two_digits(seconds / unit)} {name}"


def size_text(num_bytes: float) -> str:
    """Two digits in decimal units, as disks are sold."""
    power = 0
    while num_bytes >= 0.995 * KB ** (power + 1) and power < len(UNITS) - 1:
        power += 1
    return f"{two_digits(num_bytes / KB**power)} {UNITS[power]}"


def two_digits(value: float) -> str:
    """1.7, 17, 170."""
    return f"{float(f'{value:.2g}'):g}"


def finish(problems: Sequence[str]) -> int:
    """End a dry run.

    Raises:
        InputError: with what the headers show to be wrong, a line each.
    """
    if problems:
        raise InputError("\n".join(problems))
    return 0


def unknown(reason: str) -> Needs:
    """Where nothing can be said."""
    amount = Amount(value=None, basis=reason)
    return Needs(time=amount, memory=amount, disk=amount)


def at_once(num_processes: int) -> str:
    """How many cases are worked on side by side."""
    return f"{num_processes} case{'s' if num_processes > 1 else ''} at once"


def num_working(options: argparse.Namespace, num_items: int) -> int:
    """Processes that would work at once."""

    from .options import MAX_PROCESSES

    return max(1, min(options.num_processes or min(num_cores(), MAX_PROCESSES), num_items))
