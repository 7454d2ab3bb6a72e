r"""nnU-Net's own trainer for a number of steps or minutes; run by the Python of nnU-Net's environment, not by ours.

    nnUNet_raw=… nnUNet_preprocessed=… nnUNet_results=… \
        PEER/python benchmarks/nnunet_run.py DATASET FOLD LENGTH SEED DEVICE

LENGTH is 300 (steps) or 10min. Its learning rate falls to nothing by the end: epoch by epoch, into which the steps are
divided, at most 20; or before every step, by the share of the minutes that are over. The minutes begin when its loaders
have started, and it does not validate while they last. Prints how many steps it made, as JSON.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

MAX_EPOCHS = 20
POWER = 0.9
"""Of its polynomial schedule."""


def main() -> None:
    """Train `3d_fullres` with its own plans, patches, batch and augmentation; write its final checkpoint."""
    dataset, fold, length, seed, device = sys.argv[1:]
    torch.manual_seed(int(seed))
    np.random.seed(int(seed))
    trainer = get_trainer_from_args(
        dataset, "3d_fullres", fold if fold == "all" else int(fold), device=torch.device(device)
    )
    if length.endswith("min"):
        num_steps = train_minutes(trainer, float(length.removesuffix("min")))
    else:
        num_steps = int(length)
        train_steps(trainer, num_steps)
    print(json.dumps({"steps": num_steps}))


def train_steps(trainer: nnUNetTrainer, num_steps: int) -> None:
    """As it would, in epochs so short that they make the number of steps."""
    trainer.num_epochs = next(number for number in range(MAX_EPOCHS, 0, -1) if num_steps % number == 0)
    trainer.num_iterations_per_epoch = num_steps // trainer.num_epochs
    trainer.num_val_iterations_per_epoch = 1
    trainer.run_training()


def train_minutes(trainer: nnUNetTrainer, minutes: float) -> int:
    """Steps of its own until the time is over; how many."""
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.network.train()
    start, num_steps = time.monotonic(), 0
    while (share := (time.monotonic() - start) / (60 * minutes)) < 1:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - share) ** POWER
        trainer.train_step(next(trainer.dataloader_train))
        num_steps += 1
    trainer.on_train_end()
    return num_steps


if __name__ == "__main__":
    main()
