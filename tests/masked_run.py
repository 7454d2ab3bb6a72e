"""Steps of masked image modelling with networks small enough for tests.

As torchrun starts them in each process: `masked_run.py CORPUS RESULT BACKBONE`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch

from spadunet.network.masked import MaskedUNet, MaskedViT
from spadunet.network.tokenizer import NUM_TOKENS, SpadTokenizer
from spadunet.network.unet import SpadUNet
from spadunet.network.vit import SpadViT
from spadunet.pretraining.corpus import Corpus, load_corpus
from spadunet.pretraining.mim import MaskedImageModelling
from spadunet.pretraining.sampling import CropRule, ImageBatch, load_batches
from spadunet.tensors import write_tensors
from spadunet.training.ranks import Ranks, open_ranks

RULE = CropRule(tokens_in_plane=2, tokens_in_depth=1)
GLOBAL_BATCH = 2
NUM_STEPS = 3


def small_network(backbone: str) -> MaskedViT | MaskedUNet:
    """Two blocks of 16 channels, or six levels of them."""
    torch.manual_seed(0)
    if backbone == "spad_vit":
        return MaskedViT(SpadViT(width=16, depth=2, num_heads=2, hidden_width=24), NUM_TOKENS)
    return MaskedUNet(SpadUNet([16] * 6, [0, 1, 1, 1, 1, 1]), NUM_TOKENS)


def small_tokenizer() -> SpadTokenizer:
    """Sixteen channels, decided enough that there is something to learn."""
    torch.manual_seed(1)
    tokenizer = SpadTokenizer((16, 16, 16))
    tokenizer.to_logits.weight.data *= 20
    return tokenizer.eval().requires_grad_(False)


def small_stage(
    backbone: str, ranks: Ranks | None = None, *, dtype: torch.dtype = torch.float32, **changes: object
) -> MaskedImageModelling:
    """A stage from its beginning, with weights of this dtype."""
    options = {"learning_rate": 3e-3, "seed": 0, "precision": torch.float32, **changes}
    network, tokenizer = small_network(backbone).to(dtype), small_tokenizer().to(dtype)
    return MaskedImageModelling(network, tokenizer, ranks or Ranks(), **options)


def small_batches(corpus: Corpus, num_steps: int, ranks: Ranks | None = None) -> Callable[[int], Iterable[ImageBatch]]:
    """As `pretrain` takes them."""
    ranks = ranks or Ranks()
    return lambda start: load_batches(
        corpus,
        RULE,
        batch_size=GLOBAL_BATCH,
        seed=0,
        start_step=start,
        num_steps=num_steps - start,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )


def descend(corpus: Corpus, backbone: str, ranks: Ranks) -> dict[str, torch.Tensor]:
    """Weights after some steps of plain gradient descent: Adam turns rounding near zero into a whole step.

    In float64, since the networks' norms magnify rounding; the loss alone is float32, as in earnest.
    """
    stage = small_stage(backbone, ranks, dtype=torch.float64)
    stage.optimisers["masked"] = torch.optim.SGD(stage.network.parameters(), lr=0.05)
    for batch in small_batches(corpus, NUM_STEPS, ranks)(0):
        stage.learn(replace(batch, image=batch.image.double()))
    return stage.network.state_dict()


if __name__ == "__main__":
    with open_ranks(torch.device("cpu")) as ranks:
        weights = descend(load_corpus(Path(sys.argv[1])), sys.argv[3], ranks)
        if ranks.is_first:
            write_tensors(Path(sys.argv[2]), weights)
