"""Cases predicted by processes that have no model yet: the workers of a cluster."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..dataset import RawCase
from ..image import LabelMap
from ..network.device import choose_device, choose_precision
from ..quality import QualityRow
from ..sides import PatientAxis
from .budget import HOST_SHARE
from .channels import ChannelOrder
from .label_format import LabelFormat
from .pipeline import load, write
from .predict import Answer, Engine, SpacingChoice, segment
from .quality_table import Judgement, review_path
from .sources import Source, build_engine, calibration_of, open_sources, rules_of
from .stages import StageTimes
from .subset import labels_of


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that decides how a folder is predicted, in values that can travel; paths are the same everywhere."""

    models: tuple[Path, ...]
    dataset: str | None
    device: str
    """As `choose_device` takes it, on the machine that does the work."""
    precision: str
    """As `choose_precision` takes it."""
    overlap: float
    spacing: SpacingChoice
    mirror: tuple[PatientAxis, ...]
    chosen: tuple[str, ...]
    cleans: bool
    """Apply the models' post-processing."""
    memory_gb: float | None
    folder: Path
    """Where label maps go."""
    label_format: LabelFormat
    order: ChannelOrder
    reject_below: float | None
    saves_probabilities: bool


@functools.lru_cache(maxsize=1)
def open_job(job: Job) -> tuple[Engine, Judgement]:
    """The engine of a job, once a process; the models are read and checked there.

    Raises:
        InputError: if a model cannot be read, or the device is not there.
    """
    sources = open_sources(job.models, job.dataset, job.spacing)
    own = replace(job, memory_gb=job.memory_gb or memory_gb_here())
    engine = engine_of(own, sources, choose_device(job.device))
    labels = labels_of(sources[0].plan.labels, job.chosen)
    calibration = calibration_of(sources)[0]
    return engine, Judgement(labels=labels, calibration=calibration, reject_below=job.reject_below)


def engine_of(job: Job, sources: Sequence[Source], device: torch.device) -> Engine:
    """The engine of a job whose models are read already."""
    return build_engine(
        sources,
        device=device,
        precision=choose_precision(job.precision, device),
        overlap=job.overlap,
        spacing=job.spacing,
        mirror=job.mirror,
        chosen=job.chosen,
        rules=rules_of(sources, job.chosen)[0] if job.cleans else (),
        memory_gb=job.memory_gb,
        folder=job.folder,
        is_judged=True,
        keeps_probabilities=job.saves_probabilities,
    )


def memory_gb_here() -> float | None:
    """What Dask lets this worker take for images and logits; None where it sets no limit, and outside a cluster."""
    try:
        from distributed import get_worker

        limit = get_worker().memory_manager.memory_limit
    except (ImportError, ValueError):  # Dask is not there, or this is none of its workers
        return None
    return limit * HOST_SHARE / 1e9 if limit else None


def predict_case(case: RawCase, job: Job) -> tuple[Path, list[QualityRow], dict[str, float]]:
    """Read, predict, write; the label map's path, the case's rows of quality.csv, and the seconds of each stage.

    Raises:
        InputError: if the image, or a model, cannot be used.
        OutputError: if the label map cannot be written.
    """
    (engine, judgement), times = open_job(job), StageTimes()
    with times.time("loading"):
        loaded = load(case, engine=engine, folder=job.folder, label_format=job.label_format, order=job.order)
    answer = segment(loaded.views, engine, times)
    found: list[QualityRow] = []

    def place(name: str, path: Path, label_map: LabelMap, answer: Answer) -> Path:
        found.extend(judgement.rows(name, label_map, answer))
        return review_path(path) if found[-1].review else path

    with times.time("writing"):
        path = write(loaded, answer, engine, place)
    return path, found, times.seconds
