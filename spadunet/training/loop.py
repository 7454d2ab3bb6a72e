"""Training of a backbone with the tasks of several datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..network.adapters import Adapter, adapt, gates_of
from ..network.heads import SegmentationNetwork, SegmentationTask
from ..network.routing import expert_use, measures_of, router_entropy
from ..preprocessing.store import StoredCase
from ..sides import PatientAxis
from ..task import AdapterRecord
from .loss import deep_loss, itself
from .monitor import Monitor
from .optimiser import forget_step, make_optimiser, room_for_moments, take_step
from .options import LoopOptions, autocast
from .parts import Result, in_company, within_memory
from .patches import Batch, BatchStream, TrainingTask
from .ranks import Ranks, distribute, mean_over_ranks, sum_over_ranks
from .schedule import WARM_UP, learning_rate
from .state import Progress
from .steps import ENDLESS, run_steps
from .workers import make_ahead

MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, kw_only=True)
class RunOptions(LoopOptions):
    """How to train."""

    learning_rate: float
    weight_decay: float
    spares_vectors: bool = False
    """Weight decay leaves out norms, biases, tokens and positions."""
    freezes_backbone: bool = False
    """Only the tasks learn: their channel maps, heads and adapters."""
    adapter: AdapterRecord | None = None
    """Of each task, on the frozen backbone."""
    shares_input: bool = False
    """Channel maps stay as they are: those of another task, so that both see the same."""
    deterministic: bool = False
    """Every operation gives the same bits again."""
    validate_every: int | None = None
    """Steps between validations; 0 for none, None for what `Monitor` finds sound."""
    patience: int | None = None
    """Validations without a better Dice after which the rest of the schedule is hurried through."""
    warm_up_share: float = WARM_UP
    lowest_rate: float = 0.0
    overlap: float = 0.5
    """Of windows in validation."""
    mirror: tuple[PatientAxis, ...] = ()
    """Axes of mirror images that validation averages over."""
    recipe: str | None = None
    """Name of the recipe that these are of; kept with the model."""
    is_compiled: bool = False
    """The backbone runs through torch.compile."""


class JointNetwork(nn.Module):
    """A backbone with the tasks of all datasets in a run.

    Args:
        adapters: one for each task, whose backbone it changes; none for tasks that take the backbone as it is. With
            them the backbone is frozen.
    """

    def __init__(self, backbone: nn.Module, tasks: Sequence[SegmentationTask], adapters: Sequence[Adapter] = ()):
        super().__init__()
        self.backbone = backbone
        self.tasks = nn.ModuleList(tasks)
        self.adapters = nn.ModuleList(adapters)
        self.adapted = nn.ModuleList(adapt(backbone, adapter) for adapter in adapters)
        """Made of the backbone's and the adapters' own parameters."""
        self.gates: Tensor | None = None
        """What each expert counted in the last forward pass, (B, experts); None without a router."""

    def backbone_of(self, task: int) -> nn.Module:
        """As a task has it."""
        return self.adapted[task] if self.adapters else self.backbone

    def deep_logits(self, x: Tensor, da: int, task: int) -> list[Tensor]:
        """Logits of one task at each supervised level, finest first."""
        member = self.tasks[task]
        assert isinstance(member, SegmentationTask)
        return SegmentationNetwork(self.backbone_of(task), member).deep_logits(x, da)

    def forward(self, x: Tensor, da: int, task: int, num_parts: int = 1) -> list[Tensor]:
        """As `deep_logits`; in parts, only one part's activations are in memory at a time.

        A part is run again in the backward pass (Chen et al. 2016), so that a loss of the whole batch, as its Dice,
        needs no more than all logits.
        """
        parts, gates = x.chunk(num_parts), []
        levels = []
        for part in parts:
            if len(parts) == 1:
                levels.append(self.deep_logits(part, da, task))
            else:
                levels.append(checkpoint(self.deep_logits, part, da, task, use_reentrant=False))
            gates.append(gates_of(self.backbone_of(task)) if self.adapters else None)
        known = [gate for gate in gates if gate is not None]
        self.gates = torch.cat(known).float() if known else None
        return [torch.cat(level) for level in zip(*levels, strict=True)] if len(parts) > 1 else levels[0]


class SegmentationLearner:
    """All that fine-tuning changes.

    Where memory does not suffice for a batch, it is taken in parts from then on: the gradient is still that of the
    whole batch, since nothing in a network depends on the other patches.

    Args:
        optimiser: of more than the network; None for one of its own.
    """

    def __init__(
        self,
        network: JointNetwork,
        tasks: Sequence[TrainingTask],
        options: RunOptions,
        ranks: Ranks,
        optimiser: torch.optim.Optimizer | None = None,
    ):
        self.network, self.tasks, self.options, self.ranks = network, tasks, options, ranks
        self.wrapped = distribute(network, ranks, has_unused=len(tasks) > 1)
        self.optimiser = optimiser or make_optimiser(
            network, options.learning_rate, options.weight_decay, spares_vectors=options.spares_vectors
        )
        self.networks: dict[str, nn.Module] = {"backbone": network.backbone, "tasks": network.tasks}
        if network.adapters:
            self.networks["adapters"] = network.adapters
        self.optimisers: dict[str, torch.optim.Optimizer] = {"all": self.optimiser}
        self.numbers: dict[str, float] = {"num_parts": 1}
        self.number_of = {task.name: index for index, task in enumerate(tasks)}
        self.tried: set[tuple[str, int]] = set()

    def learn(self, batch: Batch) -> dict[str, float]:
        """One step; the loss over all processes, and of adapters with a router how its experts are used."""
        number = self.number_of[batch.task]
        task = self.tasks[number]

        def learn(num_parts: int) -> float:  # augments too, within the memory
            return train_step(self.wrapped, number, batch, task, self.optimiser, self.options, num_parts)

        if self.ranks.world_size == 1:
            return {"loss": self.within_memory(learn, batch), **self.use_of_experts()}
        # A process that runs out of memory in the midst of a step cannot tell those that wait for its gradient, so
        # each one tries alone before the first batch of a kind, beside all that a step needs.
        if (batch.task, batch.da) not in self.tried:

            def try_alone(num_parts: int) -> bool:
                room = room_for_moments(self.optimiser)
                loss_of(self.network, number, batch, task, self.options, num_parts).backward()
                del room
                return True

            self.within_memory(try_alone, batch)
            self.optimiser.zero_grad(set_to_none=True)
            self.tried.add((batch.task, batch.da))
        loss = in_company(lambda: learn(int(self.numbers["num_parts"])))
        return {"loss": loss, **self.use_of_experts()}

    def use_of_experts(self) -> dict[str, float]:
        """What each expert counted in the last step, over all processes, and the entropy of the router in nats."""
        gates = self.network.gates
        if gates is None:
            return {}
        return measures_of(mean_over_ranks(expert_use(gates)), mean_over_ranks(router_entropy(gates).mean()))

    def within_memory(self, step: Callable[[int], Result], batch: Batch) -> Result:
        """Of this run."""
        return within_memory(step, self.numbers, batch, self.ranks, clear=lambda: forget_step(self.optimiser))

    @torch.no_grad()
    def find_cause(self, batch: Batch) -> str | None:
        """The cases whose patch alone gives a loss that is not finite; all if they do so only together.

        Empty if every sound patch of every process does, since then the weights are the cause. None if no patch does,
        nor the batch: then the gradient was not finite.
        """
        number = self.number_of[batch.task]
        task, batch = self.tasks[number], batch.finish(self.options.device)

        def is_sound(part: Batch) -> bool:
            num_parts = int(self.numbers["num_parts"])
            return bool(loss_of(self.network, number, part, task, self.options, num_parts).isfinite())

        found = [name for index, name in enumerate(batch.cases) if not is_sound(batch.patch(index))]
        is_damaged = not bool(batch.image.isfinite().all())
        counts = [len(found), len(batch.cases), is_damaged, not is_sound(batch)]
        num_found, num_patches, num_damaged, num_together = self.ranks.total(counts)
        if num_found == num_patches and not num_damaged:
            return ""
        if not num_found + num_damaged + num_together:
            return None
        if num_found == 0:
            found = list(batch.cases)
        names = sorted(set(found))
        return f"case{'s' if len(names) > 1 else ''} {', '.join(names)}" if names else ""


def train_network(
    network: JointNetwork,
    tasks: Sequence[TrainingTask],
    folder: Path,
    options: RunOptions,
    *,
    run: dict[str, str],
    held_out: Sequence[Sequence[StoredCase]] = (),
    ranks: Ranks | None = None,
    keep: Callable[[int], None] | None = None,
) -> Progress:
    """Train until the run ends; start where the checkpoint in `folder` left off, if there is one.

    Args:
        network: with as many tasks as `tasks`, in that order; trained in place.
        folder: of the model; curves go there, the checkpoint into its state/.
        run: what the run was asked for, kept in the checkpoint.
        held_out: cases of each task to validate on meanwhile.
        ranks: the processes that share each batch; all see the same folder.
        keep: called in the first process after so many steps, with every checkpoint.

    Raises:
        InputError: if a stored case cannot be read any more; names its file.
        OutputError: if the loss is no longer finite, or a single patch is too large for the memory.
    """
    ranks = ranks or Ranks(device=options.device)
    if options.freezes_backbone:
        network.backbone.requires_grad_(False)
    if options.shares_input:
        for task in network.tasks:
            assert isinstance(task, SegmentationTask)
            task.channel_map.requires_grad_(False)
    if options.is_compiled:
        from ..network.compiling import compile_in_place  # loads the compiler, which takes seconds

        compile_in_place(network.backbone)
    learner = SegmentationLearner(network, tasks, options, ranks)
    monitor = Monitor(
        network,
        tasks,
        held_out,
        folder,
        options,
        ranks,
        every=options.validate_every,
        patience=options.patience,
        numbers=learner.numbers,
    )
    # Workers augment for a processor, which has no core to spare while it trains; a GPU does it itself, in no time.
    augments = options.device.type == "cpu"
    stream = BatchStream(tasks, options.seed, rank=ranks.rank, world_size=ranks.world_size, augments=augments)
    progress = run_steps(
        learner,
        lambda step: load_batches(stream, step, options),
        folder,
        options,
        run=run,
        schedule=partial(learning_rate, warm_up=options.warm_up_share, lowest=options.lowest_rate),
        facts=lambda batch: {"task": batch.task, "da": batch.da},
        by="task",
        title="Training",
        company=ranks,
        course=monitor.course,
        after_step=monitor.after_step,
        find_cause=learner.find_cause,
        keep=keep,
    )
    monitor.tell(progress.seconds)
    return progress


def load_batches(stream: BatchStream, start_step: int, options: RunOptions) -> Iterator[Batch]:
    """Batches from a step on, made ahead by worker processes, which end when this is closed."""
    steps = range(start_step, options.max_steps if options.max_steps is not None else ENDLESS)
    return make_ahead(stream, steps, options.num_workers)


def train_step(
    network: nn.Module,
    number: int,
    batch: Batch,
    task: TrainingTask,
    optimiser: torch.optim.Optimizer,
    options: RunOptions,
    num_parts: int = 1,
) -> float:
    """One optimiser step of the task of this number; its loss, NaN where its gradient is not finite.

    Args:
        network: a `JointNetwork`, or that which `distribute` made of it.
        num_parts: of the batch, one after the other.
    """
    loss = loss_of(network, number, batch, task, options, num_parts, sum_over_ranks)
    return float(mean_over_ranks(take_step(loss, network, optimiser, MAX_GRADIENT_NORM)))


def loss_of(
    network: nn.Module,
    number: int,
    batch: Batch,
    task: TrainingTask,
    options: RunOptions,
    num_parts: int = 1,
    total: Callable[[Tensor], Tensor] = itself,
) -> Tensor:
    """The loss of a batch, with its graph; `total` as `deep_loss` takes it."""
    batch = batch.finish(options.device)
    with autocast(options.device, options.precision):
        logits = network(batch.image, batch.da, number, num_parts)
    weights = task.class_weights
    return deep_loss(
        logits,
        batch.classes,
        task.plan.labels,
        total,
        num_merged=batch.num_merged,
        known=batch.known,
        class_weights=weights,
    )
