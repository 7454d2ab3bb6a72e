"""`spadunet_train --task classification --learning-rate search`: a run for each rate, the best wins."""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .classification_options import SEARCH
from .classification_run import Place, files_of_run, prepare, train_one
from .earlier_run import clear_earlier_run, request_of
from .run import write_manifest
from .train_place import MANIFEST

if TYPE_CHECKING:
    import torch

    from ..classification.search import Trial
    from ..classification.sources import Source

log = logging.getLogger("spadunet")


def search_rates(
    options: argparse.Namespace, source: Source, place: Place, device: torch.device, *, started: float
) -> int:
    """A run for each learning rate, then the best one's model; an interrupted search goes on. The exit code."""
    from ..classification import search as rates
    from ..training.steps import DivergedError
    from .dry_run import table

    folder = place.folder
    if source.held_out is None:
        raise InputError(f"--learning-rate {SEARCH}: {source.name} has no validation studies to compare rates by")
    if options.restart and not options.dry_run:
        clear_earlier_run(folder, files_of_run(), None, restart=True)
        rates.drop_search(folder)
    trials = []
    for rate in rates.RATES:
        of_rate = argparse.Namespace(**{**vars(options), "learning_rate": rate, "restart": False, "c": False})
        place_of_rate = replace(
            place, folder=rates.folder_of_rate(folder, rate), model_folder=rates.folder_of_rate(folder, rate)
        )
        if options.dry_run:
            span = f"from {rates.RATES[0]:g} to {rates.RATES[-1]:g}"
            print(f"{len(rates.RATES)} runs like this one, with learning rates {span}")
            return train_one(of_rate, source, place_of_rate, device, started=started, is_locked=False)
        try:
            trials.append(try_rate(of_rate, source, place_of_rate, device))
        except DivergedError as error:
            log.warning("learning rate %g: %s", rate, error)
            trials.append(rates.Trial(rate=rate, folder=place_of_rate.folder))
        rates.write_trials(folder, trials)
    best = rates.choose_trial(trials)
    rows = [[cell or "-" for cell in row] for row in rates.rows_of(trials)]
    log.info("\n".join(table([name.replace("_", " ") for name in rates.COLUMNS], rows, "rates")))
    rates.keep_best(folder, best, trials, source.name)
    log.info("model of learning rate %g: %s", best.rate, folder)
    write_manifest(folder / MANIFEST, "spadunet_train", options, started=started, device=str(device), files=[folder])
    rates.drop_models(trials)
    return 0


def require_same_kind(folder: Path, rate: float | str | None) -> None:
    """Refuse to search where a run with one learning rate or a finished search lies, and the other way round.

    Raises:
        InputError: names both.
    """
    if rate == SEARCH:
        require_no_other(folder)
    else:
        require_no_search(folder, rate)


def require_no_other(folder: Path) -> None:
    """Refuse to search where a search is done, or a run with one learning rate lies.

    Raises:
        InputError: names its rate.
    """
    from ..model import MODEL_JSON, read_model_record
    from ..training.runs import is_search

    earlier = request_of(folder)
    if not earlier and (folder / MODEL_JSON).is_file() and not is_search(folder):
        earlier = {"learning_rate": "unknown"} | read_model_record(folder).provenance
    if earlier:
        raise InputError(
            f"{folder}: an earlier run had learning_rate {earlier.get('learning_rate')}, not {SEARCH}; "
            "give the same options to go on, --restart to start anew, or another folder with -o"
        )
    if (folder / MANIFEST).is_file() and (folder / MODEL_JSON).is_file():
        raise InputError(f"{folder}: trained already; --restart to start anew, or -o for another")


def require_no_search(folder: Path, rate: float | str | None) -> None:
    """Refuse to train with one learning rate where a search for one lies.

    Args:
        rate: as typed, None for the usual.

    Raises:
        InputError: names both.
    """
    from ..training.runs import is_search

    if is_search(folder):
        asked = "the usual one" if rate is None else f"{rate:g}"
        raise InputError(
            f"{folder}: an earlier run had learning_rate {SEARCH}, not {asked}; give --learning-rate {SEARCH} to go "
            "on, --restart to start anew, or another folder with -o"
        )


def try_rate(options: argparse.Namespace, source: Source, place: Place, device: torch.device) -> Trial:
    """The run of one rate, done now or before; of a finished one only the model is kept."""
    from ..classification.search import read_trial, require_same
    from ..model import MODEL_JSON, read_model_record
    from ..training.state import checkpoint_path
    from ..training.status import hold

    folder, rate = place.folder, options.learning_rate
    if (folder / MANIFEST).is_file() and (folder / MODEL_JSON).is_file():
        told = read_model_record(folder).provenance
        require_same(folder, told, prepare(options, source, place, device, told).request)
        log.info("learning rate %g: done before", rate)
        return read_trial(rate, folder)
    log.info("learning rate %g", rate)
    with hold(folder) as is_locked:
        train_one(options, source, place, device, started=time.time(), is_locked=is_locked)
    checkpoint_path(folder).unlink(missing_ok=True)
    return read_trial(rate, folder)
