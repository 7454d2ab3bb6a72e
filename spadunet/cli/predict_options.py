"""The options of `spadunet_predict`, and which models they mean."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .fine_tuning import USUAL_OVERLAP, add_recipe_option
from .options import (
    add_dask_option,
    add_device_options,
    add_mirror_option,
    positive_float,
    positive_int,
    probability,
)
from .recipes import Recipe, default_text
from .run import add_data_option, add_dry_run_option

if TYPE_CHECKING:
    from ..workspace import Workspace

MAX_OVERLAP = 0.95
OF_LABEL_MAPS = {
    "--format": "format",
    "--overlap": "overlap",
    "--spacing": "spacing",
    "--roi-subset": "roi_subset",
    "--mirror": "mirror",
    "--recipe": "recipe",
    "--no-postprocessing": "cleans",
    "--save-probabilities": "saves_probabilities",
    "--memory-gb": "memory_gb",
    "--dask": "dask",
    "--reject-below": "reject_below",
}
"""Options that a classification has no use for, and their names when parsed."""
OF_CLASSES = {"--split": "split", "--heat-maps": "heat_maps", "--batch-size": "batch_size"}
"""Those that label maps have no use for."""
USUAL = Recipe(options={"overlap": USUAL_OVERLAP, "mirror": ["none"]})


def add_options(parser: argparse.ArgumentParser) -> None:
    """All of them."""
    parser.add_argument(
        "-i",
        "--input",
        type=Path,
        required=True,
        metavar="PATH",
        help="folder of images, named as for training; DICOM series too; to classify, also a MedMNIST .npz file",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FOLDER", help="where label maps or predictions.csv go"
    )
    add_model_options(parser, "dataset whose model to use (name, number or path)", several="whose mean counts")
    parser.add_argument(
        "--tasks",
        nargs="+",
        metavar="TASK",
        help="several tasks of one model, each into a folder of its own in -o; the backbone is in memory once, and "
        "runs once an image for those that see the same",
    )
    parser.add_argument(
        "--format",
        choices=("nifti", "input", "dicom-seg"),
        default="nifti",
        help="of the label maps: NIfTI, that of the images (of DICOM: SEG), or DICOM SEG (default: nifti)",
    )
    add_overlap_option(parser)
    parser.add_argument(
        "--spacing",
        choices=("plan", "native"),
        default="plan",
        help="at which images are predicted: as the model's plan says, or each at its own (default: plan)",
    )
    parser.add_argument(
        "--roi-subset",
        nargs="+",
        metavar="NAME",
        help="predict and write only these classes or regions; all else is background",
    )
    add_mirror_option(parser, "average over mirror images across these axes of the patient, 2 to 8 times the work")
    add_recipe_option(parser, "overlap and mirror images (default: the recipe that the model was trained by)")
    parser.add_argument(
        "--no-postprocessing",
        dest="cleans",
        action="store_false",
        help="leave out what spadunet_postprocess chose for the model",
    )
    parser.add_argument(
        "--save-probabilities",
        "--save_probabilities",
        dest="saves_probabilities",
        action="store_true",
        help="write <case>.npz beside each label map: `probabilities`, float16, of all classes (background first) or "
        "regions on the image's grid, before post-processing; they are all held in memory",
    )
    parser.add_argument(
        "--memory-gb",
        type=positive_float,
        metavar="GB",
        help="memory that images and logits may take; what does not fit goes to disk (default: 80 %% of what is free)",
    )
    parser.add_argument(
        "--channels",
        nargs="+",
        metavar="NAME",
        help="names of the images' channels _0000, _0001 …, to match them with the model's; some of these are enough "
        "for a model trained with --channel-dropout (default: those of dataset.json in or beside the folder, else the "
        "model's order)",
    )
    add_device_options(parser)
    add_dask_option(parser)
    parser.add_argument(
        "--continue",
        "--continue_prediction",
        dest="keep",
        action="store_true",
        help="keep label maps that are there, of the same models, images and options (an interrupted run of these goes "
        "on without being told)",
    )
    parser.add_argument(
        "--reject-below",
        type=probability,
        metavar="DICE",
        help="label maps whose mean expected Dice is below this go to review/ in the output folder (0 to 1; needs a "
        "model that spadunet_quality --fit has judged)",
    )
    add_class_options(parser)
    add_data_option(parser)
    add_dry_run_option(parser)


def add_class_options(parser: argparse.ArgumentParser) -> None:
    """For a task that classifies."""
    parser.add_argument(
        "--split",
        choices=("train", "val", "test", "all"),
        help="of a classification: only the studies of this split of a MedMNIST file or a labels.csv (default: test if "
        "there is one, else all)",
    )
    parser.add_argument(
        "--heat-maps",
        action="store_true",
        help="of a classification: write where the network looks, a NIfTI and a picture for each image",
    )
    parser.add_argument(
        "--batch-size",
        type=positive_int,
        metavar="N",
        help="of a classification: studies at once (default: 32, fewer of large images)",
    )


def refuse_others(options: argparse.Namespace, flags: Mapping[str, str], why: str) -> None:
    """Refuse options that are not for the kind of task.

    Args:
        flags: these options, and the name that each has in the parsed ones.

    Raises:
        InputError: names the first that was given.
    """
    for flag in given_of(options, flags):
        raise InputError(f"{flag}: {why}; leave {flag} out")


def given_of(options: argparse.Namespace, flags: Mapping[str, str]) -> list[str]:
    """Which of these options, as `refuse_others` takes them, were given."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    return [flag for flag, name in flags.items() if getattr(options, name) != parser.get_default(name)]


