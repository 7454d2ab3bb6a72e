"""What a run was asked for, in words that its checkpoint keeps and its model tells."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..record import digest_of
from .patches import TrainingTask


def class_weights_text(tasks: Sequence[TrainingTask]) -> str:
    """How much the classes of each dataset count, where they do not count alike."""
    texts = []
    for task in tasks:
        if task.class_weights is not None:
            pairs = zip(task.plan.labels.output_names, task.class_weights, strict=True)
            texts.append(f"{task.name} " + " ".join(f"{name}={weight:g}" for name, weight in pairs))
    return "; ".join(texts) or "all 1"


def annotated_text(tasks: Sequence[TrainingTask]) -> str:
    """In how many training cases not all was annotated; changes with what was."""
    annotated = [
        (task.name, case.name, case.header.annotated) for task in tasks for case in task.cases if case.header.annotated
    ]
    return f"all but in {len(annotated)} cases ({digest_of(json.dumps(annotated))})" if annotated else "all"
