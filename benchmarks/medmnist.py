"""Classification of MedMNIST files, trained, predicted and scored: our rows of the paper's Tables 2 and 3.

    python benchmarks/medmnist.py organmnist3d.npz nodulemnist3d.npz --init WEIGHTS --recipe paper-medmnist -o medmnist
    python benchmarks/medmnist.py files/*.npz --init spad_unet_tiny --epochs 5 --input-size 48 -o shortened

For each file, by its path, and each seed: `spadunet_train --task classification`, prediction of the test split, AUC and
ACC by MedMNIST's official definitions. A run leaves a JSON row in rows.jsonl and is not made again; a folder holds rows
of one setting. Files with the name of a dataset of Luo et al. 2024, of whatever size (organmnist3d_64.npz), are printed
in Tables 2's and 3's layout under the paper's rows, the mean over seeds; all files, with their spread, in a table of
their own. benchmarks/medmnist_files.py makes files of the same layout from other images; these compare with no
published number.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from class_runs import Result, add_run_options, digests_of, parse, result_of, train_and_score, training_options
from medmnist_tables import dataset_named, medmnist_tables
from rows import ROWS, add_row, aligned, keep_settings, mean_of, read_lines, run_at_once

from spadunet.files import write_text
from spadunet.medmnist import open_medmnist


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training."""

    file: str
    digest: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.file}_{self.digest[:8]}_{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run and what came of it."""

    run: Run
    settings: dict[str, str]
    kind: str
    """Of the classes, as they are learned."""
    shape: tuple[int, ...]
    """(D, H, W) of an image in the file."""
    result: Result


def make_rows(options: argparse.Namespace, digests: dict[Path, str]) -> None:
    """Make the runs that have no row yet."""
    settings = keep_settings(options)
    paths = {path.stem: path for path in digests}
    runs = [Run(file=path.stem, digest=digest, seed=seed) for seed in options.seeds for path, digest in digests.items()]
    done = {row.run for row in read_rows(options.output / ROWS)}

    def make(run: Run) -> None:
        arguments = [*training_options(options), "--seed", str(run.seed)]
        arguments += ["--recipe", options.recipe] if options.recipe else []
        path, folder = paths[run.file], options.output / "runs" / run.name
        found = train_and_score(path, folder, arguments, device=options.device, keeps=options.keep)
        dataset = open_medmnist(path)
        row = Row(run=run, settings=settings, kind=dataset.classes.kind, shape=dataset.shape, result=found)
        add_row(options.output / ROWS, row)

    run_at_once(make, [run for run in runs if run not in done], options.at_once)


def read_rows(path: Path) -> list[Row]:
    """Rows of earlier runs."""
    return [row_of(values) for values in read_lines(path)]


def row_of(values: dict) -> Row:
    """One line."""
    parts = {"run": Run(**values["run"]), "shape": tuple(values["shape"]), "result": result_of(values["result"])}
    return Row(**{**values, **parts})


def paper_name(file: str) -> str | None:
    """The paper's name of a file, with or without a size behind it; None of any other."""
    try:
        return dataset_named(file.partition("_")[0])
    except ValueError:
        return None


def means_of(rows: Sequence[Row]) -> dict[str, tuple[float | None, float | None]]:
    """AUC and ACC by the paper's names, means over seeds; None where one is not defined in every seed.

    Raises:
        SystemExit: if two files are one dataset.
    """
    found: dict[str, tuple[float | None, float | None]] = {}
    files: dict[str, str] = {}
    for file, own in by_file(rows).items():
        name = paper_name(file)
        if name is None:
            continue
        if name in found:
            raise SystemExit(f"{files[name]} and {file} are both {name} of the paper; give one of them")
        files[name] = file
        found[name] = (
            whole_mean([row.result.auc for row in own]),
            whole_mean([row.result.accuracy for row in own]),
        )
    return found


def by_file(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each file, in the order of their first."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.run.file, []).append(row)
    return found


def whole_mean(values: Sequence[float | None]) -> float | None:
    """None if any is."""
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known and len(known) == len(values) else None


def table(rows: Sequence[Row]) -> str:
    """All files, mean ± standard deviation over seeds."""
    cells = [["file", "kind", "image", "train", "test", "seeds", "AUC", "ACC", "seconds"]]
    for file, own in by_file(rows).items():
        results = [row.result for row in own]
        cells.append(
            [
                file,
                own[0].kind,
                "×".join(str(side) for side in own[0].shape),
                str(results[0].num_train),
                str(results[0].num_test),
                str(len(own)),
                mean_of([result.auc for result in results]),
                mean_of([result.accuracy for result in results]),
                f"{statistics.mean(result.seconds for result in results):.0f}",
            ]
        )
    return "\n".join(aligned(cells))


def text_of(rows: Sequence[Row], title: str) -> str:
    """All that is printed."""
    means = means_of(rows)
    official = [medmnist_tables({title: means})] if means else []
    return "\n\n".join(
        [*official, f"AUC and ACC of the test split, mean ± standard deviation over seeds\n{table(rows)}"]
    )


def main() -> None:
    """Make the rows; report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_options(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--recipe", choices=("paper-medmnist",), help="as in spadunet_train")
    parser.add_argument("--name", default="spadunet", help="what our row is called")
    options = parse(parser)
    options.output.mkdir(parents=True, exist_ok=True)
    digests = digests_of(options.files)
    if not options.report:
        make_rows(options, digests)
    wanted = {(path.stem, digest) for path, digest in digests.items()}
    rows = [row for row in read_rows(options.output / ROWS) if (row.run.file, row.run.digest) in wanted]
    if not rows:
        raise SystemExit(f"{options.output / ROWS}: no rows of these files yet; leave --report out")
    text = text_of(rows, options.name)
    write_text(options.output / "table.txt", text + "\n")
    print(text)


if __name__ == "__main__":
    main()
