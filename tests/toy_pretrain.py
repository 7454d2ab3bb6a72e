"""A pre-training command with a stage small enough for tests: everything but the stage is the real commands'."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from toy_stage import adamw

from spadunet.cli.dry_pretrain import show_pretraining
from spadunet.cli.options import find_device
from spadunet.cli.pretraining import add_pretraining_options, open_run, stop_advice
from spadunet.cli.recipes import Recipe
from spadunet.cli.run import make_parser, run_command
from spadunet.files import write_text
from spadunet.pretraining.loop import pretrain
from spadunet.pretraining.sampling import ImageBatch
from spadunet.training.ranks import Ranks, distribute, mean_over_ranks, open_ranks

USUAL = Recipe(
    warm_up_share=0.1,
    lowest_rate=1e-6,
    options={"max_steps": 5, "batch_size": 4, "crop_tokens": [1, 1], "learning_rate": 1e-2},
)
PAPER = Recipe(
    warm_up_share=0.2,
    lowest_rate=1e-6,
    options={"max_steps": 9, "batch_size": 6, "crop_tokens": [1, 1], "learning_rate": 1e-3, "preset": "base"},
)
RESULT = "toy.json"


class ImageStage:
    """Learns the mean of each channel, in float64."""

    def __init__(self, ranks: Ranks):
        torch.manual_seed(0)
        self.ranks, self.network = ranks, nn.Linear(3, 3).double()
        self.networks, self.optimisers = {"toy": self.network}, {"toy": adamw(self.network, 1e-2)}
        self.numbers: dict[str, float] = {}
        self.wrapped = distribute(self.network, ranks)

    def learn(self, batch: ImageBatch) -> dict[str, float]:
        means = batch.image.double().mean((2, 3, 4))
        loss = (self.wrapped(means) - means).square().mean()
        self.optimisers["toy"].zero_grad()
        loss.backward()
        self.optimisers["toy"].step()
        return {"loss": float(mean_over_ranks(loss.detach()))}

    def show(self, folder: Path, step: int) -> None:
        write_text(folder / "picture.txt", str(step))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser("Toy.", "")
    add_pretraining_options(parser, USUAL, presets=("tiny", "base"))
    options = parser.parse_args(arguments)

    def execute() -> int:
        with open_ranks(find_device(options.device)) as ranks:
            opened = open_run(
                options,
                ranks,
                command="toy_pretrain",
                kind="toy",
                result=RESULT,
                usual=USUAL,
                paper=PAPER,
                request={"extra": "1"},
            )
            with opened as run:
                if options.dry_run:
                    return show_pretraining(run, lambda: ImageStage(run.ranks), reads=["a toy"])
                stage = ImageStage(run.ranks)
                run.begin()
                progress = pretrain(
                    stage, run.batches, run.folder, run.options, run.ranks, run=run.request, is_locked=run.is_locked
                )
                if run.ranks.is_first:
                    write_text(run.folder / RESULT, str(progress.step))
                run.finish()
        return 0

    run_command(parser, options, execute, if_stopped=stop_advice(options))


if __name__ == "__main__":
    main()
