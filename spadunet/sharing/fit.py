"""Whether weights are those of the network that a model states, told from their shapes alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..model import ModelRecord
from ..network.build import build_backbone, build_task
from ..plan import Plan
from .tensor_header import TensorRecord

Shapes = dict[str, tuple[int, ...]]


def misfit(
    model: ModelRecord,
    plans: Mapping[str, Plan],
    backbone: Mapping[str, TensorRecord],
    tasks: Mapping[str, Mapping[str, TensorRecord]],
) -> str:
    """What does not fit, in words; empty if all does. Networks are built without memory for their weights.

    A pre-trained backbone, without a task, may hold a part of the tensors.

    Args:
        plans: by task.
        backbone, tasks: tensors by name; those of each task.
    """
    try:
        with torch.device("meta"):
            network = build_backbone(model.backbone, model.preset)
            heads = {
                name: build_task(len(plan.channel_names), plan.labels.num_outputs, model.backbone, model.preset)
                for name, plan in plans.items()
            }
    except KeyError as error:
        return (
            f"it is for a network {model.backbone} {model.preset}, of which {error} is not known here: update spadunet"
        )
    problems = [difference("the backbone", shapes_of(network), backbone, is_part=not plans)]
    problems += [difference(f"task {name}", shapes_of(head), tasks[name]) for name, head in heads.items()]
    return next(filter(None, problems), "")


def shapes_of(network: torch.nn.Module) -> Shapes:
    """Of all tensors, by name."""
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def difference(what: str, wanted: Shapes, there: Mapping[str, TensorRecord], *, is_part: bool = False) -> str:
    """The first tensor that is missing, unknown or of another shape; empty if there is none."""
    missing = [] if is_part and there else [name for name in wanted if name not in there]
    unknown = [name for name in there if name not in wanted]
    if missing or unknown:
        return f"{what} lacks tensors ({missing[:1]}) or has others ({unknown[:1]})"
    for name, tensor in there.items():
        if tensor.shape != wanted[name]:
            return f"{what}: tensor {name} has the shape {tensor.shape}, not {wanted[name]}"
    return ""
