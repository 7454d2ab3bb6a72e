"""spadunet_quality: learn by held-out cases what Dice to expect of an answer, and check that by references."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .fine_tuning import add_recipe_option, settle_prediction, tell
from .held_out import find_held_out_cases
from .options import (
    add_device_options,
    add_mirror_option,
    add_worker_options,
    find_device,
    find_mirror_axes,
    find_workers,
    non_negative_int,
)
from .predict_options import USUAL, add_model_options, add_overlap_option, find_models_asked
from .quality_check import check
from .run import add_data_option, add_dry_run_option, make_parser, run_command

if TYPE_CHECKING:
    from ..dataset import RawCase
    from ..inference.sources import Source
    from ..quality import Calibration
    from ..workspace import Workspace

EXAMPLES = """\
  spadunet_quality --fit -d Hippocampus
  spadunet_quality --fit -d Hippocampus -f 0 1 2 3 4       by the held-out cases of five folds, for all of them
  spadunet_quality --fit -m model_a --copies 12
  spadunet_quality --show -d Hippocampus
  spadunet_quality --forget -m results/Dataset004_Hippocampus/spad_unet_tiny/fold_0
  spadunet_quality --check -p predictions -r references     risk-coverage curve, expected beside true Dice
"""
USUAL_COPIES = 6

log = logging.getLogger("spadunet")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser(
        "Learn what Dice to expect of an answer, from how sure the network is and how large its answer is: by the\n"
        "held-out cases of training, as they are and spoilt. Kept with the model, and told by spadunet_predict in\n"
        "quality.csv. --check compares that with references.",
        EXAMPLES,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--fit", action="store_true", help="predict held-out cases and spoilt copies of them, and learn")
    what.add_argument("--show", action="store_true", help="what the model has learned, and from what")
    what.add_argument("--forget", action="store_true", help="take it away from the model")
    what.add_argument("--check", action="store_true", help="compare quality.csv with references, in cases")
    add_model_options(
        parser,
        "dataset of the model, whose references count (name, number or path)",
        several="which get the same, from the held-out cases of each",
    )
    parser.add_argument(
        "--copies",
        type=non_negative_int,
        default=USUAL_COPIES,
        metavar="N",
        help=f"spoilt copies of each held-out case for --fit (default: {USUAL_COPIES})",
    )
    parser.add_argument(
        "--seed", type=non_negative_int, default=0, metavar="N", help="of how copies are spoilt (default: 0)"
    )
    add_overlap_option(parser)
    add_mirror_option(parser, "average over mirror images across these axes, as prediction will")
    add_recipe_option(parser, "overlap and mirror images (default: the recipe that the model was trained by)")
    parser.add_argument(
        "-p", "--predictions", type=Path, metavar="FOLDER", help="label maps and quality.csv to --check"
    )
    parser.add_argument("-r", "--references", type=Path, metavar="FOLDER", help="label maps of the same names")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="where --check writes (else -p)")
    add_device_options(parser)
    add_worker_options(parser)
    add_data_option(parser)
    add_dry_run_option(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options))


def execute(options: argparse.Namespace) -> int:
    """Learn, show, forget or check."""
    if options.check:
        return check(options)
    for flag, value in (("-p", options.predictions), ("-r", options.references), ("-o", options.output)):
        if value is not None:
            raise InputError(f"{flag} {value}: is for --check")
    from ..inference.sources import open_source
    from ..model_changes import set_calibration
    from ..workspace import find_workspace

    workspace = find_workspace(options.data)
    folders = list(dict.fromkeys(find_models_asked(options, workspace)))
    sources = [open_source(folder, options.dataset) for folder in folders]
    if options.fit:
        return fit(sources, options, workspace)
    for source in sources:
        if options.forget and not options.dry_run:
            set_calibration(source.folder, source.task, None)
        lines = describe(source.calibration) if source.calibration else ["no expected Dice"]
        end = ", forgotten" if options.forget else ""
        print("\n  ".join([f"{source.folder}, task {source.task}{end}", *lines]))
    return 0


def fit(sources: Sequence[Source], options: argparse.Namespace, workspace: Workspace) -> int:
    """`--fit`: each model answers its own held-out cases; what is learned from all of them goes to each."""
    from ..inference.calibrate import calibrate, measure_volumes
    from ..inference.ensemble import check_members
    from ..inference.predict import plan_at
    from ..inference.sources import build_engine, rules_of
    from ..inference.spoil import draw_spoilings
    from ..inference.trials import run_trials
    from ..model_changes import set_calibration
    from ..network.device import choose_precision

    check_members([plan_at(it.plan, "native") for it in sources], [str(it.folder) for it in sources])
    tell(settle_prediction(options, USUAL, sources[0].provenance))
    mirror = find_mirror_axes(options.mirror)
    device = find_device(options.device)
    workers = find_workers(options)
    found = [
        find_held_out_cases(it.folder, it.task, options.dataset, workspace, dry_run=options.dry_run) for it in sources
    ]
    held_out = [cases for _, cases in found]
    training = found[0][0].cases
    num_cases = sum(map(len, held_out))
    if options.dry_run:
        return show_fit(sources, held_out, len(training), options)
    names = ", ".join(str(it.folder) for it in sources)
    log.info(
        "expected Dice of %s is learned from %d held-out cases and %d spoilt copies of each, on %s",
        *(names, num_cases, options.copies, device),
    )
    volumes = measure_volumes(training, sources[0].plan.labels, workers=workers)
    spoilings_of = partial(draw_spoilings, num_copies=options.copies, seed=options.seed)
    trials = []
    for source, cases in zip(sources, held_out, strict=True):
        engine = build_engine(
            [source],
            device=device,
            precision=choose_precision(options.precision, device),
            overlap=options.overlap,
            spacing="plan",
            mirror=mirror,
            chosen=(),
            rules=rules_of([source], ())[0],
            memory_gb=None,
            folder=None,
            is_judged=True,
        )
        trials += run_trials(cases, lambda case: spoilings_of(case.name), engine)
    calibration = calibrate(trials, volumes, num_copies=options.copies, seed=options.seed)
    for source in sources:
        set_calibration(source.folder, source.task, calibration)
    print("\n".join(describe(calibration)))
    return 0


def describe(calibration: Calibration) -> list[str]:
    """Lines for the terminal."""
    it = calibration.trials
    lines = [
        f"learned from {it.num_cases} held-out cases and {it.num_copies} spoilt copies of each "
        f"({', '.join(it.kinds) or 'none'}), mean Dice {it.mean_dice:.4f}",
        f"on cases left out: error {it.error:.4f} a class, {it.case_error:.4f} a case; Spearman {told(it.spearman)}",
    ]
    if it.unseen_spearman:
        kinds = (f"{kind} {told(value)}" for kind, value in it.unseen_spearman.items())
        lines.append(f"of kinds that the fit has not seen: Spearman {', '.join(kinds)}")
    for name, known in calibration.classes.items():
        volumes = known.volumes
        share = f"in {volumes.share_present:.0%} of {volumes.num_cases} training references"
        own = "its own fit" if known.is_own else "the fit of all classes"
        lines.append(f"{name}: {share}, {own}, {known.num_points} answers")
    return lines


def told(correlation: float | None) -> str:
    """A rank correlation, as text."""
    return "not defined" if correlation is None else f"{correlation:.2f}"


def show_fit(
    sources: Sequence[Source], held_out: Sequence[Sequence[RawCase]], num_training: int, options: argparse.Namespace
) -> int:
    """The dry run of `--fit`."""
    from ..model import MODEL_JSON, QUALITY_FILE
    from .dry_run import begin, finish, show, table

    begin("spadunet_quality")
    rows = [
        (case.name, ", ".join(path.name for path in case.paths), str(case.label_path)) for it in held_out for case in it
    ]
    show("reads", [*table(("case", "image", "reference"), rows, "cases"), f"{num_training} references, for volumes"])
    show("predicts", [f"{len(rows) * (1 + options.copies)} images: each case, and {options.copies} copies of it"])
    show("writes", [f"{it.folder}: {QUALITY_FILE} of task {it.task}, {MODEL_JSON}" for it in sources])
    return finish([])
