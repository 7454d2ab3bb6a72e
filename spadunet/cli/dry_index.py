"""The dry run of spadunet_index."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ..errors import InputError, OutputError
from ..measure import Amount, Needs
from .dry_run import at_once, begin, num_working, show, show_needs, size_text, state_of, table, unknown

if TYPE_CHECKING:
    from ..dataset import RawCase
    from ..preprocessing.estimate import HeaderCase
    from ..pretraining.index import Choices
    from ..pretraining.sources import Source

MAX_HEADERS = 200
"""Of files whose headers are read, spread over all."""


def show_index(folders: Sequence[tuple[str, Path]], folder: Path, choices: Choices, options: argparse.Namespace) -> int:
    """Print what would be read and stored.

    Args:
        folders: name of the dataset, and where it lies.
        folder: of the corpus.

    Raises:
        InputError: if there are no images, or the folder cannot be written.
    """
    from ..files import require_writable
    from ..pretraining.corpus import CORPUS_JSON, IMAGES_FOLDER
    from ..pretraining.index import find_sources
    from ..pretraining.make import JOURNAL, is_kept, read_journal
    from ..pretraining.summary import SHEET_PNG
    from .index import COMMAND, check_datasets, require_images
    from .options import find_workers

    require_writable(folder, dry_run=True)
    begin(COMMAND)
    sources, skipped, found = find_sources(folders, choices, find_workers(options))
    require_images(sources, skipped, list(folders))
    check_datasets(options, {source.dataset for source in sources})
    show("reads", table(("dataset", "files or series", "size"), rows_of(sources), "datasets"))
    show("passes over", [f"{number} files {what}" for what, number in sorted(found.passed_over.items())] or ["nothing"])
    made = read_journal(folder)
    todo = [source for source in sources if not is_kept(source, made.get(source.key), folder)]
    kept = len(sources) - len(todo)
    images = f"{IMAGES_FOLDER}/: those of {len(todo)} sources made" + (f", of {kept} kept" if kept else "")
    files = [state_of(folder / CORPUS_JSON), state_of(folder / JOURNAL, "added to"), images]
    files += [state_of(folder / name) for name in (SHEET_PNG, f"{COMMAND}.json")]
    show(f"writes into {folder}", [*files, state_of(folder / f"{COMMAND}.log", "added to")])
    if skipped:
        show("skips", [problem.reason for problem in skipped])
    show_needs(estimate(todo, options), folder)
    return 0


def rows_of(sources: Sequence[Source]) -> list[list[str]]:
    """Dataset, number of sources and their size."""
    groups: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        groups[source.dataset].append(source)
    return [
        [name, str(len(members)), size_text(sum(file.stat().st_size for source in members for file in source.files))]
        for name, members in sorted(groups.items())
    ]


def estimate(sources: Sequence[Source], options: argparse.Namespace) -> Needs:
    """From a trial on a few files; DICOM series count as the mean of the others."""
    from ..dataset import RawCase
    from ..formats import VOLUME_ENDINGS, ending_of
    from ..preprocessing.estimate import Stage, read_case_headers, samples_of, try_stages

    files = [source for source in sources if ending_of(source.path, VOLUME_ENDINGS)] or [
        source for source in sources if not source.slices and source.series is None
    ]
    chosen = (
        [files[number * len(files) // MAX_HEADERS] for number in range(MAX_HEADERS)]
        if len(files) > MAX_HEADERS
        else files
    )
    found: list[HeaderCase] = []
    for source in chosen:
        try:
            header = read_case_headers(RawCase(name=source.key, image_paths=(source.path,), label_path=None))
        except InputError:
            continue
        found += [header] if header is not None else []
    if not found:
        return unknown("nothing is to be made, or only DICOM series, whose headers are not read for this")
    try:
        with samples_of(found) as samples, TemporaryDirectory(prefix="spadunet-") as scratch:
            output = Path(scratch) / "corpus"
            trial = try_stages({"index": Stage(run=partial(make_case, folder=output))}, samples, output)
    except (InputError, OutputError) as error:
        return unknown(f"the trial failed: {str(error).splitlines()[0]}")
    processes = num_working(options, len(sources))
    work = sorted(header.work(None) for header in found)
    total = sum(work) * len(sources) / len(found)
    basis = f"{trial.basis}, scaled by the voxels that {len(found)} headers announce"
    return Needs(
        time=Amount(value=trial.seconds("index", total, processes), basis=f"{basis}; {at_once(processes)}"),
        memory=Amount(value=trial.memory_bytes("index", work[-processes:]), basis=f"{basis}; {at_once(processes)}"),
        disk=Amount(value=total * trial.rates["index"].disk_bytes_per_voxel, basis=basis),
    )


def make_case(case: RawCase, *, folder: Path) -> None:
    """Store one image.

    Raises:
        InputError: if it cannot be used.
    """
    from ..pretraining.make import make_images
    from ..pretraining.sources import Source

    made = make_images(Source(dataset="trial", path=case.paths[0], key="trial"), folder=folder)
    if not made.images:
        raise InputError(made.skipped[0].reason)
