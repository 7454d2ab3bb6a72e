"""What the model card says."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_model import CLASSIFIER, TASKS, make_adapted_model, make_model, shrink_presets

from spadunet.classes import ClassSet
from spadunet.cli.export_model import scores_of
from spadunet.evaluation.classification import DEFINITIONS, ClassificationScores, ClassResult
from spadunet.evaluation.classification_tables import write_classification_scores
from spadunet.model import ModelRecord
from spadunet.scores import CaseScore, ClassScore, Scores
from spadunet.sharing.card import write_card
from spadunet.task import AdapterRecord, TaskRecord


def score(dice: float | None, num_prediction: int = 5, num_reference: int = 5) -> ClassScore:
    """Of one class of a case."""
    return ClassScore(values={"dice": dice}, num_prediction_voxels=num_prediction, num_reference_voxels=num_reference)


SCORES = Scores(
    metrics=("dice",),
    missing="nan",
    definitions={"dice": "twice the overlap"},
    cases=(
        CaseScore(case="patient_17", classes={"left|ear": score(0.5), "right": score(None, 0, 0)}),
        CaseScore(case="patient_18", classes={"left|ear": score(0.75), "right": score(0.25)}),
    ),
)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> tuple[ModelRecord, dict[str, TaskRecord]]:
    """A model's documents."""
    shrink_presets(monkeypatch)
    model = make_model()
    record = ModelRecord(
        backbone=model.backbone, preset=model.preset, tasks=TASKS, provenance=model.provenance, sha256={}
    )
    return record, {
        name: TaskRecord(name=name, plan=task.plan, provenance=task.provenance) for name, task in model.tasks.items()
    }


def test_scores_are_means_over_cases_that_are_not_named(parts):
    card = write_card("m", *parts, {TASKS[0]: SCORES})
    assert "Means over 2 held-out cases." in card
    assert "| class | cases | Dice |" in card
    assert "| left\\|ear | 2 | 0.625 |" in card  # (0.5 + 0.75) / 2
    assert "| right | 2 | 0.250 |" in card
    assert "| mean |  | 0.438 |" in card  # (0.625 + 0.25) / 2
    assert "- dice: twice the overlap" in card
    assert "patient_1" not in card


def test_data_are_told_for_each_task_also_of_those_that_joined_later(parts):
    card = write_card("m", *parts, {})
    first, second = (card.split(f"### {name}\n")[1].split("##")[0] for name in TASKS)
    assert "| training cases | 4 |" in first
    assert "| training cases | 9 |" in second
    for text in (
        "| channels | T1 (percentiles 0.5 to 99.5), CT (window -100 to 300) |",
        "| labels | left\\|ear (1), &lt;b>right (4) |",
        "| voxel spacing | 8×1.25×1.25 mm (depth, height, width) |",
        "| degree of anisotropy | 2 |",
        "| patch | 4×16×16 voxels |",
    ):
        assert text in first
    assert f"{TASKS[1]} joined later:" in card


def test_what_is_not_said_is_said_to_be_so(parts):
    model, tasks = parts
    card = write_card("m", model.model_copy(update={"provenance": {}}), tasks, {})
    assert "## Licence\n\nNot stated." in card
    assert "## Intended use\n\nNot stated. A research model, no medical device" in card
    assert "None came with the model" in card
    assert "| training cases | not recorded |" in card


def test_a_pretrained_backbone_names_its_corpus(parts):
    model, _ = parts
    card = write_card("m", model.model_copy(update={"tasks": (), "provenance": {"corpus": "scans"}}), {}, {})
    assert "A pre-trained backbone, without a task" in card
    assert "Corpus: scans." in card


def test_what_the_models_before_learned_from_is_left_to_model_json(parts):
    model, tasks = parts
    behind = {"earlier_runs": "datasets=A, fold=0, cases=1a2b", "seed": "7"}
    card = write_card("m", model.model_copy(update={"provenance": behind}), tasks, {})
    assert "| seed | 7 |" in card
    assert "1a2b" not in card


def test_a_classifier_has_auc_and_acc_with_intervals_and_what_is_not_defined(monkeypatch: pytest.MonkeyPatch):
    shrink_presets(monkeypatch)
    classifier = make_adapted_model(AdapterRecord(rank=2)).classifiers[CLASSIFIER]
    model = ModelRecord(
        backbone="spad_unet", preset="tiny", tasks=(), classifiers=(CLASSIFIER,), provenance={}, sha256={}
    )
    card = write_card("m", model, {CLASSIFIER: classifier.record(CLASSIFIER)}, {CLASSIFIER: class_scores()})
    assert "4 held-out studies of 3 patients; in brackets 95 % intervals." in card
    assert "| class | studies | AUC | ACC |" in card
    assert "| heart | 2 | 0.750 (0.250 to 1.000) |  |" in card
    assert "| liver | 0 | not defined |  |" in card
    assert "| all | 4 | 0.750 (0.250 to 1.000) | 0.500 (0.250 to 0.750) |" in card
    assert "- AUC of 'liver': not defined, no such case" in card
    assert "None came with the model" not in card


def class_scores() -> ClassificationScores:
    """Of three classes, one of which no study is of."""
    numbers = {"heart": 2, "lung": 2, "liver": 0}
    results = tuple(
        ClassResult(
            name=name,
            num_positive=number,
            num_negative=4 - number,
            num_unknown=0,
            auc=0.75 if number else None,
            auc_interval=(0.25, 1) if number else None,
            sensitivity=None,
            specificity=None,
            accuracy=0.5,
        )
        for name, number in numbers.items()
    )
    return ClassificationScores(
        classes=ClassSet(kind="multi-class", names=tuple(numbers)),
        num_studies=4,
        num_patients=3,
        auc=0.75,
        auc_interval=(0.25, 1),
        accuracy=0.5,
        accuracy_interval=(0.25, 0.75),
        results=results,
        confusion=None,
        definitions=DEFINITIONS["multi-class"],
    )


def test_scores_of_classifiers_are_found_those_of_added_tasks_too(tmp_path: Path):
    for folder in (tmp_path / "validation/Organs", tmp_path / "added/Sides/validation/Sides"):
        write_classification_scores(folder, class_scores())
        (folder / "predictions.csv").write_text("")
    assert scores_of(tmp_path) == {"Organs": class_scores(), "Sides": class_scores()}
