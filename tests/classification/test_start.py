"""What a classification takes over from a model, and what it refuses to freeze."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spadunet.classification.parts import build_fresh
from spadunet.classification.prepared import prepare_classification
from spadunet.classification.start import start_classification
from spadunet.errors import InputError
from spadunet.model import Model, save_model
from spadunet.network.build import build_backbone
from spadunet.task import Classifier
from spadunet.training.asked import runs_behind
from spadunet.training.init import InitKind

KIND = InitKind(backbone="spad_unet", preset="tiny")


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    """Of some backbone."""
    torch.manual_seed(1)
    return build_backbone("spad_unet", "tiny").state_dict()


def write(folder: Path, state: dict[str, torch.Tensor], **classifiers: Classifier) -> Path:
    save_model(
        folder,
        Model(
            backbone="spad_unet", preset="tiny", backbone_state=state, tasks={}, provenance={}, classifiers=classifiers
        ),
    )
    return folder


def test_a_frozen_encoder_is_enough_unless_the_model_shall_grow(source, state, make_options, tmp_path: Path):
    encoder = {name: value for name, value in state.items() if name.startswith("encoder.")}
    folder = write(tmp_path / "encoder", encoder)
    options = make_options(freezes_backbone=True)
    run = prepare_classification(source, options, backbone="spad_unet", preset="tiny", init=folder)
    kept = run.parts.backbone.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in encoder.items())
    assert list(run.parts.learning) == ["task"]
    with pytest.raises(InputError, match="has no weights for decoder of the backbone, which would stay random"):
        prepare_classification(source, options, backbone="spad_unet", preset="tiny", init=folder, adds_task=True)
    few = write(tmp_path / "few", {name: value for name, value in encoder.items() if "stages.1" not in name})
    with pytest.raises(InputError, match=r"no weights for encoder\.stages\.1 "):
        prepare_classification(source, options, backbone="spad_unet", preset="tiny", init=few)


def test_what_learns_of_a_whole_network_is_the_encoder_and_the_task(source, make_options):
    run = prepare_classification(source, make_options(), backbone="spad_unet", preset="tiny")
    learning = {name for name, it in run.parts.backbone.named_parameters() if it.requires_grad}
    assert learning and all(name.startswith("encoder.") for name in learning)
    assert list(run.parts.learning) == ["encoder", "task"]


def test_a_task_of_the_same_classes_gives_its_head_and_one_of_other_classes_its_channels(source, state, tmp_path: Path):
    plan = source.plan
    _, task = build_fresh("spad_unet", "tiny", plan, None)
    own = {name: torch.randn_like(value) for name, value in task.state_dict().items()}
    told = {"task": "classification", "datasets": "cubes", "fold": "1", "cases": "those of fold 1"}
    same = write(tmp_path / "same", state, other=Classifier(plan=plan, pooling="mean", state=own, provenance=told))
    other_plan = plan.model_copy(update={"classes": plan.classes.model_copy(update={"names": ("up", "down")})})
    other = write(tmp_path / "other", state, other=Classifier(plan=other_plan, pooling="mean", state=own))
    for folder, takes_head in ((same, True), (other, False)):
        backbone, fresh = build_fresh("spad_unet", "tiny", plan, None)
        coverage = start_classification(backbone, fresh, plan, folder, kind=KIND, is_frozen=True, adds_task=False)
        assert torch.equal(fresh.channel_map.weight, own["channel_map.weight"])
        assert torch.equal(fresh.head.weight, own["head.weight"]) == takes_head
        assert coverage.earlier_runs == (runs_behind(told) if takes_head else ())  # of a task that was added
        fates = {row.group: row.fate for row in coverage.rows}
        assert fates["cubes channel_map"] == "loaded"
        assert fates["cubes head"] == ("loaded" if takes_head else "new")


def test_colours_enter_the_backbone_as_they_are_also_from_a_model_of_grey_images(source, state, tmp_path: Path):
    grey = source.plan
    colours = grey.model_copy(update={"channel_names": ("red", "green", "blue"), "intensity": grey.intensity * 3})
    _, known = build_fresh("spad_unet", "tiny", grey, None)
    folder = write(tmp_path / "grey", state, other=Classifier(plan=grey, pooling="mean", state=known.state_dict()))
    backbone, task = build_fresh("spad_unet", "tiny", colours, None)
    assert torch.equal(task.channel_map.weight, torch.eye(3))
    start_classification(backbone, task, colours, folder, kind=KIND, is_frozen=True, adds_task=False)
    assert torch.equal(task.channel_map.weight, torch.eye(3))


def test_a_pooling_that_the_backbone_lacks_is_refused(source, make_options):
    with pytest.raises(InputError, match="--pooling cls: a U-Net has no cls token"):
        prepare_classification(source, make_options(), backbone="spad_unet", preset="tiny", pooling="cls")


def test_what_a_run_was_asked_for_changes_with_labels_and_sides(source, make_options):
    def cases_of(changed) -> str:
        return prepare_classification(changed, make_options(), backbone="spad_unet", preset="tiny").request["cases"]

    assert source.held_out is not None
    flipped = replace(source.train, labels=1 - source.train.labels)
    assert len({cases_of(it) for it in (source, replace(source, train=flipped), replace(source, held_out=None))}) == 3
