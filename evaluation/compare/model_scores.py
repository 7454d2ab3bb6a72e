"""The scores of one model, from `spadunet_evaluate`'s scores.json or from nnU-Net's summary.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ...description import DATASET_JSON
from ...errors import InputError
from ...formats import LABEL_ENDINGS, ending_of
from ...missing import Missing
from ...record import first_problem, read_record
from ...scores import Scores
from ..label_names import read_labels

SCORES_JSON, SUMMARY_JSON = "scores.json", "summary.json"
NNUNET_METRICS = {"Dice": "dice", "IoU": "iou"}
"""nnU-Net v2 knows no others (its evaluate_predictions.py); both not defined where neither mask holds a voxel."""
REMEDY = "give a folder or file that spadunet_evaluate wrote, or nnU-Net's summary.json"


@dataclass(frozen=True, kw_only=True)
class ClassValues:
    """One class of one case: a value a metric, None where it is not defined."""

    values: Mapping[str, float | None]
    num_prediction_voxels: int | None
    num_reference_voxels: int | None
    """Both None where the class was not annotated."""

    @property
    def is_absent(self) -> bool:
        """Rightly not found: neither prediction nor reference has it."""
        return self.num_prediction_voxels == 0 and self.num_reference_voxels == 0


@dataclass(frozen=True, kw_only=True)
class ModelScores:
    """All that a file of scores tells."""

    name: str
    file: Path
    classes: tuple[str, ...]
    metrics: tuple[str, ...]
    cases: Mapping[str, Mapping[str, ClassValues]]
    """By case and class."""
    stated: Mapping[str, str]
    """Sentences of definition by metric, `definition` (whose the surface metrics are) and `missing` (what missing
    classes count here); empty of nnU-Net, which states none."""


def read_models(paths: Sequence[Path], names: Sequence[str] | None = None) -> list[ModelScores]:
    """Read the scores of each model.

    Args:
        paths: folders or files, at least two.
        names: of the models (else of the folders, as far as they differ).

    Raises:
        InputError: if there are fewer than two, a file is missing, damaged or given twice, or names are not one a path.
    """
    if len(paths) < 2:
        raise InputError(f"{', '.join(map(str, paths))}: give at least two models to compare")
    files = [find_file(path) for path in paths]
    for file in files:
        if [other.resolve() for other in files].count(file.resolve()) > 1:
            raise InputError(f"{file}: given twice; give each model once")
    chosen = list(names) if names else names_of([file.parent for file in files])
    if len(chosen) != len(files) or len(set(chosen)) < len(chosen):
        raise InputError(f"--names {' '.join(chosen)}: give {len(files)} different names, one a model")
    return [read_model(file, name) for file, name in zip(files, chosen, strict=True)]


def find_file(path: Path) -> Path:
    """The scores.json in a folder, else its summary.json; a file is itself.

    Raises:
        InputError: if there is neither.
    """
    if not path.is_dir():
        if not path.is_file():
            raise InputError(f"{path}: not found; {REMEDY}")
        return path
    for name in (SCORES_JSON, SUMMARY_JSON):
        if (path / name).is_file():
            return path / name
    raise InputError(f"{path}: holds neither {SCORES_JSON} nor {SUMMARY_JSON}; {REMEDY}")


def names_of(folders: Sequence[Path]) -> list[str]:
    """Last part of each path; where two are alike, the last parts before what all paths end in."""
    parts = [list(folder.resolve().parts) for folder in folders]
    while all(len(it) > 1 for it in parts) and len({it[-1] for it in parts}) == 1:
        parts = [it[:-1] for it in parts]
    names = [it[-1] for it in parts]
    if len(set(names)) < len(names):
        raise InputError(f"{', '.join(map(str, folders))}: the folders are called alike; name the models with --names")
    return names


def read_model(file: Path, name: str) -> ModelScores:
    """Read one file of scores of either sort.

    Raises:
        InputError: if it is damaged, or holds no case.
    """
    model = read_nnunet(file, name) if is_nnunet(file) else read_own(file, name)
    if not model.cases:
        raise InputError(f"{file}: holds no case; {REMEDY}")
    return model


def is_nnunet(file: Path) -> bool:
    """True of a JSON file with nnU-Net's keys; one that cannot be read is told of as scores."""
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and "metric_per_case" in document


