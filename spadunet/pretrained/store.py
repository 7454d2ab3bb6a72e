"""Puts a pre-trained backbone among the weights that come with spadunet: `python -m spadunet.pretrained.store RUN`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..model import load_model, save_model
from . import BACKBONE, FOLDER


def store(run: Path, folder: Path) -> None:
    """Copy a pre-trained backbone's folder with its weights in float16: half the size, each right to one part in 2048.

    Raises:
        InputError: if the run has no model yet, or it is damaged.
        ValueError: if a weight is too large for float16.
    """
    model = load_model(run)
    halves = {name: tensor.half() for name, tensor in model.backbone_state.items()}
    too_large = [name for name, tensor in halves.items() if not tensor.isfinite().all()]
    if too_large:
        raise ValueError(f"{run}: too large for float16: {', '.join(too_large)}")
    save_model(folder, replace(model, backbone_state=halves))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and store."""
    parser = argparse.ArgumentParser(prog="python -m spadunet.pretrained.store", description=__doc__)
    parser.add_argument("run", type=Path, help="a folder that spadunet_pretrain_mim left")
    store(parser.parse_args(arguments).run, FOLDER / BACKBONE)


if __name__ == "__main__":
    main()
