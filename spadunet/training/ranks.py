"""The processes of one run, as torchrun starts them: one a GPU, or one a share of the cores."""

from __future__ import annotations

import atexit
import contextlib
import datetime
import gc
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from ..errors import InputError, OutputError
from ..workers import num_cores

TIMEOUT = datetime.timedelta(minutes=30)
"""The longest that ranks wait for one: pictures and a probe are made by the first alone."""
PREDICTION_TIMEOUT = datetime.timedelta(days=30)
"""Where each rank works alone, as in prediction and the validation at the end: the last case of one may take hours
more than those of the others. A rank that dies is noticed all the same."""
GRACE_SECONDS = 20.0
"""For the first rank to say why it ends, which may draw a picture before; torchrun kills after 30."""

Found = TypeVar("Found")
Item = TypeVar("Item")

log = logging.getLogger("spadunet")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those of the run; alone without torchrun."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = torch.device("cpu")
    store: Store | None = field(default=None, compare=False)
    """What all ranks can read and write; None without others."""

    @property
    def is_first(self) -> bool:
        """The one that prints and writes."""
        return self.rank == 0

    def largest(self, values: Sequence[float]) -> list[float]:
        """The largest of each value over all ranks, which all come to know: how they agree on what to do next."""
        if self.world_size == 1:
            return list(values)
        everybody = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(everybody, dist.ReduceOp.MAX)
        return everybody.tolist()

    def total(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over all ranks, which all come to know."""
        if self.world_size == 1:
            return list(values)
        everybody = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(everybody)
        return everybody.tolist()

    def gather(self, found: Found, group: dist.ProcessGroup | None = None) -> list[Found]:
        """What each rank has found, in the order of ranks, for all to know; small things, and seldom.

        Args:
            group: of `part_for_long`, where ranks come long after each other.
        """
        if self.world_size == 1:
            return [found]
        everybody: list[Any] = [None] * self.world_size
        dist.all_gather_object(everybody, found, group=group)
        return everybody

    def part_for_long(self) -> dist.ProcessGroup | None:
        """Where ranks that now work apart `gather` again, however much longer one of them takes; None without others.

        Call it on every rank before they part.
        """
        return dist.new_group(timeout=PREDICTION_TIMEOUT, backend="gloo") if self.world_size > 1 else None

    def take_turns(self, items: Sequence[Item]) -> Iterator[Item]:
        """Those of the items that fall to this rank: whichever is next whenever a rank asks for one.

        Each goes to one rank, and the one that is done sooner gets more of them. Once a run.

        Args:
            items: the same on every rank.
        """
        if self.store is None:
            yield from items
            return
        while (number := self.store.add("turns taken", 1)) <= len(items):
            yield items[number - 1]

    def wait(self) -> None:
        """Go on when all ranks have come here."""
        self.largest([0.0])

    def share(self, batch_size: int) -> int:
        """Images of each batch that fall to this rank.

        Raises:
            InputError: if they cannot be shared out evenly.
        """
        if batch_size % self.world_size:
            raise InputError(
                f"--batch-size {batch_size}: {self.world_size} processes cannot share it evenly; "
                f"give a multiple of {self.world_size}"
            )
        return batch_size // self.world_size


def find_ranks(device: torch.device) -> Ranks:
    """This process's place, from torchrun's environment variables.

    Args:
        device: a GPU without a number becomes the one of this rank.

    Raises:
        InputError: if the machine has fewer GPUs than processes, or all were told to use the same one.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        return Ranks(device=device)
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        if device.index is not None:
            raise InputError(f"-device {device}: under torchrun each process takes its own GPU; give -device cuda")
        if local_rank >= torch.cuda.device_count():
            raise InputError(
                f"torchrun --nproc-per-node: this machine has {torch.cuda.device_count()} GPUs, fewer than processes; "
                "start one a GPU"
            )
        device = torch.device("cuda", local_rank)
    elif device.type != "cpu":
        raise InputError(f"-device {device}: several processes need cuda or cpu")
    return Ranks(rank=rank, world_size=world_size, device=device)


@contextlib.contextmanager
def open_ranks(device: torch.device, *, is_training: bool = True) -> Iterator[Ranks]:
    """Join the other ranks, and part from them at the end.

    Where one rank ends early, all end: what every rank has to say is said by the first alone, and a rank that only
    lost the others says so, if it is the first.

    Args:
        is_training: trade digits of float32 on a GPU for speed, and wait for no rank longer than TIMEOUT.

    Raises:
        InputError: as `find_ranks`.
        OutputError: on the first rank, if another one ended.
    """
    ranks = find_ranks(device)
    if device.type == "cuda":
        torch.cuda.set_device(ranks.device)
        if is_training:
            torch.set_float32_matmul_precision("high")  # TF32
            torch.backends.cudnn.benchmark = True  # few sizes of crops, met again and again
    if ranks.world_size == 1:
        yield ranks
        return
    if not ranks.is_first:
        log.setLevel(logging.ERROR)
    share_cores()
    # Control words go by gloo also where gradients go by nccl: they then wait for no GPU.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store, _, _ = next(rendezvous("env://", timeout=TIMEOUT))
    longest = TIMEOUT if is_training else PREDICTION_TIMEOUT
    dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.world_size, timeout=longest)
    try:
        yield replace(ranks, store=store)
    except (Exception, KeyboardInterrupt) as error:
        raise end_together(error, ranks, store) from error
    ranks.wait()
    dist.destroy_process_group()
    # The group lives on in cycles, and its threads may want the interpreter once more, which while it ends aborts them.
    atexit.register(gc.collect)


