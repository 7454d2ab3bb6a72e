"""epochs.csv gives back what was written."""

from __future__ import annotations

from pathlib import Path

from spadunet.training.board import ValidationBoard
from spadunet.training.epochs import EpochPoint, read_epochs, write_epochs

POINTS = [
    EpochPoint(step=3, epoch=1, loss=0.5, auc=0.75, accuracy=0.5),
    EpochPoint(step=4, epoch=1.25, loss=0.25, auc=None, accuracy=None),
]


def test_what_is_written_is_read_and_what_is_not_defined_stays_so(tmp_path: Path):
    assert read_epochs(tmp_path) == []
    write_epochs(tmp_path, POINTS)
    assert read_epochs(tmp_path) == POINTS
    assert (tmp_path / "epochs.csv").read_text() == "step,epoch,loss,auc,accuracy\n3,1,0.5,0.75,0.5\n4,1.25,0.25,,\n"


def test_tensorboard_gets_each_epoch_once(tmp_path: Path, monkeypatch):
    shown = []
    monkeypatch.setattr(ValidationBoard, "add", lambda self, values, step: shown.append((step, values)))
    board = ValidationBoard(tmp_path)
    for points in (POINTS[:1], POINTS, POINTS):
        write_epochs(tmp_path, points)
        board.update()
    assert shown == [
        (3, {"validation_loss": 0.5, "validation_AUC": 0.75, "validation_ACC": 0.5}),
        (4, {"validation_loss": 0.25}),
    ]
