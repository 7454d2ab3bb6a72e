"""The options of spadunet_index: which images, of which datasets, how often each is drawn.

Heavy imports stay inside the functions, so that `--help` is instant.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .options import non_negative_int, positive_float, positive_int

if TYPE_CHECKING:
    from ..pretraining.index import Choices
    from ..pretraining.manifest import Located

log = logging.getLogger("spadunet")

COMMAND = "spadunet_index"


def add_choices(parser: argparse.ArgumentParser) -> None:
    """What of the images is taken, and how often each is drawn."""
    parser.add_argument(
        "--modality",
        action="append",
        default=[],
        metavar="[DATASET=]NAME",
        help="what the images of a dataset, or all, show (e.g. CT, MRI/T1, gray/XR); else names and DICOM tags tell",
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
