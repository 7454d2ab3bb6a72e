"""spadunet_index: any folders of images to a corpus for pre-training."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .index_options import COMMAND, add_choices, check_datasets, read_choices, require_images
from .options import add_worker_options, find_workers
from .run import (
    add_data_option,
    add_dry_run_option,
    log_to_file,
    make_parser,
    run_command,
    write_manifest,
)
from .stages import GOES_ON

if TYPE_CHECKING:
    from ..pretraining.index import Choices, Indexed
    from ..workspace import Workspace

log = logging.getLogger("spadunet")

EXAMPLES = """\
  spadunet_index ~/scans ~/radiographs spadunet_data/raw -n mine
  spadunet_index ~/scans -n mine --modality CT --weight scans=0.5 --exclude '*localizer*'
  spadunet_index --manifest paper /archive
  spadunet_index --show mine
"""
WORK_MODULE = "spadunet.pretraining.make"
SEVERAL = "corpus"
"""Name of a corpus of several folders, unless the user gives one."""
MAX_REASONS = 20
"""Lines of images that cannot be used; the index has all."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser(
        "Collect unlabelled images of every kind for pre-training, of any folders; of raw datasets, training images.\n"
        "Each is turned, cropped, scaled to [-1, 1] and stored; the same command goes on after an interruption, and\n"
        "makes again only what has changed.",
        EXAMPLES,
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="each is a dataset of its own name")
    parser.add_argument("-n", "--name", help=f"of the corpus (default: its folder's; of several, '{SEVERAL}')")
    parser.add_argument(
        "--manifest",
        metavar="FILE",
        help="a JSON file of datasets with modalities and weights, found by name below FOLDER; 'paper' is that of the "
        "paper's 55 datasets",
    )
    add_choices(parser)
    parser.add_argument("--show", metavar="NAME", help="show what is in a corpus, and do nothing else")
    add_worker_options(parser)
    add_data_option(parser)
    add_dry_run_option(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options), if_stopped=GOES_ON)


def execute(options: argparse.Namespace) -> int:
    """Find, store, weigh, show."""
    from ..workspace import find_workspace

    workspace = find_workspace(options.data)
    if options.show is not None:
        return show_corpus(options, workspace)
    choices, folders = read_choices(options)
    name = options.name or ("paper" if options.manifest == "paper" else None)
    name = name or (options.folders[0].resolve().name if len(options.folders) == 1 else SEVERAL)
    if Path(name).name != name or name.startswith("."):
        raise InputError(f"-n {name}: is no name of a folder; use letters, digits, '-' and '_'")
    folder = workspace.corpora / name
    if options.dry_run:
        from .dry_index import show_index

        return show_index(folders, folder, choices, options)
    return index(name, folder, folders, choices, options)


def index(
    name: str, folder: Path, folders: list[tuple[str, Path]], choices: Choices, options: argparse.Namespace
) -> int:
    """Make the corpus; 1 if some image could not be used."""
    from ..files import require_writable
    from ..pretraining.corpus import CORPUS_JSON, IMAGES_FOLDER, Corpus
    from ..pretraining.index import find_sources, index_images
    from ..pretraining.make import JOURNAL
    from ..pretraining.summary import draw_sheet
    from ..workers import start_early

    started = time.time()
    workers = find_workers(options)
    require_writable(folder)
    log_to_file(folder / f"{COMMAND}.log")
    start_early(workers, WORK_MODULE)
    sources, skipped, found = find_sources(folders, choices, workers)
    for what, number in sorted(found.passed_over.items()):
        log.info("passed over: %d files %s", number, what)
    require_images(sources, skipped, folders)
    check_datasets(options, {source.dataset for source in sources})
    done = index_images(name, folder, sources, choices, skipped=skipped, workers=workers)
    if done is None:
        raise InputError(f"no image of {', '.join(str(path) for _, path in folders)} can be used; see above")
    tell(done, choices)
    sheet = draw_sheet(Corpus(folder=folder, index=done.index))
    files = [folder / CORPUS_JSON, folder / JOURNAL, folder / IMAGES_FOLDER, sheet]
    write_manifest(folder / f"{COMMAND}.json", COMMAND, options, started=started, device="cpu", files=files)
    log.info("%s: %d sources made, %d kept; %s shows some", folder, done.num_made, done.num_kept, sheet.name)
    return 1 if done.index.skipped else 0


def tell(done: Indexed, choices: Choices) -> None:
    """Say what is in the corpus, and what is not."""
    from ..pretraining.summary import compare, rows_of
    from .dry_run import table

    for what, number in sorted(done.left_out.items()):
        log.info("left out: %d images %s", number, what)
    for problem in done.index.skipped[:MAX_REASONS]:
        log.warning("skipped: %s", problem.reason)
    if len(done.index.skipped) > MAX_REASONS:
        log.warning("… and %d more; corpus.json has all", len(done.index.skipped) - MAX_REASONS)
    header, *rows = rows_of(done.index)
    log.info("\n".join(table(header, rows, "rows", max_rows=len(rows))))
    alone = [f"{row[0]} {row[1]}" for row in rows[:-1] if row[2] == "1"]
    if alone:
        log.info("none held out, since there is one image only: %s", ", ".join(alone))
    unknown = sum(image.modality == "unknown" for image in done.index.images)
    if unknown:
        log.info("modality unknown of %d images; --modality DATASET=NAME tells it", unknown)
    for line in compare(done.index, choices.datasets):
        log.info(line)
    if done.index.skipped:
        log.warning("%d images skipped", len(done.index.skipped))


def show_corpus(options: argparse.Namespace, workspace: Workspace) -> int:
    """Print the table of a corpus."""
    from ..pretraining.corpus import find_corpus, load_corpus
    from ..pretraining.summary import rows_of
    from .dry_run import show, table

    folder = find_corpus(options.show, workspace.corpora)
    corpus = load_corpus(folder)
    header, *rows = rows_of(corpus.index)
    show(f"{folder}: {len(corpus.index.skipped)} images skipped", table(header, rows, "rows", max_rows=len(rows)))
    return 0
