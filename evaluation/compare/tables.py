"""A comparison as text for the terminal, and for a spreadsheet."""

from __future__ import annotations

import csv
import io
import itertools

from ...metrics import metric_of
from ..tables import align
from .comparison import Comparison, Difference, Interval
from .ranking import Ranking

COLUMNS = [field for field in Difference.model_fields if not field.endswith("_interval")]
INTERVALS = [field for field in Difference.model_fields if field.endswith("_interval")]
STATED = ["definition", "missing"]
"""Last columns of the spreadsheet: what the metric means, and what missing classes count."""
SMALL_P = 0.001


def csv_text(comparison: Comparison) -> str:
    """One row a metric, pair of models and class; a cell is empty where a value or a meaning is not told."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(f"{field}_{end}" for field in INTERVALS for end in Interval._fields), *STATED])
    for it in comparison.differences:
        ends = [end for field in INTERVALS for end in getattr(it, field) or (None, None)]
        stated = [comparison.stated.get(key) for key in (it.metric, "missing")]
        writer.writerow([*(getattr(it, field) for field in COLUMNS), *ends, *stated])
    return text.getvalue()


def comparison_text(comparison: Comparison) -> str:
    """Models, a table of differences a metric and pair, what they are worth, and the rankings."""
    patients = f" of {comparison.num_patients} patients" if comparison.num_patients < len(comparison.cases) else ""
    lines = [f"{len(comparison.cases)} cases{patients} that all {len(comparison.models)} models share"]
    rows = [[it.name, f"{it.num_cases} cases", f"lacks {len(it.lacks)}"] for it in comparison.models]
    lines += [f"  {line}  {it.file}" for line, it in zip(align(rows), comparison.models, strict=True)]
    lines += comparison.notes
    for _, of_pair in itertools.groupby(comparison.differences, key=lambda it: (it.metric, it.first, it.second)):
        lines += ["", *table_of(list(of_pair))]
    for ranking in comparison.rankings:
        lines += ["", *ranking_lines(ranking)]
    lines += ["", *meaning(comparison)]
    return "\n".join(lines) + "\n"


def meaning(comparison: Comparison) -> list[str]:
    """What the numbers mean, a line each: the policy and whose definition, then a sentence a metric."""
    sentences = (f"{name}: {comparison.stated[name]}" for name in comparison.metrics if name in comparison.stated)
    return [short_meaning(comparison), *sentences]


def short_meaning(comparison: Comparison, metric: str | None = None) -> str:
    """Policy and whose definition, in one line, of one metric or of all."""
    missing, definition = comparison.stated.get("missing"), comparison.stated.get("definition")
    if missing is None:
        return "the scores do not say what they mean"
    is_told = definition and any(metric_of(name).surface for name in ([metric] if metric else comparison.metrics))
    return (f"surface metrics as defined by: {definition}; " if is_told else "") + f"missing classes: {missing}"


def table_of(differences: list[Difference]) -> list[str]:
    """The classes of one metric and pair of models, and a sentence on the mean over classes, which comes last."""
    total = differences[-1]
    better = "higher" if total.is_higher_better else "lower"
    header = ["class", total.first, total.second, "mean difference", "95 % interval", "median", "95 % interval"]
    rows = [[*header, "wins", "patients", "p", "p (Holm)", "verdict"]]
    rows += [row_of(it) for it in differences]
    lines = [f"{metric_of(total.metric).title} ({better} is better): {total.second} minus {total.first}", *align(rows)]
    for name, filled, best in (
        (total.first, total.num_filled_first, total.num_best_first),
        (total.second, total.num_filled_second, total.num_best_second),
    ):
        if filled:
            lines.append(
                f"{name}: values that count as the worst, for a class missed or found where it is not: {filled}"
            )
        if best:
            lines.append(
                f"{name}: values that count as the best, for a class rightly not found where another model finds it: "
                f"{best}; no mean of spadunet_evaluate counts them"
            )
    return [*lines, sentence(total)]


def row_of(it: Difference) -> list[str]:
    """Cells of a table's line."""
    places = places_of(it)
    return [
        it.class_name,
        *("-" if mean is None else f"{mean:.{places}f}" for mean in (it.mean_first, it.mean_second)),
        signed(it.mean, places),
        interval_text(it.mean_interval, places),
        signed(it.median, places),
        interval_text(it.median_interval, places),
        f"{it.num_first_better} : {it.num_second_better}" + (f" (= {it.num_equal})" if it.num_equal else ""),
        str(it.num_patients),
        p_text(it.p),
        p_text(it.p_holm),
        verdict_text(it),
    ]


def verdict_text(it: Difference) -> str:
    """The verdict, with the winner's name."""
    return f"{it.winner} better" if it.winner else it.verdict


def sentence(it: Difference) -> str:
    """What a difference is worth."""
    where = f"{metric_of(it.metric).title}, {it.class_name}"
    if it.mean is None or it.p_holm is None or it.smallest_p_holm is None:
        return f"{where}: nothing to compare."
    places = places_of(it)
    correction = f" after Holm's correction of {it.num_tests} tests" if it.num_tests > 1 else ""
    interval = f"95 % interval {interval_text(it.mean_interval, places)}"
    facts = f"{signed(it.mean, places)} ({interval}; p {p_text(it.p_holm)}{correction})"
    if it.verdict == "better":
        loser = it.first if it.winner == it.second else it.second
        return f"{where}: {it.winner} is better than {loser}: {facts}."
    if it.verdict == "mixed":
        return f"{where}: mixed: the test finds a difference, but it does not make one model the better: {facts}."
    if it.verdict == "too few patients":
        patients = f"{it.num_patients} patients are too few"
        if it.num_equal and it.num_differing:
            patients = f"only {it.num_differing} of {it.num_patients} patients differ, which are too few"
        return (
            f"{where}: {patients}: whatever they showed, p would be at least "
            f"{p_text(it.smallest_p_holm)}. Seen is {signed(it.mean, places)}, which may be noise."
        )
    return f"{where}: the difference is within noise: {facts}."


def ranking_lines(ranking: Ranking) -> list[str]:
    """The models, the best first, with the shares of resamples at each rank, and how stable that is."""
    places = range(1, len(ranking.models) + 1)
    rows = [["model", "mean", "rank", *(f"rank {place} in" for place in places)]]
    for name, mean, rank, shares in zip(ranking.models, ranking.means, ranking.ranks, ranking.shares, strict=True):
        rows.append([name, f"{mean:.4f}", str(rank), *(f"{100 * share:.1f} %" for share in shares)])
    tau = "" if ranking.mean_tau is None else f", Kendall's tau {ranking.mean_tau:.2f} on average"
    return [
        f"Ranking by {metric_of(ranking.metric).title}, mean over classes",
        *align(rows),
        f"The same ranking in {100 * ranking.same_share:.1f} % of resamples of the patients{tau}.",
    ]


def places_of(it: Difference) -> int:
    """Decimals of its numbers: of distances one more than of their means, for differences are small."""
    return max(3, metric_of(it.metric).places)


def signed(value: float | None, places: int) -> str:
    """With its sign, or a dash."""
    return "-" if value is None else f"{value:+.{places}f}"


def interval_text(interval: Interval | None, places: int) -> str:
    """Both ends, or a dash."""
    return "-" if interval is None else f"{interval.low:+.{places}f} to {interval.high:+.{places}f}"


def p_text(p: float | None) -> str:
    """Three decimals, or a dash."""
    if p is None:
        return "-"
    return f"<{SMALL_P}" if p < SMALL_P else f"{p:.3f}"