def end_together(error: BaseException, ranks: Ranks, store: Store) -> BaseException:
    """What this rank leaves with after an error: the error itself, or an exit without a word where another tells."""
    said = f"{type(error).__name__}: {error}"
    code = {InputError: 2, KeyboardInterrupt: 130}.get(type(error), 1)
    if ranks.is_first:
        store.set("end of the first", said)
        if is_lost_connection(error) or store.check(["end of another"]):  # or torchrun's signal came first
            return OutputError(
                "another process of the run ended and says why, or was killed; what is finished, as the last "
                "checkpoint, is kept: the same command goes on from there"
            )
        return error
    if is_lost_connection(error):
        return SystemExit(code)
    deadline = time.monotonic() + GRACE_SECONDS
    try:
        while not store.check(["end of the first"]):
            if time.monotonic() > deadline:
                store.set("end of another", said)
                return error
            time.sleep(0.2)
        if store.get("end of the first").decode() != said:
            return error
        time.sleep(GRACE_SECONDS)  # who ends first has the others killed
    except KeyboardInterrupt:  # torchrun's signal: the first has left
        pass
    except RuntimeError:  # the store is gone
        return error
    return SystemExit(code)


def is_lost_connection(error: BaseException) -> bool:
    """Whether ranks could not exchange something; gloo has no exception of its own."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def share_cores() -> None:
    """Share the cores among a machine's ranks, as torchrun does not: it gives each one a single thread."""
    if os.environ.get("OMP_NUM_THREADS", "1") == "1":
        torch.set_num_threads(max(1, num_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def distribute(module: nn.Module, ranks: Ranks, *, has_unused: bool = False) -> nn.Module:
    """The module on this rank's device, with the first rank's weights and gradients averaged over all ranks.

    Call what this returns where gradients are wanted, once a backward pass; keep the module itself to save it.

    Args:
        has_unused: some parameters take no part in the loss.
    """
    module.to(ranks.device)
    if ranks.world_size == 1:
        return module
    return nn.parallel.DistributedDataParallel(module, gradient_as_bucket_view=True, find_unused_parameters=has_unused)


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """Mean of a tensor over all ranks; itself without others.

    Gradients flow to every rank's own tensor. The mean of the ranks' losses, whose gradient `distribute` computes, then
    has the gradient that one rank with the whole batch would have; with the others' tensors taken as constants, a
    term of the mean would weigh `world_size` times too little.

    Args:
        tensor: floating point, the same shape on every rank; each stands for as many samples.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return tensor
    return MeanOverRanks.apply(tensor)


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum of a tensor over all ranks, as `mean_over_ranks`."""
    if not (dist.is_available() and dist.is_initialized()):
        return tensor
    return mean_over_ranks(tensor) * dist.get_world_size()


class MeanOverRanks(torch.autograd.Function):
    """Each rank's output depends on all inputs, so that gradients are summed over ranks too."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        """The mean."""
        return all_mean(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Of the sum of the ranks' losses, by this rank's tensor."""
        return all_mean(gradient)


def all_mean(tensor: Tensor) -> Tensor:
    """A new tensor, the mean over ranks."""
    total = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / dist.get_world_size()
