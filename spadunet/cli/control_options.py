"""Options of `spadunet_train` that say on how much to train, how long, how often, and how exactly."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator

from ..errors import InputError
from .options import non_negative_int, positive_int


def add_control_options(parser: argparse.ArgumentParser) -> None:
    """`--fraction` to `--repeats`."""
    parser.add_argument(
        "--fraction",
        type=fraction,
        default=1.0,
        metavar="SHARE",
        help="train on this share of the fold's training patients, e.g. 0.2; a larger one holds the smaller ones",
    )
    parser.add_argument(
        "--fraction-seed", type=non_negative_int, metavar="SEED", help="which patients those are (default: 0)"
    )
    parser.add_argument(
        "--validate-every",
        type=non_negative_int,
        metavar="STEPS",
        help="look at patches of held-out cases this often while training, 0 for never; into validation.csv "
        "(default: 50 times a run, less often where that took more than about 3 %% of its time)",
    )
    parser.add_argument(
        "--patience",
        type=positive_int,
        metavar="N",
        help="end early when the smoothed Dice of N of these validations in a row was not better than before: the "
        "learning rate then falls to zero within a tenth of the steps so far, and the last weights are kept",
    )
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="two runs give the same weights to the last bit, on the same machine and number of threads; slower on a "
        "GPU, there not of spad_vit, and not with --max-minutes",
    )
    parser.add_argument(
        "--repeats",
        type=positive_int,
        metavar="N",
        help="N runs with the seeds --seed, --seed + 1 …, each in a folder seed_<seed>, and a table of the mean and "
        "spread of their validation; typed again it goes on, with a larger N it adds runs",
    )


def check_control_options(options: argparse.Namespace) -> None:
    """Refuse what cannot be done together.

    Raises:
        InputError: names both options.
    """
    if options.fraction_seed is not None and options.fraction == 1:
        raise InputError(f"--fraction-seed {options.fraction_seed}: chooses the patients of --fraction; give that too")
    if options.patience is not None and options.validate_every == 0:
        raise InputError(f"--patience {options.patience}: needs validations; leave --validate-every 0 out")
    if options.deterministic and options.max_minutes is not None:
        raise InputError(
            f"--deterministic: with --max-minutes {options.max_minutes:g} a run follows the clock, which is never "
            "twice the same; give --max-steps instead"
        )
    if options.repeats is not None and options.c:
        raise InputError(f"--c: --repeats {options.repeats} goes on by itself; leave --c out")
    if options.repeats is not None and options.fold == "all":
        raise InputError(f"--repeats {options.repeats}: -f all holds out no case to compare runs by; give a fold")


def check_deterministic(options: argparse.Namespace, backbone: str, device_type: str) -> None:
    """Refuse what PyTorch has no deterministic operations for: on a GPU, max pooling of volumes and trilinear resizing.

    Raises:
        InputError: names the backbone.
    """
    if options.deterministic and backbone == "spad_vit" and device_type == "cuda":
        raise InputError(
            "--deterministic: --backbone spad_vit cannot give the same bits on a GPU (its pooling and resizing have no "
            "deterministic gradient there); give --backbone spad_unet or -device cpu, or leave --deterministic out"
        )


def run_name(options: argparse.Namespace) -> str:
    """Folder of a run below those of its datasets and network."""
    name = f"fold_{options.fold}"
    if options.fraction < 1:
        name += f"_fraction_{options.fraction:g}_seed_{options.fraction_seed or 0}"
    return name if options.repeats is None else f"{name}_repeats"


@contextlib.contextmanager
def deterministic(*, is_wanted: bool) -> Iterator[None]:
    """Let every operation give the same bits again, or fail."""
    if not is_wanted:
        yield
        return
    import torch

    # cuBLAS reads it when it is first used; see "Results reproducibility" in its documentation.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.benchmark = before[1]


def fraction(text: str) -> float:
    """Parse a share above 0, up to 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value
