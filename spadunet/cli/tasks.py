"""spadunet_tasks: the tasks of a model, one by one."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from .dry_run import table
from .run import make_parser, run_command

EXAMPLES = """\
  spadunet_tasks list -m MODEL
  spadunet_tasks add Heart -m MODEL --from OTHER      OTHER has the same backbone
  spadunet_tasks remove Heart -m MODEL
  spadunet_tasks export Heart -m MODEL -o heart.task.zip
  spadunet_tasks import heart.task.zip -m MODEL
"""

MAX_CLASSES = 6
"""That the list names."""

log = logging.getLogger("spadunet")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser(
        "List the tasks of a model, add, remove, export and import single ones. A task is a small folder beside the\n"
        "backbone and goes with that very backbone alone. Nothing that is there already changes by a byte.",
        EXAMPLES,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = add_action(actions, "list", "kind, classes, adapter, parameters, size and training of each task")
    add_model_option(listing)
    adding = add_action(actions, "add", "tasks of another model of the same backbone")
    add_names(adding)
    add_model_option(adding)
    adding.add_argument(
        "--from", dest="source", type=Path, required=True, metavar="OTHER", help="model folder that has them"
    )
    add_dry_run(adding)
    removing = add_action(actions, "remove", "take tasks away; without any, the model is a pre-trained backbone")
    add_names(removing)
    add_model_option(removing)
    add_dry_run(removing)
    exporting = add_action(actions, "export", "one task as a file, without the backbone")
    exporting.add_argument("task", metavar="TASK", help="name or number")
    add_model_option(exporting)
    exporting.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="new file, such as TASK.task.zip"
    )
    add_dry_run(exporting)
    importing = add_action(actions, "import", "the task of a file, checked before anything is written")
    importing.add_argument("file", type=Path, metavar="FILE", help="what spadunet_tasks export wrote")
    add_model_option(importing)
    add_dry_run(importing)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: ACTIONS[options.action](options))


def add_action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, about: str
) -> argparse.ArgumentParser:
    """The parser of one action."""
    return actions.add_parser(name, help=about, description=about, allow_abbrev=False)


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """`-m`."""
    parser.add_argument("-m", "--model", type=Path, required=True, metavar="MODEL", help="model folder")


def add_names(parser: argparse.ArgumentParser) -> None:
    """The tasks that an action is about."""
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="name or number")


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """`--dry-run`."""
    parser.add_argument("--dry-run", action="store_true", help="check everything and say what would be done")


def show_tasks(options: argparse.Namespace) -> int:
    """Print a table of a model's tasks."""
    from ..model import BACKBONE_FILE, check_files, load_task
    from ..task import ADAPTER_PREFIX, Task

    record = check_files(options.model)
    size = (options.model / BACKBONE_FILE).stat().st_size
    print(f"{options.model}: {record.backbone} {record.preset}, {size / 1e6:.1f} MB")
    print(f"SHA-256 of the backbone: {record.sha256[BACKBONE_FILE]}")
    if not record.all_tasks:
        print("no tasks: a pre-trained backbone, for spadunet_train --init")
        return 0
    rows = []
    for name in record.all_tasks:
        task = load_task(options.model, name, record.sha256, kind=record.record_of(name))
        names = task.plan.labels.structures if isinstance(task, Task) else task.plan.classes.names
        classes = [it if isinstance(it, str) else it.name for it in names]
        num_adapter = sum(value.numel() for key, value in task.state.items() if key.startswith(ADAPTER_PREFIX))
        num_parameters = sum(value.numel() for value in task.state.values())
        files = [path for path in record.sha256 if path.startswith(f"tasks/{name}/")]
        told = task.provenance or record.provenance
        rows.append(
            [
                name,
                "segmentation" if isinstance(task, Task) else f"classification ({task.plan.classes.kind})",
                ", ".join(classes[:MAX_CLASSES]) + (f", … ({len(classes)})" if len(classes) > MAX_CLASSES else ""),
                f"{task.adapter} ({num_adapter:,})" if task.adapter else "none",
                f"{num_parameters:,}",
                f"{sum((options.model / path).stat().st_size for path in files) / 1e6:.2f} MB",
                training_text(name, told),
            ]
        )
    columns = ["task", "kind", "classes", "adapter (parameters)", "parameters", "size", "trained"]
    print("\n".join(table(columns, rows, "tasks", max_rows=len(rows))))
    return 0