def add_overlap_option(parser: argparse.ArgumentParser) -> None:
    """`--overlap`."""
    parser.add_argument(
        "--overlap", type=overlap, help=f"of windows, 0 to {MAX_OVERLAP} {default_text(USUAL, 'overlap')}"
    )


def add_model_options(parser: argparse.ArgumentParser, dataset_help: str, *, several: str) -> None:
    """`-d`, `-m` and `-f`; `several` says what becomes of several models."""
    parser.add_argument("-d", "--dataset", help=dataset_help)
    parser.add_argument(
        "-m",
        "--model",
        type=Path,
        nargs="+",
        metavar="MODEL",
        help=f"model folder, or several, {several} (default: the one trained last)",
    )
    parser.add_argument(
        "-f",
        "--fold",
        nargs="+",
        metavar="FOLD",
        help=f"fold of the model, or several, {several}: -f 0 1 2 3 4 (default: the one trained last)",
    )


def find_models_asked(options: argparse.Namespace, workspace: Workspace, *, may_classify: bool = False) -> list[Path]:
    """The model folders that `-m`, `-d` and `-f` mean, in the order given.

    Without `-m`, the folds beside the first one's model that was trained last.

    Args:
        may_classify: tasks that classify count, too.

    Raises:
        InputError: if one of them is not there.
    """
    from ..models import find_model

    folds: list[str | None] = options.fold or [None]
    if options.model:
        return [model_of_fold(model, fold) for model in options.model for fold in folds]
    first = find_model(workspace.results, dataset=options.dataset, fold=folds[0], may_classify=may_classify)
    return [first, *(model_of_fold(first.parent, fold) for fold in folds[1:])]


def model_of_fold(model: Path, fold: str | None) -> Path:
    """The folder of `-m`, or its fold where `-f` asks for one.

    Raises:
        InputError: if the fold is not there.
    """
    if fold is None or model.name == f"fold_{fold}":
        return model
    if not (model / f"fold_{fold}").is_dir():
        raise InputError(
            f"-f {fold}: {model} has no folder fold_{fold}; give the model folder itself with -m, without -f"
        )
    return model / f"fold_{fold}"


def overlap(text: str) -> float:
    """Parse a share of a window."""
    value = float(text)
    if not 0 <= value <= MAX_OVERLAP:
        raise argparse.ArgumentTypeError(f"{text} is not a share from 0 to {MAX_OVERLAP}")
    return value
