"""Preprocess a whole dataset: parallel, resumable, each case whole or absent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..classification_plan import ClassificationPlan
from ..dataset import Dataset, RawCase
from ..errors import InputError
from ..parallel import Outcome, map_cases
from ..plan import Plan
from ..record import digest_of
from ..study import LabelledStudies
from ..workers import THIS_PROCESS, Workers
from .integrity import read_checked
from .memory import memory_to_preprocess, memory_to_view, most_memory
from .preprocess import preprocess
from .store import IMAGE_DTYPE, open_case, store_case
from .views import preprocess_view


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
    memory_of, most = partial(memory_to_preprocess, plan=plan), partial(most_memory, plan=plan)
    title = f"Preprocessing {dataset.name}"
    return summarise(
        map_cases(make, dataset.cases, title=title, workers=workers, memory_of=memory_of, most_memory_of=most)
    )


def preprocess_studies(
    found: LabelledStudies,
    plan: ClassificationPlan,
    folder: Path,
    *,
    workers: Workers = THIS_PROCESS,
    device: str = "cpu",
) -> Summary:
    """Store every view of all studies in `folder`, each under its own name, as `preprocess_dataset`."""
    make = partial(store_view, plan=plan, folder=folder, device=device)
    views = [view for study in found.studies for view in study.views]
    memory_of, title = partial(memory_to_view, plan=plan), f"Preprocessing {found.name}"
    return summarise(map_cases(make, views, title=title, workers=workers, memory_of=memory_of))


def summarise(outcomes: Iterable[Outcome[RawCase, bool]]) -> Summary:
    """Counts of outcomes, of which True was made and False was there already."""
    made, kept, problems = 0, 0, []
    for outcome in outcomes:
        if outcome.problem:
            problems.append(outcome.problem)
        elif outcome.result:
            made += 1
        else:
            kept += 1
    return Summary(num_made=made, num_kept=kept, problems=tuple(sorted(problems)))


def preprocess_case(case: RawCase, *, plan: Plan, folder: Path, device: str = "cpu") -> bool:
    """Store one case; False if it was there already."""
    digest = plan.preprocessing_digest()
    made_from = digest_of_case(case, digest)
    if is_stored(case, folder, made_from):
        return False
    image, label_map = read_checked(case, labels=plan.labels, num_channels=len(plan.channel_names))
    made = preprocess(case.name, image, label_map, plan, dtype=IMAGE_DTYPE, device=device)
    store_case(
        folder,
        made,
        made_from=made_from,
        plan_digest=digest,
        ignore_class=plan.labels.ignore_class,
        annotated=case.annotated,
    )
    return True


def store_view(view: RawCase, *, plan: ClassificationPlan, folder: Path, device: str = "cpu") -> bool:
    """Store one view of a study; False if it was there already."""
    digest = plan.preprocessing_digest()
    made_from = digest_of_case(view, digest)
    if is_stored(view, folder, made_from):
        return False
    case = preprocess_view(view, plan, dtype=IMAGE_DTYPE, device=device)
    store_case(folder, case, made_from=made_from, plan_digest=digest)
    return True


def is_stored(case: RawCase, folder: Path, made_from: str) -> bool:
    """True if the same case is there, made from the same; else what is there of it counts for nothing any more."""
    with contextlib.suppress(InputError):
        if open_case(folder, case.name).header.made_from == made_from:
            return True
    (folder / f"{case.name}.json").unlink(missing_ok=True)
    return False


def digest_of_case(case: RawCase, plan_digest: str) -> str:
    """Changes when one of the case's files does, or what the plan says of stored cases."""
    return digest_of(plan_digest + case.content())
