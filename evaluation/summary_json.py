"""Scores under the keys of nnU-Net v2's summary.json, for programs that read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import TypeAdapter

from ..labels import LabelSet
from ..metrics import metric_of
from ..missing import Extent
from ..scores import CaseScore, ClassScore, Scores, mean_of, mean_over_classes
from .overlap import VoxelCounts, dice, iou

OVERLAPS = {"dice": "Dice", "iou": "IoU"}
"""Always there, as in nnU-Net: they follow from the counts."""
CONFUSION = ("TP", "FP", "FN", "TN", "n_pred", "n_ref")


def summary_json(scores: Scores, labels: LabelSet, files: Mapping[str, Mapping[str, str | None]] | None = None) -> str:
    """Means under nnU-Net's keys, classes by their id, regions as `Region.nnunet_key` says; null where not defined.

    nnU-Net's own keys (its evaluate_predictions.py) are Dice, IoU, TP, FP, FN, TN, n_pred and n_ref; the other
    metrics are called in their manner. Its means over cases leave out what is not defined, as ours; a mean over
    no case is null here and NaN there. One such class makes its mean over classes NaN, too; ours is that of the others.

    Args:
        files: by case, its `reference_file` and `prediction_file`, where known.
    """
    scores = with_overlaps(scores)
    rows = scores.summary()
    ids = {it.name: it.nnunet_key for it in labels.structures}
    keys = {metric: key_of(metric) for metric in scores.metrics}
    confusions = [confusions_of(case) for case in scores.cases]
    counts = {
        name: mean_entry(
            [
                found[name]
                for case, found in zip(scores.cases, confusions, strict=True)
                if case.classes[name].is_annotated
            ]
        )
        for name in scores.classes
    }
    summary = {
        "foreground_mean": {key: mean_over_classes(rows, metric) for metric, key in keys.items()}
        | mean_entry(list(counts.values())),
        "labels": {key: name for name, key in ids.items()},
        "mean": {
            ids[name]: by_key(row.means, keys)
            | counts[name]
            | row.model_dump(exclude={"means", "num_counted"})
            | {"num_counted": by_key(row.num_counted, keys)}
            for name, row in rows.items()
        },
        "metric_per_case": [
            {
                "case": case.case,
                **(files or {}).get(case.case, {}),
                "metrics": {ids[name]: by_key(it.values, keys) | found[name] for name, it in case.classes.items()},
            }
            for case, found in zip(scores.cases, confusions, strict=True)
        ],
        "not_predicted": list(scores.not_predicted),
        "failed": list(scores.failed),
        "definition": scores.definition,
        "missing": scores.missing,
        "definitions": scores.definitions,
    }
    # Of thousands of cases, the standard library's json takes ten times as long.
    return TypeAdapter(dict).dump_json(summary, indent=1).decode() + "\n"


def with_overlaps(scores: Scores) -> Scores:
    """The same scores with Dice and IoU, which follow from the counts."""
    cases = [
        case.model_copy(update={"classes": {name: score_with_overlaps(it) for name, it in case.classes.items()}})
        for case in scores.cases
    ]
    metrics = tuple(dict.fromkeys((*OVERLAPS, *scores.metrics)))
    return scores.model_copy(update={"metrics": metrics, "cases": tuple(cases)})


def score_with_overlaps(score: ClassScore) -> ClassScore:
    """As `with_overlaps`; Dice as it is and no IoU where the counts are not known."""
    overlaps: dict[str, float | None] = {"dice": score.dice, "iou": None}
    predicted, reference, common = score.num_prediction_voxels, score.num_reference_voxels, score.num_common_voxels
    if predicted is not None and reference is not None and common is not None:
        known = VoxelCounts(predicted, reference, common)
        overlaps = {"dice": dice(known), "iou": iou(known)}
    return score.model_copy(update={"values": {**overlaps, **score.values}})


def key_of(metric: str) -> str:
    """A metric's key: Dice and IoU as nnU-Net has them, HD95_mm, NSD_2mm, …"""
    if metric in OVERLAPS:
        return OVERLAPS[metric]
    base, line, rest = metric.partition("_")
    return base.upper() + line + rest if metric_of(metric).surface else metric


def by_key(values: Mapping[str, float | None], keys: Mapping[str, str]) -> dict[str, float | None]:
    """The same under the metrics' keys; None where there is no value."""
    return {key: values.get(metric) for metric, key in keys.items()}


def confusions_of(case: CaseScore) -> dict[str, dict[str, float | None]]:
    """By class, the numbers of voxels."""
    extent = case.extent
    return {name: confusion_of(score, extent) for name, score in case.classes.items()}


def confusion_of(score: ClassScore, extent: Extent | None) -> dict[str, float | None]:
    """Numbers of voxels, without those that the reference ignores; None where they are not known."""
    predicted, referenced, common = score.num_prediction_voxels, score.num_reference_voxels, score.num_common_voxels
    counts: dict[str, float | None] = dict.fromkeys(CONFUSION)
    if predicted is not None and referenced is not None and common is not None:
        counts |= {"TP": common, "FP": predicted - common, "FN": referenced - common}
        if extent is not None:
            counts["TN"] = extent.num_voxels - predicted - referenced + common
    return counts | {"n_pred": predicted, "n_ref": referenced}


def mean_entry(entries: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Means of the numbers of voxels."""
    return {key: mean_of(entry[key] for entry in entries) for key in CONFUSION}
