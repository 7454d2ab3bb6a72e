"""Image and model, or several, to label map."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..case import Case, Geometry
from ..errors import InputError, OutputError
from ..image import Image, LabelMap
from ..labels import LabelSet
from ..model import Model
from ..network.adapters import Adapter, adapt, merge
from ..network.build import Backbone, build_backbone, build_task
from ..network.heads import SegmentationNetwork
from ..parallel import is_out_of_memory
from ..plan import IntensityRule, Plan
from ..postprocessing import Rule
from ..preprocessing.mirror import mirror_axes, tell_unoriented
from ..preprocessing.preprocess import preprocess
from ..preprocessing.restore import Restorer
from ..sides import PatientAxis
from ..spacing import Shape
from ..task import ADAPTER_PREFIX
from .budget import Budget, Demand, choose_storages, require_room, windows_at_once
from .confidence import Agreement, Confidence, ConfidenceSums
from .ensemble import Member, as_one, in_step
from .linear_head import logits_in_parts, with_features
from .mirroring import with_mirroring
from .postprocess import clean
from .sliding import Slab, sweep_logits
from .stages import StageTimes
from .storage import Storage
from .subset import labels_of, only_outputs, outputs_of

log = logging.getLogger("spadunet")

SpacingChoice = Literal["plan", "native"]
Views = dict[tuple[IntensityRule, ...], Case]
"""A case as models see it, by their intensity rules: one for all, unless these differ. The grid is the same."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A network ready to predict one task, or several whose mean counts, and how to run them."""

    network: nn.Module
    plan: Plan
    others: tuple[Member, ...] = ()
    """Further models of an ensemble, which `check_members` found alike."""
    device: torch.device
    precision: torch.dtype
    overlap: float = 0.5
    spacing: SpacingChoice = "plan"
    """Native: each image at its own spacing, and so at its own degree of anisotropy, whatever the plan says."""
    mirror: tuple[PatientAxis, ...] = ()
    """Axes across which mirror images are predicted too, as far as the labels allow it, and averaged."""
    chosen: tuple[str, ...] = ()
    """Names of the structures to predict; none for all."""
    rules: tuple[Rule, ...] = ()
    """What is done to each label map in the end."""
    budget: Budget = field(default_factory=lambda: Budget(host_bytes=None))
    """How much memory logits may take."""
    is_judged: bool = False
    """Tell, too, how sure the networks are. Label maps stay the same."""
    keeps_probabilities: bool = False
    """Give probabilities on the image's own grid, too. Label maps stay the same."""

    @property
    def members(self) -> tuple[Member, ...]:
        """All models."""
        return Member(network=self.network, plan=self.plan), *self.others

    @property
    def labels(self) -> LabelSet:
        """Of what is predicted."""
        return labels_of(self.plan.labels, self.chosen)

    @property
    def by_features(self) -> SegmentationNetwork | None:
        """The network, where its features are added up and not its logits; None where they are more, or not enough.

        Of several models or mirror images, and of some classes, the mean is not linear in one network's features.
        """
        return None if self.others or self.mirror or self.chosen else with_features(self.network)

    def sweeps(self, da: int) -> dict[tuple[Shape, tuple[IntensityRule, ...]], list[Member]]:
        """Models by what they see at once: those with windows of one size in one image share a sweep."""
        found: dict[tuple[Shape, tuple[IntensityRule, ...]], list[Member]] = {}
        for member in self.members:
            found.setdefault((member.plan.patch_sizes_voxels[da], member.plan.intensity), []).append(member)
        return found

    def demand(self, shape: Shape, da: int, stored_shape: Shape | None = None) -> Demand:
        """What a case of a shape (D, H, W) and a degree of anisotropy takes, whose image has another where given."""
        sweeps = self.sweeps(da)
        num_images = len({intensity for _, intensity in sweeps})
        by_features = self.by_features
        num_features = by_features.head.in_channels if by_features else None
        return Demand(
            shape=shape,
            patches=tuple(patch for patch, _ in sweeps),
            num_outputs=num_features or self.labels.num_outputs,
            num_logits=num_features or self.plan.labels.num_outputs,
            adds_features=by_features is not None,
            num_models=len(self.members),
            num_channels=num_images * len(self.plan.channel_names),
            stored_shape=stored_shape,
            num_stored_channels=len(self.plan.channel_names),
            num_probabilities=self.labels.num_outputs if self.keeps_probabilities else 0,
        )


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the networks say of a case, and how sure they are of it."""

    label_map: LabelMap
    """On the stored image's grid, without post-processing."""
    confidences: dict[str, Confidence]
    """By name of class or region; none unless the engine judges."""
    agreements: dict[str, float | None]
    """Dice of each model, or of each mirror image, with the mean; none where there is one alone."""
    probabilities: np.ndarray | None = None
    """(K, A0, A1, A2) float16 on the stored image's grid, of classes, background first, or of regions; None unless the
    engine keeps them. The largest is the label map's class; regions are painted where theirs is above 0.5."""


