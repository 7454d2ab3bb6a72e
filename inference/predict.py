"""Image and model to label map, and a folder of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from ..dataset import RawCase
from ..errors import InputError
from ..formats import NIFTI_ENDINGS, is_dicom, num_axes_of
from ..image import Image, LabelMap, read_image, write_label_map
from ..model import Model
from ..network.build import build_backbone, build_task
from ..network.heads import SegmentationNetwork
from ..parallel import Outcome, attempt, map_cases
from ..plan import Plan
from ..preprocessing.preprocess import preprocess
from ..preprocessing.restore import restore_logits
from .dicom_seg import read_headers, write_segmentation
from .label_format import LabelFormat, label_ending
from .sliding import predict_logits


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A network ready to predict one task, and how to run it."""

    network: nn.Module
    plan: Plan
    device: torch.device
    precision: torch.dtype
    overlap: float = 0.5


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


def predict_image(image: Image, engine: Engine) -> LabelMap:
    """Label map of an image on the image's own grid."""
    case = preprocess("image", image, None, engine.plan)
    logits = predict_logits(
        engine.network,
        torch.from_numpy(case.image).to(engine.device),
        case.geometry.da,
        engine.plan.patch_sizes_voxels[case.geometry.da],
        overlap=engine.overlap,
        precision=engine.precision,
        missing_channels=case.missing_channels,
    )
    return restore_logits(logits.cpu().numpy(), case.geometry, engine.plan.labels)


def predict_case(case: RawCase, *, engine: Engine, folder: Path, label_format: LabelFormat = "nifti") -> Path:
    """Predict one case and write its label map into a folder."""
    path = prediction_path(folder, case.name, label_ending(case, label_format))
    headers = read_headers(case) if is_dicom(path) else []  # what is wrong with them is told before the work
    num_channels = len(engine.plan.channel_names)
    label_map = predict_image(read_image(case.image_paths, num_channels=num_channels, series=case.series), engine)
    if headers:
        write_segmentation(path, label_map, headers, engine.plan.labels, engine.plan.dataset_name)
    else:
        write_label_map(path, label_map, num_axes=num_axes_of(case.paths[0]))
    return path


def predict_cases(
    cases: list[RawCase],
    engine: Engine,
    folder: Path,
    *,
    label_format: LabelFormat = "nifti",
    is_quiet: bool = False,
) -> Iterator[Outcome[RawCase, Path]]:
    """Predict one case after the other; a broken one never stops the others.

    Args:
        is_quiet: without a bar, as beside another process that has one.
    """
    predict_one = partial(predict_case, engine=engine, folder=folder, label_format=label_format)
    if is_quiet:
        yield from (attempt(predict_one, case) for case in cases)
    else:
        yield from map_cases(predict_one, cases, title="Predicting")


def prediction_path(folder: Path, case: str, ending: str = NIFTI_ENDINGS[0]) -> Path:
    """Where a case's label map goes."""
    return folder / f"{case}{ending}"
