"""What `spadunet_predict` was asked for, read and checked before any work."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..workers import Workers
from ..workspace import find_workspace
from .fine_tuning import settle_prediction
from .options import find_cluster, find_mirror_axes
from .predict_options import USUAL, find_models_asked

if TYPE_CHECKING:
    import torch

    from ..dataset import RawCase
    from ..inference.job import Job
    from ..inference.quality_table import Judgement
    from ..inference.resume import Request
    from ..inference.sources import Source


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A prediction that can be made; nothing is written yet."""

    cases: list[RawCase]
    sources: Sequence[Source]
    device: torch.device
    precision: torch.dtype
    workers: Workers | None
    """A cluster that predicts; None for this process."""
    job: Job
    judgement: Judgement
    request: Request
    paths: dict[str, Path]
    """Where the label map of each case goes."""
    notes: list[str]
    """Lines for the log."""


def find_prediction(
    options: argparse.Namespace, device: torch.device, sources: Sequence[Source] | None = None
) -> Asked:
    """Read models, look for images, and check that all that was asked for goes together.

    Args:
        sources: the models, where they are read already.

    Raises:
        InputError: if it does not, or something is missing or damaged.
    """
    from ..inference.cases import find_cases, tell_series
    from ..inference.channels import dropped_contrasts, order_of
    from ..inference.job import Job
    from ..inference.label_format import check_format, label_ending
    from ..inference.pipeline import prediction_path
    from ..inference.quality_table import Judgement
    from ..inference.resume import request_of
    from ..inference.sources import calibration_of, choose_structures, open_sources, rules_of, tell_sources
    from ..inference.subset import labels_of
    from ..network.device import choose_precision

    folders = find_models_asked(options, find_workspace(options.data))
    sources = sources or open_sources(folders, options.dataset, options.spacing)
    plan = sources[0].plan
    settled = settle_prediction(options, USUAL, sources[0].provenance)
    mirror = find_mirror_axes(options.mirror)
    chosen = choose_structures(plan.labels, options.roi_subset or ())
    labels = labels_of(plan.labels, chosen)
    calibration, told = calibration_of(sources)
    if options.reject_below is not None and calibration is None:
        raise InputError(f"--reject-below {options.reject_below:g}: {told}")
    may_lack = all(dropped_contrasts(it.plan, it.provenance) for it in sources)
    order = order_of(plan, options.input, options.channels, may_lack=may_lack)
    cases = find_cases(options.input, len(order.names), order.optional)
    workers = None if options.dask is None else find_cluster(options.dask)
    notes = [*tell_sources(sources, device), *settled, *tell_series(cases)]
    notes += check_format(cases, options.format, labels)
    notes += [plan.labels.tell_mirror(axis) for axis in mirror]
    notes += [f"only {', '.join(chosen)} is predicted"] if chosen else []
    notes += rules_of(sources, chosen)[1] if options.cleans else ["post-processing: left out as asked"]
    require_apart(options.output, options.input, cases)
    precision = choose_precision(options.precision, device)
    job = Job(
        models=tuple(folder.absolute() for folder in folders),
        dataset=options.dataset and sources[0].task,
        device=options.device,
        precision=options.precision,
        overlap=options.overlap,
        spacing=options.spacing,
        mirror=mirror,
        chosen=chosen,
        cleans=options.cleans,
        memory_gb=options.memory_gb,
        folder=options.output.absolute(),
        label_format=options.format,
        order=order,
        reject_below=options.reject_below,
        saves_probabilities=options.saves_probabilities,
    )
    return Asked(
        cases=cases,
        sources=sources,
        device=device,
        precision=precision,
        workers=workers,
        job=job,
        judgement=Judgement(labels=labels, calibration=calibration, reject_below=options.reject_below),
        request=request_of(options.input, sources, job, precision),
        paths={
            case.name: prediction_path(options.output, case.name, label_ending(case, options.format)) for case in cases
        },
        notes=[*notes, told],
    )


def require_apart(output: Path, images: Path, cases: Sequence[RawCase]) -> None:
    """Refuse an output folder whose label maps would be taken for images.

    Raises:
        InputError: if it is the images' folder, or lies in one of DICOM files.
    """
    from ..formats import is_dicom

    if output.resolve() == images.resolve():
        raise InputError(f"-o {output}: is the input folder; its images would be overwritten: give another")
    if is_dicom(cases[0].paths[0]) and images.resolve() in output.resolve().parents:
        raise InputError(f"-o {output}: lies among the DICOM files of -i, whose folders are cases: give another")
