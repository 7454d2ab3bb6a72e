"""spadunet_predict: a folder of images to a folder of label maps."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from .fine_tuning import USUAL_OVERLAP, add_recipe_option, settle_prediction
from .options import add_device_options, add_mirror_option, find_device, find_mirror_axes
from .recipes import Recipe, default_text
from .run import add_data_option, add_dry_run_option, log_to_file, make_parser, run_command, write_manifest
from .stages import GOES_ON

EXAMPLES = """\
  spadunet_predict -i imagesTs -o predictions -d Hippocampus
  spadunet_predict -i imagesTs -o predictions -m results/Dataset004_Hippocampus/spad_unet_tiny/fold_0
  spadunet_predict -i imagesTs -o predictions                 with the model trained last
  spadunet_predict -i imagesTs -o predictions --continue      go on after an interruption
  spadunet_predict -i study -o segmentations --format dicom-seg
"""
MAX_OVERLAP = 0.95
USUAL = Recipe(options={"overlap": USUAL_OVERLAP, "mirror": ["none"]})
MANIFEST = "spadunet_predict.json"
UNFINISHED_FILE = "spadunet_predict.unfinished"

log = logging.getLogger("spadunet")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser("Predict a label map for every image of a folder, on the image's own grid.", EXAMPLES)
    parser.add_argument(
        "-i",
        "--input",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="images, named as for training; DICOM series too",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="where label maps go")
    parser.add_argument("-d", "--dataset", help="dataset whose model to use (name, number or path)")
    parser.add_argument(
        "-m", "--model", type=Path, metavar="MODEL", help="model folder (default: the one trained last)"
    )
    parser.add_argument("-f", "--fold", help="fold of the model (default: the one trained last)")
    parser.add_argument(
        "--format",
        choices=("nifti", "input", "dicom-seg"),
        default="nifti",
        help="of the label maps: NIfTI, that of the images (of DICOM: SEG), or DICOM SEG (default: nifti)",
    )
    parser.add_argument(
        "--overlap", type=overlap, help=f"of windows, 0 to {MAX_OVERLAP} {default_text(USUAL, 'overlap')}"
    )
    parser.add_argument(
        "--spacing",
        choices=("plan", "native"),
        default="plan",
        help="at which images are predicted: as the model's plan says, or each at its own (default: plan)",
    )
    add_mirror_option(parser, "average over mirror images across these axes of the patient, 2 to 8 times the work")
    add_recipe_option(parser, "overlap and mirror images (default: the recipe that the model was trained by)")
    parser.add_argument(
        "--channels",
        nargs="+",
        metavar="NAME",
        help="names of the images' channels _0000, _0001 …, to match them with the model's (default: those of "
        "dataset.json in or beside the folder, else the model's order)",
    )
    add_device_options(parser)
    parser.add_argument(
        "--continue",
        "--continue_prediction",
        dest="keep",
        action="store_true",
        help="keep label maps that are there (an interrupted run of the same model goes on without being told)",
    )
    add_data_option(parser)
    add_dry_run_option(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options), if_stopped=GOES_ON)


def execute(options: argparse.Namespace) -> int:
    """Load the model, find the images, predict them one after the other."""
    from ..evaluation.label_names import LABELS_JSON
    from ..files import require_writable, sha256_of_file, write_text
    from ..formats import is_dicom
    from ..inference.cases import find_cases, tell_series
    from ..inference.channels import order_of
    from ..inference.label_format import check_format, label_ending
    from ..inference.predict import Engine, build_network, predict_cases, prediction_path
    from ..model import MODEL_JSON, load_model
    from ..models import choose_task, find_model
    from ..network.device import choose_precision
    from ..record import write_record
    from ..workspace import find_workspace

    started = time.time()
    workspace = find_workspace(options.data)
    folder = options.model and model_of_fold(options.model, options.fold)
    folder = folder or find_model(workspace.results, dataset=options.dataset, fold=options.fold)
    task = choose_task(folder, options.dataset)
    model = load_model(folder)
    plan = model.tasks[task].plan
    settled = settle_prediction(options, USUAL, model.provenance)
    mirror = find_mirror_axes(options.mirror)
    order = order_of(plan, options.input, options.channels)
    cases = find_cases(options.input, len(order.names), order.optional)
    notes = [*settled, *tell_series(cases), *check_format(cases, options.format, plan.labels)]
    notes += [plan.labels.tell_mirror(axis) for axis in mirror]
    if options.output.resolve() == options.input.resolve():
        raise InputError(f"-o {options.output}: is the input folder; its images would be overwritten: give another")
    if is_dicom(cases[0].paths[0]) and options.input.resolve() in options.output.resolve().parents:
        raise InputError(
            f"-o {options.output}: lies among the DICOM files of -i, whose folders are cases: give another"
        )
    require_writable(options.output, dry_run=options.dry_run)
    network = build_network(model, task)
    device = find_device(options.device)
    precision = choose_precision(options.precision, device)
    if not options.dry_run:
        log_to_file(options.output / "spadunet_predict.log")
    log.info("model %s, task %s, on %s", folder, task, device)
    for note in notes:
        log.info(note)

    unfinished = options.output / UNFINISHED_FILE
    what = (options.input.resolve(), task, options.overlap, precision, options.format, options.spacing, mirror, order)
    request = "\n".join((*map(str, what), sha256_of_file(folder / MODEL_JSON)))
    goes_on = unfinished.is_file() and unfinished.read_text(encoding="utf-8") == request
    paths = {
        case.name: prediction_path(options.output, case.name, label_ending(case, options.format)) for case in cases
    }
    require_own(options.output, paths)
    if options.dry_run:
        from .dry_predict import show_prediction

        return show_prediction(
            cases,
            plan,
            folder,
            task,
            options,
            device=device,
            precision=precision,
            label_maps=paths,
            keeps=options.keep or goes_on,
            order=order,
        )
    if not (options.keep or goes_on):
        for path in paths.values():  # those of an earlier run must not pass as this one's if it is interrupted
            path.unlink(missing_ok=True)
    write_text(unfinished, request)
    if options.keep or goes_on:
        there = {name for name, path in paths.items() if path.is_file()}
        log.info("%d of %d label maps are there already and kept", len(there), len(cases))
        cases = [case for case in cases if case.name not in there]
    engine = Engine(
        network=network.to(device),
        plan=plan,
        device=device,
        precision=precision,
        overlap=options.overlap,
        spacing=options.spacing,
        mirror=mirror,
    )
    write_record(options.output / LABELS_JSON, plan.labels)
    outcomes = list(predict_cases(cases, engine, options.output, label_format=options.format, order=order))
    written = [outcome.result for outcome in outcomes if outcome.result is not None]
    problems = [outcome.problem for outcome in outcomes if outcome.problem]
    for problem in problems:
        log.error("failed: %s", problem)
    write_manifest(
        options.output / MANIFEST,
        "spadunet_predict",
        options,
        started=started,
        device=str(device),
        files=written,
    )
    unfinished.unlink(missing_ok=True)
    log.info("%d label maps written, %d failed: %s", len(written), len(problems), options.output)
    return 1 if problems else 0


def require_own(folder: Path, predictions: dict[str, Path]) -> None:
    """Refuse to write over label maps that are no predictions: a slip of `-o` must not cost hand-drawn references.

    Nor beside one of the same case in another format: it would pass as this run's.

    Args:
        predictions: by case name.

    Raises:
        InputError: if such files lie in the folder, and nothing tells that `spadunet_predict` wrote them, or if a
            prediction of another format does.
    """
    from ..inference.label_format import written_before

    is_own = any((folder / name).is_file() for name in (UNFINISHED_FILE, MANIFEST))
    there = [(path, prediction) for case, prediction in predictions.items() for path in written_before(folder, case)]
    for path, prediction in there:
        if not is_own:
            raise InputError(
                f"-o {folder}: holds {path.name}, which spadunet_predict did not write; give another folder"
            )
        if path != prediction:
            raise InputError(f"-o {folder}: holds {path.name}, the same case in another format; give another folder")


def overlap(text: str) -> float:
    """Parse a share of a window."""
    value = float(text)
    if not 0 <= value <= MAX_OVERLAP:
        raise argparse.ArgumentTypeError(f"{text} is not a share from 0 to {MAX_OVERLAP}")
    return value


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
