"""Pictures of a few validation cases: the worst, the median and the best."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from ..dataset import RawCase
from ..evaluation.pairs import label_files
from ..inference.overlays import draw_case
from ..labels import LabelSet
from ..overlay import densest_planes
from ..scores import CaseScore, Scores, mean_of
from .board import OVERLAYS_FOLDER

log = logging.getLogger("spadunet")


def case_dice(score: CaseScore) -> float | None:
    """Mean Dice of a case over the classes that have one."""
    return mean_of([value.dice for value in score.classes.values()])


def rank_cases(scores: Scores) -> list[CaseScore]:
    """Cases with a Dice, the worst first."""
    scored = [(dice, score.case, score) for score in scores.cases if (dice := case_dice(score)) is not None]
    return [score for *_, score in sorted(scored, key=lambda entry: entry[:2])]


def choose_samples(scores: Scores) -> dict[str, CaseScore]:
    """The worst, the median and the best case by mean Dice, by these words; fewer of fewer than three."""
    ranked = rank_cases(scores)
    if not ranked:
        return {}
    chosen = {"worst": ranked[0]}
    if len(ranked) > 2:
        chosen["median"] = ranked[(len(ranked) - 1) // 2]
    if len(ranked) > 1:
        chosen["best"] = ranked[-1]
    return chosen


def overlay_paths(folder: Path, case: str) -> list[Path]:
    """Pictures of a case in the folder of a dataset's validation, in the order of their planes."""
    return [path for number in range(3) if (path := overlay_path(folder, case, number)).is_file()]


def overlay_path(folder: Path, case: str, number: int) -> Path:
    """Where one picture of a case lies."""
    return folder / OVERLAYS_FOLDER / f"{case}_{number}.jpg"


def draw_samples(cases: Iterable[RawCase], folder: Path, scores: Scores, labels: LabelSet) -> None:
    """Draw the samples into the folder of a dataset's validation; what cannot be drawn is logged.

    Args:
        cases: of the dataset, with references.
        folder: holds the predicted label maps.
    """
    shutil.rmtree(folder / OVERLAYS_FOLDER, ignore_errors=True)
    by_name = {case.name: case for case in cases}
    for score in choose_samples(scores).values():
        try:
            case = by_name[score.case]
            assert case.label_path is not None
            image_path = next(path for path in case.image_paths if path is not None)
            pictures = draw_case(image_path, case.label_path, label_files(folder)[case.name], labels, densest_planes)
            for number, picture in enumerate(pictures):
                path = overlay_path(folder, case.name, number)
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(picture)
        except Exception as error:  # a picture is not worth a run
            log.warning("%s: cannot be drawn (%s: %s)", score.case, type(error).__name__, error)
