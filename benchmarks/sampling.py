"""Augmented crops for pre-training: how many a second, whether whoever learns from them waits, and in how much memory.

    python benchmarks/sampling.py CORPUS [--tokens 8 4] [--workers 0 1 2] [--crops-per-second 20] [--steps 30]

CORPUS is a folder that spadunet_index made; --tokens are those of a crop in plane and in depth (tokenizer 8 4, ViT
10 5). The first table is milliseconds of one core a crop, by degree of anisotropy, and crops a second by number of
worker processes, as fast as they come. The second is the mixed stream against a learner of --crops-per-second: the
share of its time that it waits, and the memory of all processes together. The last line is how long a resumed run looks
for its place in the stream.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path

import blosc2
import torch

from spadunet.pretraining.corpus import Corpus, load_corpus
from spadunet.pretraining.sampling import BatchLoader, CropMaker, CropRule, Draw, draw_batches, load_batches
from spadunet.spacing import MAX_DA

BATCH_SIZE, SEED = 8, 0
MAX_BATCHES = 4000
"""Looked through for batches of a degree."""
PAPER_BATCH_SIZE, PAPER_STEPS = 84, 300_000


def batches_of(corpus: Corpus, rule: CropRule, da: int, number: int) -> Iterator[tuple[Draw, ...]]:
    """The first batches of one degree of anisotropy; fewer where few are drawn."""
    some = itertools.islice(draw_batches(corpus, rule, BATCH_SIZE, SEED), MAX_BATCHES)
    return itertools.islice((batch for batch in some if batch[0].da == da), number)


def crops_per_second(corpus: Corpus, rule: CropRule, da: int, num_workers: int, steps: int) -> float:
    """From the second batch on."""
    parts = batches_of(corpus, rule, da, steps + 1)
    batches = iter(BatchLoader(CropMaker(corpus, rule, SEED), parts, num_workers, BATCH_SIZE))
    next(batches)
    start = time.perf_counter()
    num_crops = sum(len(batch.image) for batch in batches)
    return num_crops / (time.perf_counter() - start)


def core_milliseconds(corpus: Corpus, rule: CropRule, da: int, steps: int) -> float | None:
    """Of one crop, whatever else the machine does meanwhile; None if the degree does not come."""
    maker = CropMaker(corpus, rule, SEED)
    draws = list(itertools.chain.from_iterable(batches_of(corpus, rule, da, steps)))
    start = time.process_time()
    for draw in draws:
        maker.make(draw)
    return (time.process_time() - start) * 1000 / len(draws) if draws else None


def feed(corpus: Corpus, rule: CropRule, num_workers: int, steps: int, speed: float) -> tuple[float, float, float]:
    """Seconds to the first batch, share of the time spent waiting after it, and most memory in GB."""
    start = time.perf_counter()
    loader = load_batches(corpus, rule, batch_size=BATCH_SIZE, seed=SEED, num_steps=steps + 1, num_workers=num_workers)
    batches = iter(loader)
    next(batches)
    first = time.perf_counter() - start
    waited, memory = 0.0, 0.0
    for _ in range(steps):
        time.sleep(BATCH_SIZE / speed)
        before = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - before
        memory = max(memory, memory_gb())
    return first, waited / (waited + steps * BATCH_SIZE / speed), memory


def memory_gb() -> float:
    """Of this process and its workers, what they share counted once (Linux)."""
    pids = [os.getpid(), *(process.pid for process in multiprocessing.active_children())]
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total * 1024 / 1e9


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--tokens", type=int, nargs=2, default=(8, 4), metavar=("PLANE", "DEPTH"))
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--crops-per-second", type=float, default=20.0)
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    blosc2.set_nthreads(1)
    corpus = load_corpus(options.corpus)
    rule = CropRule(tokens_in_plane=options.tokens[0], tokens_in_depth=options.tokens[1])
    print(f"{len(corpus.training)} images, batches of {BATCH_SIZE}, {os.cpu_count()} cores")
    print(
        "                    ms core a crop, crops/s:" + "".join(f"{number:>4} workers" for number in options.workers)
    )
    for da in range(MAX_DA + 1):
        cost = core_milliseconds(corpus, rule, da, options.steps)
        if cost is not None:
            speeds = [crops_per_second(corpus, rule, da, number, options.steps) for number in options.workers]
            size = "×".join(str(side) for side in rule.size_of(da))
            print(f"DA {da}  {size:<12}{cost:18.1f}         " + "".join(f"{speed:12.1f}" for speed in speeds))
    print(f"a learner of {options.crops_per_second:g} crops a second, all degrees")
    for number in options.workers:
        first, share, memory = feed(corpus, rule, number, options.steps, options.crops_per_second)
        print(f"{number} workers: first batch after {first:.1f} s, waits {share:.1%} of the time, {memory:.2f} GB")
    start = time.perf_counter()
    next(draw_batches(corpus, rule, PAPER_BATCH_SIZE, SEED, start_step=PAPER_STEPS))
    print(f"resumed at step {PAPER_STEPS:,} of {PAPER_BATCH_SIZE} crops: found in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
