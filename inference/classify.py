"""Studies to logits and probabilities of classes or findings.

Letters: B studies of a batch, K outputs, C channels; D, H, W depth, height, width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..classes import ClassSet
from ..classification_plan import ClassificationPlan
from ..errors import InputError
from ..model import Model
from ..network.adapters import Adapter, adapt
from ..network.build import Backbone, build_backbone, build_classification_task
from ..network.classify import ClassificationNetwork
from ..preprocessing.views import View
from ..spacing import Shape
from ..task import ADAPTER_PREFIX
from .studies import Studies

Input = list[tuple[Tensor, int]]
"""Views of B studies as the network takes them: (B, C, D, H, W) and degree of anisotropy of each."""
Layout = tuple[tuple[Shape, int], ...]
"""Size and degree of anisotropy of each view: studies alike in these are one batch."""


def build_classifier(model: Model, name: str) -> ClassificationNetwork:
    """The network of one of a model's classifiers with its weights, in evaluation mode.

    Raises:
        InputError: if the weights do not fit the backbone and preset that the model states, or nobody knows these.
    """
    return build_classifiers(model, [name])[name]


def build_classifiers(model: Model, names: Sequence[str]) -> dict[str, ClassificationNetwork]:
    """The networks of several, as `build_classifier`, of which all have the parameters of one backbone."""
    networks = {}
    backbone: Backbone | None = None
    for name in names:
        classifier = model.classifiers[name]
        plan, adapter = classifier.plan, classifier.adapter
        own = {key: value for key, value in classifier.state.items() if not key.startswith(ADAPTER_PREFIX)}
        change_state = {
            key.removeprefix(ADAPTER_PREFIX): value for key, value in classifier.state.items() if key not in own
        }
        try:
            if backbone is None:
                backbone = build_backbone(model.backbone, model.preset)
                backbone.load_state_dict(model.backbone_state)
            task = build_classification_task(
                len(plan.channel_names), plan.classes.num_outputs, model.backbone, model.preset, classifier.pooling
            )
            task.load_state_dict(own)
            changed = backbone
            if adapter is not None:
                change = Adapter(backbone, rank=adapter.rank, num_experts=adapter.num_experts, has_decoder=False)
                change.load_state_dict(change_state)
                changed = adapt(backbone, change)
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"model {model.backbone} {model.preset}, task {name}: weights do not fit ({reason})"
            ) from error
        networks[name] = ClassificationNetwork(changed, task).eval()
    for network in networks.values():  # as in `predict.build_networks`
        network.requires_grad_(True)
    return networks


def layout_of(views: Sequence[View]) -> Layout:
    """What studies of one batch have in common."""
    return tuple((shape_of(view), view.da) for view in views)


def shape_of(view: View) -> Shape:
    """(D, H, W)."""
    depth, height, width = view.array.shape[1:]
    return depth, height, width


def as_input(studies: Sequence[tuple[View, ...]], plan: ClassificationPlan, device: torch.device) -> Input:
    """Studies of one layout on a device, of the plan's brightness and size where it has these.

    Args:
        studies: the views of each of the B studies.
    """
    together = [np.stack([view.array for view in views]) for views in zip(*studies, strict=True)]
    return [
        (resize(dim(torch.from_numpy(array).to(device), plan.brightness), plan), view.da)
        for array, view in zip(together, studies[0], strict=True)
    ]


def dim(x: Tensor, factor: Tensor | float | None) -> Tensor:
    """(B, C, D, H, W) in [-1, 1] with intensities, as they are in [0, 1], multiplied by a factor or one a study, (B,).

    A channel that is missing, 0 everywhere, stays so.
    """
    if factor is None:
        return x
    each = factor.view(-1, 1, 1, 1, 1) if isinstance(factor, Tensor) else factor
    return ((x + 1) * each - 1) * x.flatten(2).any(2)[..., None, None, None]


def resize(x: Tensor, plan: ClassificationPlan) -> Tensor:
    """(B, C, D, H, W) to the plan's size, if it has one and they are not of it yet: volumes trilinearly, pictures
    bicubically, as the paper does with MedMNIST (Luo et al. 2024, appendix E)."""
    size = plan.input_size_voxels
    if size is None or tuple(x.shape[2:]) == size:
        return x
    if size[0] == x.shape[2] == 1:
        return functional.interpolate(x[:, :, 0], size[1:], mode="bicubic").clamp_(-1, 1)[:, :, None]
    return functional.interpolate(x, size, mode="trilinear")


@torch.inference_mode()
def classify(
    network: ClassificationNetwork,
    studies: Studies,
    plan: ClassificationPlan,
    *,
    precision: torch.dtype,
    batch_size: int = 32,
) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Numbers of studies and their logits (B, K) float32 on the processor, in order, a batch at a time.

    Studies that follow each other and are alike in the sizes of their views share a batch.

    Raises:
        InputError: if a study cannot be read, or a logit is NaN or infinite; names the study.
    """
    waiting: list[tuple[int, tuple[View, ...]]] = []

    def answer() -> tuple[tuple[int, ...], Tensor]:
        numbers, batch = zip(*waiting, strict=True)
        x = as_input(batch, plan, next(network.parameters()).device)
        logits = logits_of(network, x, [studies.names[number] for number in numbers], precision)
        waiting.clear()
        return numbers, logits

    for number in range(len(studies)):
        views = studies[number]
        if waiting and (len(waiting) == batch_size or layout_of(waiting[0][1]) != layout_of(views)):
            yield answer()
        waiting.append((number, views))
    if waiting:
        yield answer()


def logits_of(network: ClassificationNetwork, x: Input, names: Sequence[str], precision: torch.dtype) -> Tensor:
    """Logits (B, K) float32 of a batch, on the processor.

    Raises:
        InputError: if one is NaN or infinite; names the study.
    """
    with torch.autocast(x[0][0].device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        logits = network(x).float().cpu()
    for name, row in zip(names, logits, strict=True):
        if not row.isfinite().all():
            raise InputError(f"{name}: the network gives values that are not finite")
    return logits


def probabilities_of(logits: Tensor, classes: ClassSet) -> np.ndarray:
    """Logits (B, K) to probabilities (B, K) float64: of exclusive classes they sum to 1, of findings each is alone."""
    logits = logits.double()
    return (logits.softmax(1) if classes.is_exclusive else logits.sigmoid()).numpy()
