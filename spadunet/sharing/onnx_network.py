"""One task's network at one degree of anisotropy as an ONNX file, which runs without spadunet and torch.

onnx, onnxruntime and onnxscript are an extra: they are imported inside the functions.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from .. import __version__
from ..errors import InputError, OutputError
from ..files import atomic_path
from ..inference.predict import build_network
from ..labels import LabelSet
from ..model import Model
from ..network.heads import SegmentationNetwork
from ..network.pyramid import SpadViTUNet
from ..network.spad_conv import to_static
from ..network.vit import resize_positions
from ..plan import IntensityRule, Plan
from ..record import FormatVersion, PositiveShape, PositiveSpacing, Record
from ..spacing import Shape

if TYPE_CHECKING:
    import onnx

INPUT, OUTPUT, NOTES = "image", "logits", "spadunet"
"""Names of the input, of the output, and of the file's metadata that holds `OnnxNotes`."""
EXTRA = ("onnx", "onnxruntime", "onnxscript")
MAX_BYTES = 1_900_000_000
"""An ONNX file holds less than 2 GiB; the largest preset's weights take 1.54 GB."""
TOLERANCE = 1e-4
"""Of onnxruntime's logits, as a share of the largest (or of 1, if that is smaller)."""
HOW_TO = (
    "image: float32 (batch, channel, depth, height, width); logits: float32 (batch, output, depth, height, width). "
    "Only the batch size is free; larger images are covered by overlapping windows of patch_size_voxels.",
    "Depth is the only axis with a single slice; else the coarsest if it is at least twice as coarse as the finest; "
    "else the one nearest to the patient's superior axis. The other two keep the order superior, posterior, left, and "
    "indices grow towards superior, posterior and left.",
    "Crop to the smallest box outside which all channels are zero. Then each channel: low and high are intensities "
    "(window), or those percentiles of its non-zero voxels in the cropped image (percentiles; where "
    "they are equal, the least and the greatest of all its voxels there); "
    "x = clip((v - low) * 2 / (high - low) - 1, -1, 1). A constant channel is -1, a missing optional one 0.",
    "Then resample to target_spacing_mm (depth, height, width) by cubic splines, depth by nearest neighbour where the "
    "degree of anisotropy is 1 or more before or after; native: not at all. That degree, "
    "floor(log2(depth spacing / smaller in-plane spacing)) between 0 and 6, and 6 of a single slice, must then be "
    "degree_of_anisotropy.",
    "Pad images smaller than the patch on both sides with -1 (0 in missing channels). Weigh windows by a Gaussian with "
    "a sigma of 1/8 of each side, and average logits.",
    "softmax: output k is labels.names[k]; the largest logit wins, and labels.ids[k] is its id. sigmoid: output k is "
    "labels.regions[k], there where its logit is above 0, painted with painted_id in this order.",
)


class OnnxNotes(Record):
    """What someone must know who runs the network: JSON in the file's metadata."""

    format_version: FormatVersion = 1
    spadunet: str
    task: str
    backbone: str
    preset: str
    degree_of_anisotropy: int
    patch_size_voxels: PositiveShape
    """Of the input (depth, height, width)."""
    channel_names: tuple[str, ...]
    optional_channels: tuple[str, ...]
    intensity: tuple[IntensityRule, ...]
    target_spacing_mm: PositiveSpacing | Literal["native"]
    labels: LabelSet
    activation: Literal["softmax", "sigmoid"]
    how_to: tuple[str, ...] = HOW_TO


def require_onnx() -> None:
    """Raise InputError if the extra is not installed."""
    from importlib.util import find_spec

    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise InputError(f"spadunet_export_onnx: needs {', '.join(missing)}: pip install 'spadunet[onnx]'")


