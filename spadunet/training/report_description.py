"""The part of a run's page that says what was asked for, of what data, and with what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ..image import format_spacing
from ..page import Html, block, details, grid, heading, paragraph, table
from ..plan import Plan
from ..record import read_record
from .init import INIT_COVERAGE_JSON, Coverage
from .report_classes import class_plan_facts
from .status import RunStatus

UNSAID = ("None", "False")
HIDDEN = {
    "plans",
    "cases",
    "held_out",
    "datasets",
    "findings_plan",
    "findings_cases",
    "corpus_digest",
    "tokenizer_digest",
}
"""Of what was asked for: digests, and what stands in the title."""


def description_of(folder: Path, status: RunStatus) -> Iterator[Html]:
    """What the run was asked for, on what, with what, and when."""
    yield heading("The run")
    when = f"{status.started:%Y-%m-%d %H:%M} UTC"
    when += f", gone on with {status.num_starts - 1} times" if status.num_starts > 1 else ""
    asked = {name: value for name, value in status.request.items() if name not in HIDDEN and value not in UNSAID}
    facts = {"started": when, "last change": f"{status.updated:%Y-%m-%d %H:%M} UTC", "machine": status.host}
    blocks = [block([heading(plan.dataset_name, 3), words_table(plan_facts(plan))]) for plan in status.plans]
    if (plan := status.classification) is not None:
        blocks.append(block([heading(plan.dataset_name, 3), words_table(class_plan_facts(plan))]))
    yield grid(
        [
            *blocks,
            block([heading("Asked for", 3), words_table({name.replace("_", " "): asked[name] for name in asked})]),
            block([heading("When and where", 3), words_table(facts | status.facts)]),
        ]
    )
    if (folder / INIT_COVERAGE_JSON).is_file():
        yield from coverage_of(read_record(folder / INIT_COVERAGE_JSON, Coverage, remedy=""))
    yield paragraph(f"Folder: {folder.resolve()}", "pale")


def coverage_of(coverage: Coverage) -> Iterator[Html]:
    """What became of the weights that a run started from."""
    *_, shares = coverage.lines()
    yield heading("Weights that it started from", 3)
    yield paragraph(coverage.source)
    yield paragraph(shares)
    rows = [[row.group, row.fate, str(row.num_tensors), f"{row.num_parameters:,}"] for row in coverage.rows]
    yield details("every part", table(["part", "", "tensors", "parameters"], rows))


def words_table(facts: Mapping[str, str]) -> Html:
    """Facts by what they are called."""
    return table([], [[name, value] for name, value in facts.items()], is_words=True)


def plan_facts(plan: Plan) -> dict[str, str]:
    """What was decided for a dataset."""
    target = plan.target_spacing_mm
    rules = (
        f"{name} ({rule.kind} {rule.low:g} … {rule.high:g})"
        for name, rule in zip(plan.channel_names, plan.intensity, strict=True)
    )
    return {
        "channels": ", ".join(rules),
        "labels": ", ".join(structure.name for structure in plan.labels.structures),
        "spacing": "native: each case keeps its own" if isinstance(target, str) else f"{format_spacing(target)} mm",
        "degree of anisotropy": str(plan.degree_of_anisotropy),
        "patch": "×".join(map(str, plan.patch_size_voxels)) + " voxels (depth, height, width)",
    }