def training_text(name: str, provenance: dict[str, str]) -> str:
    """How a task was trained, in a few words."""
    cases = dict(
        zip(provenance.get("datasets", "").split(), provenance.get("training_cases", "").split(), strict=False)
    )
    found = [
        (cases.get(name), "cases"),
        (provenance.get("steps"), "steps"),
        (provenance.get("spadunet"), "by spadunet"),
    ]
    words = [f"{label} {value}" if label.startswith("by") else f"{value} {label}" for value, label in found if value]
    return ", ".join(words) or "not recorded"


def add(options: argparse.Namespace) -> int:
    """Copy tasks of another model."""
    from ..model import read_model_record
    from ..sharing.plugins import copy_tasks
    from ..training.status import require_free

    require_free(options.model)  # that run will write its model anew, without what it does not know of
    record = read_model_record(options.source)
    names = full_names(options.tasks, options.source, record.all_tasks)
    copy_tasks(options.source, options.model, names, dry_run=options.dry_run)
    say(options, "added to %s: %s, from %s", options.model, ", ".join(names), options.source)
    return 0


def remove(options: argparse.Namespace) -> int:
    """Take tasks away."""
    from ..model import check_files
    from ..model_changes import remove_task
    from ..sharing.plugins import require_task

    record = check_files(options.model)
    names = full_names(options.tasks, options.model, record.all_tasks)
    for name in names:
        require_task(options.model, record, name)
    if not options.dry_run:
        for name in names:
            remove_task(options.model, name)
    left = [name for name in record.all_tasks if name not in names]
    after = f"left: {', '.join(left)}" if left else "none is left: a pre-trained backbone, for spadunet_train --init"
    say(options, "removed from %s: %s; %s", options.model, ", ".join(names), after)
    return 0


def export(options: argparse.Namespace) -> int:
    """Write one task into a file."""
    from ..files import sha256_of_file
    from ..model import check_files
    from ..sharing.plugins import export_task

    record = check_files(options.model)
    (name,) = full_names([options.task], options.model, record.all_tasks)
    manifest = export_task(options.model, name, options.output, dry_run=options.dry_run)
    if options.dry_run:
        say(options, "%s: %s", options.output, name)
        return 0
    size = options.output.stat().st_size / 1e6
    log.info("%s: %.2f MB, SHA-256 %s", options.output, size, sha256_of_file(options.output))
    log.info("for models whose backbone has the SHA-256 %s", manifest.backbone_sha256)
    return 0


def import_(options: argparse.Namespace) -> int:
    """Add the task of a file."""
    from ..sharing.plugins import import_task
    from ..training.status import require_free

    require_free(options.model)
    package = import_task(options.file, options.model, dry_run=options.dry_run)
    say(
        options,
        "added to %s: %s (%s), exported by spadunet %s",
        options.model,
        package.manifest.task,
        package.manifest.task_kind,
        package.manifest.spadunet,
    )
    return 0


ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "list": show_tasks,
    "add": add,
    "remove": remove,
    "export": export,
    "import": import_,
}


def full_names(words: Sequence[str], folder: Path, tasks: Sequence[str]) -> list[str]:
    """The tasks of a model that names or numbers mean, each once; the word itself where there is none.

    Raises:
        InputError: if a word may mean several.
    """
    from ..models import find_task

    return list(dict.fromkeys(find_task(tasks, word, asked=word, place=folder) or word for word in words))


def say(options: argparse.Namespace, words: str, *values: object) -> None:
    """A line for the log; of a dry run, that it was one."""
    log.info(words + ("; dry run: nothing was written" if options.dry_run else ""), *values)
