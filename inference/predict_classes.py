"""Studies to probabilities of classes: one is read while the network works on a batch of others.

Letters: B studies of a batch, K classes or findings; (d, h, w) patches of a view.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..network.classify import patch_shape
from ..parallel import Outcome, attempt
from ..preprocessing.views import View
from ..spacing import Shape
from .asked_studies import AskedStudies
from .class_sources import ClassSource
from .classify import as_input, layout_of, logits_of, probabilities_of
from .shared_tokens import SharedTokens, with_tokens

MAX_BATCH = 32
"""Studies of a batch, as in training."""
BATCH_VOXELS = 1 << 24
"""Of a batch, unless the user says how many studies it has: four volumes of 160³."""
READ_AHEAD = 4
"""Studies that are read before they are needed."""

Views = tuple[View, ...]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One of the studies."""

    number: int
    name: str


@dataclass(frozen=True, kw_only=True)
class Focus:
    """What a network gave each patch of a view."""

    weights: np.ndarray
    """(d, h, w) float32; those of a study sum to one."""
    size: Shape
    """(D, H, W) of the view as the network saw it."""
    patch: Shape
    """Voxels of a patch."""


@dataclass(frozen=True, kw_only=True)
class ClassAnswer:
    """What the networks say of a study."""

    probabilities: np.ndarray
    """(K,) float64, the mean over the models."""
    views: tuple[Views, ...]
    """By model, as it saw them."""
    focus: tuple[tuple[Focus, ...], ...] = ()
    """By model and view, where it was asked for."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A study ready for the networks."""

    item: Item
    views: tuple[Views, ...]
    """By model."""


def predict_studies(
    studies: AskedStudies,
    names: Sequence[str],
    sources: Sequence[ClassSource],
    *,
    device: torch.device,
    precision: torch.dtype,
    batch_size: int | None = None,
    has_focus: bool = False,
) -> Generator[Outcome[Item, ClassAnswer]]:
    """An outcome for each study, in order; a broken one never stops the others.

    Studies that follow each other and are alike in the sizes of their views share a batch. A batch that fails is tried
    again study by study.

    Args:
        names: of the studies that are wanted.
        sources: the models of the task, whose mean counts; their networks are on the device.
        batch_size: at most; None for as many as are usual.
        has_focus: tell what each patch counts, too.
    """
    outcomes = predict_together(
        studies, names, [sources], device=device, precision=precision, batch_size=batch_size, has_focus=has_focus
    )
    for (outcome,) in outcomes:
        yield outcome


def predict_together(
    studies: AskedStudies,
    names: Sequence[str],
    tasks: Sequence[Sequence[ClassSource]],
    *,
    device: torch.device,
    precision: torch.dtype,
    batch_size: int | None = None,
    has_focus: bool = False,
) -> Generator[list[Outcome[Item, ClassAnswer]]]:
    """As `predict_studies`, an outcome for each task: the very one of the task alone, since batches are the same.

    Args:
        tasks: the models of each, which `shared_tokens.prepare_alike` found alike.
    """
    shared = SharedTokens()
    sharing = [[with_tokens(source, shared) for source in sources] for sources in tasks]
    numbers = {name: number for number, name in enumerate(studies.names)}
    items = deque(Item(number=numbers[name], name=name) for name in names)
    seen = [replace(studies, plan=source.plan) for source in tasks[0]]

    def load(item: Item) -> Loaded:
        by_plan: dict[tuple[str, int], Views] = {}  # models of one preprocessing share the views
        for it in seen:
            key = it.plan.preprocessing_digest(), it.plan.degree_of_anisotropy
            if key not in by_plan:
                by_plan[key] = it[item.number]
        return Loaded(
            item=item,
            views=tuple(by_plan[it.plan.preprocessing_digest(), it.plan.degree_of_anisotropy] for it in seen),
        )

    def answer_one(sources: Sequence[ClassSource], batch: Sequence[Loaded]) -> list[Outcome[Item, ClassAnswer]]:
        together = attempt(lambda _: classify_batch(batch, sources, device, precision, has_focus), batch[0].item)
        if together.result is None and shared.known:  # what other tasks left may have been too much: as if alone
            shared.forget()
            together = attempt(lambda _: classify_batch(batch, sources, device, precision, has_focus), batch[0].item)
        if together.result is not None:
            return [
                Outcome(item=loaded.item, result=result, problem=None)
                for loaded, result in zip(batch, together.result, strict=True)
            ]
        if len(batch) == 1:
            return [together.failed()]
        return [outcome for loaded in batch for outcome in answer_one(sources, [loaded])]

    def answer(batch: Sequence[Loaded]) -> list[list[Outcome[Item, ClassAnswer]]]:
        by_task = [answer_one(sources, batch) for sources in sharing]
        shared.forget()
        return [list(of_study) for of_study in zip(*by_task, strict=True)]

    waiting: list[Loaded] = []
    coming: deque[Future[Outcome[Item, Loaded]]] = deque()
    with ThreadPoolExecutor(1) as reader:
        while items or coming:
            while items and len(coming) < READ_AHEAD:
                coming.append(reader.submit(attempt, load, items.popleft()))
            read = coming.popleft().result()
            if waiting and (read.result is None or not fits(waiting, read.result, tasks[0], batch_size)):
                yield from answer(waiting)
                waiting = []
            if read.result is None:
                yield [read.failed() for _ in tasks]
            else:
                waiting.append(read.result)
        if waiting:
            yield from answer(waiting)


def fits(batch: Sequence[Loaded], other: Loaded, sources: Sequence[ClassSource], batch_size: int | None) -> bool:
    """Whether a batch of studies takes another one."""
    if [layout_of(views) for views in batch[0].views] != [layout_of(views) for views in other.views]:
        return False
    if batch_size is not None:
        return len(batch) < batch_size
    voxels = max(
        sum(math.prod(source.plan.input_size_voxels or view.array.shape[1:]) for view in views)
        for source, views in zip(sources, other.views, strict=True)
    )
    return len(batch) < MAX_BATCH and (len(batch) + 1) * voxels <= BATCH_VOXELS


@torch.inference_mode()
def classify_batch(
    batch: Sequence[Loaded],
    sources: Sequence[ClassSource],
    device: torch.device,
    precision: torch.dtype,
    has_focus: bool,
) -> list[ClassAnswer]:
    """What the models say of studies that are alike in the sizes of their views.

    Raises:
        InputError: if a network gives values that are not finite; names the study.
    """
    probabilities, focus = [], []
    for number, source in enumerate(sources):
        x = as_input([loaded.views[number] for loaded in batch], source.plan, device)
        logits = logits_of(source.network, x, [loaded.item.name for loaded in batch], precision)
        probabilities.append(probabilities_of(logits, source.classes))
        if has_focus:
            weights = [weights.float().cpu().numpy() for weights in source.network.attention_weights(x)]
            patches = [patch_shape(source.network.backbone, da) for _, da in x]
            focus.append(
                [
                    tuple(
                        Focus(weights=of_view[place], size=(size[0], size[1], size[2]), patch=patch)
                        for of_view, size, patch in zip(
                            weights, (tuple(view.shape[2:]) for view, _ in x), patches, strict=True
                        )
                    )
                    for place in range(len(batch))
                ]
            )
    mean = np.mean(probabilities, axis=0)  # (B, K)
    return [
        ClassAnswer(probabilities=mean[place], views=loaded.views, focus=tuple(of_model[place] for of_model in focus))
        for place, loaded in enumerate(batch)
    ]
