r"""nnU-Net's own trainer for a number of steps; run by the Python of nnU-Net's environment, not by ours.

    nnUNet_raw=… nnUNet_preprocessed=… nnUNet_results=… \
        PEER/python benchmarks/nnunet_steps.py DATASET FOLD STEPS SEED DEVICE

Its schedule falls epoch by epoch, so the steps are divided into epochs, at most 20.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from nnunetv2.run.run_training import get_trainer_from_args

MAX_EPOCHS = 20


def main() -> None:
    """Train `3d_fullres` with its own plans, patches, batch and augmentation; write its final checkpoint."""
    dataset, fold, steps, seed, device = sys.argv[1:]
    torch.manual_seed(int(seed))
    np.random.seed(int(seed))
    trainer = get_trainer_from_args(
        dataset, "3d_fullres", fold if fold == "all" else int(fold), device=torch.device(device)
    )
    trainer.num_epochs = next(number for number in range(MAX_EPOCHS, 0, -1) if int(steps) % number == 0)
    trainer.num_iterations_per_epoch = int(steps) // trainer.num_epochs
    trainer.num_val_iterations_per_epoch = 1
    trainer.run_training()


if __name__ == "__main__":
    main()
