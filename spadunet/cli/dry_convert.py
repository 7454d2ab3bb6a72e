"""The dry run of the converters of releases."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ..errors import InputError, OutputError
from ..measure import Amount, Needs
from .dry_run import begin, bytes_of, finish, pairing_table, read_headers, show, show_needs, size_text, unknown

if TYPE_CHECKING:
    from ..dataset import RawCase
    from ..preprocessing.estimate import HeaderCase


def show_conversion(
    cases: Sequence[RawCase], write_case: Callable[[RawCase, Path], object], source: Path, folder: Path
) -> int:
    """Print what would be converted.

    Args:
        cases: as `convert.convert` finds them; of label maps, whatever form they have, only the paths are shown.
        write_case: as there.
        folder: of the dataset.

    Raises:
        InputError: if the dataset is there already, or headers show an image to be wrong.
    """
    from dataclasses import replace

    from ..description import DATASET_JSON
    from ..preprocessing.converters.folder import require_new

    require_new(folder)
    begin(Path(sys.argv[0]).name)
    headers, problems = read_headers([replace(case, label_path=None) for case in cases], None)
    paths = [path for case in cases for path in case.paths]
    num_tests = sum(case.label_path is None for case in cases)
    show("reads", [f"{source}: {len(paths)} files, {size_text(bytes_of(paths))}"])
    to = f"{len(cases) - num_tests} cases in imagesTr and labelsTr, {num_tests} in imagesTs, a file a channel"
    show(f"writes into {folder}", [to, f"{DATASET_JSON}: new"])
    num_files = max(len(case.image_paths) for case in cases)
    names = ["image"] if num_files == 1 else [f"channel {number}" for number in range(num_files)]
    show("pairs", pairing_table(cases, headers, names, source))
    show_needs(estimate(cases, headers, write_case), folder)
    return finish(problems)


def estimate(
    cases: Sequence[RawCase], headers: dict[str, HeaderCase], write_case: Callable[[RawCase, Path], object]
) -> Needs:
    """From a trial that converts the case of middle size into the system's temporary folder."""
    from dataclasses import replace

    from ..preprocessing.estimate import Stage, try_stages

    if not headers:
        return unknown("no header could be read")
    found = sorted(headers.values(), key=lambda header: header.num_voxels)
    whole = {case.name: case for case in cases}
    middle = found[len(found) // 2]
    sample = replace(middle, case=whole[middle.case.name])
    try:
        with TemporaryDirectory(prefix="spadunet-") as scratch:
            output = Path(scratch) / "dataset"
            trial = try_stages(
                {"convert": Stage(run=partial(write_to, folder=output, write_case=write_case))}, [sample], output
            )
    except (InputError, OutputError) as error:
        return unknown(f"the trial failed: {str(error).splitlines()[0]}")
    work = sum(header.work(None) for header in found)
    scaled = f"{trial.basis}, scaled by the voxels of all cases"
    return Needs(
        time=Amount(value=trial.seconds("convert", work, 1), basis=scaled),
        memory=Amount(value=trial.memory_bytes("convert", [found[-1].work(None)]), basis=trial.basis),
        disk=Amount(value=work * trial.rates["convert"].disk_bytes_per_voxel, basis=scaled),
    )


def write_to(case: RawCase, *, folder: Path, write_case: Callable[[RawCase, Path], object]) -> None:
    """One case into a dataset's folder."""
    write_case(case, folder)
