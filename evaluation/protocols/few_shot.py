"""Fine-tuning with few labels: runs at several shares of the training patients, pre-trained and from scratch.

The layout is that of Luo et al. 2024, Table 5: a row a share, and of each metric both arms and the gain.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ...metrics import metric_of
from ...model import MODEL_JSON, read_model_record
from ...scores import Scores
from ..label_names import annotated_in
from ..pairs import label_files, pair_up, tell
from .btcv import LABELS as BTCV
from .btcv import PAPER_METRICS
from .paper import TABLE_5
from .report import COUNTS, Column, Row, Table
from .runs import ProtocolRun, validation_of

SAME = ("datasets", "backbone", "preset", "max_steps", "batch_size")
"""What all runs of one table must share."""
ARMS = {"scratch": "TFS", "pretrained": "pre-trained", "gain": "gain"}
NONE = "None"
"""As provenance tells of what was not given."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a run learned from."""

    share: float
    twin: tuple[str, ...]
    """What a run from scratch and its pre-trained twin have in common."""
    is_pretrained: bool


def trained_of(provenance: Mapping[str, str]) -> Trained:
    """What provenance tells of a run."""
    return Trained(
        share=float(provenance["fraction"]),
        twin=tuple(provenance[name] for name in ("fraction", "fold", "fraction_seed", "seed")),
        is_pretrained=provenance["init"] != NONE and provenance["scratch_twin"] != "True",
    )


def find_runs(predictions: Path, references: Path, problems: list[str] | None = None) -> list[ProtocolRun]:
    """All runs below a folder, with the label maps of their held-out cases.

    The runs of one fold must all have predicted the same cases; where one lacks some, these are missing.

    Args:
        predictions: as results/Dataset007_BTCV: folders with model.json and validation/<dataset> lie anywhere below.
        problems: as `pairs.tell` takes them.

    Raises:
        InputError: if there are none; or they differ in more than share, seed, fold and weights; lists what differs.
    """
    known, annotated = label_files(references, problems), annotated_in(references, problems=problems)
    folders = sorted(path.parent for path in predictions.rglob(MODEL_JSON) if (path.parent / "validation").is_dir())
    if not folders:
        raise InputError(
            f"{predictions}: no runs below it, that is folders with {MODEL_JSON} and validation/, as spadunet_train "
            "--fraction leaves them"
        )
    told: dict[Path, dict[str, str]] = {}
    files: dict[Path, dict[str, Path]] = {}
    for folder in folders:
        try:
            provenance = read_provenance(folder)
            files[folder] = label_files(validation_of(folder), problems)
            told[folder] = provenance
        except InputError as error:
            tell(str(error), problems)
    for problem in differences(told):
        tell(problem, problems)
    runs = []
    for folder, provenance in told.items():
        held_out = {case for other in told if told[other]["fold"] == provenance["fold"] for case in files[other]}
        wanted = {case: path for case, path in known.items() if case in held_out}
        if not wanted:
            tell(
                f"{references}: has a reference of none of the cases in {folder}; the names must be the same", problems
            )
            continue
        name = folder.relative_to(predictions).as_posix().replace("/", "_") if folder != predictions else folder.name
        pairs = pair_up(files[folder], wanted, annotated)
        runs.append(ProtocolRun(name=name, predictions=folder, pairs=pairs, provenance=provenance))
    return runs


def read_provenance(folder: Path) -> dict[str, str]:
    """What model.json tells of a run.

    Raises:
        InputError: if it is damaged, or lacks what tells share, seed or fold.
    """
    record = read_model_record(folder)
    provenance = {**record.provenance, "backbone": record.backbone, "preset": record.preset}
    try:
        trained_of(provenance)
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{folder / MODEL_JSON}: does not tell of which share of the patients the run learned ({error}); train it "
            "with spadunet_train --fraction"
        ) from error
    return provenance


def differences(told: Mapping[Path, Mapping[str, str]]) -> list[str]:
    """A line for each reason why runs cannot stand in one table."""
    problems = []
    for name in SAME:
        found = sorted({provenance.get(name, "unknown") for provenance in told.values()})
        if len(found) > 1:
            problems.append(f"the runs differ in {name}: {', '.join(found)}; keep one of them below the folder")
    weights = sorted({it["init"] for it in told.values() if trained_of(it).is_pretrained})
    if len(weights) > 1:
        problems.append(f"the runs started from different weights: {', '.join(weights)}; keep one of them")
    seen: dict[Trained, Path] = {}
    for folder, provenance in told.items():
        trained = trained_of(provenance)
        if trained in seen:
            problems.append(f"{folder}: the same share, seed and arm as {seen[trained]}; keep one of them")
        seen.setdefault(trained, folder)
    return problems


