"""Weights that a run starts from, and the account of what became of every tensor: none is left out silently."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..errors import InputError, listed
from ..labels import LabelSet
from ..model import load_model, read_model_record
from ..network.build import VIT_PRESETS
from ..network.eva02 import INFLATED
from ..network.heads import SegmentationTask
from ..network.pyramid import SpadViTUNet
from ..network.scale import shrink, sizes_of
from ..network.vit import resize_positions
from ..plan import Plan
from ..record import FormatVersion, Record, is_unused
from ..task import Task
from ..weights import read_weights
from .asked import runs_behind
from .channels import match_channels
from .eva02 import read_eva02
from .heads import load_heads, match_heads
from .loop import JointNetwork
from .state import below

log = logging.getLogger("spadunet")

INIT_COVERAGE_JSON = "init_coverage.json"
POSITIONS = "vit.pos_embed"

Fate = Literal["loaded", "resized", "inflated", "matched", "new"]
"""Of a tensor: as in the file, interpolated to another grid, made 3D from 2D weights, for other channels, or fresh."""
MAX_LISTED = 4
"""Names in a line of the table; init_coverage.json has all."""
FATES: tuple[Fate, ...] = ("loaded", "resized", "inflated", "matched", "new")


class CoverageRow(Record):
    """The tensors of one part of the network that fared alike."""

    group: str
    fate: Fate
    num_tensors: int
    num_parameters: int
    outputs: tuple[str, ...] = Field(default=(), exclude_if=is_unused)
    """Of heads of which only some outputs were taken over: the classes or regions. Their tensors count in both rows."""

    @property
    def is_of_task(self) -> bool:
        """Not of the backbone."""
        return " " in self.group

    @property
    def title(self) -> str:
        """The part, with the first of its outputs."""
        return f"{self.group}{': ' if self.outputs else ''}{listed(self.outputs, MAX_LISTED)}"


class Coverage(Record):
    """init_coverage.json: what a run took over from the weights that it was given."""

    format_version: FormatVersion = 1
    source: str
    is_scratch_twin: bool
    """The weights were left unread on purpose: the run is for comparison."""
    rows: tuple[CoverageRow, ...]
    earlier_runs: tuple[str, ...] = Field(default=(), exclude_if=is_unused)
    """That the weights come from, as `asked.runs_behind`."""

    def share(self, fate: Fate) -> float:
        """Of all parameters."""
        total = sum(row.num_parameters for row in self.rows)
        return sum(row.num_parameters for row in self.rows if row.fate == fate) / total

    def lines(self) -> list[str]:
        """An aligned table, and the shares of all parameters."""
        cells = [("part", "", "tensors", "parameters")] + [
            (row.title, row.fate, str(row.num_tensors), f"{row.num_parameters:,}") for row in self.rows
        ]
        wide = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [f"{a:{wide[0]}}  {b:{wide[1]}}  {c:>{wide[2]}}  {d:>{wide[3]}}" for a, b, c, d in cells]
        shares = ", ".join(f"{percent(self.share(fate))} {fate}" for fate in FATES if self.share(fate))
        total = sum(row.num_parameters for row in self.rows)
        why = " (scratch twin: nothing is loaded)" if self.is_scratch_twin else ""
        return [*lines, f"of {total:,} parameters: {shares}{why}"]


def percent(share: float) -> str:
    """A share above zero, never as 0.0 %, nor one below one as 100.0 %."""
    if share < 0.0005:
        return "under 0.1 %"
    return "over 99.9 %" if 0.9995 <= share < 1 else f"{100 * share:.1f} %"


@dataclass(frozen=True, kw_only=True)
class InitKind:
    """Which network some weights are for."""

    backbone: str
    preset: str


def kind_of(source: Path) -> InitKind:
    """The network of a model folder, or of an EVA-02 file by its width.

    Raises:
        InputError: if it is neither.
    """
    if source.is_file():
        token = read_weights(source).get("cls_token")
        width = 0 if token is None else token.shape[-1]
        preset = next((name for name, size in VIT_PRESETS.items() if size.width == width), None)
        if preset is None:
            raise InputError(
                f"--init {source}: no EVA-02 as wide as a SPAD-ViT; give the file of an EVA-02 Base or Large as "
                "pre-trained, or a model folder"
            )
        return InitKind(backbone="spad_vit", preset=preset)
    record = read_model_record(source)
    return InitKind(backbone=record.backbone, preset=record.preset)


def start_from(
    network: JointNetwork,
    plans: Mapping[str, Plan],
    source: Path,
    *,
    kind: InitKind,
    scratch_twin: bool = False,
    keeps_sizes: bool = False,
) -> Coverage:
    """Take over a model's backbone, heads for classes of the same names, and channels by their names.

    A pre-trained backbone need not have all tensors; what it has must fit. An EVA-02 file gives a SPAD-ViT.

    Args:
        network: fresh, of this kind; changed in place. What is new stays as it is.
        plans: by the name of the dataset, in the order of the network's tasks.
        scratch_twin: only tell what the network has; nothing is loaded.
        keeps_sizes: weights stay as they are to the last bit, for a backbone that is frozen. Else those in front of a
            norm that are larger than fresh ones are brought to their size, so that they learn as fast
            (`network.scale`).

    Raises:
        InputError: if the weights are for another backbone or preset, or a tensor has no place or another shape.
    """
    given = kind_of(source)
    if given != kind:
        raise InputError(
            f"--init {source}: is a {given.backbone} {given.preset}, not a {kind.backbone} {kind.preset}; "
            f"give --backbone {given.backbone} --preset {given.preset}, or leave both out"
        )
    state, tasks, told = read_source(source, network.backbone)
    sizes = sizes_of(network.backbone)
    fates = load_tensors(network.backbone, {} if scratch_twin else state, source)
    if not keeps_sizes:
        excess = shrink(network.backbone, {name: size for name, size in sizes.items() if fates[name] == "loaded"})
        if excess > 1:
            log.info("--init: weights before norms were up to %.1f times larger than fresh ones; scaled down", excess)
    if source.is_file() and not scratch_twin:
        fates |= {f"vit.{name}": "inflated" for name in INFLATED}
    rows = list(rows_of("", network.backbone.state_dict(), fates))
    for (name, plan), task in zip(plans.items(), network.tasks, strict=True):
        assert isinstance(task, SegmentationTask)
        rows += start_task(task, name, plan, {} if scratch_twin else tasks, source)
    givers = [tasks[it].provenance for name, plan in plans.items() for it in givers_of(name, plan, tasks)]
    return Coverage(
        source=str(source.resolve()),
        is_scratch_twin=scratch_twin,
        rows=tuple(rows),
        earlier_runs=() if scratch_twin else runs_behind(told, *givers),
    )


def givers_of(name: str, plan: Plan, tasks: Mapping[str, Task]) -> list[str]:
    """The tasks of a model of which `start_task` takes channels and heads for one dataset."""
    found = match_channels(name, plan.channel_names, tasks), match_heads(name, plan.labels, tasks)
    return [match.task for match in found if match is not None]


def start_task(
    task: SegmentationTask, name: str, plan: Plan, tasks: Mapping[str, Task], source: Path
) -> Iterable[CoverageRow]:
    """Take over what a model's tasks have for one dataset: channels and heads by name.

    Raises:
        InputError: if a tensor has no place or another shape.
    """
    channels = match_channels(name, plan.channel_names, tasks)
    fates = load_tensors(task.channel_map, below(channels.state, "channel_map.") if channels else {}, source)
    if channels is not None and not channels.is_same:
        fates["weight"] = "matched"
        log.info("--init: channels of %s: %s", name, channels.describe(plan.channel_names))
    yield from rows_of(f"{name} channel_map.", task.channel_map.state_dict(), fates)
    match = match_heads(name, plan.labels, tasks)
    if match is not None:
        load_heads(task.heads, match, tasks[match.task], source)
        adapter = tasks[match.task].adapter
        left_out = f"; its adapter, {adapter}, is left out" if adapter is not None else ""
        log.info("--init: heads of %s begin as those of the model's task %s%s", name, match.task, left_out)
    yield from head_rows(f"{name} heads", task.heads, plan.labels, match.numbers if match else ())


def read_source(source: Path, backbone: nn.Module) -> tuple[dict[str, Tensor], dict[str, Task], dict[str, str]]:
    """Tensors by their names in the backbone, tasks and provenance, of a model folder or an EVA-02 file.

    Raises:
        InputError: if it cannot be read, or an EVA-02 does not fit.
    """
    if source.is_file():
        assert isinstance(backbone, SpadViTUNet)
        return {f"vit.{name}": value for name, value in read_eva02(source, backbone.vit).items()}, {}, {}
    model = load_model(source)
    return model.backbone_state, model.tasks, model.provenance


@torch.no_grad()
def load_tensors(module: nn.Module, state: Mapping[str, Tensor], source: Path) -> dict[str, Fate]:
    """Copy tensors into a module; the fate of each of the module's tensors by name.

    Raises:
        InputError: if a tensor has no place in the module, or another shape; then nothing is changed.
    """
    own = module.state_dict()
    fitting: dict[str, Tensor] = {}
    fates: dict[str, Fate] = dict.fromkeys(own, "new")
    for name, value in state.items():
        place = own.get(name)
        if place is None:
            raise InputError(f"--init {source}: its tensor {name} has no place in this network; give another model")
        if value.shape == place.shape:
            fitting[name], fates[name] = value, "loaded"
        elif name == POSITIONS and value.ndim == place.ndim and value.shape[:2] == place.shape[:2]:
            depth, height, width = place.shape[2:]
            fitting[name], fates[name] = resize_positions(value.float(), (depth, height, width)), "resized"
        else:
            shapes = ", not ".join("×".join(map(str, tensor.shape)) for tensor in (value, place))
            raise InputError(
                f"--init {source}: its tensor {name} is {shapes}; give a model of this backbone and preset"
            )
    module.load_state_dict(fitting, strict=False)
    return fates


def rows_of(prefix: str, tensors: Mapping[str, Tensor], fates: Mapping[str, Fate]) -> Iterable[CoverageRow]:
    """One row for each part of the network and fate, in the network's order."""
    members: dict[tuple[str, Fate], list[Tensor]] = {}
    for name, value in tensors.items():
        members.setdefault((group_of(prefix + name), fates[name]), []).append(value)
    for (group, fate), values in members.items():
        yield CoverageRow(
            group=group,
            fate=fate,
            num_tensors=len(values),
            num_parameters=sum(value.numel() for value in values),
        )


