"""What the tokenizer learns from, besides the pixels: the dual prior regularisation and the gated hinge GAN.

Letters: B batch, K tokens of the codebook, N positions of the token grid over a whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

GATE_THRESHOLD = 0.025
GATE_MOMENTUM = 0.9
GATE_START = 0.1
"""Of the running loss of the discriminator, as SPAD-Nets was trained."""


def entropy(probabilities: Tensor, dim: int) -> Tensor:
    """Shannon entropy in nats along an axis. A probability of zero adds nothing, and its slope is kept finite."""
    return -(probabilities * probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()).sum(dim)


@dataclass(frozen=True, kw_only=True)
class TokenStatistics:
    """How the tokens of a batch are spread over the codebook; entropies in nats."""

    mean_probabilities: Tensor
    """(K,): how much each token is used, over all positions of the global batch."""
    entropy_of_mean: Tensor
    """ln K where the codebook is used evenly."""
    mean_entropy: Tensor
    """Zero where each position is certain of its token."""

    def prior_regularisation(self, evenness: float, certainty: float) -> Tensor:
        """Dual prior regularisation: an even codebook, and certain positions (Luo et al. 2024, equation 2).

        Args:
            evenness: λ1, weight of the entropy of the mean distribution.
            certainty: λ2, weight of the mean entropy of the positions.
        """
        return certainty * self.mean_entropy - evenness * self.entropy_of_mean

    def divergence_from_uniform(self) -> Tensor:
        """Mean Kullback–Leibler divergence of the positions' distributions from the uniform one, in nats."""
        return math.log(len(self.mean_probabilities)) - self.mean_entropy

    def perplexity(self) -> Tensor:
        """Number of tokens that the mean distribution amounts to, 1 … K."""
        return self.entropy_of_mean.exp()


def token_statistics(logits: Tensor, mean_over_ranks: Callable[[Tensor], Tensor]) -> TokenStatistics:
    """Statistics of the soft tokens of a batch, with gradients.

    Args:
        logits: (B, K, d, h, w).
        mean_over_ranks: of a tensor, with a gradient through it; the identity for one process. Only by it is the mean
            distribution that of the global batch, and two processes learn as one.
    """
    logits = logits.float()
    probabilities = logits.softmax(1)
    mean = mean_over_ranks(probabilities.mean((0, 2, 3, 4)))  # (K,)
    return TokenStatistics(
        mean_probabilities=mean,
        entropy_of_mean=entropy(mean, 0),
        mean_entropy=-(probabilities * logits.log_softmax(1)).sum(1).mean(),
    )


def information(tokens: Tensor) -> Tensor:
    """How much tokens (B, L, K) at the same place tell the images of a batch apart, in nats; 0 for a single image.

    It is the divergence of the best guess that knows only the place: the Jensen-Shannon divergence of the images'
    tokens, mean over places. A tokenizer that has learned little tells where a patch lies, from the zeros that
    convolutions see around an image, and nothing of what it shows.
    """
    return entropy(tokens.mean(0), 1).mean() - entropy(tokens, 2).mean()


def discriminator_loss(real: Tensor, made: Tensor) -> Tensor:
    """Hinge loss of a discriminator from its logits: zero where real is above 1 and made below -1 (Lim and Ye 2017)."""
    return 0.5 * (functional.relu(1 - real).mean() + functional.relu(1 + made).mean())


def generator_loss(made: Tensor) -> Tensor:
    """Hinge loss of what is judged: the more real it looks, the lower."""
    return -made.mean()


@dataclass(frozen=True)
class GanGate:
    """The reconstruction is held against the discriminator only while that is good: at first it knows nothing."""

    running: float = GATE_START
    last: float = math.inf

    def is_open(self) -> bool:
        """True if both the running loss of the discriminator and its last one are low."""
        return max(self.running, self.last) <= GATE_THRESHOLD

    def after(self, loss: float) -> GanGate:
        """The gate after a step of the discriminator; `loss` is of the global batch, so that all ranks agree."""
        return GanGate(GATE_MOMENTUM * self.running + (1 - GATE_MOMENTUM) * loss, loss)
