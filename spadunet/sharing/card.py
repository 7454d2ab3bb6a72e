"""The model card: what someone must know of a model before using it (Mitchell et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..evaluation.classification import ClassificationScores
from ..evaluation.classification_tables import remarks, with_interval
from ..image import format_spacing
from ..metrics import metric_of
from ..model import ModelRecord
from ..scores import Scores
from ..task import AnyTaskRecord, TaskRecord

NO_LICENCE = "Not stated. Ask who made the model before you use it or pass it on."
NO_USE = (
    "Not stated. A research model, no medical device: it must not decide on the treatment of patients. Check it on "
    "images of your own scanners and patients first."
)
NO_SCORES = "None came with the model: no case was held out, or it was not validated."
DIGESTS = {
    "plans",
    "cases",
    "held_out",
    "corpus_digest",
    "tokenizer_digest",
    "tokenizer_corpus_digest",
    "add_task",
    "datasets",
    "earlier_runs",
}
"""Of provenance: left to model.json."""
UNSAID = ("None", "False", "no")


def write_card(
    name: str,
    model: ModelRecord,
    tasks: Mapping[str, AnyTaskRecord],
    scores: Mapping[str, Scores | ClassificationScores],
    *,
    licence: str | None = None,
    intended_use: str | None = None,
) -> str:
    """Markdown.

    Args:
        name: of the model.
        model, tasks: without paths.
        scores: of held-out cases or studies, by task. None of these is named in the card.
        licence: an SPDX expression.
    """
    lines = [f"# {plain(name)}", ""]
    lines += [f"{kind_of_model(model)} for spadunet: `{model.backbone}`, preset `{model.preset}`.", ""]
    lines += ["## Intended use", "", plain(intended_use) if intended_use else NO_USE, ""]
    lines += ["## Licence", "", licence or NO_LICENCE, ""]
    lines += ["## Data", ""]
    for task, record in tasks.items():
        lines += [f"### {plain(task)}", "", *table(("", ""), data_rows(task, model, record)), ""]
    if not tasks:
        lines += [f"Corpus: {plain(model.provenance.get('corpus', 'not recorded'))}.", ""]
    lines += ["## Scores", ""]
    for task in [task for task in tasks if task in scores]:
        found = scores[task]
        told = class_lines(found) if isinstance(found, ClassificationScores) else score_lines(found)
        lines += [f"### {plain(task)}", "", *told, ""]
    if not any(task in scores for task in tasks):
        lines += [NO_SCORES, ""]
    lines += ["## How it was made", ""]
    lines += [*table(("", ""), provenance_rows(model.provenance)), ""]
    for task, record in tasks.items():
        if record.provenance:
            lines += [f"{plain(task)} joined later:", "", *table(("", ""), provenance_rows(record.provenance)), ""]
    return "\n".join(lines)


def kind_of_model(model: ModelRecord) -> str:
    """What its tasks do."""
    if not model.all_tasks:
        return "A pre-trained backbone, without a task"
    kinds = {"segmentation": model.tasks, "classification": model.classifiers}
    return f"A {' and '.join(kind for kind, names in kinds.items() if names)} model"


def data_rows(task: str, model: ModelRecord, record: AnyTaskRecord) -> Iterator[tuple[str, str]]:
    """What a task learned from and expects."""
    plan = record.plan
    provenance = record.provenance or model.provenance
    names, numbers = (provenance.get(key, "").split() for key in ("datasets", "training_cases"))
    yield "training cases", dict(zip(names, numbers, strict=False)).get(task, "not recorded")
    rules = zip(plan.channel_names, plan.intensity, strict=True)
    yield "channels", ", ".join(f"{name} ({rule.kind} {rule.low:g} to {rule.high:g})" for name, rule in rules)
    if plan.optional_channels:
        yield "channels that a case may lack", ", ".join(plan.optional_channels)
    if isinstance(record, TaskRecord):
        yield "labels", ", ".join(f"{it.name} ({it.painted_id})" for it in record.plan.labels.structures)
    else:
        classes = record.plan.classes
        yield f"classes ({classes.kind})", ", ".join(classes.names)
    if record.adapter is not None:
        yield "adapter of the backbone", str(record.adapter)
    spacing = plan.target_spacing_mm
    told = "each case's own" if isinstance(spacing, str) else f"{format_spacing(spacing)} mm (depth, height, width)"
    yield "voxel spacing", told
    yield "degree of anisotropy", str(plan.degree_of_anisotropy)
    if isinstance(record, TaskRecord):
        yield "patch", "×".join(map(str, record.plan.patch_size_voxels)) + " voxels"
    elif (size := record.plan.input_size_voxels) is not None:
        yield "image size", "×".join(map(str, size)) + " voxels"


def score_lines(scores: Scores) -> Iterator[str]:
    """Means by class, and what they mean."""
    yield f"Means over {len(scores.cases)} held-out cases."
    yield ""
    titles = [metric_of(metric).title for metric in scores.metrics]
    rows: list[Sequence[str]] = []
    for name, row in scores.summary().items():
        values = [row.means.get(metric) for metric in scores.metrics]
        rows.append([name, str(row.num_cases), *map(number_text, values)])
    rows.append(["mean", "", *(number_text(scores.mean(metric)) for metric in scores.metrics)])
    yield from table(["class", "cases", *titles], rows)
    if scores.definitions:
        yield ""
        yield from (f"- {plain(name)}: {plain(meaning)}" for name, meaning in scores.definitions.items())


def class_lines(scores: ClassificationScores) -> Iterator[str]:
    """AUC and ACC with intervals, AUC of each class, what is not defined, and what they mean."""
    yield f"{scores.num_studies} held-out studies of {scores.num_patients} patients; in brackets 95 % intervals."
    yield ""
    rows = [
        [it.name, str(it.num_positive), with_interval(it.auc, it.auc_interval), ""]
        for it in (scores.results if len(scores.results) > 1 else ())
    ]
    means = (with_interval(scores.auc, scores.auc_interval), with_interval(scores.accuracy, scores.accuracy_interval))
    rows.append(["all", str(scores.num_studies), *means])
    yield from table(["class", "studies", "AUC", "ACC"], rows)
    yield ""
    yield from (f"- {plain(line)}" for line in remarks(scores))
    yield from (f"- {plain(name)}: {plain(meaning)}" for name, meaning in scores.definitions.items())


def number_text(value: float | None) -> str:
    """Three decimals; a dash where there is no value."""
    return "–" if value is None else f"{value:.3f}"


def provenance_rows(provenance: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What a run was asked for, without digests and what was not asked."""
    for key, value in provenance.items():
        if key not in DIGESTS and value not in UNSAID:
            yield key.replace("_", " "), value


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines of a table in Markdown."""
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(map(plain, row))} |"


def plain(text: str) -> str:
    """A text on one line, in which nothing is Markdown or HTML."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    for character in "\\|`*[]":
        text = text.replace(character, f"\\{character}")
    return text
