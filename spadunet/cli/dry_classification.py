"""The dry run of `spadunet_train --task classification`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OutputError
from .dry_run import begin, finish, show, show_needs, table, unknown
from .train_place import MANIFEST

if TYPE_CHECKING:
    from ..classification.prepared import PreparedClassification
    from ..study import LabelledStudies


def show_run(run: PreparedClassification, folder: Path, *, model_folder: Path) -> int:
    """The dry run, where the plan is known."""
    from ..classification.estimate import estimate_classification
    from ..classification.options import LIGHT
    from ..network.adapters import describe_share
    from ..network.classify import encoder_of

    options, source, parts = run.options, run.source, run.parts
    held_out = source.held_out
    begin("spadunet_train")
    sides = [
        f"{len(source.train.names)} studies to learn from",
        f"{len(held_out.names) if held_out else 0} to validate",
    ]
    show(f"{source.name}: {source.plan.classes.kind}", [", ".join(sides), ", ".join(source.plan.classes.names)])
    if run.coverage is not None:
        show(f"weights from {run.coverage.source}", run.coverage.lines())
    if parts.adapter is not None:
        print(f"adapter of the encoder: {describe_share(parts.adapter, encoder_of(parts.backbone))}")
    change = "light augmentation" if options.augmentation == LIGHT else "no augmentation"
    steps = "by the clock" if options.max_steps is None else f"{options.max_steps} steps"
    print(f"network {run.backbone} {run.preset}, pooling {parts.task.pooling}; {steps}, {change}, {options.device}")
    show(
        f"writes into {folder}",
        ["state/, report.html, epochs.csv, curves.csv, curves.png, tensorboard/, training.log, " + MANIFEST]
        + ([f"validation/{source.name}/"] if held_out else []),
    )
    show(f"model in {model_folder}", ["model.json", "backbone.safetensors", f"tasks/{source.name}/"])
    size = source.plan.input_size_voxels
    try:
        needs = unknown("images differ in size") if size is None else estimate_classification(run, size)
    except OutputError as error:
        needs = unknown(str(error))
    show_needs(needs, folder)
    return 0


def show_folder(options: argparse.Namespace, found: LabelledStudies, folder: Path, network: str) -> int:
    """The dry run of a folder, whose plan would be made."""
    from collections import Counter

    from ..classification.sources import fold_of

    begin("spadunet_train")
    if found.has_splits:
        sides = {split or "": list(found.of(split)) for split in ("train", "val", "test")}
    else:
        sides = dict(zip(("train", "val"), fold_of(found, options.fold), strict=True))
    names = found.classes.names
    rows = []
    for side, studies in sides.items():
        if found.classes.is_exclusive:
            counts = Counter(study.labels[0] for study in studies)
        else:
            counts = Counter(number for study in studies for number, it in enumerate(study.labels) if it == 1)
        patients = len({study.patient for study in studies})
        rows.append([side, str(len(studies)), str(patients), *(str(counts[number]) for number in range(len(names)))])
    show(f"{found.name}: {found.classes.kind}", table(["side", "studies", "patients", *names], rows, "sides"))
    show("makes first", ["plan and preprocessed images, below preprocessed/, unless they are there"])
    show(f"writes into {folder}", [f"model and results of {network}"])
    return finish([])
