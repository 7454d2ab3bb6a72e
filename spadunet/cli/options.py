"""Options that several commands share, and what they mean.

Heavy imports stay inside the functions, so that `--help` is instant.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from ..errors import InputError
from ..sides import PATIENT_AXES
from .fine_tuning import add_recipe_option
from .recipes import Recipe, default_text
from .run import add_data_option, add_dry_run_option

if TYPE_CHECKING:
    import torch

    from ..plans.planner import TargetSpacing
    from ..sides import PatientAxis
    from ..workers import Workers

DEFAULT_SEED, AUTO_PRECISION = 0, "auto"
MAX_PROCESSES = 8
"""Unless the user asks for more."""
RAM_SHARE = 0.8
"""Of the free memory, unless the user says: the rest is for what others do, and for an estimate that is too low."""


USUAL_PLAN = Recipe(options={"spacing": ["median"]})
"""What the planner does unless it is told."""


def add_dataset_options(parser: argparse.ArgumentParser) -> None:
    """`-d`, who works, `--data` and `--dry-run`."""
    parser.add_argument(
        "-d",
        "--dataset",
        nargs="+",
        required=True,
        metavar="DATASET",
        help="name, number, DatasetNNN_Name or path; several are done one after the other",
    )
    add_worker_options(parser)
    add_data_option(parser)
    add_dry_run_option(parser)


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """`-np`, `--ram-gb` and `--dask`: who works on the cases, and in how much memory."""
    parser.add_argument(
        "-np",
        "--num-processes",
        type=positive_int,
        metavar="N",
        help=f"cases worked on at once (default: one a core, at most {MAX_PROCESSES})",
    )
    parser.add_argument(
        "--ram-gb",
        type=positive_float,
        metavar="GB",
        help="memory of this machine that all of them may take together; where cases are large, fewer are worked on "
        f"at once (default: {100 * RAM_SHARE:.0f} %% of what is free)",
    )
    add_dask_option(parser)


def add_dask_option(parser: argparse.ArgumentParser) -> None:
    """`--dask`."""
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="let a Dask cluster do it, e.g. tcp://node7:8786; its workers need the same paths (extra: cluster)",
    )


def find_workers(options: argparse.Namespace) -> Workers:
    """Who works, as the options of `add_worker_options` say.

    Raises:
        InputError: if the options contradict each other or the cluster cannot be used.
    """
    from ..memory import available_bytes
    from ..workers import Workers, num_cores

    if options.dask is not None:
        for flag, value in (("-np", options.num_processes), ("--ram-gb", options.ram_gb)):
            if value is not None:
                raise InputError(
                    f"{flag} {value:g}: is for this machine only; a cluster's workers have their own limits"
                )
        return find_cluster(options.dask)
    memory_bytes = round(available_bytes() * RAM_SHARE if options.ram_gb is None else options.ram_gb * 1e9)
    num_processes = options.num_processes or min(num_cores(), MAX_PROCESSES)
    return Workers(num_processes=num_processes, memory_bytes=memory_bytes)


def find_cluster(address: str) -> Workers:
    """A Dask cluster.

    Raises:
        InputError: if it cannot be used.
    """
    from ..workers import Workers

    workers = Workers(scheduler=address)
    with workers.open():
        return workers


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """What the planner can be told."""
    parser.add_argument(
        "--spacing",
        nargs="+",
        metavar="MM",
        help="target spacing: median (of the training cases), coarse (pixels so large that the median image is 128 "
        "across, for trainings of minutes), native (no resampling), or depth height width in mm "
        f"{default_text(USUAL_PLAN, 'spacing')}",
    )
    parser.add_argument(
        "--window",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="CT intensities that become -1 and 1 (default: percentiles of the foreground)",
    )
    parser.add_argument(
        "--memory-gb",
        type=positive_float,
        default=8.0,
        help="memory that training may take; sets the patch size (default: 8, which fits a GPU of 12 GB)",
    )
    parser.add_argument(
        "--patch-size",
        nargs=3,
        type=positive_int,
        metavar=("DEPTH", "HEIGHT", "WIDTH"),
        help="of training and prediction, in voxels at the target spacing (default: by --memory-gb and the images)",
    )
    add_recipe_option(parser, "spacing, window and patch size")


def parse_spacing(words: list[str]) -> TargetSpacing:
    """`median`, `coarse`, `native` or three numbers."""
    for name in ("median", "coarse", "native"):
        if words == [name]:
            return name
    try:
        depth, height, width = (positive_float(word) for word in words)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise InputError(
            f"--spacing {' '.join(words)}: expected median, coarse, native or three numbers above zero (mm)"
        ) from error
    return depth, height, width


def add_mirror_option(parser: argparse.ArgumentParser, purpose: str) -> None:
    """`--mirror`; `purpose` says what for."""
    parser.add_argument(
        "--mirror",
        nargs="+",
        choices=(*PATIENT_AXES, "all", "none"),
        help=f"{purpose}; structures that are named left and right change places, and an axis whose sides are named "
        "otherwise is left out. In pictures left-right is the width, either of the others the height (default: none)",
    )


def find_mirror_axes(words: list[str]) -> tuple[PatientAxis, ...]:
    """The axes of `--mirror`.

    Raises:
        InputError: if all or none stand beside others.
    """
    if len(words) > 1 and not {"all", "none"}.isdisjoint(words):
        raise InputError(f"--mirror {' '.join(words)}: all and none stand alone")
    return PATIENT_AXES if words == ["all"] else tuple(axis for axis in PATIENT_AXES if axis in words)


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Where the network runs, and how precisely."""
    parser.add_argument("-device", "--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    parser.add_argument(
        "--precision",
        choices=(AUTO_PRECISION, "bf16", "float32"),
        default=AUTO_PRECISION,
        help="of the network's arithmetic (default: bf16 where the device is faster with it)",
    )


def add_resampling_option(parser: argparse.ArgumentParser) -> None:
    """`-device`, for preprocessing."""
    parser.add_argument(
        "-device", "--device", default="cpu", help="where images are resampled: cpu, auto, cuda, cuda:1 (default: cpu)"
    )


def find_resampling_device(name: str) -> str:
    """The device of `add_resampling_option`; torch is not loaded for the processor.

    Raises:
        InputError: if it is not there.
    """
    return name if name == "cpu" else str(find_device(name))


def find_device(name: str) -> torch.device:
    """The device of `--device`.

    Raises:
        InputError: if it is not there.
    """
    from ..network.device import choose_device

    try:
        return choose_device(name)
    except ValueError as error:
        raise InputError(f"--device: {error}") from error


def default_workers() -> int:
    """Processes that make batches: one for each core but one, up to MAX_PROCESSES.

    Under torchrun each process has its share of the machine's cores.
    """
    from ..workers import num_cores

    return max(1, min(num_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1, MAX_PROCESSES))


def positive_int(text: str) -> int:
    """Parse a whole number above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def positive_float(text: str) -> float:
    """Parse a number above zero."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def probability(text: str) -> float:
    """Parse a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def non_negative_int(text: str) -> int:
    """Parse a whole number, zero or above."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below zero")
    return value


def non_negative_float(text: str) -> float:
    """Parse a number, zero or above."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is below zero or not finite")
    return value
