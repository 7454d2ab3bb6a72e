"""The dry run of the stages from a raw dataset to preprocessed cases."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ..errors import InputError, OutputError
from ..measure import Amount, Needs
from .dry_run import (
    at_once,
    begin,
    bytes_of,
    finish,
    num_working,
    pairing_table,
    read_headers,
    show,
    show_needs,
    size_text,
    state_of,
    unknown,
)
from .options import parse_spacing
from .stages import CASES_FOLDER, CHECK_JSON, FINGERPRINT_JSON, PLAN_JSON, read_plan

if TYPE_CHECKING:
    from ..dataset import Dataset
    from ..fingerprint import Fingerprint
    from ..plan import Plan
    from ..preprocessing.estimate import HeaderCase, Stage

FIXED_BYTES = 100_000
"""Logs, manifests, findings, fingerprint and plan, roughly; cases are what takes room."""


def show_datasets(
    datasets: Sequence[Dataset],
    folders: Sequence[Path],
    options: argparse.Namespace,
    command: str,
    files: Sequence[str],
) -> int:
    """Print what a command would do with each dataset.

    Args:
        folders: that it would write into, one a dataset.
        files: that it would write there.

    Raises:
        InputError: with what the headers show to be wrong.
    """
    begin(command)
    problems: list[str] = []
    for dataset, folder in zip(datasets, folders, strict=True):
        problems += show_dataset(dataset, folder, options, command=command, files=files)
    return finish(problems)


def show_dataset(
    dataset: Dataset, folder: Path, options: argparse.Namespace, *, command: str, files: Sequence[str]
) -> list[str]:
    """Print what would be done with one dataset; a line for each file whose header is wrong."""
    from ..dataset import find_test_cases
    from ..description import DATASET_JSON

    cases = list(dataset.cases)
    tests = find_test_cases(dataset) if CHECK_JSON in files else []
    found, problems = read_headers([*cases, *tests], len(dataset.channel_names))
    print(f"\n{dataset.name}")
    paths = [path for case in (*cases, *tests) for path in case.paths]
    also = f" and {len(tests)} test cases" if tests else ""
    show(
        "reads",
        [
            f"{dataset.folder}: {len(cases)} training cases{also}, {len(paths)} files, {size_text(bytes_of(paths))}",
            *([f"{folder / PLAN_JSON}"] if files == [CASES_FOLDER] else []),
        ],
    )
    plan, kept, needs = estimate(dataset, folder, options, files, found)
    written = [state_of(folder / name, FATES.get(name, "replaced")) for name in files if name != CASES_FOLDER]
    if CHECK_JSON in files:
        written.insert(1, state_of((folder / CHECK_JSON).with_suffix(".csv")))
    if CASES_FOLDER in files:
        also = f", {len(kept)} there already, by the same plan and newer than their files: kept" if kept else ""
        written.append(f"{CASES_FOLDER}/: {len(cases) - len(kept)} cases made, four files each{also}")
    written += [state_of(folder / f"{command}.json"), state_of(folder / f"{command}.log", "added to")]
    if not (dataset.folder / DATASET_JSON).is_file():
        written.append(f"{dataset.folder / DATASET_JSON}: new (what its labels are, the label maps will tell)")
    show(f"writes into {folder}", written)
    if plan is not None:
        show("plan", [describe_plan(plan, is_given=PLAN_JSON not in files)])
    show("pairs", pairing_table([*cases, *tests], found, dataset.channel_names, dataset.folder))
    show_needs(needs, folder)
    return problems


FATES = {FINGERPRINT_JSON: "kept if no file of the dataset has changed since, else replaced"}


def describe_plan(plan: Plan, *, is_given: bool) -> str:
    """Spacing, degree of anisotropy and patch."""
    spacing = plan.target_spacing_mm if plan.is_native else "×".join(f"{side:.4g}" for side in plan.target_spacing_mm)
    patch = "×".join(map(str, plan.patch_size_voxels))
    origin = "" if is_given else "; from headers and a sample, before cropping: the real one may differ a little"
    return f"spacing {spacing} mm, degree of anisotropy {plan.degree_of_anisotropy}, patch {patch} voxels{origin}"


def kept_cases(dataset: Dataset, folder: Path, plan: Plan) -> set[str]:
    """Cases that are stored already, by this plan and after their files were written."""
    from ..preprocessing.store import open_case

    kept = set()
    for case in dataset.cases:
        try:
            stored = open_case(folder, case.name)
        except InputError:
            continue
        made = (folder / f"{case.name}.json").stat().st_mtime
        is_newer = all(path.stat().st_mtime <= made for path in case.paths)
        if is_newer and stored.header.plan_digest == plan.preprocessing_digest():
            kept.add(case.name)
    return kept


def estimate(
    dataset: Dataset, folder: Path, options: argparse.Namespace, files: Sequence[str], headers: dict[str, HeaderCase]
) -> tuple[Plan | None, set[str], Needs]:
    """The plan that cases would be made by, as far as it can be told; cases that are kept; what all stages need.

    Args:
        headers: of training and test cases, by name.
    """
    from ..preprocessing.estimate import samples_of, try_stages

    plan = None if PLAN_JSON in files or CASES_FOLDER not in files else read_plan(folder, dataset)
    names = {case.name for case in dataset.cases}
    found = [header for name, header in headers.items() if name in names]
    kept = kept_cases(dataset, folder / CASES_FOLDER, plan) if plan else set()
    if not found:
        return plan, kept, unknown("no header could be read (zip files are not opened)")
    try:
        with samples_of(found) as samples, TemporaryDirectory(prefix="spadunet-") as scratch:
            output = Path(scratch) / CASES_FOLDER
            if PLAN_JSON in files:
                plan = likely_plan(dataset, folder, options, found, samples)
                kept = kept_cases(dataset, folder / CASES_FOLDER, plan)
            stages = stages_of(dataset, files, plan, output)
            trial = try_stages(stages, samples, output)
    except (InputError, OutputError) as error:
        return plan, kept, unknown(f"the trial failed: {str(error).splitlines()[0]}")
    processes = num_working(options, len(dataset.cases))
    seconds, memory, disk = 0.0, 0.0, float(FIXED_BYTES)
    for name, stage in stages.items():
        todo = {"check": list(headers.values()), "preprocess": [it for it in found if it.case.name not in kept]}
        work = sorted(header.work(stage.plan) for header in todo.get(name, found))
        scale = len(dataset.cases) / len(found)  # zip files count as the mean of the others
        seconds += trial.seconds(name, sum(work) * scale, processes)
        memory = max(memory, trial.memory_bytes(name, work[-processes:]))
        disk += sum(work) * scale * trial.rates[name].disk_bytes_per_voxel
    together = f"{trial.basis}, scaled by the voxels of all cases"
    needs = Needs(
        time=Amount(value=seconds, basis=f"{together}; {', '.join(stages)}; {at_once(processes)}"),
        memory=Amount(value=memory, basis=f"{trial.basis}, scaled by the voxels of the largest; {at_once(processes)}"),
        disk=Amount(value=disk, basis=together if CASES_FOLDER in files else "a few small files"),
    )
    return plan, kept, needs


def stages_of(dataset: Dataset, files: Sequence[str], plan: Plan | None, output: Path) -> dict[str, Stage]:
    """What the command runs for each case."""
    from ..plans.extract import extract_case, observe_case
    from ..preprocessing.estimate import Stage
    from ..preprocessing.integrity import check_case, read_checked
    from ..preprocessing.preprocess import orient_and_crop
    from ..preprocessing.run import preprocess_case

    labels, num_channels = dataset.labels, len(dataset.channel_names)
    read = partial(read_checked, labels=labels, num_channels=num_channels)
    stages = {}
    ignore_id = labels.ignore_id
    if CHECK_JSON in files:
        look = partial(observe_case, orient=orient_and_crop, ignore_id=ignore_id)
        stages["check"] = Stage(run=partial(check_case, labels=labels, num_channels=num_channels, observe=look))
    elif FINGERPRINT_JSON in files:
        stages["fingerprint"] = Stage(run=partial(extract_case, read=read, orient=orient_and_crop, ignore_id=ignore_id))
    if CASES_FOLDER in files:
        assert plan is not None
        stages["preprocess"] = Stage(run=partial(preprocess_case, plan=plan, folder=output), plan=plan)
    return stages


def likely_plan(
    dataset: Dataset,
    folder: Path,
    options: argparse.Namespace,
    found: Sequence[HeaderCase],
    samples: Sequence[HeaderCase],
) -> Plan:
    """The plan that would be made: of the fingerprint that is there, else of headers and the samples' intensities."""
    from ..plans.planner import make_plan

    return make_plan(
        stored_fingerprint(dataset, folder) or likely_fingerprint(dataset, found, samples),
        dataset.channel_names,
        dataset.labels,
        optional_channels=dataset.optional_channels,
        target_spacing=parse_spacing(options.spacing),
        window=None if options.window is None else tuple(options.window),
        memory_gb=options.memory_gb,
        patch_size_voxels=None if options.patch_size is None else tuple(options.patch_size),
    )


