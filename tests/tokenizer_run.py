"""Steps of stage one by gradient descent, as torchrun starts them in each process: `tokenizer_run.py CORPUS RESULT`.

Plain gradient descent, since Adam turns rounding of a gradient near zero into a whole step; the regularisation weighs
much more than in earnest, so that it shows.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from tokenizer_corpus import SMALL_RECIPE, TOY, small_batches, small_stage

from spadunet.network import build
from spadunet.pretraining.corpus import Corpus, load_corpus
from spadunet.tensors import write_tensors
from spadunet.training.ranks import Ranks, open_ranks

NUM_STEPS = 3


def descend(corpus: Corpus, ranks: Ranks, *, evenness: float = 3.0) -> dict[str, torch.Tensor]:
    """Weights of both networks after some steps, the gate's numbers and the last measures.

    The gate is opened for the first step, so that the adversarial term counts; what it then is follows from the losses.
    """
    stage = small_stage(corpus, ranks, recipe=replace(SMALL_RECIPE, evenness=evenness))
    for name, network in stage.networks.items():
        stage.optimisers[name] = torch.optim.SGD(network.parameters(), lr=0.1)
    stage.numbers |= {"running": 0.0, "last": 0.0}
    measures = {}
    for batch in small_batches(corpus, NUM_STEPS, ranks)(0):
        measures = stage.learn(batch)
    told = {f"gate.{name}": value for name, value in stage.numbers.items()}
    told |= {f"measure.{name}": measures[name] for name in ("loss", "perplexity", "codebook_use", "discriminator")}
    tensors = {name: torch.tensor(value) for name, value in told.items()}
    networks = stage.networks.items()
    return tensors | {f"{name}.{key}": value for name, net in networks for key, value in net.state_dict().items()}


if __name__ == "__main__":
    build.TOKENIZER_WIDTHS["toy"] = TOY
    with open_ranks(torch.device("cpu")) as ranks:
        weights = descend(load_corpus(Path(sys.argv[1])), ranks)
        if ranks.is_first:
            write_tensors(Path(sys.argv[2]), weights)
