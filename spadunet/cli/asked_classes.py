"""What `spadunet_predict` was asked for with a task that classifies, read and checked before any work."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..workspace import find_workspace
from .asked_prediction import require_apart
from .options import find_device
from .predict_options import find_models_asked

if TYPE_CHECKING:
    import torch

    from ..inference.asked_studies import AskedStudies
    from ..inference.class_resume import ClassStart
    from ..inference.class_sources import ClassSource


@dataclass(frozen=True, kw_only=True)
class AskedClasses:
    """A prediction of classes that can be made; nothing is written yet."""

    studies: AskedStudies
    sources: list[ClassSource]
    device: torch.device
    precision: torch.dtype
    start: ClassStart

    @property
    def todo(self) -> list[str]:
        """Studies that are not there yet."""
        return [name for name in self.studies.names if name not in self.start.kept]


def find_classes_asked(
    options: argparse.Namespace, sources: list[ClassSource] | None = None, studies: AskedStudies | None = None
) -> AskedClasses:
    """Read models, look for studies, and check that all that was asked for goes together.

    Args:
        sources: the models, where they are read already.
        studies: those of the input, where they are known already.

    Raises:
        InputError: if it does not, or something is missing or damaged.
    """
    from ..inference.asked_studies import find_studies
    from ..inference.class_resume import class_request_of, find_class_start
    from ..inference.class_sources import open_class_sources
    from ..inference.studies import FileStudies
    from ..network.device import choose_precision

    device = find_device(options.device)
    precision = choose_precision(options.precision, device)
    if sources is None:
        folders = find_models_asked(options, find_workspace(options.data), may_classify=True)
        sources = open_class_sources(folders, options.dataset)
    for source in sources:
        source.network.to(device)
    studies = studies or find_studies(
        options.input,
        sources[0].plan,
        split=options.split,
        channels=options.channels,
        others=[source.plan for source in sources[1:]],
    )
    if isinstance(studies, FileStudies):
        require_apart(options.output, options.input, [view for study in studies.studies for view in study.views])
    start = find_class_start(
        options.output,
        class_request_of(options.input, studies, sources, precision),
        studies,
        sources[0].classes,
        must_keep=options.keep,
        has_heat_maps=options.heat_maps,
    )
    return AskedClasses(studies=studies, sources=sources, device=device, precision=precision, start=start)
