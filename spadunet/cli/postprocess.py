"""spadunet_postprocess: choose by held-out cases how predictions are cleaned, and keep that with the model."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .held_out import find_held_out_cases
from .options import add_worker_options, find_workers
from .predict_options import add_model_options, find_models_asked
from .run import add_data_option, add_dry_run_option, make_parser, run_command

if TYPE_CHECKING:
    from ..evaluation.pairs import Pair
    from ..labels import LabelSet
    from ..workspace import Workspace

EXAMPLES = """\
  spadunet_postprocess --choose -d Hippocampus
  spadunet_postprocess --choose -d Hippocampus -f 0 1 2 3 4       by the held-out cases of five folds, for all of them
  spadunet_postprocess --choose -m model_a model_b
  spadunet_postprocess --show -d Hippocampus
  spadunet_postprocess --forget -m results/Dataset004_Hippocampus/spad_unet_tiny/fold_0
"""

log = logging.getLogger("spadunet")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser(
        "Choose by held-out cases whether predictions gain from keeping the largest component, removing small ones or\n"
        "filling holes. What helps by more than noise is kept with the model and applied by spadunet_predict.",
        EXAMPLES,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--choose", action="store_true", help="try all on the held-out cases that training predicted")
    what.add_argument("--show", action="store_true", help="what the model has, and what it was worth")
    what.add_argument("--forget", action="store_true", help="take it away from the model")
    add_model_options(
        parser,
        "dataset of the model, whose references count (name, number or path)",
        several="which get the same steps",
    )
    add_worker_options(parser)
    add_data_option(parser)
    add_dry_run_option(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options))


def execute(options: argparse.Namespace) -> int:
    """Find the models, and choose, show or forget."""
    from ..inference.choose_rules import choose_rules
    from ..inference.ensemble import check_members
    from ..model import load_model
    from ..model_changes import set_postprocessing
    from ..models import choose_task
    from ..task import Task
    from ..workspace import find_workspace

    workspace = find_workspace(options.data)
    folders = list(dict.fromkeys(find_models_asked(options, workspace)))
    tasks: dict[Path, tuple[str, Task]] = {}
    for folder in folders:
        name = choose_task(folder, options.dataset)
        tasks[folder] = name, load_model(folder).tasks[name]
    if options.choose:
        plans = [task.plan.model_copy(update={"target_spacing_mm": "native"}) for _, task in tasks.values()]
        check_members(plans, [str(folder) for folder in folders])
        labels = plans[0].labels
        pairs = [
            pair for folder, (name, _) in tasks.items() for pair in find_held_out(folder, name, options, workspace)
        ]
        if options.dry_run:
            return show_choice(folders, pairs, labels)
        log.info("post-processing of %s is chosen by %d held-out cases", ", ".join(map(str, folders)), len(pairs))
        chosen = choose_rules(pairs, labels, workers=find_workers(options))
        for folder, (name, _) in tasks.items():
            set_postprocessing(folder, name, chosen)
        for rule in chosen.rules:
            print(f"{rule}: {rule.gain}")
        if not chosen.rules:
            print("nothing helped by more than noise: label maps stay as they are predicted")
        return 0
    for folder, (name, task) in tasks.items():
        if options.forget and not options.dry_run:
            set_postprocessing(folder, name, None)
        rules = task.postprocessing.rules if task.postprocessing else ()
        lines = [f"{rule}: {rule.gain}" for rule in rules] or ["no post-processing"]
        print("\n  ".join([f"{folder}, task {name}{', forgotten' if options.forget else ''}", *lines]))
    return 0


def find_held_out(folder: Path, task: str, options: argparse.Namespace, workspace: Workspace) -> list[Pair]:
    """The predictions of a model's held-out cases, as its training left them, with their references.

    Raises:
        InputError: if there are none, or a file is gone.
    """
    from ..evaluation.pairs import Pair, label_files
    from ..training.board import VALIDATION_FOLDER

    _, cases = find_held_out_cases(folder, task, options.dataset, workspace, dry_run=options.dry_run)
    predictions = label_files(folder / VALIDATION_FOLDER / task)
    pairs = []
    for case in cases:
        assert case.label_path is not None
        if case.name not in predictions:
            raise InputError(
                f"{folder}: its held-out case {case.name} has no prediction in {VALIDATION_FOLDER}/{task}; train again"
            )
        pairs.append(Pair(case.name, predictions[case.name], case.label_path, case.annotated))
    return pairs


def show_choice(folders: Sequence[Path], pairs: Sequence[Pair], labels: LabelSet) -> int:
    """The dry run of `--choose`."""
    from ..model import MODEL_JSON
    from .dry_run import begin, finish, show, table

    begin("spadunet_postprocess")
    rows = [(pair.name, str(pair.prediction), str(pair.reference)) for pair in pairs]
    show("reads", table(("case", "prediction", "reference"), rows, "cases"))
    show("tries", [f"{structure.name}: components, holes" for structure in labels.structures])
    show("writes", [f"{folder}: postprocessing.json of the task, {MODEL_JSON}" for folder in folders])
    return finish([])


if __name__ == "__main__":
    main()
