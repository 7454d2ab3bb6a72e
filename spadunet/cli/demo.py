"""spadunet_demo: the whole pipeline on the embedded data, two datasets through one backbone."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..page import number
from ..pretrained import BACKBONE, FOLDER
from . import evaluate, plan_and_preprocess, predict, train
from .options import non_negative_int, positive_float
from .run import add_dry_run_option, make_parser, run_command

if TYPE_CHECKING:
    from ..scores import Scores

EXAMPLES = """\
  spadunet_demo
  spadunet_demo --pretrained                        as long, from weights that come with spadunet; compares
  spadunet_demo -o /tmp/demo --minutes 3
"""
DATASETS = ("Dataset004_Hippocampus", "Dataset101_SunnybrookLV")
TITLES = ("Hippocampus, brain MR, 1 mm isotropic", "Left ventricle, cardiac MR, 1.25 mm pixels, 8 mm slices")
SPACINGS = (("median",), ("8", "2.5", "2.5"))  # coarse pixels: a patch shows the whole chest around the heart
MINUTES = 8.7
SUFFIX = "_pretrained"  # of what --pretrained leaves, beside the plain demo's
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
    parser.add_argument(
        "--pretrained",
        action="store_true",
        help=f"start from {BACKBONE}, pre-trained on other images and on the heart's without labels, and compare with "
        "the plain demo in the same folder",
    )
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

    output: Path = options.output
    require_writable(output, dry_run=options.dry_run)
    raw = Path(__file__).parents[1] / "demo" / "data"
    data = ["--data", str(output), *(["--dry-run"] if options.dry_run else [])]
    paths = [str(raw / name) for name in DATASETS]
    suffix = SUFFIX if options.pretrained else ""
    model = output / "results" / f"demo{suffix}"
    print("One backbone for 1 mm brain MR and 8 mm cardiac MR. What follows are the commands you would type.")
    code = 0
    for path, spacing in zip(paths, SPACINGS, strict=True):
        code = code or do(
            plan_and_preprocess.main,
            "spadunet_plan_and_preprocess",
            *("-d", path, "--spacing", *spacing, "--memory-gb", str(MEMORY_GB), "-np", "1", *data),
        )
    if options.dry_run:
        print(
            f"\nThen spadunet_train for {options.minutes:g} minutes, predictions, scores, demo{suffix}.html: {output}"
        )
        return code
    code = code or do(
        train.main,
        "spadunet_train",
        *("-d", *paths, "-f", "all", "--preset", "tiny", "--max-minutes", str(options.minutes)),
        *(("--init", str(FOLDER / BACKBONE)) if options.pretrained else ()),
        *("--seed", str(options.seed), "--restart", "-o", str(model), *data),
    )
    sections = []
    for name, title, path in zip(DATASETS, TITLES, paths, strict=True):
        predictions = output / f"predictions{suffix}" / name
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
        sections.append(
            Section(
                title=title,
                image_folder=images,
                reference_folder=references,
                prediction_folder=predictions,
                labels=read_description(Path(path)).label_set(),
                scores=read_scores(predictions),
            )
        )
    page = output / f"demo{suffix}.html"
    start = f"started from {BACKBONE}, " if options.pretrained else ""
    about = (
        f"One tiny SPAD U-Net backbone, {start}trained for {options.minutes:g} minutes on both datasets; test cases."
    )
    write_page(page, sections, about=about)
    print("\nOne backbone, two spacings:")
    for section in sections:
        print(f"  {section.title}: mean test Dice {number(section.scores.mean('dice'))}")
    print(f"model        {model}\nlabel maps   {output / f'predictions{suffix}'}\npictures     {page}")
    if options.pretrained:
        print(
            "\n" + "\n".join(comparison(output, {name: s.scores for name, s in zip(DATASETS, sections, strict=True)}))
        )
    return 0


def comparison(output: Path, scores: dict[str, Scores]) -> list[str]:
    """What pre-training made of the plain demo's Dice, where the plain demo ran as long from the same seed.

    Args:
        scores: of the pre-trained demo, by dataset.
    """
    from ..model import MODEL_JSON, read_model_record

    plain, pretrained = (output / "results" / name for name in ("demo", f"demo{SUFFIX}"))
    written = [output / "predictions" / name / "scores.json" for name in DATASETS]
    model = plain / MODEL_JSON
    if not all(path.is_file() and model.is_file() and path.stat().st_mtime > model.stat().st_mtime for path in written):
        return [f"spadunet_demo -o {output} makes the plain demo, for comparison."]
    before, after = (read_model_record(folder).provenance for folder in (plain, pretrained))
    for key in ("max_minutes", "seed", "precision", "plans"):
        if before.get(key) != after.get(key):
            return [f"Not compared with the plain demo: its {key} was {before.get(key)}, not {after.get(key)}."]
    lines = [
        f"Plain and pre-trained, one run each of {after['max_minutes']} minutes "
        f"({before['steps']} and {after['steps']} steps):"
    ]
    for name, title, path in zip(DATASETS, TITLES, written, strict=True):
        old, new = (round(values.mean("dice") or 0, 3) for values in (read_scores(path.parent), scores[name]))
        verdict = "as good" if old == new else "better" if new > old else "no better"
        lines.append(f"  {title}: mean test Dice {old:.3f} and {new:.3f}, {verdict}")
    return lines


def read_scores(predictions: Path) -> Scores:
    """What spadunet_evaluate left."""
    from ..record import read_record
    from ..scores import Scores

    return read_record(predictions / "scores.json", Scores, remedy="run the demo again")


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