def read_own(file: Path, name: str) -> ModelScores:
    """`spadunet_evaluate`'s scores.json.

    Whatever policy its means follow, missing classes count the worst that the image allows, so that missing one never
    makes a model better. Only files of format version 1, which do not tell the images' sizes, keep their policy.
    """
    scores = read_record(file, Scores, remedy=REMEDY)
    policy: Missing = "worst" if all(case.extent for case in scores.cases) else scores.missing
    cases = {
        case.case: {
            class_name: ClassValues(
                values={metric: case.counted(class_name, metric, policy) for metric in scores.metrics},
                num_prediction_voxels=score.num_prediction_voxels,
                num_reference_voxels=score.num_reference_voxels,
            )
            for class_name, score in case.classes.items()
        }
        for case in scores.cases
    }
    sentences = {metric: text for metric, text in scores.definitions.items() if metric in scores.metrics}
    return ModelScores(
        name=name,
        file=file,
        classes=tuple(scores.classes),
        metrics=scores.metrics,
        cases=cases,
        stated=sentences | {"definition": scores.definition, "missing": policy},
    )


class NnunetCase(BaseModel):
    """What is used of a case in nnU-Net's summary.json."""

    model_config = ConfigDict(extra="ignore")

    prediction_file: Path
    metrics: dict[str, dict[str, float | None]]
    """By id, or by the ids of a region as Python writes a tuple."""


class NnunetSummary(BaseModel):
    """What is used of nnU-Net's summary.json."""

    model_config = ConfigDict(extra="ignore")

    metric_per_case: tuple[NnunetCase, ...]


def read_nnunet(file: Path, name: str) -> ModelScores:
    """nnU-Net's summary.json: Dice and IoU. Classes have the names of the nearest dataset.json, else their ids.

    nnU-Net copies that file beside its predictions, and has it two folders above a fold's validation.

    Raises:
        InputError: if the file has other keys.
    """
    try:
        summary = NnunetSummary.model_validate(json.loads(file.read_bytes()))
    except ValidationError as error:
        raise InputError(
            f"{file}: {first_problem(error)}; only nnU-Net's own summary.json can be read, "
            f"give {SCORES_JSON} of spadunet_evaluate"
        ) from error
    names = class_names_near(file.parent)
    cases = {}
    for case in summary.metric_per_case:
        file_name = case.prediction_file.name
        ending = ending_of(case.prediction_file, LABEL_ENDINGS) or ""
        cases[file_name[: len(file_name) - len(ending)]] = {
            names.get(key, key): ClassValues(
                values={ours: defined(found.get(theirs)) for theirs, ours in NNUNET_METRICS.items()},
                num_prediction_voxels=count_of(found.get("n_pred")),
                num_reference_voxels=count_of(found.get("n_ref")),
            )
            for key, found in case.metrics.items()
        }
    classes = tuple(next(iter(cases.values()), ()))
    metrics = tuple(NNUNET_METRICS.values())
    return ModelScores(name=name, file=file, classes=classes, metrics=metrics, cases=cases, stated={})


def class_names_near(folder: Path) -> dict[str, str]:
    """Class names by id, as nnU-Net writes it, from the nearest dataset.json; none without one.

    A region of one id goes by both its keys: whether that was given as a list may have changed since.
    """
    folder = folder.resolve()
    for above in (folder, *list(folder.parents)[:2]):
        if (above / DATASET_JSON).is_file():
            structures = read_labels(above / DATASET_JSON).structures
            loose = {key: it.name for it in structures if len(it.ids) == 1 for key in (str(it.ids[0]), str(it.ids))}
            return loose | {it.nnunet_key: it.name for it in structures}
    return {}


def defined(value: float | None) -> float | None:
    """A number, or None for NaN."""
    return None if value is None or math.isnan(value) else value


def count_of(value: float | None) -> int | None:
    """Voxels; nnU-Net writes some of its counts as floats."""
    return None if value is None else int(value)
