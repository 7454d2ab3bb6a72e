"""The optimiser of a run, and its step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..network.decay import parameter_groups


def make_optimiser(
    network: nn.Module, learning_rate: float, weight_decay: float, *, spares_vectors: bool
) -> torch.optim.AdamW:
    """AdamW over all parameters that are trained.

    Args:
        spares_vectors: weight decay leaves out norms, biases, tokens and positions.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = parameter_groups(network, weight_decay) if spares_vectors else trained
    return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay, fused=True)


def room_for_moments(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    """Memory as much as the moments will take that the optimiser makes in its first step; empty after that."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    return [torch.empty_like(parameter) for parameter in parameters if parameter not in optimiser.state for _ in "mv"]


def forget_step(optimiser: torch.optim.Optimizer) -> None:
    """Let go of what a step that ran out of memory has left: gradients, and the state of parameters that is not whole.

    AdamW counts a parameter's steps before it makes its moments, and does not make them where there is a count.
    """
    optimiser.zero_grad(set_to_none=True)
    for parameter, state in list(optimiser.state.items()):
        if not {"exp_avg", "exp_avg_sq"} <= state.keys():
            del optimiser.state[parameter]


def take_step(loss: Tensor, network: nn.Module, optimiser: torch.optim.Optimizer, max_norm: float) -> Tensor:
    """One step, with the gradient clipped to a norm.

    Returns:
        The loss; NaN where its gradient is not finite. Nothing is then changed, so that weights stay sound.
    """
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    if not follow_gradient(network, optimiser, max_norm):
        return torch.full_like(loss.detach(), float("nan"))
    return loss.detach()


def follow_gradient(network: nn.Module, optimiser: torch.optim.Optimizer, max_norm: float) -> bool:
    """The step of a gradient that is there, clipped to a norm; False where it is not finite, and nothing is changed."""
    norm = nn.utils.clip_grad_norm_(network.parameters(), max_norm)
    if not norm.isfinite():
        return False
    # One group of parameters has learned before the next one's moments are made: if memory is short, now, while a step
    # can still be taken again.
    room_for_moments(optimiser)
    optimiser.step()
    return True
