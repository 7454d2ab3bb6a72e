"""spadunet_demo: the whole pipeline on the embedded data, two datasets through one backbone."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import evaluate, plan_and_preprocess, predict, train
from .options import non_negative_int, positive_float
from .run import add_dry_run_option, make_parser, run_command

EXAMPLES = """\
  spadunet_demo
  spadunet_demo -o /tmp/demo --minutes 3
"""
DATASETS = ("Dataset004_Hippocampus", "Dataset101_SunnybrookLV")
TITLES = ("Hippocampus, brain MR, 1 mm isotropic", "Left ventricle, cardiac MR, 1.25 mm pixels, 8 mm slices")
SPACINGS = (("median",), ("8", "2.5", "2.5"))  # coarse pixels: a patch shows the whole chest around the heart
MINUTES = 8.7
MEMORY_GB = 0.8  # patches that two processor cores work through quickly

log = logging.getLogger("spadunet")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser(
        "Train one backbone on two small real datasets (brain MR with 1 mm voxels, cardiac MR with 8 mm slices),\n"
        "predict their test cases, and show scores and pictures. Uses the same commands as you will.",
        EXAMPLES,
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("spadunet_demo_output"), help="where everything goes")
    parser.add_argument("--minutes", type=positive_float, default=MINUTES, help=f"of training (default: {MINUTES})")
    parser.add_argument("--seed", type=non_negative_int, default=0, help="of the training run (default: 0)")
    add_dry_run_option(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options))


def execute(options: argparse.Namespace) -> int:
    """Type the commands that a user would, and show what comes out."""
    from ..demo.page import Section, write_page
    from ..description import read_description
    from ..files import require_writable
    from ..record import read_record
    from ..scores import Scores

    output: Path = options.output
    require_writable(output, dry_run=options.dry_run)
    raw = Path(__file__).parents[1] / "demo" / "data"
    data = ["--data", str(output), *(["--dry-run"] if options.dry_run else [])]
    paths = [str(raw / name) for name in DATASETS]
    model = output / "results" / "demo"
    print("One backbone for 1 mm brain MR and 8 mm cardiac MR. What follows are the commands you would type.")
    code = 0
    for path, spacing in zip(paths, SPACINGS, strict=True):
        code = code or do(
            plan_and_preprocess.main,
            "spadunet_plan_and_preprocess",
            *("-d", path, "--spacing", *spacing, "--memory-gb", str(MEMORY_GB), "-np", "1", *data),
        )
    if options.dry_run:
        print(f"\nThen spadunet_train for {options.minutes:g} minutes; predictions, scores and demo.html: {output}")
        return code
    code = code or do(
        train.main,
        "spadunet_train",
        *("-d", *paths, "-f", "all", "--preset", "tiny", "--max-minutes", str(options.minutes)),
        *("--seed", str(options.seed), "--restart", "-o", str(model), *data),
    )
    sections = []
    for name, title, path in zip(DATASETS, TITLES, paths, strict=True):
        predictions = output / "predictions" / name
        references = Path(path) / "labelsTs"
        images = Path(path) / "imagesTs"
        code = code or do(
            predict.main,
            "spadunet_predict",
            *("-i", str(images), "-o", str(predictions), "-m", str(model), "-d", name, *data),
        )
        code = code or do(evaluate.main, "spadunet_evaluate", "-p", str(predictions), "-r", str(references))
        if code:
            return code
        scores = read_record(predictions / "scores.json", Scores, remedy="run the demo again")
        sections.append(
            Section(
                title=title,
                image_folder=images,
                reference_folder=references,
                prediction_folder=predictions,
                labels=read_description(Path(path)).label_set(),
                scores=scores,
            )
        )
    page = output / "demo.html"
    about = f"One tiny SPAD U-Net backbone, trained for {options.minutes:g} minutes on both datasets; test cases only."
    write_page(page, sections, about=about)
    print("\nOne backbone, two spacings:")
    for section in sections:
        dice = section.scores.mean("dice")
        print(f"  {section.title}: mean test Dice {'–' if dice is None else f'{dice:.3f}'}")
    print(f"model        {model}\nlabel maps   {output / 'predictions'}\npictures     {page}")
    return 0


def do(command: Callable[[Sequence[str]], None], name: str, *arguments: str) -> int:
    """Show a command and run it; its exit code."""
    print(f"\n$ {name} {' '.join(arguments)}", flush=True)
    typed, sys.argv = sys.argv, [name, *arguments]  # messages name the command
    try:
        command(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = typed
    return 0
