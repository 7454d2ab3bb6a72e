"""Tasks that join a model: not while the model itself is being trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_model import TASKS, make_model, shrink_presets

from spadunet.cli.joint_options import ADDED_FOLDER, place_of_addition
from spadunet.errors import InputError
from spadunet.model import Model, read_model_record, save_model
from spadunet.training.adding import add_trained, backbone_of
from spadunet.training.status import hold


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model of two tasks, the second of which is to be added to the first."""
    shrink_presets(monkeypatch)
    return make_model()


@pytest.fixture
def folder(whole: Model, tmp_path: Path) -> Path:
    """The model before."""
    save_model(tmp_path / "model", replace(whole, tasks={TASKS[0]: whole.tasks[TASKS[0]]}))
    return tmp_path / "model"


def test_no_task_joins_a_model_whose_training_would_write_it_anew_without_it(
    whole: Model, folder: Path, tmp_path: Path
):
    trained = replace(whole, tasks={TASKS[1]: whole.tasks[TASKS[1]]})
    backbone = backbone_of(folder)
    with hold(folder):  # by a training that goes on with it
        with pytest.raises(InputError, match=f"{folder}: this run is going on; wait for it, or give another -o"):
            place_of_addition(folder, None, TASKS[1])
        with pytest.raises(InputError, match=f"{folder}: this run is going on"):  # which began after that
            add_trained(folder, folder, trained, backbone_sha256=backbone)
        assert place_of_addition(folder, tmp_path / "other", TASKS[1]) == (tmp_path / "other",) * 2
        add_trained(folder, tmp_path / "other", trained, backbone_sha256=backbone)
    assert read_model_record(folder).tasks == (TASKS[0],)
    assert place_of_addition(folder, None, TASKS[1]) == (folder / ADDED_FOLDER / TASKS[1], folder)
    add_trained(folder, folder, trained, backbone_sha256=backbone)
    assert read_model_record(folder).tasks == read_model_record(tmp_path / "other").tasks == TASKS
