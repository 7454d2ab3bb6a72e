"""What a run was asked for, in words that its checkpoint keeps and its model tells."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..record import digest_of
from .patches import TrainingTask

SEEN = ("datasets", "fold", "fraction", "fraction_seed", "cases")
"""Of a request: what decides which cases a run learns from."""
EARLIER = "earlier_runs"

log = logging.getLogger("spadunet")


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


def digest_of_cases(splits: Sequence[tuple[list[str], list[str]]]) -> str:
    """Changes when a case changes sides between training and validation."""
    return digest_of(json.dumps([(sorted(train), sorted(val)) for train, val in splits]))


def runs_behind(provenance: Mapping[str, str]) -> tuple[str, ...]:
    """What a model has learned from: a text of its own run and of each before it that its weights come from."""
    own = ", ".join(f"{name}={provenance[name]}" for name in SEEN if name in provenance)
    before = provenance.get(EARLIER, "")
    return tuple(dict.fromkeys(text for text in (own, *before.split("; ")) if text))


def request_in(text: str) -> dict[str, str]:
    """What a text of `runs_behind` tells of a request."""
    return {name: value for name, _, value in (part.partition("=") for part in text.split(", "))}


def warn_if_seen(init: Path, earlier: Mapping[str, str], request: Mapping[str, str]) -> None:
    """Warn where a model, or one that it began as, may have learned from this run's validation cases.

    Args:
        init: the model.
        earlier: its provenance, which is the request of its run.
    """
    for asked in map(request_in, runs_behind(earlier)):
        shared = [name for name in request["datasets"].split() if name in asked.get("datasets", "").split()]
        same = all(asked.get(name) == request[name] for name in ("datasets", "fraction", "fraction_seed"))
        is_other = asked.get("fold") != request["fold"] or (same and asked.get("cases") != request["cases"])
        if shared and is_other and request["fold"] != "all":
            log.warning(
                "--init %s: has learned from %s with fold %s and may have seen cases that this run, fold %s, validates "
                "on: their scores will be too good; start from a model of the same fold and cases",
                init,
                ", ".join(shared),
                asked.get("fold", "unknown"),
                request["fold"],
            )
            return
