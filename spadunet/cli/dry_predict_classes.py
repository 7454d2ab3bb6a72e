"""The dry run of `spadunet_predict` with a task that classifies."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from ..errors import InputError, OutputError
from ..measure import Amount, Needs, measure
from .dry_run import (
    begin,
    bytes_of,
    finish,
    pairing_table,
    read_headers,
    show,
    show_needs,
    size_text,
    state_of,
    unknown,
)

if TYPE_CHECKING:
    from .asked_classes import AskedClasses

BYTES_A_NUMBER = 20
"""Of predictions.csv."""
HEAT_BYTES_A_VOXEL = 0.05
"""Of compressed heat maps, which are constant over each patch, and a picture of 100 kB beside each."""
PICTURE_BYTES = 1e5


def show_classes(options: argparse.Namespace, asked: AskedClasses) -> int:
    """Print which studies would be predicted, by which model, and what that needs.

    Raises:
        InputError: with what the headers show to be wrong.
    """
    from ..inference.heat_maps import HEAT_FOLDER
    from ..inference.studies import FileStudies

    begin("spadunet_predict")
    studies, start, classes = asked.studies, asked.start, asked.sources[0].classes
    num_views = sum(len(studies.view_names(number)) for number in range(len(studies.names)))
    files = [options.input]
    cases = []
    if isinstance(studies, FileStudies):
        cases = [view for study in studies.studies for view in study.views]
        files = [path for case in cases for path in case.paths]
    show(
        "reads",
        [
            f"{options.input}: {len(studies.names)} studies, {num_views} images, {size_text(bytes_of(files))}",
            *(f"{it.folder}: task {it.task}, {classes.kind}: {', '.join(classes.names)}" for it in asked.sources),
        ],
    )
    state = [f"{len(asked.todo)} to be predicted", *([f"{len(start.kept)} kept"] if start.kept else [])]
    written = [state_of(options.output / "predictions.csv") + f" ({', '.join(state)})"]
    written += [state_of(options.output / name) for name in ("classes.json", "spadunet_predict.json")]
    if options.heat_maps:
        written.append(f"{HEAT_FOLDER}/: a NIfTI and a picture for each of {num_views} images")
    show(f"writes into {options.output}", [*written, state_of(options.output / "spadunet_predict.log", "added to")])
    problems: list[str] = []
    if cases:
        order = studies.order if isinstance(studies, FileStudies) else None
        names = order.names if order else asked.sources[0].plan.channel_names
        headers, problems = read_headers(cases, len(names))
        show("pairs", pairing_table(cases, headers, names, options.input, label=None))
    try:
        needs = estimate(options, asked)
    except (InputError, OutputError) as error:
        needs = unknown(f"the trial failed: {str(error).splitlines()[0]}")
    show_needs(needs, options.output)
    return finish(problems)


def estimate(options: argparse.Namespace, asked: AskedClasses) -> Needs:
    """The first study that can be read through the first network, times studies and models."""
    from ..inference.predict_classes import predict_studies

    if not asked.todo:
        nothing = Amount(value=0.0, basis="there is nothing to do")
        return Needs(time=nothing, memory=nothing, disk=nothing)

    def try_study() -> int:
        outcomes = predict_studies(
            asked.studies,
            asked.todo[:1],
            asked.sources,
            device=asked.device,
            precision=asked.precision,
            has_focus=options.heat_maps,
        )
        answer = next(outcomes)
        if answer.result is None:
            raise InputError(answer.problem or "")
        return sum(math.prod(view.array.shape[1:]) for view in answer.result.views[0])

    cost = measure(try_study)
    number = len(asked.todo)
    heat = (HEAT_BYTES_A_VOXEL * cost.result + PICTURE_BYTES) if options.heat_maps else 0.0
    outputs = asked.sources[0].classes.num_outputs
    return Needs(
        time=Amount(value=number * cost.seconds, basis=f"{number} studies of {cost.seconds:.2g} s, by the first one"),
        memory=Amount(value=cost.peak_bytes, basis="the first study alone; more where several fit into a batch"),
        disk=Amount(value=number * (BYTES_A_NUMBER * (outputs + 2) + heat), basis="by the number of studies"),
    )
