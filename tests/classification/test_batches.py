"""Real epochs, whose batches follow from seed and step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spadunet.classification.batches import StudyBatch, StudyStream
from spadunet.classification.options import LIGHT
from spadunet.preprocessing.views import View


class Mixed:
    """Seven studies: every third has two views."""

    names = tuple("abcdefg")

    def __len__(self) -> int:
        return 7

    def __getitem__(self, number: int) -> tuple[View, ...]:
        array = np.full((1, 4, 4, 4), number / 10 + 0.05, np.float32)
        view = View(name=self.names[number], array=array, da=0, geometry=None)
        return (view, view) if number % 3 == 0 else (view,)


LABELS = np.arange(7)[:, None]


def stream(seed: int = 0, **changes) -> StudyStream:
    return StudyStream(
        Mixed(), LABELS, **{"batch_size": 3, "seed": seed, "recipe": None, "is_dimmed": False, **changes}
    )


def test_every_epoch_has_every_study_once_in_an_order_of_its_own():
    epochs = [[name for step in range(3) for name in stream()[3 * epoch + step].names] for epoch in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list("abcdefg")] * 2
    assert epochs[0] != epochs[1]
    assert [len(stream()[step].names) for step in range(3)] == [3, 3, 1]
    assert [stream()[step].epoch for step in (0, 2, 3)] == [0, 0, 1]
    assert stream()[4].names == stream()[4].names != stream(seed=1)[4].names


def test_studies_of_a_batch_are_grouped_by_what_they_are_made_of_and_keep_their_labels():
    batch = stream(batch_size=7)[0]
    assert sorted(len(group.views) for group in batch.groups) == [1, 2]
    for group in batch.groups:
        for row, place in enumerate(group.places):
            number = Mixed.names.index(batch.names[place])
            assert batch.labels[place].tolist() == [number]
            assert all(float(view[row, 0, 0, 0, 0]) == pytest.approx(number / 10 + 0.05) for view, _ in group.views)


def changes_of(batch: StudyBatch) -> dict[str, np.ndarray]:
    """The matrix of each study's first view."""
    return {
        batch.names[place]: group.changes[0][row].matrices
        for group in batch.groups
        for row, place in enumerate(group.places)
    }


def test_what_a_study_meets_follows_from_the_epoch_and_not_from_the_batch():
    found = [
        {
            name: it
            for step in range(-(-7 // size))
            for name, it in changes_of(stream(batch_size=size, recipe=LIGHT)[step]).items()
        }
        for size in (2, 7)
    ]
    assert found[0].keys() == found[1].keys() == set(Mixed.names)
    assert all(np.array_equal(found[0][name], found[1][name]) for name in Mixed.names)
    assert any((matrix != np.eye(3)).any() for matrix in found[0].values())


def test_brightness_is_drawn_between_zero_and_one_where_it_is_asked_for():
    assert torch.equal(stream(batch_size=7)[0].brightness, torch.ones(7))
    drawn = stream(batch_size=7, is_dimmed=True)[0].brightness
    assert 0 <= drawn.min() < drawn.max() < 1
    assert len(set(drawn.tolist())) == 7
