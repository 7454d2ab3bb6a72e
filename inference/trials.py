"""Answers to cases whose references are known, as they are and spoilt: what is known of them, and how good they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..dataset import RawCase
from ..errors import InputError, OutputError
from ..evaluation.evaluate import evaluate_case
from ..evaluation.scoring import Scoring
from ..image import Image, LabelMap, read_label_map
from ..parallel import attempt, with_progress
from ..quality import ClassQuality
from .judge import judge
from .pipeline import read_ordered
from .postprocess import clean
from .predict import Engine, segment, views_of
from .spoil import Spoiling, spoil
from .stages import StageTimes

SCORING = Scoring(metrics=("dice",))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One answer."""

    case: str
    what: Spoiling | None
    """Done to the image; None for the image as it is."""
    qualities: dict[str, ClassQuality]
    """By class or region."""
    dice: dict[str, float | None]
    """The same; None where a class is in neither mask, or was not annotated."""


def run_trials(
    cases: Sequence[RawCase], spoilings_of: Callable[[RawCase], Sequence[Spoiling]], engine: Engine
) -> list[Trial]:
    """Predict each case as it is and as each of its copies; nothing is written.

    Raises:
        InputError: if a case cannot be read or scored; names all.
        OutputError: if one fails otherwise.
    """

    def try_one(case: RawCase) -> list[Trial]:
        assert case.label_path is not None
        image, reference = read_ordered(case, engine.plan, None), read_label_map(case.label_path)
        return [try_copy(case, image, reference, what, engine) for what in (None, *spoilings_of(case))]

    outcomes = list(with_progress((attempt(try_one, case) for case in cases), len(cases), title="Trying spoilt copies"))
    failed = [it for it in outcomes if it.problem is not None]
    if failed:
        problems = "\n".join(str(it.problem) for it in failed)
        raise InputError(problems) if all(it.is_bad_input for it in failed) else OutputError(problems)
    return [trial for it in outcomes for trial in it.result or ()]


def try_copy(case: RawCase, image: Image, reference: LabelMap, what: Spoiling | None, engine: Engine) -> Trial:
    """One answer to a case."""
    if what is not None:
        image, reference = spoil(image, reference, what)
    answer = segment(views_of(case.name, image, engine), engine, StageTimes())
    label_map = clean(answer.label_map, engine.labels, engine.rules)
    score = evaluate_case(case.name, label_map, reference, engine.labels, annotated=case.annotated, scoring=SCORING)
    return Trial(
        case=case.name,
        what=what,
        qualities=judge(answer, label_map, engine.labels),
        dice={name: it.values.get("dice") for name, it in score.classes.items()},
    )


def means_of(trials: Iterable[Trial], expected: Iterable[dict[str, float | None]]) -> list[tuple[float, float]]:
    """Expected and true mean Dice of each answer, over the classes that have both; without answers that have none."""
    found = []
    for trial, values in zip(trials, expected, strict=True):
        pairs = [(value, trial.dice[name]) for name, value in values.items()]
        known = [(value, true) for value, true in pairs if value is not None and true is not None]
        if known:
            mean = [sum(column) / len(known) for column in zip(*known, strict=True)]
            found.append((mean[0], mean[1]))
    return found