def head_rows(group: str, heads: nn.ModuleList, labels: LabelSet, loaded: Collection[int]) -> Iterable[CoverageRow]:
    """A row for the outputs that were loaded and one for those that are new, as far as there are such.

    Args:
        loaded: numbers of outputs.
    """
    values = list(heads.state_dict().values())
    parts: dict[Fate, list[int]] = {"loaded": [], "new": []}
    for number in range(labels.num_outputs):
        parts["loaded" if number in loaded else "new"].append(number)
    for fate, numbers in parts.items():
        if numbers:
            is_part = len(numbers) < labels.num_outputs
            yield CoverageRow(
                group=group,
                fate=fate,
                num_tensors=len(values),
                num_parameters=sum(value[numbers].numel() for value in values),
                outputs=tuple(labels.output_names[number] for number in numbers) if is_part else (),
            )


def group_of(name: str) -> str:
    """`vit.blocks.3.norm1.weight` belongs to vit.blocks.3, `decoder.ups.0.bias` to decoder, a task's to its name."""
    task, _, name = name.rpartition(" ")
    words = name.split(".")
    if task or words[0] not in ("vit", "encoder"):
        return f"{task} {words[0]}".strip()
    return ".".join(words[: 3 if words[1] in ("blocks", "stages") else 2])
