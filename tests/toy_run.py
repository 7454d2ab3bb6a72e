"""A run of the toy stage, as torchrun starts it in each process: `toy_run.py FOLDER [what happens] [step] [rank]`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from toy_stage import ToyBatch, ToyStage, signal_at, spoil_from, toy_batches, toy_options

from spadunet.cli.run import make_parser, run_command
from spadunet.errors import InputError
from spadunet.pretraining.loop import pretrain
from spadunet.training.ranks import Ranks, open_ranks


def detached_mean(tensor: torch.Tensor) -> torch.Tensor:
    """What one would write first: the others' means are constants."""
    parts = [torch.empty_like(tensor) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, tensor.detach())
    parts[torch.distributed.get_rank()] = tensor
    return torch.stack(parts).mean(0)


def stage_for(what: str, step: int, ranks: Ranks) -> ToyStage:
    """The stage, and what happens to it."""

    def fail(batch: ToyBatch) -> None:
        if batch.step == step:
            raise InputError("image 7 is gone")

    def dawdle(batch: ToyBatch) -> None:
        if batch.step == step:
            (FOLDER / "dawdling").touch()
            time.sleep(2)

    if what == "detached":
        return ToyStage(ranks, mean=detached_mean)
    happens = {"signal": signal_at(step), "fail": fail, "spoil": spoil_from(step), "dawdle": dawdle}
    return ToyStage(ranks, before=happens[what]) if what in happens else ToyStage(ranks)


FOLDER = Path(sys.argv[1])


def work() -> int:
    """The run."""
    words = sys.argv[2:]
    what, step, chosen = (*words, *("", "0", "0")[len(words) :])
    with open_ranks(torch.device("cpu")) as ranks:
        if what == "missing":
            raise InputError(f"{FOLDER}: no corpus")
        is_chosen = what in ("detached", "dawdle") or ranks.rank == int(chosen)
        stage = stage_for(what if is_chosen else "", int(step), ranks)

        def batches(start: int) -> Iterator[ToyBatch]:
            for batch in toy_batches(ranks)(start):
                is_lost = what == "lose" and is_chosen and batch.step == int(step)
                yield replace(batch, unreadable=("lost",)) if is_lost else batch

        pretrain(stage, batches, FOLDER, toy_options(), ranks, run={})
    return 0


if __name__ == "__main__":
    parser = make_parser("A run of the toy stage.", "")
    run_command(parser, parser.parse_args([]), work, if_stopped="the same command goes on from here")
