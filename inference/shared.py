"""Several tasks of one model on one image: where they see the same, the backbone runs once for all of them.

Each window's features are computed once; each task's head, mirror images and choice of classes follow as if it were
alone, and its logits are added up beside the others'. So its label map is the same to the bit.

Letters: B batch; K outputs, of all tasks together; D, H, W depth, height, width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from ..case import Geometry
from ..errors import InputError, OutputError
from ..network.blocks import PointwiseConv
from ..network.heads import SegmentationNetwork
from ..parallel import is_out_of_memory
from ..plan import IntensityRule
from ..preprocessing.mirror import mirror_axes
from ..spacing import Spacing
from .budget import Demand, choose_storages, require_room, windows_at_once
from .mirroring import with_mirroring
from .predict import Answer, Answering, Engine, Views, plan_at, tell_mirroring
from .sliding import Network, Slab, sweep_logits
from .stages import StageTimes
from .storage import Storage
from .subset import only_outputs

log = logging.getLogger("spadunet")

Member = TypeVar("Member")


class SharedFeatures:
    """The features of a window, and of its mirror images, each computed once.

    Args:
        network: gives them; that of any of the tasks.
    """

    def __init__(self, network: SegmentationNetwork) -> None:
        self.network = network
        self.known: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor, da: int) -> Tensor:
        """Of a window (B, C, D, H, W)."""
        for seen, features in self.known:
            if torch.equal(seen, x):
                return features
        features = self.network.features(x, da)
        self.known.append((x, features))
        return features

    def forget(self) -> None:
        """Free the memory of a window."""
        self.known.clear()


Preparation = tuple[tuple[str, ...], tuple[str, ...], tuple[IntensityRule, ...], Spacing | str]
"""What decides how an image comes to a network: channels, those it may lack, intensities, spacing."""


def preparation_of(engine: Engine) -> Preparation:
    """Of a task's images."""
    plan = plan_at(engine.plan, engine.spacing)
    return plan.channel_names, plan.optional_channels, plan.intensity, plan.target_spacing_mm


def see_the_same(engine: Engine, other: Engine) -> bool:
    """Whether the backbone makes the same features for two tasks of one model."""
    one, two = engine.network, other.network
    if not (isinstance(one, SegmentationNetwork) and isinstance(two, SegmentationNetwork)):
        return False
    if engine.others or other.others or one.backbone is not two.backbone:  # an adapter makes a backbone of its own
        return False
    return (
        preparation_of(engine) == preparation_of(other)
        and engine.plan.patch_sizes_voxels == other.plan.patch_sizes_voxels
        and (engine.device, engine.precision, engine.overlap) == (other.device, other.precision, other.overlap)
        and have_one_map(one.task.channel_map, two.task.channel_map)
    )


def have_one_map(own: PointwiseConv, other: PointwiseConv) -> bool:
    """Whether two channel maps have the same weights."""
    return (
        own.weight.shape == other.weight.shape
        and torch.equal(own.weight, other.weight)
        and torch.equal(own.bias, other.bias)
    )


def group(tasks: Mapping[str, Member], are_alike: Callable[[Member, Member], bool]) -> list[tuple[str, ...]]:
    """Names of tasks, those in one group that are alike, as `see_the_same` says of some that share a pass."""
    groups: list[list[str]] = []
    for name, task in tasks.items():
        for members in groups:
            if are_alike(tasks[members[0]], task):
                members.append(name)
                break
        else:
            groups.append([name])
    return [tuple(members) for members in groups]


