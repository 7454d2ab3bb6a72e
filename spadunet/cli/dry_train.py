"""The dry run of `spadunet_train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, OutputError
from .dry_run import begin, bytes_of, show, show_needs, size_text, state_of, table, unknown
from .stages import CASES_FOLDER

if TYPE_CHECKING:
    from ..training.prepare import PreparedRun, TrainingDataset
    from ..training.state import Progress


def show_training(
    run: PreparedRun, folder: Path, done: Progress | None, *, model_folder: Path, num_runs: int = 1
) -> int:
    """Print what a run would learn from, what it would write, and what it needs.

    Args:
        folder: of the run.
        done: how far the run has come that this one would go on with.
        num_runs: how many there would be of its kind, this one among them.
    """
    from ..model import BACKBONE_FILE, MODEL_JSON
    from ..network.adapters import describe_share
    from ..training.estimate import estimate_training
    from ..training.init import INIT_COVERAGE_JSON
    from ..training.splits import SPLITS_JSON
    from ..training.state import checkpoint_path

    begin("spadunet_train")
    show("reads", [describe_cases(member) for member in run.datasets])
    going_on = "new" if done is None else f"gone on with after step {done.step}"
    written = [
        f"{checkpoint_path(folder).relative_to(folder)}: {going_on}",
        *([INIT_COVERAGE_JSON] if run.coverage is not None else []),
        "report.html, curves.csv, curves.png, tensorboard/, training.log, spadunet_train.json",
        *(["validation.csv"] if any(run.watched) and run.options.validate_every != 0 else []),
        *(
            f"validation/{member.dataset.name}/"
            for member, held in zip(run.datasets, run.held_out, strict=True)
            if held
        ),
    ]
    splits = [member.folder / SPLITS_JSON for member in run.datasets if run.request["fold"] not in ("all", "split")]
    show(f"writes into {folder}", [*written, *(f"{path}: new" for path in splits if not path.is_file())])
    tasks = [f"tasks/{member.dataset.name}/" for member in run.datasets]
    if run.adds_to is None:
        show(f"model in {model_folder}", [*(state_of(model_folder / it) for it in (MODEL_JSON, BACKBONE_FILE)), *tasks])
    else:
        show(f"adds to the tasks of {run.adds_to}, in {model_folder}", [MODEL_JSON, *tasks])
    if run.coverage is not None:
        show(f"weights from {run.coverage.source}", run.coverage.lines())
    options = run.options
    print(f"network {run.backbone} {run.preset}, fold {run.request['fold']}, {options.device}, {options.precision}")
    for member, adapter in zip(run.datasets, run.network.adapters, strict=False):
        print(f"adapter of {member.dataset.name}: {options.adapter}, {describe_share(adapter, run.network.backbone)}")
    if num_runs > 1:
        print(f"{num_runs} runs like this one follow each other, each with a seed and a folder of its own")
    for index, member in enumerate(run.datasets):
        show(f"pairs of {member.dataset.name}", case_table(run, index))
    try:
        needs = estimate_training(run, done)
    except OutputError as error:
        needs = unknown(str(error))
    show_needs(needs, folder)
    return 0


def describe_cases(member: TrainingDataset) -> str:
    """Where a dataset's stored cases lie, and how large they are."""
    folder = member.folder / CASES_FOLDER
    return f"{folder}: {size_text(bytes_of([folder]))} of cases"


def case_table(run: PreparedRun, index: int) -> list[str]:
    """Every case of a dataset: its patient, its part in the fold, and its stored arrays; the held-out ones first."""
    from ..image import format_spacing
    from ..preprocessing.store import open_case

    member, held_out = run.datasets[index], run.held_out[index]
    parts = {"validate": list(held_out), "train": [case.name for case in run.tasks[index].cases]}
    patients = member.dataset.patients
    rows = []
    for part, names in parts.items():
        for name in names:
            files = f"{name}.b2nd, {name}.classes.b2nd"
            try:
                geometry = open_case(member.folder / CASES_FOLDER, name).header.geometry
            except InputError:  # validation reads the raw image
                rows.append([name, patients[name], part, "not stored", "", "", ""])
                continue
            grid = ["×".join(map(str, geometry.shape)), format_spacing(geometry.spacing_mm), str(geometry.da)]
            rows.append([name, patients[name], part, *grid, files])
    sides = ", ".join(
        f"{len(names)} {part} ({len({patients[name] for name in names})} patients)" for part, names in parts.items()
    )
    patch = "×".join(map(str, member.plan.patch_size_voxels))
    columns = ["case", "patient", "part", "voxels", "spacing (mm)", "anisotropy", "image and label files"]
    return [f"{sides}; patch {patch} voxels", *table(columns, rows, "cases")]
