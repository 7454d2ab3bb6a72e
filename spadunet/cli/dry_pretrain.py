"""The dry run of both pre-training commands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .dry_run import begin, bytes_of, show, show_needs, size_text, state_of, table
from .pretraining import PretrainingRun

if TYPE_CHECKING:
    from ..measure import Needs
    from ..pretraining.corpus import Corpus
    from ..pretraining.loop import Stage
    from ..pretraining.sampling import CropRule, ImageBatch

BYTES_PER_PARAMETER = 16
"""float32: the weight, its gradient and AdamW's two moments."""
STORED_BYTES_PER_PARAMETER = 4 + 2 * 12
"""The result, and the checkpoint (weight and two moments) beside the one that it replaces."""


def show_pretraining(
    run: PretrainingRun, make_stage: Callable[[], Stage[ImageBatch]], *, reads: Sequence[str] = ()
) -> int:
    """Print what a run would learn from, what it would write, and what it needs, by a trial step of one image.

    Args:
        make_stage: makes what would learn; it writes nothing unless it is asked to show.
        reads: what else is read.
    """
    from ..training.state import checkpoint_path
    from ..training.status import LOG_FILE

    needs = estimate(run, make_stage())
    if not run.ranks.is_first:
        return 0
    begin(run.command)
    corpus, options, folder = run.corpus, run.options, run.folder
    stored = f"{corpus.folder}: {len(corpus.training)} images to learn from, {len(corpus.held_out)} held out"
    show("reads", [f"{stored}, {size_text(bytes_of([corpus.folder]))}", *reads])
    going_on = "new" if run.done is None else f"gone on with after step {run.done.step}"
    files = [state_of(folder / name) for name in (run.files.result, run.files.manifest)]
    pictures = f"report.html, curves.csv, curves.png, pictures, tensorboard/, {LOG_FILE}"
    show(f"writes into {folder}", [f"{checkpoint_path(folder).relative_to(folder)}: {going_on}", *files, pictures])
    end = [
        f"{options.max_steps} steps" if options.max_steps else "",
        f"{options.max_minutes:g} minutes" if options.max_minutes else "",
    ]
    print(
        f"{run.request['kind']} {run.preset}, {' or '.join(filter(None, end))}, batches of {options.batch_size} crops "
        f"over {run.ranks.world_size} × {options.device}, {options.precision}"
    )
    show("images to learn from, and their share of the draws", corpus_table(corpus, run.rule))
    show_needs(needs, folder)
    return 0


def corpus_table(corpus: Corpus, rule: CropRule) -> list[str]:
    """Number of images by dataset and degree of anisotropy, with the crops of each degree."""
    degrees = sorted({image.da for image in corpus.training})
    counts = Counter((image.dataset, image.da) for image in corpus.training)
    total = sum(image.weight for image in corpus.training)
    rows = []
    for dataset in sorted({image.dataset for image in corpus.training}):
        share = sum(image.weight for image in corpus.training if image.dataset == dataset) / total
        rows.append([dataset, *(str(counts[dataset, da] or "") for da in degrees), f"{100 * share:.1f} %"])
    crops = ["crop", *("×".join(map(str, rule.size_of(da))) for da in degrees), ""]
    return table(["dataset", *(f"DA {da}" for da in degrees), "drawn"], [crops, *rows], "datasets")


def estimate(run: PretrainingRun, stage: Stage[ImageBatch]) -> Needs:
    """Time, memory and disk, from a step of one image on each process."""
    import torch

    from ..measure import Amount, Needs, measure
    from ..pretraining.sampling import load_batches

    options, ranks = run.options, run.ranks
    batch = next(
        iter(
            load_batches(
                run.corpus,
                run.rule,
                batch_size=ranks.world_size,
                seed=options.seed,
                num_steps=1,
                rank=ranks.rank,
                world_size=ranks.world_size,
            )
        )
    )
    is_gpu = ranks.device.type == "cuda"
    if is_gpu:
        torch.cuda.reset_peak_memory_stats(ranks.device)
    trial = measure(stage.learn, batch)
    num_images = options.batch_size // ranks.world_size
    num_parameters = sum(p.numel() for network in stage.networks.values() for p in network.parameters())
    fixed = num_parameters * BYTES_PER_PARAMETER
    how = f"a trial here of a step of one crop of DA {batch.da}"

    def of_batch(peak: float) -> Amount:
        return Amount(value=fixed + max(peak - fixed, 0) * num_images, basis=f"{how}, times {num_images}")

    workers = options.num_workers * trial.resting_bytes
    resting = trial.resting_bytes + workers
    needed = of_batch(trial.peak_bytes - trial.resting_bytes)
    seconds = trial.seconds * num_images
    if options.max_steps is not None:
        left = options.max_steps - (run.done.step if run.done else 0)
        time = Amount(value=left * seconds, basis=f"{left} steps of {seconds:.2g} s, by {how}")
    else:
        time = Amount(value=None, basis="unknown")
    if options.max_minutes is not None:
        left_seconds = max(options.max_minutes * 60 - (run.done.seconds if run.done else 0), 0)
        if time.value is None or left_seconds < time.value:
            time = Amount(
                value=left_seconds, basis=f"{options.max_minutes:g} minutes asked for, steps of {seconds:.2g} s"
            )
    return Needs(
        time=time,
        memory=Amount(
            value=resting + (0 if is_gpu else needed.value or 0),
            basis=f"{needed.basis}; {options.num_workers} processes that make batches; of each process of the run",
        ),
        disk=Amount(
            value=num_parameters * STORED_BYTES_PER_PARAMETER,
            basis=f"{num_parameters / 1e6:.2g} million parameters: result, checkpoint and its successor",
        ),
        device_memory=of_batch(torch.cuda.max_memory_allocated(ranks.device)) if is_gpu else None,
    )
