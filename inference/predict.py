"""Image and model to label map, and a folder of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from ..channels import pick_channels
from ..dataset import RawCase
from ..errors import InputError
from ..formats import NIFTI_ENDINGS, is_dicom, num_axes_of
from ..image import Image, LabelMap, read_image, write_label_map
from ..model import Model
from ..network.build import build_backbone, build_task
from ..network.heads import SegmentationNetwork
from ..parallel import Outcome, attempt, map_cases
from ..plan import Plan
from ..preprocessing.mirror import mirror_axes, tell_unoriented
from ..preprocessing.preprocess import preprocess
from ..preprocessing.restore import restore_logits
from ..sides import PatientAxis
from .channels import ChannelOrder
from .dicom_seg import read_headers, write_segmentation
from .label_format import LabelFormat, label_ending
from .mirroring import with_mirroring
from .sliding import predict_logits

log = logging.getLogger("spadunet")

SpacingChoice = Literal["plan", "native"]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A network ready to predict one task, and how to run it."""

    network: nn.Module
    plan: Plan
    device: torch.device
    precision: torch.dtype
    overlap: float = 0.5
    spacing: SpacingChoice = "plan"
    """Native: each image at its own spacing, and so at its own degree of anisotropy, whatever the plan says."""
    mirror: tuple[PatientAxis, ...] = ()
    """Axes across which mirror images are predicted too, as far as the labels allow it, and averaged."""


def build_network(model: Model, task_name: str) -> SegmentationNetwork:
    """The network of one task with its weights, in evaluation mode.

    Raises:
        InputError: if the weights do not fit the backbone and preset that the model states, or nobody knows these.
    """
    task = model.tasks[task_name]
    try:
        backbone = build_backbone(model.backbone, model.preset)
        head = build_task(len(task.plan.channel_names), task.plan.labels.num_outputs, model.backbone, model.preset)
        backbone.load_state_dict(model.backbone_state)
        head.load_state_dict(task.state)
    except (KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"model {model.backbone} {model.preset}, task {task_name}: weights do not fit ({reason})"
        ) from error
    return SegmentationNetwork(backbone, head).eval()


def plan_at(plan: Plan, spacing: SpacingChoice) -> Plan:
    """The plan, or the same without resampling."""
    return plan.model_copy(update={"target_spacing_mm": "native"}) if spacing == "native" else plan


def predict_image(image: Image, engine: Engine) -> LabelMap:
    """Label map of an image on the image's own grid."""
    case = preprocess("image", image, None, plan_at(engine.plan, engine.spacing))
    unoriented = tell_unoriented([case.geometry], engine.plan.labels) if engine.mirror else ""
    if unoriented:
        log.info(unoriented)
    logits = predict_logits(
        with_mirroring(engine.network, mirror_axes(case.geometry, engine.plan.labels, engine.mirror)),
        torch.from_numpy(case.image).to(engine.device),
        case.geometry.da,
        engine.plan.patch_sizes_voxels[case.geometry.da],
        overlap=engine.overlap,
        precision=engine.precision,
        missing_channels=case.missing_channels,
    )
    return restore_logits(logits.cpu().numpy(), case.geometry, engine.plan.labels)


def predict_case(
    case: RawCase,
    *,
    engine: Engine,
    folder: Path,
    label_format: LabelFormat = "nifti",
    order: ChannelOrder | None = None,
) -> Path:
    """Predict one case and write its label map into a folder.

    Args:
        order: of the image's channels; None for that of the plan.
    """
    path = prediction_path(folder, case.name, label_ending(case, label_format))
    headers = read_headers(case) if is_dicom(path) else []  # what is wrong with them is told before the work
    label_map = predict_image(read_ordered(case, engine.plan, order), engine)
    if headers:
        write_segmentation(path, label_map, headers, engine.plan.labels, engine.plan.dataset_name)
    else:
        write_label_map(path, label_map, num_axes=num_axes_of(case.paths[0]))
    return path


def read_ordered(case: RawCase, plan: Plan, order: ChannelOrder | None) -> Image:
    """A case's image with the channels of the plan, in its order."""
    if order is None:
        return read_image(case.image_paths, num_channels=len(plan.channel_names), series=case.series)
    image = read_image(case.image_paths, num_channels=len(order.names), series=case.series)
    try:
        return pick_channels(image, order.numbers)
    except InputError as error:
        raise InputError(f"{case.name}: {error}") from error


def predict_cases(
    cases: list[RawCase],
    engine: Engine,
    folder: Path,
    *,
    label_format: LabelFormat = "nifti",
    order: ChannelOrder | None = None,
    is_quiet: bool = False,
) -> Iterator[Outcome[RawCase, Path]]:
    """Predict one case after the other; a broken one never stops the others.

    Args:
        is_quiet: without a bar, as beside another process that has one.
    """
    predict_one = partial(predict_case, engine=engine, folder=folder, label_format=label_format, order=order)
    if is_quiet:
        yield from (attempt(predict_one, case) for case in cases)
    else:
        yield from map_cases(predict_one, cases, title="Predicting")


def prediction_path(folder: Path, case: str, ending: str = NIFTI_ENDINGS[0]) -> Path:
    """Where a case's label map goes."""
    return folder / f"{case}{ending}"
