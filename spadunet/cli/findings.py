"""`spadunet_train --findings`: a task that classifies whole studies, learned beside a segmentation."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .options import default_workers, positive_int

if TYPE_CHECKING:
    from ..classification.findings import BothSides
    from ..classification.joint import JointRun
    from ..classification.sources import Source
    from ..study import LabelledStudies
    from ..training.prepare import PreparedRun, TrainingDataset

USUAL_BATCH = 8
REFUSED = ("freeze_backbone", "add_task", "adapter", "share_input", "compile", "fraction", "repeats")
"""Options of a segmentation that do not go with findings."""
OWN = ("findings_batch", "pooling", "input_size", "spacing")
"""Options that need findings, or a classification."""

log = logging.getLogger("spadunet")


def add_findings_options(parser: argparse.ArgumentParser) -> None:
    """`--findings` and `--findings-batch`."""
    group = parser.add_argument_group(
        "label maps and findings together",
        "-d is a dataset with a labels.csv beside its label maps (docs/classification.md). --pooling, --input-size\n"
        "and --spacing below are of its studies; --dataset-weights says how often a step is of patches, and of studies",
    )
    group.add_argument(
        "--findings",
        action="store_true",
        help="also learn what labels.csv in the dataset's folder says of whole studies, through the same backbone: "
        "classes or findings, of cases with or without a label map; the task is called DATASET_findings",
    )
    group.add_argument(
        "--findings-batch", type=positive_int, metavar="N", help=f"studies a step (default: {USUAL_BATCH})"
    )


def check_findings(options: argparse.Namespace, given: Collection[str]) -> None:
    """Refuse options that do not go with `--findings`, or need it.

    Args:
        given: names of the options that the user gave.

    Raises:
        InputError: names the option.
    """
    if not options.findings:
        if "findings_batch" in given:
            raise InputError(f"--findings-batch {options.findings_batch}: is of --findings; give that too")
        return
    wrong = next((name for name in REFUSED if name in given), None)
    if wrong:
        raise InputError(
            f"--{wrong.replace('_', '-')}: does not go with --findings, where all of the backbone learns from both; "
            "leave one of them out"
        )
    if options.dataset is not None and len(options.dataset) > 1:
        raise InputError(f"-d: --findings goes with one dataset, not {len(options.dataset)}; give one")
    if options.spacing is not None and options.input_size is not None:
        raise InputError(f"--spacing {options.spacing}: studies have an --input-size instead; leave one of them out")


def settle_fold(options: argparse.Namespace, folder: Path) -> None:
    """Where labels.csv says who trains and validates, no fold counts.

    Args:
        folder: of the raw dataset.

    Raises:
        InputError: if a fold is asked for there, or the table cannot be read.
    """
    from ..classification.sources import SPLIT, require_no_number
    from ..study_table import LABELS_CSV, read_table
    from ..study_table import SPLIT as COLUMN

    path = folder / LABELS_CSV
    if not path.is_file():
        raise InputError(
            f"{path}: not found; --findings learns what it says of images (columns image and those of the findings); "
            "add it, or leave --findings out"
        )
    if read_table(path).has(COLUMN):
        require_no_number(options.fold, str(path))
        options.fold = options.fold or SPLIT


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a segmentation is joined by."""

    member: TrainingDataset
    """The dataset, with patients as table and names together tell them."""
    studies: LabelledStudies
    sides: BothSides
    request: dict[str, str]
    """What is asked for beside a segmentation, as far as it is known before the studies have a plan."""


def find_findings(member: TrainingDataset, options: argparse.Namespace, backbone: str) -> Findings:
    """Read labels.csv, and settle who trains. Studies are neither planned nor preprocessed.

    Raises:
        InputError: if it does not go with the images, a patient would train and be held out, or the backbone is not
            pooled as asked.
    """
    from ..classification.findings import choose_sides, findings_of
    from ..classification.joint_train import request_of_findings
    from ..classification.parts import require_pooling
    from ..study_labels import read_studies

    pooling = require_pooling(backbone, options.pooling)
    dataset, studies = findings_of(member.dataset, read_studies(member.dataset.folder, may_lack_rows=True))
    sides = choose_sides(dataset, studies, member.folder, options.fold, dry_run=options.dry_run)
    request = request_of_findings(
        sides,
        name=studies.name,
        dataset=dataset.name,
        batch_size=options.findings_batch or USUAL_BATCH,
        weights=options.dataset_weights,
        pooling=pooling,
    )
    return Findings(member=replace(member, dataset=dataset), studies=studies, sides=sides, request=request)


def prepare_source(findings: Findings, options: argparse.Namespace) -> Source:
    """Plan the studies, at the spacing of the label maps' plan unless another is asked for, and preprocess them.

    Raises:
        InputError: if options do not fit the images, or one cannot be used.
        OutputError: if one cannot be preprocessed.
    """
    from ..classification.findings import source_of
    from ..classification.preparation import prepare_folder
    from ..workers import Workers

    num_processes = default_workers() if options.num_workers is None else options.num_workers
    member, studies = findings.member, findings.studies
    sizes = None if options.input_size is None else tuple(options.input_size)
    spacing = options.spacing or ("native" if sizes else member.plan.target_spacing_mm)
    prepared = prepare_folder(
        studies,
        member.folder.parent / studies.name,
        target_spacing=spacing,
        sizes=sizes,
        workers=Workers(num_processes=max(1, num_processes)),
    )
    return source_of(findings.sides, prepared.plan, prepared.cases, options.fold)


def join(run: PreparedRun, findings: Findings, options: argparse.Namespace, *, goes_on: bool) -> JointRun:
    """The run of both, once the studies are planned and preprocessed."""
    from ..classification.joint_train import join_findings

    source, init = prepare_source(findings, options), None if goes_on else options.init
    return join_findings(run, source, pooling=options.pooling, init=init)


def show_findings(findings: Findings) -> None:
    """Tell of the studies, for a dry run."""
    from .dry_run import show

    sides, studies = findings.sides, findings.studies
    numbers = {"train": sides.train, "are held out": sides.held_out}
    lines = [
        f"{len(them)} studies of {len({it.patient for it in them})} patients {how}" for how, them in numbers.items()
    ]
    classes = studies.classes
    show(f"{studies.name}: {classes.kind}, {', '.join(classes.names)}", lines)
