"""Sums over what is known."""

from __future__ import annotations

import math

import pytest
import torch

from spadunet.classes import UNKNOWN, ClassSet
from spadunet.classification.loss import num_known, summed_loss

THREE = ClassSet(kind="multi-class", names=("a", "b", "c"))
FINDINGS = ClassSet(kind="multi-label", names=("x", "y"))


def test_a_class_costs_the_logarithm_of_its_probability():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]))
    assert float(summed_loss(logits, torch.tensor([[0], [2]]), THREE)) == pytest.approx(math.log(2) + math.log(4))
    assert float(summed_loss(logits, torch.tensor([[0], [UNKNOWN]]), THREE)) == pytest.approx(math.log(2))


def test_a_finding_that_nobody_looked_for_adds_nothing_and_teaches_nothing():
    logits = torch.zeros(2, 2, requires_grad=True)
    labels = torch.tensor([[1, UNKNOWN], [0, UNKNOWN]])
    loss = summed_loss(logits, labels, FINDINGS)
    assert float(loss.detach()) == pytest.approx(2 * math.log(2))
    assert num_known(labels) == 2
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[-0.5, 0], [0.5, 0]]
