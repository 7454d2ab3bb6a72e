"""What the model card says."""

from __future__ import annotations

import pytest
from small_model import TASKS, make_model, shrink_presets

from spadunet.model import ModelRecord
from spadunet.scores import CaseScore, ClassScore, Scores
from spadunet.sharing.card import write_card
from spadunet.task import TaskRecord


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