def build_network(model: Model, task_name: str, *, is_merged: bool = False) -> SegmentationNetwork:
    """The network of one task with its weights, in evaluation mode.

    Args:
        is_merged: of a task with an adapter, a plain network with the adapter's changes in its weights.

    Raises:
        InputError: if the weights do not fit the backbone and preset that the model states, or nobody knows these, or
            if an adapter of several experts should be merged.
    """
    return build_networks(model, [task_name], is_merged=is_merged)[task_name]


def build_networks(
    model: Model, task_names: Sequence[str], *, is_merged: bool = False
) -> dict[str, SegmentationNetwork]:
    """The networks of several tasks, as `build_network`, of which all have the parameters of one backbone."""
    networks = {}
    backbone: Backbone | None = None
    for name in task_names:
        task = model.tasks[name]
        own = {key: value for key, value in task.state.items() if not key.startswith(ADAPTER_PREFIX)}
        adapter_state = {key.removeprefix(ADAPTER_PREFIX): value for key, value in task.state.items() if key not in own}
        try:
            if backbone is None:
                backbone = build_backbone(model.backbone, model.preset)
                backbone.load_state_dict(model.backbone_state)
            head = build_task(len(task.plan.channel_names), task.plan.labels.num_outputs, model.backbone, model.preset)
            head.load_state_dict(own)
            changed = backbone
            if task.adapter is not None:
                adapter = Adapter(backbone, rank=task.adapter.rank, num_experts=task.adapter.num_experts)
                adapter.load_state_dict(adapter_state)
                changed = merge(backbone, adapter) if is_merged else adapt(backbone, adapter)
            elif adapter_state:
                raise RuntimeError(f"{min(adapter_state)} is of an adapter that task.json does not state")
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"model {model.backbone} {model.preset}, task {name}: weights do not fit ({reason})"
            ) from error
        networks[name] = SegmentationNetwork(changed, head).eval()
    for network in networks.values():  # torch convolves otherwise, to other last bits, where weights want no gradient
        network.requires_grad_(True)
    return networks


def plan_at(plan: Plan, spacing: SpacingChoice) -> Plan:
    """The plan, or the same without resampling."""
    return plan.model_copy(update={"target_spacing_mm": "native"}) if spacing == "native" else plan


def views_of(name: str, image: Image, engine: Engine) -> Views:
    """A case as the models see it."""
    views: Views = {}
    for member in engine.members:
        if member.plan.intensity not in views:
            views[member.plan.intensity] = preprocess(name, image, None, plan_at(member.plan, engine.spacing))
    return views


def predict_image(image: Image, engine: Engine) -> LabelMap:
    """Label map of an image on the image's own grid."""
    return answer_image(image, engine)[0]


def answer_image(image: Image, engine: Engine) -> tuple[LabelMap, Answer]:
    """Label map of an image on the image's own grid, after post-processing, and the answer that it is of."""
    answer = segment(views_of("image", image, engine), engine, StageTimes())
    return clean(answer.label_map, engine.labels, engine.rules), answer


def segment(views: Views, engine: Engine, times: StageTimes) -> Answer:
    """The answer to a preprocessed case.

    Where memory does not suffice for its logits, they are held in the next place that takes less, and the log says so.

    Raises:
        InputError: if a logit is NaN or infinite, or probabilities do not fit into memory; names the case.
        OutputError: if the last of these places, the disk, is full; names the case.
    """
    case = next(iter(views.values()))
    geometry = case.geometry
    tell_mirroring(geometry, engine)
    demand = engine.demand(geometry.shape, geometry.da, geometry.stored_shape)
    require_room(case.name, demand, engine.budget)
    storages = choose_storages(demand, engine.budget)
    at_once = min(windows_at_once(patch, engine.device) for patch in demand.patches)
    ways = [(storages[0], at_once)] if at_once > 1 else []
    ways += [(storage, 1) for storage in storages]
    for number, (storage, batch_size) in enumerate(ways):
        try:
            return segment_by(storage, batch_size, views, engine, times, demand.axis)
        except (InputError, OutputError) as error:
            raise type(error)(f"{case.name}: {error}") from error
        except (MemoryError, RuntimeError) as error:
            if number + 1 == len(ways) or not is_out_of_memory(error):
                raise
        if engine.device.type == "cuda":
            torch.cuda.empty_cache()
        smaller, fewer = ways[number + 1]
        log.warning(
            "%s: out of memory with logits as %s, %d windows at once; tried again as %s, %d at once",
            *(case.name, storage, batch_size, smaller, fewer),
        )
    raise AssertionError("the last way raises or returns")


def tell_mirroring(geometry: Geometry, engine: Engine) -> None:
    """Say where nobody knows which sides of an image are left and right."""
    unoriented = tell_unoriented([geometry], engine.plan.labels) if engine.mirror else ""
    if unoriented:
        log.info(unoriented)


