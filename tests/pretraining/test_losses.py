"""Dual prior regularisation, hinge losses and the gate, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from spadunet.pretraining.losses import (
    GanGate,
    discriminator_loss,
    entropy,
    generator_loss,
    token_statistics,
)

K = 1024
CERTAIN = 1e4  # softmax gives exactly 0 and 1


def alone(x: torch.Tensor) -> torch.Tensor:
    """One process: the mean over ranks is its own."""
    return x


def certain_logits(tokens: list[int]) -> torch.Tensor:
    """(1, K, 1, 1, len(tokens)): each position is certain of its token."""
    logits = torch.zeros(1, K, 1, 1, len(tokens))
    for position, token in enumerate(tokens):
        logits[0, token, 0, 0, position] = CERTAIN
    return logits


@pytest.mark.parametrize("num_used", [1, 2, 8, 1024])
def test_certain_and_distinct_tokens_have_no_entropy_and_a_mean_of_as_many_nats_as_tokens(num_used):
    logits = certain_logits(list(range(num_used)))
    found = token_statistics(logits, alone)
    assert float(found.mean_entropy) == 0
    assert float(found.entropy_of_mean) == pytest.approx(math.log(num_used), abs=1e-5)
    assert float(found.perplexity()) == pytest.approx(num_used, rel=1e-4)
    assert float(found.divergence_from_uniform()) == pytest.approx(6.931472, abs=1e-6)
    assert float(found.prior_regularisation(0.03, 1.0)) == pytest.approx(-0.03 * math.log(num_used), abs=1e-6)
    token_statistics(logits.requires_grad_(), alone).prior_regularisation(0.03, 1.0).backward()
    assert logits.grad.isfinite().all()


def test_uniform_tokens_have_the_greatest_entropy_of_both_kinds():
    found = token_statistics(torch.zeros(2, K, 1, 2, 3), alone)
    assert float(found.mean_entropy) == pytest.approx(6.931472, abs=1e-5)
    assert float(found.entropy_of_mean) == pytest.approx(6.931472, abs=1e-5)
    assert float(found.divergence_from_uniform()) == pytest.approx(0, abs=1e-5)
    assert float(found.prior_regularisation(0.03, 1.0)) == pytest.approx(0.97 * 6.931472, abs=1e-5)


def test_mean_is_over_all_positions_and_images_and_ranks():
    """Two images of one position: tokens 0 and 1; the other rank saw token 2 twice."""
    logits = torch.cat([certain_logits([0]), certain_logits([1])])
    other = torch.zeros(K)
    other[2] = 1
    found = token_statistics(logits, lambda mean: (mean + other) / 2)
    assert found.mean_probabilities[:4].tolist() == pytest.approx([0.25, 0.25, 0.5, 0])
    expected = 0.25 * math.log(4) * 2 + 0.5 * math.log(2)
    assert float(found.entropy_of_mean) == pytest.approx(expected, abs=1e-6)


def test_regularisation_sharpens_each_position_and_keeps_all_from_falling_on_one_token():
    """Eight positions, eight tokens, the first of which leads everywhere: certainty alone would give it all."""
    found = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        logits = (0.5 * torch.randn(1, 8, 1, 1, 8) + 1.5 * torch.eye(8)[0].view(1, 8, 1, 1, 1)).requires_grad_()
        for _ in range(200):
            now = token_statistics(logits, alone)
            (gradient,) = torch.autograd.grad(now.mean_entropy - weight * now.entropy_of_mean, logits)
            logits = (logits - 5 * gradient).detach().requires_grad_()
        found[weight] = token_statistics(logits.detach(), alone)
    assert all(float(statistics.mean_entropy) < 0.2 for statistics in found.values())
    assert float(found[0.0].perplexity()) < 3 < float(found[1.0].perplexity())


def test_entropy_with_zeros_is_finite_and_so_is_its_slope():
    p = torch.tensor([0.5, 0.5, 0.0, 1e-42], requires_grad=True)
    value = entropy(p, 0)
    value.backward()
    assert float(value.detach()) == pytest.approx(math.log(2), abs=1e-6)
    assert p.grad.isfinite().all()


def test_hinge_losses_by_hand():
    real, made = torch.tensor([2.0, 0.0, -1.0]), torch.tensor([-2.0, 0.0, 1.0])
    # real: 0, 1, 2; made: 0, 1, 2; each mean 1, half of the sum 1.
    assert float(discriminator_loss(real, made)) == 1.0
    assert float(discriminator_loss(torch.tensor([1.0]), torch.tensor([-1.0]))) == 0.0
    assert float(generator_loss(torch.tensor([3.0, 1.0]))) == -2.0


def test_gate_opens_when_running_and_last_loss_are_low_and_shuts_at_once():
    gate = GanGate()
    assert not gate.is_open()
    opened_after = 0
    while not gate.is_open():
        gate = gate.after(0.0)
        opened_after += 1
    assert opened_after == 14  # 0.1 · 0.9^13 = 0.0254, · 0.9^14 = 0.0229
    assert gate.running == pytest.approx(0.1 * 0.9**14)
    shut = gate.after(0.026)
    assert shut.running < 0.025  # the last loss alone shuts it
    assert not shut.is_open()
    assert shut.after(0.0).is_open()