def tables(runs: Sequence[tuple[ProtocolRun, Scores]]) -> tuple[Table, ...]:
    """Table 5 of these runs in mm, and in voxels with the paper's rows where the labels are BTCV's."""
    metrics = runs[0][1].metrics
    found: list[Table] = []
    for unit in ("mm", "voxels"):
        shown = [name for name in metrics if metric_of(name).length_unit in ("", unit)]
        if any(metric_of(name).length_unit for name in shown) or not found:
            found.append(table_of(runs, shown, f"shares of the training patients, lengths in {unit}"))
    if runs[0][1].classes == list(BTCV.names[1:]) and set(PAPER_METRICS) <= set(metrics):
        rows = sorted([*found[-1].rows, *paper_rows()], key=lambda row: float(row.name.split()[-2]))
        found[-1] = found[-1].model_copy(update={"rows": tuple(rows)})
    return tuple(found)


def table_of(runs: Sequence[tuple[ProtocolRun, Scores]], metrics: Sequence[str], title: str) -> Table:
    """A row a share: of each metric the means over seeds from scratch and pre-trained, and the gain."""
    columns = [
        Column(key=f"{name}:{arm}", title=f"{metric_of(name).title} {told}", places=metric_of(name).places)
        for name in metrics
        for arm, told in ARMS.items()
    ]
    for arm in ("scratch", "pretrained"):
        columns += [
            Column(key=f"{key}:{arm}", title=f"{told} {ARMS[arm]}", places=0)
            for key, told in {"runs": "runs", **COUNTS}.items()
            if key != "cases"
        ]
    shares = sorted({trained_of(run.provenance).share for run, _ in runs})
    rows = [row_of_share(share, runs, metrics) for share in shares]
    return Table(title=title, columns=tuple(columns), rows=tuple(rows))


def row_of_share(share: float, runs: Sequence[tuple[ProtocolRun, Scores]], metrics: Sequence[str]) -> Row:
    """Means and standard deviations over the runs of a share; gains over the twins."""
    arms: dict[str, dict[tuple[str, ...], Scores]] = {"scratch": {}, "pretrained": {}}
    for run, scores in runs:
        trained = trained_of(run.provenance)
        if trained.share == share:
            arms["pretrained" if trained.is_pretrained else "scratch"][trained.twin] = scores
    series: dict[str, list[float]] = {}
    for metric in metrics:
        means = {arm: {twin: scores.mean(metric) for twin, scores in found.items()} for arm, found in arms.items()}
        sign = 1 if metric_of(metric).is_higher_better else -1
        gains = [
            sign * (pretrained - scratch)
            for twin, scratch in means["scratch"].items()
            if scratch is not None and (pretrained := means["pretrained"].get(twin)) is not None
        ]
        for arm, by_twin in means.items():
            series[f"{metric}:{arm}"] = [value for value in by_twin.values() if value is not None]
        series[f"{metric}:gain"] = gains
    values: dict[str, float | None] = {key: statistics.mean(found) if found else None for key, found in series.items()}
    for arm, found in arms.items():
        classes = [row for scores in found.values() for row in scores.summary().values()]
        values[f"runs:{arm}"] = len(found)
        values[f"missed:{arm}"] = sum(row.num_missed for row in classes)
        values[f"false_alarms:{arm}"] = sum(row.num_false_alarms for row in classes)
    deviations = {key: statistics.stdev(numbers) for key, numbers in series.items() if len(numbers) > 1}
    return Row(name=f"{100 * share:g} %", values=values, deviations=deviations)


def paper_rows() -> list[Row]:
    """The paper's Table 5, Dice as a share."""
    rows = []
    for share, printed in TABLE_5.items():
        values: dict[str, float | None] = {}
        for metric, pair in zip(PAPER_METRICS, printed, strict=True):
            scratch, pretrained = (value / 100 if metric == "dice" else value for value in pair)
            gain = pretrained - scratch if metric == "dice" else scratch - pretrained
            values |= {f"{metric}:scratch": scratch, f"{metric}:pretrained": pretrained, f"{metric}:gain": gain}
        rows.append(Row(name=f"published: {100 * share:g} %", is_published=True, values=values))
    return rows


def notes(runs: Sequence[tuple[ProtocolRun, Scores]]) -> tuple[str, ...]:
    """What the columns mean, and which runs have no twin."""
    trained = [trained_of(run.provenance) for run, _ in runs]
    twins = [each.twin for each in trained]
    alone = [run.name for (run, _), each in zip(runs, trained, strict=True) if twins.count(each.twin) == 1]
    lines = [
        "TFS: trained from scratch. Means ± standard deviation over runs; a gain is positive where pre-training is "
        "better, over runs that have a twin of the same seed",
        "published: Luo et al. 2024, Table 5, BTCV's nine validation scans, distances in voxels",
    ]
    if runs[0][1].classes != list(BTCV.names[1:]):
        lines.pop()
    return (*lines, *([f"runs without a twin, in no gain: {', '.join(alone)}"] if alone else []))
