"""What a classification starts from: a model's or a pre-trained backbone, and the task that knows the channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import nn

from ..classification_plan import ClassificationPlan
from ..model import load_model
from ..network.classify import ClassificationTask
from ..task import AnyTask, Classifier
from ..training.adding import require_whole
from ..training.asked import runs_behind
from ..training.channels import match_channels
from ..training.init import Coverage, CoverageRow, InitKind, load_tensors, rows_of, start_from
from ..training.loop import JointNetwork

ENCODERS = ("vit", "encoder")
"""Parts of a backbone that classification runs."""
OWN = ("head.", "attention.")
"""Of a task's tensors those that depend on classes and pooling."""


def start_classification(
    backbone: nn.Module,
    task: ClassificationTask,
    plan: ClassificationPlan,
    source: Path,
    *,
    kind: InitKind,
    is_frozen: bool,
    adds_task: bool,
) -> Coverage:
    """Take over a backbone, and what a task of the model knows: channels by name, and of the same classes the rest.

    Args:
        backbone, task: fresh, changed in place.
        source: a model folder, that of a pre-trained backbone, or an EVA-02 file.
        is_frozen: weights stay as they are to the last bit.
        adds_task: the model will have the task beside its own, so that its backbone must be whole.

    Raises:
        InputError: if the weights are for another network, or what is to be frozen would stay as chance made it.
    """
    coverage = start_from(JointNetwork(backbone, []), {}, source, kind=kind, keeps_sizes=is_frozen)
    if adds_task:
        require_whole(coverage)
    elif is_frozen:
        require_encoder(coverage)
    tasks: Mapping[str, AnyTask] = {} if source.is_file() else load_model(source).all_tasks
    return with_task(coverage, task, plan, tasks, source)


def with_task(
    coverage: Coverage, task: ClassificationTask, plan: ClassificationPlan, tasks: Mapping[str, AnyTask], source: Path
) -> Coverage:
    """As `start_task`; the coverage with its rows and with what the tasks had learned from that gave something."""
    channels = match_channels(plan.dataset_name, plan.channel_names, tasks)
    givers = [same_task(task, plan, tasks), None if channels is None else tasks[channels.task]]
    behind = runs_behind(*(it.provenance for it in givers if it is not None))
    return coverage.model_copy(
        update={
            "rows": (*coverage.rows, *start_task(task, plan, tasks, source)),
            "earlier_runs": tuple(dict.fromkeys((*coverage.earlier_runs, *behind))),
        }
    )


def require_encoder(coverage: Coverage) -> None:
    """Refuse to freeze an encoder of which some is as fresh as dice gave it; classification runs nothing else.

    Raises:
        InputError: names the parts.
    """
    rows = [row for row in coverage.rows if row.group.split(".")[0] in ENCODERS]
    require_whole(coverage.model_copy(update={"rows": tuple(rows)}))


def start_task(
    task: ClassificationTask, plan: ClassificationPlan, tasks: Mapping[str, AnyTask], source: Path
) -> Iterable[CoverageRow]:
    """Take over pooling and head of a task of the same classes, and channels of the one that knows most of them.

    Raises:
        InputError: if a tensor has no place or another shape.
    """
    name = plan.dataset_name
    same = same_task(task, plan, tasks)
    channels = match_channels(name, plan.channel_names, tasks)
    state = {} if same is None else {key: value for key, value in same.state.items() if key.startswith(OWN)}
    if channels is not None:
        state |= channels.state
    fates = load_tensors(task, state, source)
    if channels is not None and not channels.is_same:
        fates |= {key: "matched" for key in fates if key.startswith("channel_map.weight")}
    yield from rows_of(f"{name} ", task.state_dict(), fates)


def same_task(task: ClassificationTask, plan: ClassificationPlan, tasks: Mapping[str, AnyTask]) -> AnyTask | None:
    """The first task of a model that tells the same classes apart; None if there is none."""
    return next((it for it in tasks.values() if is_same(it, task, plan)), None)


def is_same(other: AnyTask, task: ClassificationTask, plan: ClassificationPlan) -> bool:
    """Whether a model's task tells the same classes apart from the same tokens, without an adapter."""
    if not isinstance(other, Classifier) or other.adapter is not None:
        return False
    return other.plan.classes == plan.classes and other.pooling == task.pooling
