"""What `spadunet_compare` leaves behind, and how it is worked out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field
from tqdm import tqdm

from ...record import FormatVersion, Record
from .metrics import family_of
from .paired import RULES, Paired, PairedValues, concerning
from .ranking import Ranking, rank_models
from .statistics import (
    ALPHA,
    CONFIDENCE,
    MAX_EXACT,
    MIN_PATIENTS,
    holm,
    mean_over_classes,
    mean_where_defined,
    percentile_interval,
    resampled_means,
    resampled_medians,
    signed_rank_p,
    smallest_p,
)

MEAN_OVER_CLASSES = "mean over classes"

Verdict = Literal["better", "mixed", "within noise", "too few patients", "nothing to compare"]
VERDICTS = {
    "better": f"the test, corrected, is below {ALPHA}, the interval of the mean difference leaves out 0, and the "
    "median does not point the other way",
    "mixed": f"the test, corrected, is below {ALPHA}, but the mean difference may be 0, or the median points the other "
    "way, since a few patients differ much (look at the dots); or the model with the smaller distances missed the "
    "class more often, which no distance can tell",
    "within noise": "what is seen may be chance: neither is shown to be better, nor are they shown to be equal",
    "too few patients": f"too few differ between the models: even if all these agreed, the test, corrected, could "
    f"not be below {ALPHA}",
    "nothing to compare": "the class is in no shared case, or no model has a value of it",
}
TESTS = {
    "test": "Wilcoxon's signed-rank test, two-sided, of the patients' differences but for those that are 0; "
    f"exact of up to {MAX_EXACT}, with ties too, else scipy.stats.wilcoxon",
    "correction": "Holm's, within families: all classes x pairs of models x metrics of one sort (overlap, surface, "
    "volume, instances, points) are one family; the means over classes of that sort are another",
    "interval": f"{100 * CONFIDENCE:.0f} % bootstrap over patients: percentiles, expanded for few patients (Hesterberg "
    f"2015); not corrected for the number of intervals; none of fewer than {MIN_PATIENTS} patients",
    "ranking": "by the mean over classes; in each resample of patients the models are ranked anew, equal ones alike, "
    "and Kendall's tau-b tells how like that is to the ranking of all",
}

Probability = Annotated[float, Field(ge=0, le=1)]


class Interval(NamedTuple):
    """Ends of a confidence interval."""

    low: float
    high: float


class Difference(Record):
    """Two models on one class, or on the mean over classes: the second minus the first."""

    metric: str
    family: str
    is_higher_better: bool
    first: str
    second: str
    class_name: str
    num_cases: int
    num_patients: int
    num_filled_first: int
    """Values that count as the worst seen, since the model missed the class or found it where it is not and the scores
    do not tell what is the worst."""
    num_filled_second: int
    num_best_first: int
    """Values that count as the best, since the class is rightly not found where another model finds it."""
    num_best_second: int
    mean_first: float | None
    mean_second: float | None
    mean: float | None
    mean_interval: Interval | None
    median: float | None
    median_interval: Interval | None
    num_first_better: int
    num_second_better: int
    num_equal: int
    p: Probability | None
    p_holm: Probability | None = None
    num_tests: int = 0
    """Of the family that p was corrected for."""
    smallest_p_holm: Probability | None = None
    """What p_holm could be if in all tests of the family all patients agreed that differ at all."""
    verdict: Verdict = "nothing to compare"
    winner: str | None = None
    """Where the verdict is better."""

    @property
    def num_differing(self) -> int:
        """Patients that tell the models apart; all others say nothing in the test."""
        return self.num_first_better + self.num_second_better


class ComparedModel(Record):
    """One of the models."""

    name: str
    file: str
    num_cases: int
    lacks: tuple[str, ...]
    """Cases that another model has scores of."""


class Comparison(Record):
    """Several models on the cases that they share."""

    format_version: FormatVersion = 1
    models: tuple[ComparedModel, ...]
    cases: tuple[str, ...]
    num_patients: int
    classes: tuple[str, ...]
    metrics: tuple[str, ...]
    seed: int
    resamples: int
    stated: dict[str, str]
    """What the metrics mean, whose the surface metrics are, and what missing classes count; empty if not told."""
    rules: dict[str, str] = Field(default_factory=lambda: RULES | TESTS)
    verdicts: dict[str, str] = Field(default_factory=lambda: dict(VERDICTS))
    notes: tuple[str, ...]
    differences: tuple[Difference, ...]
    rankings: tuple[Ranking, ...]


def compare(paired: Paired, *, resamples: int, seed: int) -> Comparison:
    """Differences of each pair of models by metric and class, and a ranking a metric."""
    pairs = list(itertools.combinations(range(len(paired.models)), 2))
    columns = (*range(len(paired.classes)), None)
    differences = []
    with tqdm(total=len(paired.metrics) * len(pairs), desc="Comparing", disable=None, leave=False) as bar:
        for values in paired.metrics:
            by_patient = values.by_patient[
                :, ~np.isnan(values.by_patient[0]).all(axis=-1)
            ]  # (M, those with a class, K)
            # One draw of the patients serves all pairs and classes: 2000 patients are slow to draw.
            means = list(resampled_means(by_patient, resamples=resamples, seed=seed)) if by_patient.shape[1] else []
            resampled = np.concatenate(means) if means else np.empty((0, *by_patient.shape[::2]))  # (R, M, K)
            for pair in pairs:
                differences += [difference_of(paired, values, pair, it, resampled, seed=seed) for it in columns]
                bar.update()
    all_cases = set.union(*(set(model.cases) for model in paired.models))
    metrics = tuple(values.metric.name for values in paired.metrics)
    stated = {key: text for model in paired.models for key, text in concerning(metrics, model.stated).items()}
    return Comparison(
        models=tuple(
            ComparedModel(
                name=model.name,
                file=str(model.file),
                num_cases=len(model.cases),
                lacks=tuple(sorted(all_cases - set(model.cases))),
            )
            for model in paired.models
        ),
        cases=paired.cases,
        num_patients=len(paired.patients),
        classes=paired.classes,
        metrics=metrics,
        seed=seed,
        resamples=resamples,
        stated=stated,
        notes=paired.notes,
        differences=tuple(judge(differences)),
        rankings=tuple(
            ranking
            for values in paired.metrics
            if (ranking := rank_models(values, [it.name for it in paired.models], resamples=resamples, seed=seed))
        ),
    )


def difference_of(
    paired: Paired, values: PairedValues, pair: tuple[int, int], column: int | None, resampled: np.ndarray, *, seed: int
) -> Difference:
    """Two models on the class of a column, or on the mean over classes; not yet corrected nor judged.

    Args:
        resampled: means of the classes over drawn patients, (R, M, K).
    """
    columns = slice(None) if column is None else slice(column, column + 1)
    of_pair = values.by_patient[list(pair)][:, :, columns]  # (2, P, K)
    of_pair = of_pair[:, ~np.isnan(of_pair[0]).all(axis=-1)]  # (2, those with a class, K)
    filled, best = (counts[list(pair), columns].sum(axis=-1) for counts in (values.num_filled, values.num_best))
    num_patients = of_pair.shape[1]
    facts = {
        "metric": values.metric.name,
        "family": family_of(values.metric),
        "is_higher_better": values.metric.is_higher_better,
        "first": paired.models[pair[0]].name,
        "second": paired.models[pair[1]].name,
        "class_name": MEAN_OVER_CLASSES if column is None else paired.classes[column],
        "num_cases": values.num_cases_any if column is None else int(values.num_cases[column]),
        "num_patients": num_patients,
        "num_filled_first": int(filled[0]),
        "num_filled_second": int(filled[1]),
        "num_best_first": int(best[0]),
        "num_best_second": int(best[1]),
    }
    if not num_patients:
        empty = dict.fromkeys(
            ("mean_first", "mean_second", "mean", "mean_interval", "median", "median_interval", "p"), None
        )
        wins = dict.fromkeys(("num_first_better", "num_second_better", "num_equal"), 0)
        return Difference.model_validate(facts | empty | wins)
    by_class = of_pair[1] - of_pair[0]  # (P, K)
    by_patient = mean_where_defined(by_class, axis=-1)  # (P,)
    gains = by_patient if values.metric.is_higher_better else -by_patient
    means = mean_over_classes(of_pair)
    resampled_difference = resampled[:, pair[1], columns] - resampled[:, pair[0], columns]  # (R, K)
    medians = resampled_medians(by_patient, resamples=len(resampled), seed=seed)
    return Difference.model_validate(
        facts
        | {
            "mean_first": float(means[0]),
            "mean_second": float(means[1]),
            "mean": float(mean_over_classes(by_class)),
            "mean_interval": percentile_interval(mean_where_defined(resampled_difference, axis=-1), num_patients),
            "median": float(np.median(by_patient)),
            "median_interval": percentile_interval(medians, num_patients),
            "num_first_better": int((gains < 0).sum()),
            "num_second_better": int((gains > 0).sum()),
            "num_equal": int((gains == 0).sum()),
            "p": signed_rank_p(by_patient),
        }
    )


def judge(differences: Iterable[Difference]) -> list[Difference]:
    """Correct the tests within their families, and give each difference its verdict; in the same order."""
    differences = list(differences)
    families: dict[tuple[str, bool], list[int]] = {}
    for index, it in enumerate(differences):
        if it.p is not None:
            families.setdefault((it.family, it.class_name == MEAN_OVER_CLASSES), []).append(index)
    for family in families.values():
        corrected = holm([differences[index].p or 0.0 for index in family])
        differing = [differences[index].num_differing or differences[index].num_patients for index in family]
        smallest = holm([smallest_p(number) for number in differing])  # of equal models all patients count
        for index, p_holm, smallest_p_holm in zip(family, corrected, smallest, strict=True):
            found = differences[index].model_copy(
                update={"p_holm": p_holm, "num_tests": len(family), "smallest_p_holm": smallest_p_holm}
            )
            verdict = verdict_of(found)
            winner = winner_of(found) if verdict == "better" else None
            differences[index] = found.model_copy(update={"verdict": verdict, "winner": winner})
    return differences


def verdict_of(difference: Difference) -> Verdict:
    """Of a difference whose test is corrected; VERDICTS says what each means."""
    if difference.p_holm is None or difference.smallest_p_holm is None:
        return "nothing to compare"
    if difference.smallest_p_holm >= ALPHA:
        return "too few patients"
    if difference.p_holm >= ALPHA:
        return "within noise"
    interval, mean, median = difference.mean_interval, difference.mean or 0, difference.median or 0
    is_clear = interval is not None and (interval.low > 0 or interval.high < 0) and mean * median >= 0
    return "better" if is_clear and not is_spared(difference) else "mixed"


def winner_of(difference: Difference) -> str:
    """The model with the better mean."""
    is_second = ((difference.mean or 0) > 0) == difference.is_higher_better
    return difference.second if is_second else difference.first


def is_spared(difference: Difference) -> bool:
    """True if the model with the better mean has more values that count as a worst that is not really the worst."""
    if difference.is_higher_better:
        return False
    more_first = difference.num_filled_first - difference.num_filled_second
    return (more_first if winner_of(difference) == difference.first else -more_first) > 0