def segment_by(storage: Storage, batch_size: int, views: Views, engine: Engine, times: StageTimes, axis: int) -> Answer:
    """As `segment`, in one way, plane by plane along an axis; what is finished is restored in a thread meanwhile."""
    geometry = next(iter(views.values())).geometry
    with ThreadPoolExecutor(1) as thread:
        answering = Answering(engine, geometry, storage, times, axis, thread)
        for slab in sweep_models(storage, batch_size, views, engine, times, axis, answering.agreement):
            answering.take(slab)
        return answering.finish()


class Answering:
    """Makes the answer to a case from its slabs as they come, in a thread beside the network."""

    def __init__(
        self, engine: Engine, geometry: Geometry, storage: Storage, times: StageTimes, axis: int, thread: Executor
    ) -> None:
        labels, all_labels = engine.labels, engine.plan.labels
        self.engine, self.storage, self.times, self.axis, self.thread = engine, storage, times, axis, thread
        self.geometry = geometry
        self.restorer = Restorer(geometry, labels, axis, keeps_probabilities=engine.keeps_probabilities)
        self.sums = ConfidenceSums(len(labels.structures), has_regions=bool(labels.regions))
        kept = outputs_of(all_labels, engine.chosen)
        agreement = Agreement(all_labels.num_outputs, kept, has_regions=bool(labels.regions))
        self.agreement = agreement if engine.is_judged else None
        """Of models or mirror images; told by the sweep."""
        self.head = engine.by_features.head if engine.by_features else None
        self.running: Future[None] | None = None

    def take(self, slab: Slab) -> None:
        """The next planes; their memory is free again when the next ones are taken, or `finish` is called."""
        self.wait()
        is_judged = self.head is None and slab.logits.device.type == "cuda"  # where it takes no time
        if is_judged:
            self.judge(slab.logits)
        if self.storage.place == "disk":  # a copy would be in memory
            self.restore(slab.logits, is_judged=is_judged)
            return
        where = "cpu" if self.head is None else slab.logits.device
        is_last = slab.planes.stop == self.geometry.shape[self.axis]  # nothing more is added to its memory
        copy = slab.logits.to(where, copy=not is_last)
        self.running = self.thread.submit(self.restore, copy, is_judged=is_judged)

    def finish(self) -> Answer:
        """The answer, when all planes were taken."""
        self.wait()
        with self.times.time("export"):
            label_map = self.restorer.label_map()
        names = [structure.name for structure in self.engine.labels.structures]
        dices = self.agreement.dice()[-len(names) :] if self.agreement is not None else []
        is_judged = self.engine.is_judged
        return Answer(
            label_map=label_map,
            confidences=dict(zip(names, self.sums.confidences(), strict=True)) if is_judged else {},
            agreements=dict(zip(names, dices, strict=True)) if any(dice is not None for dice in dices) else {},
            probabilities=self.restorer.probabilities,
        )

    def wait(self) -> None:
        """Until the planes before are restored."""
        running, self.running = self.running, None
        if running is not None:
            running.result()

    def judge(self, logits: Tensor) -> None:
        """Add up how sure the network is."""
        if self.engine.is_judged:
            with self.times.time("confidence"):
                self.sums.add(logits)

    def restore(self, slab: Tensor, *, is_judged: bool) -> None:
        """Bring logits, or features, to the image's own grid."""
        for logits in [slab] if self.head is None else logits_in_parts(slab, self.head, self.axis):
            with self.times.time("export"):
                self.restorer.add(logits.cpu().numpy())
            if not is_judged:
                self.judge(logits)


def sweep_models(
    storage: Storage,
    batch_size: int,
    views: Views,
    engine: Engine,
    times: StageTimes,
    axis: int,
    agreement: Agreement | None = None,
) -> Iterator[Slab]:
    """The mean logits of all models, or features of one of many classes, plane by plane along an axis.

    Args:
        agreement: gets how far models say the same, or the mirror images of a single one.
    """
    geometry = next(iter(views.values())).geometry
    labels = engine.plan.labels
    mirrored = mirror_axes(geometry, labels, engine.mirror)
    images = {rules: torch.from_numpy(case.image).to(engine.device) for rules, case in views.items()}
    of_models, of_views = (agreement, None) if engine.others else (None, agreement)
    streams, counts = [], []
    for (patch, rules), members in engine.sweeps(geometry.da).items():
        networks = [with_mirroring(member.network, mirrored, of_views) for member in members]
        network = as_one(networks, has_regions=bool(labels.regions), agreement=of_models)
        if engine.by_features:
            network = engine.by_features.features
        stream = sweep_logits(
            only_outputs(network, labels, engine.chosen),
            images[rules],
            geometry.da,
            patch,
            overlap=engine.overlap,
            batch_size=batch_size,
            precision=engine.precision,
            missing_channels=views[rules].missing_channels,
            storage=storage,
            times=times,
            axis=axis,
        )
        streams.append(stream)
        counts.append(len(members))
    return in_step(streams, counts, axis, has_regions=bool(labels.regions), agreement=of_models)
