"""The models that classify together, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..classes import ClassSet
from ..classification_plan import ClassificationPlan
from ..errors import InputError
from ..model import Model, load_model
from ..models import choose_classifier
from ..network.classify import ClassificationNetwork
from .classify import build_classifiers


@dataclass(frozen=True, kw_only=True)
class ClassSource:
    """What is needed of a model's folder: one classifier's network and how images come to it."""

    folder: Path
    task: str
    plan: ClassificationPlan
    network: ClassificationNetwork

    @property
    def classes(self) -> ClassSet:
        """In the order of the network's outputs."""
        return self.plan.classes


def open_class_sources(folders: Sequence[Path], dataset: str | None) -> list[ClassSource]:
    """Read models and check that they can be averaged; their networks are on the processor.

    Args:
        folders: at least one.
        dataset: name of the task; None where each model has one classifier only.

    Raises:
        InputError: if a model is missing or damaged, has no such task, or has other classes or channels than the first
            one.
    """
    sources = [open_class_source(folder, dataset) for folder in folders]
    first = sources[0]
    for other in sources[1:]:
        if other.classes != first.classes:
            raise InputError(
                f"{other.folder}: tells {told(other.classes)} apart, but {first.folder} {told(first.classes)}; give "
                "models of the same classes in the same order"
            )
        if channels_of(other) != channels_of(first):
            raise InputError(
                f"{other.folder}: has the channels {', '.join(other.plan.channel_names)}, but {first.folder} "
                f"{', '.join(first.plan.channel_names)}; give models of the same channels in the same order"
            )
    return sources


def open_class_source(folder: Path, dataset: str | None) -> ClassSource:
    """As `open_class_sources`, of one model."""
    return open_classifiers(folder, [choose_classifier(folder, dataset)])[0]


def open_classifiers(folder: Path, names: Sequence[str], model: Model | None = None) -> list[ClassSource]:
    """Several classifiers of a model, whose networks have one backbone in memory.

    Args:
        model: that of the folder, where it is read already.

    Raises:
        InputError: if the model is missing or damaged.
    """
    model = model or load_model(folder)
    networks = build_classifiers(model, names)
    return [
        ClassSource(folder=folder, task=name, plan=model.classifiers[name].plan, network=networks[name])
        for name in names
    ]


def told(classes: ClassSet) -> str:
    """Kind and names."""
    return f"{', '.join(classes.names)} ({classes.kind})"


def channels_of(source: ClassSource) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of all, and of those that an image may lack."""
    return source.plan.channel_names, source.plan.optional_channels