def segment_together(views: Views, engines: Sequence[Engine], times: StageTimes) -> list[Answer] | None:
    """The answers of tasks that see the same to a preprocessed case; None where they must be asked one by one.

    That is where the logits of all together do not get the place in memory that each one's get alone: they would be
    rounded otherwise. And where something goes wrong, so that it is told of the task that it is the fault of.
    """
    if len(engines) == 1:
        return None
    first, (case,) = engines[0], views.values()
    geometry = case.geometry
    demands = [engine.demand(geometry.shape, geometry.da, geometry.stored_shape) for engine in engines]
    together = replace(
        demands[0],
        num_outputs=sum(demand.num_outputs for demand in demands),
        num_logits=sum(demand.num_logits for demand in demands),
        num_probabilities=sum(demand.num_probabilities for demand in demands),
        num_shared=num_shared(engines),
    )
    storage = choose_storages(together, first.budget)[0]
    alone = [choose_storages(demand, engine.budget)[0] for demand, engine in zip(demands, engines, strict=True)]
    if storage.place == "disk" or any(own != storage for own in alone):
        log.info("%s: no room for the logits of %d tasks at once; predicted one by one", case.name, len(engines))
        return None
    try:
        require_room(case.name, together, first.budget)
        return sweep_together(views, engines, demands, storage, times)
    except (InputError, OutputError):
        return None
    except Exception as error:
        what = "out of memory" if is_out_of_memory(error) else f"unexpected {type(error).__name__}"
        log.debug("%s: %s", case.name, what, exc_info=True)
    if first.device.type == "cuda":
        torch.cuda.empty_cache()
    log.info("%s: %s with %d tasks at once; predicted one by one", case.name, what, len(engines))
    return None


def num_shared(engines: Sequence[Engine]) -> int:
    """Channels of a window, and of what the backbone makes of it, that are kept for all its mirror images at once."""
    network = engines[0].network
    assert isinstance(network, SegmentationNetwork)
    axes = {axis for engine in engines for axis in engine.mirror}
    return 2 ** len(axes) * (len(engines[0].plan.channel_names) + network.head.in_channels)


def sweep_together(
    views: Views, engines: Sequence[Engine], demands: Sequence[Demand], storage: Storage, times: StageTimes
) -> list[Answer]:
    """As `segment_together`, where there is room."""
    first, (case,) = engines[0], views.values()
    geometry, axis = case.geometry, demands[0].axis
    patch = first.plan.patch_sizes_voxels[geometry.da]
    with ExitStack() as stack:
        threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in engines]
        parts = [
            Answering(engine, geometry, storage, times, axis, thread)
            for engine, thread in zip(engines, threads, strict=True)
        ]
        for engine in engines:
            tell_mirroring(geometry, engine)
        stream = sweep_logits(
            joint_network(parts, geometry),
            torch.from_numpy(case.image).to(first.device),
            geometry.da,
            patch,
            overlap=first.overlap,
            batch_size=windows_at_once(patch, first.device),
            precision=first.precision,
            missing_channels=case.missing_channels,
            storage=storage,
            times=times,
            axis=axis,
            num_tasks=len(engines),
        )
        for slab in stream:
            split = slab.logits.split([demand.num_outputs for demand in demands])
            for part, logits in zip(parts, split, strict=True):
                part.take(Slab(planes=slab.planes, logits=logits))
        return [part.finish() for part in parts]


def joint_network(parts: Sequence[Answering], geometry: Geometry) -> Network:
    """The logits of all tasks one behind the other, (B, K, D, H, W); of some, the features that they are made of."""
    network = parts[0].engine.network
    assert isinstance(network, SegmentationNetwork)
    shared = SharedFeatures(network)
    members = [own_network(part, shared, geometry) for part in parts]

    def predict(x: Tensor, da: int) -> Tensor:
        logits = torch.cat([member(x, da) for member in members], dim=1)
        shared.forget()
        return logits

    return predict


def own_network(part: Answering, shared: SharedFeatures, geometry: Geometry) -> Network:
    """One task's network, as it is alone, of features that it shares."""
    engine, labels = part.engine, part.engine.plan.labels
    if engine.by_features:
        return shared
    own = engine.network
    assert isinstance(own, SegmentationNetwork)

    def predict(x: Tensor, da: int) -> Tensor:
        return own.head(shared(x, da))

    network = with_mirroring(predict, mirror_axes(geometry, labels, engine.mirror), part.agreement)
    return only_outputs(network, labels, engine.chosen)
