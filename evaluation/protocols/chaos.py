"""CHAOS's MR: four organs by the challenge's definitions and points, T1-DUAL and T2-SPIR apart and together."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from ...metrics import CHAOS_METRICS
from ...releases import CHAOS_MR_LABELS, CHAOS_SEQUENCES, label_set_of
from ...scores import ClassScore, Scores
from ..chaos_score import ChaosScore, chaos_score
from ..pairs import label_files, pair_up, tell
from .paper import NAMES, TABLE_4
from .report import Column, Row, Table, columns_of, part_of, published_row, row_of
from .runs import ProtocolRun, find_predictions, named

LABELS = label_set_of(CHAOS_MR_LABELS)
PAPER_METRICS = ("dice", "assd_mm", "hd_mm")
TOGETHER = "together"
POINTS = {"dice": "Dice", "ravd": "RAVD", "assd": "ASSD", "mssd": "MSSD", "mean": "score"}
NOTES = ("published: Luo et al. 2024, Table 4, of the challenge's hidden test set; HD is what CHAOS calls MSSD",)
POINTS_NOTE = "points: Kavur et al. 2021; a missed organ {}"


def case_of(name: str) -> str | None:
    """The name itself if it ends in t1 or t2, as chaos_01_t1."""
    return name if re.search(rf"[_-]({'|'.join(CHAOS_SEQUENCES)})$", name, re.IGNORECASE) else None


def find_runs(predictions: Path, references: Path, problems: list[str] | None = None) -> list[ProtocolRun]:
    """All references, by sequence.

    Args:
        problems: as `pairs.tell` takes them.

    Raises:
        InputError: if no reference is of either sequence; or one is of neither.
    """
    found, files = find_predictions(predictions, case_of, problems), label_files(references, problems)
    known = named({name: path for name, path in files.items() if case_of(name)}, case_of, problems)
    strange = sorted(files.keys() - known.keys())
    if strange or not known:
        tell(
            f"{references}: {', '.join(strange) or 'no label maps'}: expected names that end in _t1 or _t2, as "
            "spadunet_convert_chaos gives them",
            problems if known else None,
        )
    groups = {
        title: tuple(case for case in known if case.lower().endswith(ending))
        for ending, title in CHAOS_SEQUENCES.items()
    }
    return [ProtocolRun(predictions=predictions, pairs=pair_up(found.files, known), groups=groups)]


def tables(runs: Sequence[tuple[ProtocolRun, Scores]]) -> tuple[Table, ...]:
    """Means over the organs beside the paper's Table 4, the points that they earn, and the score of each organ."""
    ((run, scores),) = runs
    parts = {name: part_of(scores, cases) for name, cases in run.groups.items()}
    parts = {name: part for name, part in {**parts, TOGETHER: scores}.items() if part.cases}
    rows = [row_of(name, part) for name, part in parts.items()]
    for arm, values in TABLE_4["CHAOS"].items():
        rows.append(published_row(NAMES[arm], dict(zip(PAPER_METRICS, values, strict=True))))
    found = [
        Table(
            title=f"CHAOS MR, {len(scores.cases)} image sets: mean over {len(scores.classes)} organs",
            columns=columns_of(scores.metrics),
            rows=tuple(rows),
        )
    ]
    if not set(CHAOS_METRICS) <= set(scores.metrics):
        return tuple(found)  # the user asked for other metrics
    columns = tuple(Column(key=key, title=title) for key, title in POINTS.items())
    found.append(
        Table(
            title="CHAOS's points, 0 to 100: mean over organs",
            columns=columns,
            rows=tuple(points_row(name, part) for name, part in parts.items()),
        )
    )
    organs = [
        Row(name=organ, values={name: mean_points(part, organ)["mean"] for name, part in parts.items()})
        for organ in scores.classes
    ]
    columns = tuple(Column(key=name, title=name) for name in parts)
    return (*found, Table(title="CHAOS's score of each organ", columns=columns, rows=tuple(organs)))


def points_row(name: str, scores: Scores) -> Row:
    """Points of each metric, mean over the organs' means."""
    organs = [mean_points(scores, organ) for organ in scores.classes]
    values = {}
    for key in POINTS:
        found = [value for organ in organs if (value := organ[key]) is not None]
        values[key] = statistics.mean(found) if found else None
    return Row(name=name, values=values)


def mean_points(scores: Scores, organ: str) -> dict[str, float | None]:
    """Points of each metric and their mean, over the cases that have the organ in reference or prediction.

    As in the means, a missed organ and a false alarm are left out where the policy is `nan`.
    """
    counting = ("valid",) if scores.missing == "nan" else ("valid", "missed", "false alarm")
    found = [points_of(case.classes[organ]) for case in scores.cases if case.classes[organ].outcome in counting]
    return {key: statistics.mean(getattr(each, key) for each in found) if found else None for key in POINTS}


def points_of(score: ClassScore) -> ChaosScore:
    """The challenge's points of an organ in a case; 0 where it was missed or is a false alarm."""
    values = score.values if score.outcome == "valid" else {}
    return chaos_score(
        dice=values.get("dice"),
        ravd_percent=values.get("ravd_percent"),
        assd_mm=values.get("assd_mm"),
        mssd_mm=values.get("hd_mm"),
    )


def notes(runs: Sequence[tuple[ProtocolRun, Scores]]) -> tuple[str, ...]:
    """Where published numbers are from, and what a missed organ counts."""
    is_left_out = runs[0][1].missing == "nan"
    return (*NOTES, POINTS_NOTE.format("is left out (--missing nan)" if is_left_out else "has 0"))