def export_onnx(model: Model, task: str, da: int, path: Path) -> float:
    """Write the network of a task at a degree of anisotropy; whole or not at all.

    The file's input is (batch, C, *patch) with the plan's patch for that degree. What was written is run by onnxruntime
    on a random patch and compared with torch before it gets its name. Of a task with a LoRA adapter the network has
    the adapter in its weights.

    Returns:
        The largest difference between onnxruntime's and torch's logits.

    Raises:
        InputError: if the extra is missing, the task has an adapter of several experts, or the weights are too large
            for one file or do not fit.
        OutputError: if the file cannot be written, or onnxruntime gives other logits.
    """
    require_onnx()
    adapter, plan = model.tasks[task].adapter, model.tasks[task].plan
    if adapter is not None and adapter.num_experts > 1:
        raise InputError(
            f"{task}: has an adapter of {adapter.num_experts} experts, which its router weighs anew for each image: "
            "there is no plain network to export; a LoRA task can be exported"
        )
    network = build_network(model, task)
    patch = plan.patch_sizes_voxels[da]
    if sum(tensor.nbytes for tensor in network.state_dict().values()) > MAX_BYTES:
        raise InputError(f"{task}: weights of more than {MAX_BYTES / 1e9:g} GB do not fit into an ONNX file")
    image = torch.rand((2, len(plan.channel_names), *patch), generator=torch.Generator().manual_seed(0)) * 2 - 1
    merged = network if adapter is None else build_network(model, task, is_merged=True)
    program = to_onnx(static_network(merged, da, patch), image)
    tell(program, notes_of(model, task, plan, da))
    with atomic_path(path) as partial:
        partial.write_bytes(program.SerializeToString())
        differs, largest = difference(partial, network, da, image)
        if not differs <= TOLERANCE * max(largest, 1):
            raise OutputError(f"{path}: not written, since onnxruntime's logits differ from torch's by {differs:.2g}")
    return differs


def static_network(network: SegmentationNetwork, da: int, patch: Shape) -> nn.Module:
    """The network as plain convolutions; learned positions are brought to the patch's grid of tokens beforehand."""
    static = to_static(network, da)
    for module in static.modules():
        if isinstance(module, SpadViTUNet):
            with torch.no_grad():
                depth, height, width = module.vit.embed(torch.zeros(1, 3, *patch), da).shape[2:]
                module.vit.pos_embed = nn.Parameter(resize_positions(module.vit.pos_embed, (depth, height, width)))
    return static.eval()


def to_onnx(network: nn.Module, image: Tensor) -> onnx.ModelProto:
    """Trace `network(image)` by torch.export, without TorchScript, for any batch size."""
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            network,
            (image,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={"x": {0: torch.export.Dim("batch")}},
            verbose=False,
        )
    assert program is not None
    return program.model_proto


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep torch's exporter from warning of its own deprecated calls, and of libraries that it could do without."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def notes_of(model: Model, task: str, plan: Plan, da: int) -> OnnxNotes:
    """What goes into the file beside the network."""
    return OnnxNotes(
        spadunet=__version__,
        task=task,
        backbone=model.backbone,
        preset=model.preset,
        degree_of_anisotropy=da,
        patch_size_voxels=plan.patch_sizes_voxels[da],
        channel_names=plan.channel_names,
        optional_channels=plan.optional_channels,
        intensity=plan.intensity,
        target_spacing_mm=plan.target_spacing_mm,
        labels=plan.labels,
        activation="sigmoid" if plan.labels.regions else "softmax",
    )


def tell(program: onnx.ModelProto, notes: OnnxNotes) -> None:
    """Put the notes into the file; take out what torch tells in each node: lines and paths of this machine's code."""
    for part in (program.graph, *program.functions):
        del part.metadata_props[:]
        part.doc_string = ""
        for node in part.node:
            del node.metadata_props[:]
            node.doc_string = ""
        for value in part.value_info:
            del value.metadata_props[:]
    for value in (*program.graph.input, *program.graph.output):
        del value.metadata_props[:]
    for tensor in program.graph.initializer:
        del tensor.metadata_props[:]
    del program.metadata_props[:]
    program.metadata_props.add(key=NOTES, value=notes.to_json())
    program.producer_name, program.producer_version = "spadunet", __version__


def difference(path: Path, network: SegmentationNetwork, da: int, image: Tensor) -> tuple[float, float]:
    """The largest difference between the file's logits in onnxruntime and torch's, and torch's largest logit.

    Args:
        image: (B, C, *patch) in [-1, 1].
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = network(image, da)
    found = torch.from_numpy(session.run([OUTPUT], {INPUT: image.numpy()})[0])
    return (found - expected).abs().max().item(), expected.abs().max().item()
