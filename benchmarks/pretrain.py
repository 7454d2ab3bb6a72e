"""Both stages of pre-training, as their commands run: images a second, and the share of time that they wait for crops.

    python benchmarks/pretrain.py CORPUS [--preset tiny] [--backbone spad_vit] [--workers 0 1 2] [--steps 20]

CORPUS is a folder that spadunet_index made. Each line is a run of --steps steps in a process of its own, on a GPU where
there is one; the first steps, in which libraries load and workers begin, are left out. A batch has --batch-size images
of one degree of anisotropy.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from spadunet.training.curves import CSV_FILE, read_rows

COMMAND = "import sys; from spadunet.cli.{module} import main; main(sys.argv[1:])"
LEFT_OUT = 4
"""Steps at the beginning of a run."""


def run(module: str, folder: Path, corpus: Path, num_workers: int, options: argparse.Namespace, *more: object) -> Path:
    """Run a command for some steps; the folder of its result."""
    words = [
        *("-c", corpus, "-o", folder, "--preset", options.preset, "--max-steps", options.steps + LEFT_OUT),
        *("--batch-size", options.batch_size, "--num-workers", num_workers, "-device", options.device, *more),
    ]
    command = [sys.executable, "-c", COMMAND.format(module=module), *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{module}: exit code {done.returncode}\n{done.stdout}")
    return folder


def describe(folder: Path, batch_size: int) -> str:
    """Images a second and share of time spent waiting, after the first steps."""
    rows = read_rows(folder / CSV_FILE)[LEFT_OUT:]
    seconds = [batch_size / float(row["samples_per_second"]) for row in rows]
    waited = sum(float(row["waiting_share"]) * taken for row, taken in zip(rows, seconds, strict=True))
    return f"{batch_size * len(rows) / sum(seconds):8.2f} images/s  waiting {100 * waited / sum(seconds):5.1f} %"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--backbone", default="spad_vit")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for num_workers in options.workers:
            tokenizer = run(
                "pretrain_tokenizer", Path(name) / f"tokenizer{num_workers}", options.corpus, num_workers, options
            )
            print(f"tokenizer {options.preset}, {num_workers} workers: {describe(tokenizer, options.batch_size)}")
            backbone = run(
                "pretrain_mim",
                Path(name) / f"mim{num_workers}",
                options.corpus,
                num_workers,
                options,
                *("--backbone", options.backbone, "--tokenizer", tokenizer),
            )
            print(
                f"{options.backbone} {options.preset}, {num_workers} workers: {describe(backbone, options.batch_size)}"
            )


if __name__ == "__main__":
    main()
