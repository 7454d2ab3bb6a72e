r"""nnU-Net's own trainer for a number of steps or minutes; run by the Python of nnU-Net's environment, not by ours.

    nnUNet_raw=… nnUNet_preprocessed=… nnUNet_results=… \
        PEER/python benchmarks/nnunet_run.py DATASET FOLD LENGTH SEED DEVICE [BATCH]

LENGTH is 300 (steps) or 10min. By steps, its learning rate falls from epoch to epoch, as its own does: at most 20 of
the same length (305 steps become 320), the last at 7 % of the first's. By minutes, it falls to nothing, before every
step by the share of them that is over. They begin when its loaders have started and a first step is made, which
compiles where it compiles, and it does not validate while they last. A training by steps leaves a checkpoint after each
epoch, from which the same command goes on. BATCH stands in for the batch size of its plans: a departure from what it
would do. Prints as JSON how many steps it makes, and in how many minutes where these were asked for.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

MAX_EPOCHS = 20
POWER = 0.9
"""Of its polynomial schedule."""


def main() -> None:
    """Train `3d_fullres` with its own plans, patches, batch and augmentation; write its final checkpoint."""
    dataset, fold, length, seed, device, *batch = sys.argv[1:]
    begin_random(int(seed))
    trainer = get_trainer_from_args(
        dataset, "3d_fullres", fold if fold == "all" else int(fold), device=torch.device(device)
    )
    if batch:
        trainer.configuration_manager.configuration["batch_size"] = int(batch[0])
    if length.endswith("min"):
        train_minutes(trainer, float(length.removesuffix("min")))
    else:
        train_steps(trainer, int(length), int(seed))


def begin_random(seed: int) -> None:
    """Of this process; those of its loaders are not told."""
    torch.manual_seed(seed)
    np.random.seed(seed)


def train_steps(trainer: nnUNetTrainer, num_steps: int, seed: int) -> None:
    """As it would, in epochs so short that they make the number of steps or few more; from the last that was saved.

    Its own would save every 50th epoch.
    """
    trainer.num_iterations_per_epoch = math.ceil(num_steps / MAX_EPOCHS)
    trainer.num_epochs = math.ceil(num_steps / trainer.num_iterations_per_epoch)
    trainer.num_val_iterations_per_epoch = 1
    trainer.save_every = 1
    # said at once, so that whoever finds the final checkpoint finds it too
    print(json.dumps({"steps": trainer.num_epochs * trainer.num_iterations_per_epoch}), flush=True)
    save = trainer.save_checkpoint

    def save_whole(path: str) -> None:
        save(f"{path}.partial")
        os.replace(f"{path}.partial", path)

    trainer.save_checkpoint = save_whole
    latest = Path(trainer.output_folder) / "checkpoint_latest.pth"
    if latest.is_file():
        trainer.load_checkpoint(str(latest))
        begin_random(seed + trainer.current_epoch)  # else its first steps would be those of the start
    trainer.run_training()


def train_minutes(trainer: nnUNetTrainer, minutes: float) -> None:
    """Steps of its own until the time is over; the last one is made to its end."""
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.network.train()
    trainer.train_step(next(trainer.dataloader_train))
    start, num_steps = time.monotonic(), 0
    while (share := (time.monotonic() - start) / (60 * minutes)) < 1:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - share) ** POWER
        trainer.train_step(next(trainer.dataloader_train))
        num_steps += 1
    print(json.dumps({"steps": num_steps, "minutes": (time.monotonic() - start) / 60}), flush=True)
    trainer.on_train_end()


if __name__ == "__main__":
    main()
