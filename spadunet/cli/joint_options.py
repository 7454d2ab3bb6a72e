"""Options of `spadunet_train` about several datasets, their classes, and models that grow."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .options import positive_float, positive_int

if TYPE_CHECKING:
    from ..task import AdapterRecord
    from ..training.prepare import TrainingDataset

USUAL_RANK, USUAL_EXPERTS = 8, 4
ADDED_FOLDER = "added"
"""Below a model: the runs that added tasks to it."""


def add_joint_options(parser: argparse.ArgumentParser) -> None:
    """`--dataset-weights`, `--class-weights`, `--freeze-backbone`, `--add-task`, and what goes with these."""
    parser.add_argument(
        "--dataset-weights",
        nargs="+",
        type=positive_float,
        metavar="W",
        help="how often each dataset of -d is drawn, in its order (default: the square root of its number of cases)",
    )
    parser.add_argument(
        "--class-weights",
        nargs="+",
        type=class_weight,
        default=[],
        metavar="NAME=W",
        help="how much classes or regions count in the loss; those not named count 1, or as dataset.json says",
    )
    parser.add_argument(
        "--freeze-backbone",
        action="store_true",
        help="train only what a dataset has of its own, channel map and heads, on the backbone of --init",
    )
    parser.add_argument(
        "--add-task",
        action="store_true",
        help="add the datasets of -d to the model of --init, which keeps its backbone and older tasks to the byte: in "
        "its own folder, or in a copy with -o",
    )
    parser.add_argument(
        "--adapter",
        choices=("lora", "experts"),
        help="with --freeze-backbone or --add-task: each dataset also learns a low-rank change of the backbone, or "
        "several that a router weighs for each image; kept with the task, and others are as they were",
    )
    parser.add_argument(
        "--rank",
        type=positive_int,
        metavar="R",
        help=f"of --adapter, of experts that of each (default: {USUAL_RANK}, of experts {USUAL_RANK} shared out among "
        f"them: {USUAL_RANK // USUAL_EXPERTS} each of {USUAL_EXPERTS})",
    )
    parser.add_argument(
        "--experts", type=positive_int, metavar="K", help=f"of --adapter experts (default: {USUAL_EXPERTS})"
    )
    parser.add_argument(
        "--share-input",
        metavar="TASK",
        help="with --add-task: the datasets take spacing, intensities, patch and channel map of this task of the "
        "model, so that spadunet_predict --tasks runs the backbone once for both",
    )


def class_weight(text: str) -> tuple[str, float]:
    """Parse NAME=W; the name may hold an equals sign."""
    name, _, weight = text.rpartition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"{text} is not NAME=W, such as liver=2")
    try:
        return name, positive_float(weight)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: {weight or 'nothing'} is no number") from error


def check_joint_options(options: argparse.Namespace) -> None:
    """Refuse options that contradict each other, before any file is read.

    Raises:
        InputError: names the option and what it needs.
    """
    num_datasets, weights = len(options.dataset or [""]), options.dataset_weights
    if options.findings and weights is not None and len(weights) != 2:
        raise InputError(
            f"--dataset-weights: {len(weights)} weights; with --findings give one of label maps, one of them"
        )
    if not options.findings and weights is not None and len(weights) != num_datasets:
        raise InputError(f"--dataset-weights: {len(weights)} weights for {num_datasets} datasets; give one for each")
    if options.add_task and options.scratch_twin:
        raise InputError("--add-task: a scratch twin has no model to be added to; leave --scratch-twin out")
    for flag, is_given in (("--add-task", options.add_task), ("--freeze-backbone", options.freeze_backbone)):
        if is_given and options.init is None:
            raise InputError(f"{flag}: needs the model whose backbone is kept; give it with --init MODEL")
    if options.add_task and options.repeats is not None:
        raise InputError("--repeats: a model can learn a task once; leave --add-task out")
    if options.add_task and options.init.is_file():
        raise InputError(f"--init {options.init}: is a file; --add-task needs the folder of a model")
    check_adapter_options(options)


def check_adapter_options(options: argparse.Namespace) -> None:
    """As `check_joint_options`, of `--adapter` and `--share-input`.

    Raises:
        InputError: names the option and what it needs.
    """
    from ..task import MAX_EXPERTS, MAX_RANK

    kinds = {"--rank": ("lora", "experts"), "--experts": ("experts",)}
    for flag, value, most in (("--rank", options.rank, MAX_RANK), ("--experts", options.experts, MAX_EXPERTS)):
        if value is not None and options.adapter not in kinds[flag]:
            raise InputError(f"{flag} {value}: is of an adapter; give --adapter {kinds[flag][0]} too")
        if value is not None and value > most:
            raise InputError(f"{flag} {value}: more than {most}; give less")
    if options.adapter is not None and not (options.add_task or options.freeze_backbone):
        raise InputError(
            f"--adapter {options.adapter}: changes a frozen backbone; give --add-task or --freeze-backbone, and --init"
        )
    if options.adapter is not None and options.compile:
        raise InputError("--compile: does not go with --adapter; leave one of them out")
    if options.share_input is not None and not options.add_task:
        raise InputError(f"--share-input {options.share_input}: is for a task that joins a model; give --add-task too")
    if options.share_input is not None and options.adapter is not None:
        raise InputError(
            f"--share-input {options.share_input}: with an adapter of its own a task shares no pass of the backbone; "
            "leave --adapter or --share-input out"
        )


def adapter_of(options: argparse.Namespace) -> AdapterRecord | None:
    """The adapter that was asked for; unless told otherwise experts together are as large as LoRA."""
    from ..task import AdapterRecord

    if options.adapter is None:
        return None
    num_experts = (options.experts or USUAL_EXPERTS) if options.adapter == "experts" else 1
    return AdapterRecord(rank=options.rank or max(USUAL_RANK // num_experts, 1), num_experts=num_experts)


def class_weights_for(
    pairs: Sequence[tuple[str, float]], datasets: Sequence[TrainingDataset]
) -> list[dict[str, float]]:
    """The weights of `--class-weights` that concern each dataset.

    Raises:
        InputError: if a name is given twice, or is no class or region of any dataset.
    """
    weights = dict(pairs)
    outputs = [member.plan.labels.output_names for member in datasets]
    for number, (name, _) in enumerate(pairs):
        if name in dict(pairs[:number]):
            raise InputError(f"--class-weights: {name} is given twice; give each class once")
        if not any(name in names for names in outputs):
            there = ", ".join(dict.fromkeys(other for names in outputs for other in names))
            raise InputError(f"--class-weights: {name} is no class of the datasets; give some of {there}")
    return [{name: weight for name, weight in weights.items() if name in names} for names in outputs]


def place_of_addition(init: Path, output: Path | None, joint_name: str) -> tuple[Path, Path]:
    """Where the run of `--add-task` goes, and where its model: below `init` and in it, or both in another folder.

    Raises:
        InputError: if that would be within the installed package, from which others start, or in a model that is being
            trained.
    """
    from ..pretrained import is_shipped
    from ..training.status import require_free

    if output is not None and output.resolve() != init.resolve():
        return output, output
    if is_shipped(init):
        raise InputError(f"--add-task: {init} comes with spadunet and stays as it is; give a folder for a copy with -o")
    require_free(init)
    return init / ADDED_FOLDER / joint_name, init


def require_new_tasks(init: Path, names: Sequence[str]) -> None:
    """Refuse to add what a model has.

    Raises:
        InputError: if it has a task of such a name, or is no model.
    """
    from ..model import read_model_record

    there = [name for name in names if name in read_model_record(init).all_tasks]
    if there:
        raise InputError(
            f"--add-task: {init} has a task {there[0]} already, which stays as it is; to train it further, "
            "leave --add-task out"
        )


def require_none_lost(model_folder: Path, names: Sequence[str], source: Path | None) -> None:
    """Refuse to write a model anew, with --restart or --c, over one that was given further tasks since.

    Args:
        names: of the datasets of the run.
        source: model whose tasks it takes over, if it adds to one.

    Raises:
        InputError: names the task.
    """
    from ..model import ADDED, MODEL_JSON, read_model_record

    if not (model_folder / MODEL_JSON).is_file():
        return
    try:
        told = read_model_record(model_folder).provenance
    except InputError:  # nothing to be lost
        return
    kept = {*names, *(read_model_record(source).all_tasks if source else ())}
    lost = [key.removeprefix(ADDED) for key in told if key.startswith(ADDED) and key.removeprefix(ADDED) not in kept]
    if lost:
        raise InputError(
            f"{model_folder}: was given the task {lost[0]} since, which would be lost; give another folder with -o, or "
            "delete this one"
        )
