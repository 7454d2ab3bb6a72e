"""Preprocess a whole dataset: parallel, resumable, each case whole or absent."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..dataset import Dataset, RawCase
from ..errors import InputError
from ..parallel import map_cases
from ..plan import Plan
from ..record import digest_of
from ..workers import THIS_PROCESS, Workers
from .integrity import read_checked
from .memory import memory_to_preprocess, most_memory
from .preprocess import preprocess
from .store import IMAGE_DTYPE, open_case, store_case


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run did."""

    num_made: int
    num_kept: int
    problems: tuple[str, ...]


def preprocess_dataset(
    dataset: Dataset, plan: Plan, folder: Path, *, workers: Workers = THIS_PROCESS, device: str = "cpu"
) -> Summary:
    """Store every training case of a dataset in `folder`; a case that is there already from the same files is kept.

    Args:
        device: where images are resampled: cpu, or what torch calls a GPU.
    """
    make = partial(preprocess_case, plan=plan, folder=folder, device=device)
    made, kept, problems = 0, 0, []
    title = f"Preprocessing {dataset.name}"
    memory_of, most = partial(memory_to_preprocess, plan=plan), partial(most_memory, plan=plan)
    for outcome in map_cases(
        make, dataset.cases, title=title, workers=workers, memory_of=memory_of, most_memory_of=most
    ):
        if outcome.problem:
            problems.append(outcome.problem)
        elif outcome.result:
            made += 1
        else:
            kept += 1
    return Summary(num_made=made, num_kept=kept, problems=tuple(sorted(problems)))


def preprocess_case(case: RawCase, *, plan: Plan, folder: Path, device: str = "cpu") -> bool:
    """Store one case; False if it was there already."""
    made_from = digest_of_case(case, plan)
    with contextlib.suppress(InputError):
        if open_case(folder, case.name).header.made_from == made_from:
            return False
    (folder / f"{case.name}.json").unlink(missing_ok=True)
    image, label_map = read_checked(case, labels=plan.labels, num_channels=len(plan.channel_names))
    made = preprocess(case.name, image, label_map, plan, dtype=IMAGE_DTYPE, device=device)
    store_case(
        folder,
        made,
        made_from=made_from,
        plan_digest=plan.preprocessing_digest(),
        ignore_class=plan.labels.ignore_class,
        annotated=case.annotated,
    )
    return True


def digest_of_case(case: RawCase, plan: Plan) -> str:
    """Changes when the plan or one of the case's files does."""
    return digest_of(plan.preprocessing_digest() + case.content())
