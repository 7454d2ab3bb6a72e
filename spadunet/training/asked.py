"""What a run was asked for, in words that its checkpoint keeps and its model tells."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..record import digest_of
from .patches import TrainingTask

SEEN = ("task", "datasets", "fold", "fraction", "fraction_seed", "cases", "held_out", "findings", "findings_cases")
"""Of a request: what decides which cases a run learns from, and which it holds out."""
EARLIER = "earlier_runs"
CLASSIFICATION = "classification"
"""The `task` of such a run; a segmentation has none."""

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


def digests_of_held_out(splits: Sequence[tuple[list[str], list[str]]]) -> str:
    """Of each dataset, changes when other cases are held out."""
    return " ".join(digest_of(json.dumps(sorted(val))) for _, val in splits)


def runs_behind(*provenances: Mapping[str, str]) -> tuple[str, ...]:
    """What weights have learned from: a text of each run, and of each before it that its own weights come from.

    Args:
        provenances: of a model, and of those of its tasks that joined it later, as far as weights come from them.
    """
    texts: list[str] = []
    for told in provenances:
        own = ", ".join(f"{name}={told[name]}" for name in SEEN if name in told)
        texts += [own, *told.get(EARLIER, "").split("; ")]
    return tuple(dict.fromkeys(text for text in texts if text))


def request_in(text: str) -> dict[str, str]:
    """What a text of `runs_behind` tells of a request."""
    return {name: value for name, _, value in (part.partition("=") for part in text.split(", "))}


def warn_if_seen(init: Path, behind: Sequence[str], request: Mapping[str, str]) -> None:
    """Warn where a model, or one that it began as, may have learned from this run's validation cases.

    Args:
        init: the model.
        behind: its weights, as `runs_behind`.
    """
    for asked in map(request_in, behind):
        shared = [name for name in request["datasets"].split() if name in asked.get("datasets", "").split()]
        if shared and request["fold"] != "all" and not holds_out_the_same(asked, request):
            log.warning(
                "--init %s: has learned from %s with fold %s and may have seen cases that this run, fold %s, validates "
                "on: their scores will be too good; start from a model of the same fold and cases",
                init,
                ", ".join(shared),
                asked.get("fold", "unknown"),
                request["fold"],
            )
            return


def holds_out_the_same(asked: Mapping[str, str], request: Mapping[str, str]) -> bool:
    """Whether two runs that share a dataset hold out the same cases of it.

    Of label maps, digests of what is held out of each dataset tell. Where an older model has none, a fold is that of
    splits_final.json, whatever other datasets are learned beside it and which share of it; where all is alike, the
    digest of all cases tells. Studies are dealt out otherwise, so that of two runs that have not both label maps, or
    not both studies, nothing is known.
    """
    if asked.get("fold") != request["fold"]:
        return False
    maps = maps_of(asked), maps_of(request)
    studies = studies_of(asked), studies_of(request)
    if None not in studies and studies[0] != studies[1]:
        return False
    if None in maps:
        return None not in studies
    first, second = held_out_of(asked), held_out_of(request)
    if first and second:
        return all(first[name] == second[name] for name in first.keys() & second.keys())
    return maps[0] != maps[1] or asked.get("cases") == request["cases"]


def maps_of(asked: Mapping[str, str]) -> tuple[list[str], str | None, str | None] | None:
    """Datasets of which a run learns label maps, and which share of them; None of a classification."""
    if asked.get("task") == CLASSIFICATION:
        return None
    names = [name for name in asked["datasets"].split() if name != asked.get("findings")]
    return names, asked.get("fraction"), asked.get("fraction_seed")


def held_out_of(asked: Mapping[str, str]) -> dict[str, str]:
    """Digest of the cases that are held out, by dataset of which label maps are learned; empty of older models."""
    names = [name for name in asked["datasets"].split() if name != asked.get("findings")]
    return dict(zip(names, asked.get("held_out", "").split(), strict=False))


def studies_of(asked: Mapping[str, str]) -> str | None:
    """Digest of the studies that train and are held out; None of a run of label maps alone."""
    return asked.get("cases") if asked.get("task") == CLASSIFICATION else asked.get("findings_cases")
