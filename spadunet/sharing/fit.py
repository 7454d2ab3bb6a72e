"""Whether weights are those of the network that a model states, told from their shapes alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..model import ModelRecord
from ..network.adapters import Adapter
from ..network.build import build_backbone, build_classification_task, build_task
from ..task import ADAPTER_PREFIX, AnyTaskRecord, TaskRecord
from .tensor_header import TensorRecord

Shapes = dict[str, tuple[int, ...]]


def misfit(
    model: ModelRecord,
    records: Mapping[str, AnyTaskRecord],
    backbone: Mapping[str, TensorRecord],
    tasks: Mapping[str, Mapping[str, TensorRecord]],
) -> str:
    """What does not fit, in words; empty if all does. Networks are built without memory for their weights.

    A pre-trained backbone, without a task, may hold a part of the tensors.

    Args:
        records: by task.
        backbone, tasks: tensors by name; those of each task.
    """
    try:
        with torch.device("meta"):
            network = build_backbone(model.backbone, model.preset)
    except KeyError as error:
        return unknown_network(model.backbone, model.preset, error)
    problem = difference("the backbone", shapes_of(network), backbone, is_part=not records)
    others = (misfit_of_task(model.backbone, model.preset, it, tasks[name]) for name, it in records.items())
    return problem or next(filter(None, others), "")


def misfit_of_task(backbone: str, preset: str, record: AnyTaskRecord, tensors: Mapping[str, TensorRecord]) -> str:
    """As `misfit`, of one task, heads and adapter, for a backbone."""
    num_channels, is_segmentation = len(record.plan.channel_names), isinstance(record, TaskRecord)
    try:
        with torch.device("meta"):
            if isinstance(record, TaskRecord):
                num_outputs = record.plan.labels.num_outputs
                wanted = shapes_of(build_task(num_channels, num_outputs, backbone, preset))
            else:
                num_outputs = record.plan.classes.num_outputs
                wanted = shapes_of(
                    build_classification_task(num_channels, num_outputs, backbone, preset, record.pooling)
                )
            if (kind := record.adapter) is not None:
                network = build_backbone(backbone, preset)
                adapter = Adapter(network, rank=kind.rank, num_experts=kind.num_experts, has_decoder=is_segmentation)
                wanted |= {ADAPTER_PREFIX + name: shape for name, shape in shapes_of(adapter).items()}
    except KeyError as error:
        return unknown_network(backbone, preset, error)
    except ValueError as error:
        return f"task {record.name}: {error}"
    return difference(f"task {record.name}", wanted, tensors)


def unknown_network(backbone: str, preset: str, error: KeyError) -> str:
    """What to say of a network that this version does not have."""
    return f"it is for a network {backbone} {preset}, of which {error} is not known here: update spadunet"


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
