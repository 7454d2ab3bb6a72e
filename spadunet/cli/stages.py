"""The stages from a raw dataset to preprocessed cases, shared by the commands that run one or all of them.

Heavy imports stay inside the functions, so that `--help` is instant.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .fine_tuning import place_split, settle_plan
from .options import USUAL_PLAN, parse_spacing
from .recipes import value_text
from .run import log_to_file, write_manifest

if TYPE_CHECKING:
    from ..dataset import Dataset
    from ..fingerprint import Fingerprint
    from ..plan import Plan
    from ..plans.extract import ObservedCase
    from ..preprocessing.integrity import CheckReport
    from ..workers import Workers
    from ..workspace import Workspace

log = logging.getLogger("spadunet")

CHECK_JSON = "check.json"
FINGERPRINT_JSON = "fingerprint.json"
PLAN_JSON = "plan.json"
CASES_FOLDER = "cases"

WORK_MODULE = "spadunet.preprocessing.run"
"""Holds what worker processes do."""
GOES_ON = "the same command goes on from here"


def load_datasets(names: list[str], workspace: Workspace, *, dry_run: bool = False) -> list[Dataset]:
    """The raw datasets that `-d` names."""
    from ..dataset import find_dataset, load_dataset

    datasets = [load_dataset(find_dataset(name, workspace.raw), dry_run=dry_run) for name in names]
    check_names_differ(datasets)
    return datasets


def check_names_differ(datasets: list[Dataset]) -> None:
    """Each dataset has a folder and a task of its own name.

    Raises:
        InputError: if two have the same name.
    """
    names = [dataset.name for dataset in datasets]
    doubles = sorted({name for name in names if names.count(name) > 1})
    if doubles:
        raise InputError(f"-d: {', '.join(doubles)} is given more than once; give each once, under a name of its own")


def check_plan_options(options: argparse.Namespace, datasets: list[Dataset]) -> None:
    """Settle the planner's options by their recipe; refuse wrong ones before any work.

    Raises:
        InputError: if the spacing is none, the patch is too large, or the window is none or fits no channel of a
            dataset.
    """
    from ..plan import MAX_PATCH_VOXELS
    from ..plans.planner import check_window

    settle_plan(options, USUAL_PLAN)
    parse_spacing(options.spacing)
    if options.patch_size is not None and math.prod(options.patch_size) > MAX_PATCH_VOXELS:
        raise InputError(f"--patch-size {value_text(options.patch_size)}: more than {MAX_PATCH_VOXELS} voxels")
    if options.window is not None:
        for dataset in datasets:
            check_window(tuple(options.window), dataset.channel_names)


def work_on_datasets(
    options: argparse.Namespace,
    command: str,
    work: Callable[[Dataset, Path], bool],
    *,
    workers: Workers,
    files: Sequence[str],
    dry_run: Callable[[list[Dataset], list[Path], argparse.Namespace, str, Sequence[str]], int],
    first: Callable[[list[Dataset], list[Path]], None] = lambda datasets, folders: None,
) -> int:
    """Work on each dataset that `-d` names, with a log and a manifest in its folder below preprocessed/.

    With `--dry-run`, say what would be done.

    Args:
        command: the command's name.
        work: gets a raw dataset and that folder; False if some case failed.
        workers: who will be needed; they are started while this process still loads libraries.
        files: what it writes into that folder.
        dry_run: `dry_datasets.show_datasets`.
        first: what can be refused for all datasets before the first is worked on; reads no voxels in a dry run.

    Returns:
        1 if some case failed, else 0.
    """
    from ..files import require_writable
    from ..workers import start_early
    from ..workspace import find_workspace

    started = time.time()
    workspace = find_workspace(options.data)
    datasets = load_datasets(options.dataset, workspace, dry_run=options.dry_run)
    folders = [workspace.preprocessed / dataset.name for dataset in datasets]
    if not options.dry_run:
        start_early(workers.at_most(max(len(dataset.cases) for dataset in datasets)), WORK_MODULE)
    for folder in folders:
        require_writable(folder, dry_run=options.dry_run)
        if not options.dry_run:
            log_to_file(folder / f"{command}.log")
    first(datasets, folders)
    if options.dry_run:
        return dry_run(datasets, folders, options, command, files)
    is_whole = True
    for dataset, folder in zip(datasets, folders, strict=True):
        is_whole &= work(dataset, folder)
        write_manifest(
            folder / f"{command}.json",
            command,
            options,
            started=started,
            device="cpu",
            files=[folder / name for name in files],
        )
    return 0 if is_whole else 1


def check(
    datasets: Sequence[Dataset], folders: Sequence[Path], workers: Workers, *, again: bool = True
) -> dict[str, list[ObservedCase]]:
    """Read every case of every dataset, write all findings, show warnings and repairs, and raise if there is an error.

    Args:
        folders: where check.json and check.csv of each dataset go.
        again: read a dataset even if no file has changed since it was found sound.

    Returns:
        By dataset that was read, what its fingerprint is made of.

    Raises:
        InputError: with all errors, a line each.
    """
    from ..files import write_text
    from ..plans.extract import observe_case
    from ..preprocessing.integrity import check_and_observe
    from ..preprocessing.preprocess import orient_and_crop
    from ..record import write_record

    errors: list[str] = []
    observed = {}
    for dataset, folder in zip(datasets, folders, strict=True):
        earlier = None if again else earlier_check(dataset, folder / CHECK_JSON)
        if earlier is not None:
            log.info("%s: no file has changed since it was checked:\n%s", dataset.name, earlier.to_table())
            continue
        observe = partial(observe_case, orient=orient_and_crop, ignore_id=dataset.labels.ignore_id)
        report, observed[dataset.name] = check_and_observe(dataset, observe, workers=workers)
        write_record(folder / CHECK_JSON, report)
        write_text((folder / CHECK_JSON).with_suffix(".csv"), report.to_csv())
        log.info(report.to_table())
        errors += [finding.text for finding in report.of("error")]
    if errors:
        raise InputError("\n".join(errors))
    return observed


def earlier_check(dataset: Dataset, path: Path) -> CheckReport | None:
    """The report of an earlier check that found no error in the same files, if there is one."""
    from ..preprocessing.integrity import CheckReport, digest_of_sources
    from ..record import read_record

    try:
        report = read_record(path, CheckReport, remedy="")
    except InputError:
        return None
    is_valid = not report.of("error") and report.source_digest == digest_of_sources(dataset)
    return report if is_valid else None


def fingerprint(
    dataset: Dataset, folder: Path, workers: Workers, observed: Sequence[ObservedCase] | None = None
) -> Fingerprint:
    """Fingerprint of a dataset; the stored one if no file has changed since.

    Args:
        observed: what the check saw of each case; None where it has to be read.
    """
    from ..fingerprint import read_current
    from ..plans.extract import digest_of_dataset, extract_fingerprint, summarise_cases
    from ..preprocessing.integrity import read_checked
    from ..preprocessing.memory import memory_to_read
    from ..preprocessing.preprocess import orient_and_crop
    from ..record import write_record

    path = folder / FINGERPRINT_JSON
    if stored := read_current(path, dataset.name, partial(digest_of_dataset, dataset)):
        return stored
    if observed is not None:
        found = summarise_cases(dataset, observed)
    else:
        read = partial(read_checked, labels=dataset.labels, num_channels=len(dataset.channel_names))
        found = extract_fingerprint(
            dataset, read=read, orient=orient_and_crop, workers=workers, memory_of=memory_to_read
        )
    write_record(path, found)
    log.info("%s: fingerprint of %d cases: %s", dataset.name, len(found.cases), path)
    return found


def plan(dataset: Dataset, found: Fingerprint, folder: Path, options: argparse.Namespace) -> Plan:
    """Make and write the plan."""
    from ..plans.planner import make_plan
    from ..record import write_record

    window = None if options.window is None else tuple(options.window)
    made = make_plan(
        found,
        dataset.channel_names,
        dataset.labels,
        optional_channels=dataset.optional_channels,
        target_spacing=parse_spacing(options.spacing),
        window=window,
        memory_gb=options.memory_gb,
        patch_size_voxels=None if options.patch_size is None else tuple(options.patch_size),
    )
    path = folder / PLAN_JSON
    write_record(path, made)
    place_split(options.recipe, dataset, folder)
    log.info(
        "%s: spacing %s mm, degree of anisotropy %d, patch %s voxels: %s",
        dataset.name,
        made.target_spacing_mm,
        made.degree_of_anisotropy,
        made.patch_size_voxels,
        path,
    )
    return made


def preprocess(dataset: Dataset, made: Plan, folder: Path, workers: Workers, device: str) -> bool:
    """Store every case; False if some failed."""
    from ..preprocessing.run import preprocess_dataset

    cases = (folder / CASES_FOLDER).absolute()
    summary = preprocess_dataset(dataset, made, cases, workers=workers, device=device)
    log.info("%s: %d cases made, %d kept: %s", dataset.name, summary.num_made, summary.num_kept, folder)
    for problem in summary.problems:
        log.error("failed: %s", problem)
    return not summary.problems


def read_plan(folder: Path, dataset: Dataset) -> Plan:
    """The plan of a preprocessed dataset.

    Raises:
        InputError: if there is none, or dataset.json has other channels or labels by now.
    """
    from ..plan import Plan
    from ..record import read_record

    plan = read_record(folder / PLAN_JSON, Plan, remedy="run spadunet_plan_and_preprocess first")
    found = (dataset.channel_names, dataset.optional_channels, dataset.labels)
    if (plan.channel_names, plan.optional_channels, plan.labels) != found:
        raise InputError(
            f"{folder / PLAN_JSON}: has other channels or labels than {dataset.folder}/dataset.json; "
            "run spadunet_plan_and_preprocess again"
        )
    return plan
