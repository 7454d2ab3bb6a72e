"""Adapters on a frozen backbone against full fine-tuning and a linear head, at equal parameters, over seeds.

    python benchmarks/adapters.py files/organmnist3d.npz files/nodulemnist3d.npz --init spad_unet_tiny -o adapters
    python benchmarks/adapters.py A.npz B.npz --init MIM_WEIGHTS --experts 4 --rank 2 --epochs 20 -o adapters

Files have MedMNIST's layout (benchmarks/medmnist_files.py makes such of other images). On each, for each seed, four
runs start from the same weights: `full` learns the encoder and the task, `head` the task alone on the frozen backbone,
`lora` and `experts` also an adapter: K experts of `--rank`, and LoRA of the rank whose number of parameters is nearest,
which must agree within 5 %. Frozen arms may have a rate of their own, `--frozen-rate`.

A run leaves a JSON row in rows.jsonl and is not made again; a folder holds rows of one setting. Prints the mean and the
standard deviation of the test split's AUC and ACC by arm, parameters, seconds an epoch as a multiple of the linear
head's, how much each expert is used and the router's entropy, and whether the mixture is at least as good as LoRA in
four of five seeds.

Of the weights that come with spadunet, the files that they were made of are in spadunet/pretrained/images.csv: give
--raw for what your files were cut from, so that none of its test images is among these.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from class_runs import Result, add_run_options, digests_of, parse, result_of, train_and_score, training_options
from label_efficiency import is_shipped, require_no_shipped_images
from rows import ROWS, add_row, aligned, keep_settings, mean_of, read_lines, run_at_once

from spadunet.dataset import load_dataset
from spadunet.files import write_text
from spadunet.network.adapters import Adapter, count_parameters
from spadunet.network.build import build_backbone
from spadunet.network.classify import encoder_of
from spadunet.training.init import kind_of

ARMS = ("full", "head", "lora", "experts")
MOST_APART = 0.05
"""LoRA's and the mixture's numbers of parameters."""
LEAST_SHARE_OF_SEEDS = 0.8
"""Four of five."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training."""

    file: str
    digest: str
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.file}_{self.digest[:8]}_{self.arm}_{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Ranks of both adapters, and what learns of each arm beside channel map, pooling and linear layer."""

    lora_rank: int
    learning: dict[str, int]
    """Parameters by arm."""
    backbone: int
    """All its parameters."""

    @property
    def apart(self) -> float:
        """How far LoRA's number is from the mixture's, as a share of the latter."""
        return abs(self.learning["lora"] / self.learning["experts"] - 1)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run and what came of it."""

    run: Run
    settings: dict[str, str]
    parameters: int
    result: Result


@cache
def sizes_of(backbone: str, preset: str, rank: int, num_experts: int) -> Sizes:
    """The LoRA that is nearest in its number of parameters to a mixture.

    Raises:
        ValueError: if the nearest is not within 5 %.
    """
    built = build_backbone(backbone, preset)

    def count(rank: int, num_experts: int = 1) -> int:
        return count_parameters(Adapter(built, rank=rank, num_experts=num_experts, has_decoder=False))

    wanted = count(rank, num_experts)
    ranks = range(max(1, rank * num_experts - 2), rank * num_experts + 3)
    lora_rank = min(ranks, key=lambda it: abs(count(it) - wanted))
    encoder = encoder_of(built)
    learning = {"full": count_parameters(encoder), "head": 0, "lora": count(lora_rank), "experts": wanted}
    sizes = Sizes(lora_rank=lora_rank, learning=learning, backbone=count_parameters(built))
    if sizes.apart > MOST_APART:
        raise ValueError(
            f"{num_experts} experts of rank {rank} have {wanted:,} parameters, LoRA of rank {lora_rank} has "
            f"{learning['lora']:,}, more than {MOST_APART:.0%} apart; give another --rank"
        )
    return sizes


def options_of(run: Run, sizes: Sizes, options: argparse.Namespace) -> list[str]:
    """What `spadunet_train` is told of one run; of an option given twice the later counts."""
    arguments = [*training_options(options), "--seed", str(run.seed)]
    if run.arm != "full" and options.frozen_rate:
        arguments += ["--learning-rate", options.frozen_rate]
    if run.arm == "head":
        return [*arguments, "--freeze-backbone"]
    if run.arm == "lora":
        return [*arguments, "--adapter", "lora", "--rank", str(sizes.lora_rank)]
    if run.arm == "experts":
        return [*arguments, "--adapter", "experts", "--rank", str(options.rank), "--experts", str(options.experts)]
    return arguments


def make_rows(options: argparse.Namespace, sizes: Sizes, digests: dict[Path, str]) -> None:
    """Make the runs that have no row yet."""
    settings = keep_settings(options)
    paths = {path.stem: path for path in digests}
    runs = [
        Run(file=path.stem, digest=digest, arm=arm, seed=seed)
        for seed in options.seeds
        for path, digest in digests.items()
        for arm in options.arms
    ]
    done = {row.run for row in read_rows(options.output / ROWS)}

    def make(run: Run) -> None:
        folder = options.output / "runs" / run.name
        arguments = options_of(run, sizes, options)
        found = train_and_score(paths[run.file], folder, arguments, device=options.device, keeps=options.keep)
        row = Row(run=run, settings=settings, parameters=sizes.learning[run.arm], result=found)
        add_row(options.output / ROWS, row)

    run_at_once(make, [run for run in runs if run not in done], options.at_once)


def read_rows(path: Path) -> list[Row]:
    """Rows of earlier runs."""
    return [
        Row(**{**values, "run": Run(**values["run"]), "result": result_of(values["result"])})
        for values in read_lines(path)
    ]


def table(rows: Sequence[Row], sizes: Sizes) -> str:
    """Those arms of one file that have rows."""
    by_arm = {arm: [row for row in rows if row.run.arm == arm] for arm in ARMS}
    of_head = median_seconds(by_arm["head"])
    cells = [["arm", "seeds", "AUC", "ACC", "parameters", "of backbone", "epoch", "experts used", "entropy"]]
    for arm, own in by_arm.items():
        if not own:
            continue
        results = [row.result for row in own]
        seconds = median_seconds(own)
        uses = [result.expert_use for result in results if result.expert_use]
        entropies = [result.router_entropy for result in results if result.router_entropy is not None]
        cells.append(
            [
                arm,
                str(len({row.run.seed for row in own})),
                mean_of([result.auc for result in results]),
                mean_of([result.accuracy for result in results]),
                f"{sizes.learning[arm]:,}",
                f"{sizes.learning[arm] / sizes.backbone:.2%}",
                f"{seconds / of_head:.2f} ×" if seconds and of_head else "-",
                " ".join(f"{statistics.mean(each):.0%}" for each in zip(*uses, strict=True)) or "-",
                f"{statistics.mean(entropies):.3f}" if entropies else "-",
            ]
        )
    return "\n".join(aligned(cells))


def median_seconds(rows: Sequence[Row]) -> float | None:
    """Of an epoch."""
    return statistics.median(row.result.epoch_seconds for row in rows) if rows else None


def verdict(rows: Sequence[Row], other: str = "lora") -> str:
    """In how many seeds the mixture's test AUC is at least the other arm's; seeds without both do not count."""
    auc = {(row.run.arm, row.run.seed): row.result.auc for row in rows if row.result.auc is not None}
    seeds = sorted({seed for arm, seed in auc if arm == "experts"} & {seed for arm, seed in auc if arm == other})
    if not seeds:
        return f"experts at least as good as {other}: no seed has both"
    wins = sum(auc["experts", seed] >= auc[other, seed] for seed in seeds)
    holds = "yes" if wins >= math.ceil(LEAST_SHARE_OF_SEEDS * len(seeds)) else "no"
    gain = mean_of([auc["experts", seed] - auc[other, seed] for seed in seeds])
    few = "" if len(seeds) >= 5 else " (fewer than five seeds)"
    return f"experts at least as good as {other} in AUC: {holds}, in {wins} of {len(seeds)} seeds, by {gain}{few}"


def text_of(rows: Sequence[Row], sizes: Sizes, digests: dict[Path, str], num_experts: int, rank: int) -> str:
    """All that is printed."""
    lines = [
        f"{num_experts} experts of rank {rank}: {sizes.learning['experts']:,} parameters; LoRA of rank "
        f"{sizes.lora_rank}: {sizes.learning['lora']:,}, {sizes.apart:.1%} apart; entropy of equal experts "
        f"{math.log(num_experts):.3f}"
    ]
    for path, digest in digests.items():
        own = [row for row in rows if (row.run.file, row.run.digest) == (path.stem, digest)]
        if own:
            counts = f"{own[0].result.num_train} training and {own[0].result.num_test} test images"
            lines += [
                "",
                f"{path.stem}, {counts}, mean ± standard deviation over seeds",
                table(own, sizes),
                verdict(own),
            ]
    return "\n".join(lines)


def main() -> None:
    """Make the rows; report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_options(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--rank", type=int, default=2, help="of each expert (default: 2)")
    parser.add_argument("--frozen-rate", metavar="RATE", help="learning rate of head, lora and experts")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="to make (default: all)")
    parser.add_argument("--raw", type=Path, nargs="+", default=[], help="what the files were cut from")
    options = parse(parser)
    if options.init is None:
        parser.error("--init: adapters change a frozen backbone; give its weights")
    options.output.mkdir(parents=True, exist_ok=True)
    if is_shipped(options):
        require_no_shipped_images([load_dataset(raw.resolve()) for raw in options.raw])
    kind, digests = kind_of(options.init), digests_of(options.files)
    try:
        sizes = sizes_of(kind.backbone, kind.preset, options.rank, options.experts)
    except ValueError as error:
        parser.error(str(error))
    if not options.report:
        make_rows(options, sizes, digests)
    text = text_of(read_rows(options.output / ROWS), sizes, digests, options.experts, options.rank)
    write_text(options.output / "table.txt", text + "\n")
    print(text)


if __name__ == "__main__":
    main()
