"""Which cases train and which validate."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from ..dataset import Dataset
from ..errors import InputError
from ..files import write_text
from ..record import Record, first_problem

NUM_FOLDS = 5
SPLIT_SEED = 12345  # nnU-Net's number; its folds are drawn in another way and hold other cases
SPLITS_JSON = "splits_final.json"
ROUNDING = 1e-9
"""0.29 of 100 patients is 28.999999999999996 in floating point."""

log = logging.getLogger("spadunet")


class Split(Record):
    """Names of a fold's cases; other keys are the user's own."""

    model_config = ConfigDict(extra="ignore")

    train: list[str]
    val: list[str]


SPLITS = TypeAdapter(list[Split])


def make_splits(dataset: Dataset) -> list[dict[str, list[str]]]:
    """Five folds that keep all cases of a patient together, in nnU-Net's layout: [{"train": […], "val": […]}, …].

    Fewer patients than folds give fewer folds; a single patient gives none.
    """
    patients = sorted({dataset.patients[case.name] for case in dataset.cases})
    order = np.random.default_rng(SPLIT_SEED).permutation(len(patients))
    fold_of = {patients[patient]: position % NUM_FOLDS for position, patient in enumerate(order)}
    splits = []
    for fold in range(min(NUM_FOLDS, len(patients)) if len(patients) > 1 else 0):
        is_val = {case.name: fold_of[dataset.patients[case.name]] == fold for case in dataset.cases}
        splits.append(
            {
                "train": [name for name, held_out in is_val.items() if not held_out],
                "val": [name for name, held_out in is_val.items() if held_out],
            }
        )
    return splits


def choose_fraction(dataset: Dataset, names: Sequence[str], fraction: float, seed: int) -> list[str]:
    """Those cases that belong to a random share of their patients, rounded down, but at least one; in the same order.

    With one seed a larger fraction holds every smaller one.

    Args:
        names: of cases of the dataset.
        fraction: above 0, up to 1.
    """
    patients = sorted({dataset.patients[name] for name in names})
    order = np.random.default_rng(seed).permutation(len(patients))
    num_chosen = max(1, int(fraction * len(patients) + ROUNDING))
    chosen = {patients[index] for index in order[:num_chosen]}
    kept = [name for name in names if dataset.patients[name] in chosen]
    log.info(
        "%s: --fraction %g of %d training patients: %d, with %d of %d cases",
        dataset.name,
        fraction,
        len(patients),
        len(chosen),
        len(kept),
        len(names),
    )
    return kept


def choose_cases(dataset: Dataset, folder: Path, fold: str, *, dry_run: bool = False) -> tuple[list[str], list[str]]:
    """Training and validation cases of a fold; `all` trains on everything and validates on nothing.

    splits_final.json is written if it is not there (not in a dry run), and read unchanged if it is.

    Raises:
        InputError: if the file is broken, names unknown cases, or has no such fold.
    """
    names = [case.name for case in dataset.cases]
    if fold == "all":
        return names, []
    path = folder / SPLITS_JSON
    text = json.dumps(make_splits(dataset), indent=1) + "\n"
    if not path.is_file():
        log.info("%s: %d cases of %d patients", dataset.name, len(names), len({dataset.patients[it] for it in names}))
        if not dry_run:
            write_text(path, text)
    try:
        splits = SPLITS.validate_json(path.read_bytes() if path.is_file() else text)
    except (OSError, ValidationError) as error:
        reason = first_problem(error) if isinstance(error, ValidationError) else error
        raise InputError(
            f'{path}: expected a list of {{"train": […], "val": […]}} ({reason}); correct or delete it'
        ) from error
    pairs = [(split.train, split.val) for split in splits]
    if not pairs:
        raise InputError(f"-f {fold}: {path} has no folds, since a single patient cannot be split; give -f all")
    if int(fold) >= len(pairs):
        raise InputError(f"-f {fold}: {path} has folds 0 to {len(pairs) - 1}; give one of them or all")
    train, val = pairs[int(fold)]
    unknown = sorted(set(train + val) - set(names))
    if unknown:
        raise InputError(
            f"{path}: fold {fold} names cases that the dataset has not: {unknown[:3]}; correct or delete it"
        )
    both = sorted(set(train) & set(val))
    if both:
        raise InputError(f"{path}: fold {fold} lists cases in both train and val: {both[:3]}; correct or delete it")
    forgotten = sorted(set(names).difference(*(set(train + val) for train, val in pairs)))
    if forgotten:
        log.warning(
            "%s: %d cases are in no fold and not used (%s …): add them or delete the file, and train every fold anew",
            path,
            len(forgotten),
            forgotten[0],
        )
    shared = {dataset.patients[name] for name in train} & {dataset.patients[name] for name in val}
    if shared:
        log.warning(
            "%s: fold %s has images of %s in both train and val: correct or delete the file, and train every fold anew",
            path,
            fold,
            ", ".join(sorted(shared)[:3]),
        )
    if not train:
        raise InputError(f"{path}: fold {fold} has no training case; correct or delete it")
    return train, val
