"""The cases that a model's own training held out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from ..dataset import Dataset, RawCase
    from ..workspace import Workspace


def find_held_out_cases(
    folder: Path, task: str, dataset_name: str | None, workspace: Workspace, *, dry_run: bool = False
) -> tuple[Dataset, list[RawCase]]:
    """The dataset of a model's task, and its training cases that the run itself held out and scored: never a test case.

    Args:
        dataset_name: as `-d` gives it; None for that of the task.

    Raises:
        InputError: if there are none, or a reference is gone.
    """
    from ..dataset import find_dataset, load_dataset
    from ..training.board import read_final_scores

    scores = read_final_scores(folder).get(task)
    if scores is None or not scores.cases:
        raise InputError(
            f"{folder}: has no scores of held-out cases of {task}; train with a fold that holds cases out (not -f all)"
        )
    dataset = load_dataset(find_dataset(dataset_name or task, workspace.raw), dry_run=dry_run)
    references = {case.name: case for case in dataset.cases if case.label_path is not None}
    for name in (case.case for case in scores.cases):
        if name not in references:
            raise InputError(
                f"{folder}: its held-out case {name} has no reference in {dataset.folder}; give the raw dataset that "
                "it was trained on with -d, or train again"
            )
    return dataset, [references[case.case] for case in scores.cases]