def stored_fingerprint(dataset: Dataset, folder: Path) -> Fingerprint | None:
    """The fingerprint that is there, if it is of the same cases and newer than their files."""
    from ..fingerprint import Fingerprint
    from ..record import read_record

    path = folder / FINGERPRINT_JSON
    try:
        stored = read_record(path, Fingerprint, remedy="")
    except InputError:
        return None
    newest = max(file.stat().st_mtime for case in dataset.cases for file in case.paths)
    is_same = [facts.name for facts in stored.cases] == sorted(case.name for case in dataset.cases)
    return stored if is_same and newest <= path.stat().st_mtime else None


def likely_fingerprint(dataset: Dataset, found: Sequence[HeaderCase], samples: Sequence[HeaderCase]) -> Fingerprint:
    """Shapes and spacings of all headers, before cropping, and intensities of the samples."""
    from ..parallel import attempt
    from ..plans.extract import extract_case, summarise_cases
    from ..preprocessing.integrity import read_checked
    from ..preprocessing.preprocess import orient_and_crop

    read = partial(read_checked, labels=dataset.labels, num_channels=len(dataset.channel_names))
    extract = partial(extract_case, read=read, orient=orient_and_crop, ignore_id=dataset.labels.ignore_id)
    outcomes = [attempt(extract, sample.case) for sample in samples]
    observed = [outcome.result for outcome in outcomes if outcome.result is not None]
    if not observed:
        raise InputError(str(outcomes[0].problem))
    sampled = summarise_cases(dataset, observed, source_digest="")
    return sampled.model_copy(update={"cases": tuple(header.facts for header in found)})
