"""spadunet_index: any folders of images to a corpus for pre-training."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .options import add_worker_options, find_workers, non_negative_int, positive_float, positive_int
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
    from ..pretraining.manifest import Located
    from ..workspace import Workspace

log = logging.getLogger("spadunet")

EXAMPLES = """\
  spadunet_index ~/scans ~/radiographs spadunet_data/raw -n mine
  spadunet_index ~/scans -n mine --modality CT --weight scans=0.5 --exclude '*localizer*'
  spadunet_index --manifest paper /archive
  spadunet_index --show mine
"""
COMMAND, WORK_MODULE = "spadunet_index", "spadunet.pretraining.make"
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


def add_choices(parser: argparse.ArgumentParser) -> None:
    """What of the images is taken, and how often each is drawn."""
    parser.add_argument(
        "--modality",
        action="append",
        default=[],
        metavar="[DATASET=]NAME",
        help="what the images of a dataset, or all, show (e.g. CT, MRI/T1, gray/XR); else names of channels and files and "
        "DICOM tags tell",
    )
    parser.add_argument(
        "--weight",
        action="append",
        default=[],
        metavar="DATASET=W",
        help="how often an image of a dataset is drawn, relative to others (default: 1, or what the manifest says)",
    )
    for flag, what in (("--include", "take only"), ("--exclude", "leave out")):
        parser.add_argument(
            flag, nargs="+", default=[], metavar="PATTERN", help=f"{what} files whose path in FOLDER is like this"
        )
    parser.add_argument(
        "--min-side",
        type=positive_int,
        default=16,
        metavar="PIXELS",
        help="leave out images whose shorter in-plane side is smaller once cropped (default: 16)",
    )
    parser.add_argument(
        "--max-da",
        type=non_negative_int,
        metavar="DA",
        help="leave out images of a higher degree of anisotropy (2D: 6)",
    )
    parser.add_argument("--seed", type=non_negative_int, default=0, help="of the images that are held out (default: 0)")


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


def require_images(sources: Sequence[object], skipped: Sequence[object], folders: list[tuple[str, Path]]) -> None:
    """Refuse folders without any image.

    Raises:
        InputError: if there is none.
    """
    from ..formats import IMAGE_ENDINGS

    if not sources and not skipped:
        where = ", ".join(str(path) for _, path in folders)
        raise InputError(
            f"{where}: holds no images; expected DICOM files or {', '.join(IMAGE_ENDINGS)}, at any depth "
            "(--include and --exclude, test and label folders leave files out)"
        )


def read_choices(options: argparse.Namespace) -> tuple[Choices, list[tuple[str, Path]]]:
    """What the options and a manifest say: how images are chosen, and the folders with their datasets' names.

    Raises:
        InputError: if an option is wrong or a manifest cannot be used.
    """
    from ..pretraining.index import Choices
    from ..pretraining.manifest import locate, read_manifest
    from ..pretraining.modality import check_modality
    from ..pretraining.sources import Filters

    modality, modalities = None, {}
    for text in options.modality:
        dataset, _, value = text.rpartition("=")
        if dataset:
            modalities[dataset] = check_modality(value)
        else:
            modality = check_modality(value)
    weights = {}
    for text in options.weight:
        dataset, _, value = text.rpartition("=")
        try:
            weights[dataset] = positive_float(value)
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise InputError(f"--weight {text}: expected DATASET=W with a number above zero") from error
        if not dataset:
            raise InputError(f"--weight {text}: expected DATASET=W, e.g. {text or 'scans'}=0.5")
    located = None
    if options.manifest is not None:
        if len(options.folders) != 1:
            raise InputError(
                f"--manifest {options.manifest}: expected one FOLDER, below which its datasets lie, not "
                f"{len(options.folders)}"
            )
        located = locate(read_manifest(options.manifest), options.folders[0])
        tell_missing(located)
        folders = [(dataset.name, path) for dataset, path in located.folders]
    else:
        folders = named(options.folders)
    if not folders:
        raise InputError(
            "no FOLDER is given" if not options.folders else f"{options.folders[0]}: holds no dataset of the manifest"
        )
    choices = Choices(
        filters=Filters(include=tuple(options.include), exclude=tuple(options.exclude)),
        min_side=options.min_side,
        max_da=options.max_da,
        modality=modality,
        modalities=modalities,
        weights=weights,
        datasets=tuple(dataset for dataset, _ in located.folders) if located else (),
        seed=options.seed,
    )
    return choices, folders


def named(folders: Sequence[Path]) -> list[tuple[str, Path]]:
    """Each folder with its own name.

    Raises:
        InputError: if two have the same.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        real = folder.resolve()
        if found.setdefault(real.name, real) != real:
            raise InputError(
                f"{found[real.name]} and {real}: two datasets would be called {real.name}; rename one folder, or name "
                "them in a manifest"
            )
    return list(found.items())


def check_datasets(options: argparse.Namespace, there: set[str]) -> None:
    """Refuse `--weight` and `--modality` of a dataset that is not there.

    Raises:
        InputError: names it, and those that are.
    """
    for flag, texts in (("--weight", options.weight), ("--modality", options.modality)):
        for text in texts:
            dataset = text.rpartition("=")[0]
            if dataset and dataset not in there:
                raise InputError(f"{flag} {text}: no dataset is called {dataset}; there are {', '.join(sorted(there))}")


def tell_missing(located: Located) -> None:
    """Say which datasets of a manifest are not there."""
    log.info("%d of the manifest's datasets are there", len(located.folders))
    if located.missing:
        log.info("missing: %s", ", ".join(dataset.name for dataset in located.missing))


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
