"""Do heat maps tell where a network looks? The deletion test: removing what counts most must cost most.

    python benchmarks/deletion.py -m MODEL -i organmnist3d.npz --share 20 --seeds 5
    python benchmarks/deletion.py -m MODEL -i Dataset --split test -o deletion.json

Of each study the slices with most weight are set to the darkest value, `--share` percent of them, and as many at random
instead; what counts is how much the probability of the right class falls, or of findings that are there. Slices go by
slabs: those of one patch, which the network weighs as one. Pictures have rows in their place. Whole slabs go, at least
one; of slabs of one weight, any. The share that really went is printed.

The verdict is by a bootstrap interval, over studies, of what top slices cost more than random ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from spadunet.classes import ClassSet
from spadunet.errors import InputError
from spadunet.evaluation.class_references import is_medmnist, labels_file, medmnist_references, read_references
from spadunet.evaluation.compare.statistics import percentile_interval, resampled_means
from spadunet.inference.asked_studies import find_studies
from spadunet.inference.class_sources import ClassSource, open_class_source
from spadunet.inference.predict_classes import ClassAnswer, Focus, Item, Loaded, Views, classify_batch
from spadunet.medmnist import open_medmnist
from spadunet.network.device import choose_device, choose_precision
from spadunet.parallel import map_cases
from spadunet.record import Record, write_record

DARKEST = -1.0
"""What images are normalised to at least."""
RESAMPLES = 2000
DIGITS = 6
"""Of weights that are compared; what differs less is of one weight."""


class Deletion(Record):
    """What the removal of slices cost, as drops of probability."""

    format_version: int = 1
    model: str
    studies: int
    share_percent: float
    """Asked for."""
    removed_percent: float
    """Mean over studies of what went."""
    seeds: int
    top: float
    """Mean over studies."""
    random: float
    """Mean over studies and seeds."""
    random_spread: float
    """Standard deviation over seeds of the mean over studies."""
    more: float
    """What top slices cost more than random ones, mean over studies."""
    interval: tuple[float, float] | None
    """Of it, 95 %; None of too few studies."""

    @property
    def verdict(self) -> str:
        """In words."""
        if self.interval is None:
            return "undecided: too few studies for an interval"
        low, high = self.interval
        if low > 0:
            return "passed: the slices with most weight matter more than random ones"
        if high < 0:
            return "failed: random slices matter more than those with most weight"
        return "undecided: the interval holds 0"


@dataclass(frozen=True, kw_only=True)
class Drops:
    """What removal costs a study; NaN if nothing is known to be right."""

    top: float
    """Of the slabs with most weight."""
    random: list[float]
    """Of random ones, by seed."""
    removed: float
    """Share of its slices, of the top slabs."""


@dataclass(frozen=True, kw_only=True)
class Slab:
    """Slices of a view that the network weighs as one."""

    view: int
    axis: int
    """Of (D, H, W)."""
    first: int
    last: int
    """The one past the last."""
    weight: float


def slabs_of(views: Views, focus: Sequence[Focus]) -> list[Slab]:
    """All slabs of a study: along depth, of a single slice along height."""
    slabs = []
    for number, (view, it) in enumerate(zip(views, focus, strict=True)):
        axis = 0 if view.array.shape[1] > 1 else 1
        weights = it.weights.sum(axis=tuple(other for other in range(3) if other != axis))
        ends = np.minimum(np.arange(len(weights) + 1) * it.patch[axis], it.size[axis]) / it.size[axis]
        borders = np.rint(ends * view.array.shape[1 + axis]).astype(int).tolist()
        slabs += [
            Slab(view=number, axis=axis, first=first, last=last, weight=float(weight))
            for first, last, weight in zip(borders[:-1], borders[1:], weights, strict=True)
            if last > first
        ]
    return slabs


def without(views: Views, slabs: Sequence[Slab]) -> Views:
    """Views with these slabs set to the darkest value."""
    arrays = [view.array.copy() for view in views]
    for slab in slabs:
        arrays[slab.view][(slice(None),) * (1 + slab.axis) + (slice(slab.first, slab.last),)] = DARKEST
    return tuple(replace(view, array=array) for view, array in zip(views, arrays, strict=True))


def right_probability(classes: ClassSet, label: Sequence[int], probabilities: np.ndarray) -> float:
    """Of the right class, or the mean of the findings that are there; NaN where none is known to be."""
    if classes.is_exclusive:
        return float(probabilities[label[0]]) if label[0] >= 0 else float("nan")
    there = probabilities[np.array(label) == 1]
    return float(there.mean()) if len(there) else float("nan")


def drops_of(
    source: ClassSource,
    name: str,
    views: Views,
    label: Sequence[int],
    *,
    share: float,
    seeds: Sequence[int],
    device: torch.device,
    precision: torch.dtype,
) -> Drops:
    """What removal costs a study: of the top slabs, and of as many random ones by seed."""

    def ask(seen: Sequence[Views], *, has_focus: bool = False) -> list[ClassAnswer]:
        batch = [Loaded(item=Item(number=0, name=name), views=(it,)) for it in seen]
        return classify_batch(batch, [source], device, precision, has_focus)

    (whole,) = ask([views], has_focus=True)
    slabs = slabs_of(views, whole.focus[0])
    number = min(max(round(share * len(slabs)), 1), len(slabs))
    drawn = [np.random.default_rng([seed, *name.encode()]).permutation(len(slabs))[:number] for seed in seeds]
    at_random = [[slabs[place] for place in places] for places in drawn]
    top = heaviest(slabs, number, np.random.default_rng(list(name.encode())))
    rests = [ask([without(views, removed)])[0] for removed in (top, *at_random)]
    before = right_probability(source.classes, label, whole.probabilities)
    first, *others = [before - right_probability(source.classes, label, it.probabilities) for it in rests]
    removed = sum(slab.last - slab.first for slab in top) / sum(slab.last - slab.first for slab in slabs)
    return Drops(top=first, random=others, removed=removed)


def heaviest(slabs: Sequence[Slab], number: int, generator: np.random.Generator) -> list[Slab]:
    """So many slabs of most weight, in random order where weights are the same: a map without any tells nothing."""
    mixed = [slabs[place] for place in generator.permutation(len(slabs))]
    return sorted(mixed, key=lambda slab: -round(slab.weight, DIGITS))[:number]


def judge(model: str, drops: Sequence[Drops], share: float) -> Deletion:
    """The means of what removal cost, and how sure their difference is.

    Args:
        drops: of each study, none NaN.
    """
    top = np.array([study.top for study in drops])
    random = np.array([study.random for study in drops])  # (studies, seeds)
    more = top - random.mean(axis=1)
    resampled = np.concatenate(list(resampled_means(more[None, :, None], resamples=RESAMPLES, seed=0)))
    return Deletion(
        model=model,
        studies=len(top),
        share_percent=100 * share,
        removed_percent=100 * float(np.mean([study.removed for study in drops])),
        seeds=random.shape[1],
        top=float(top.mean()),
        random=float(random.mean()),
        random_spread=float(random.mean(axis=0).std(ddof=1)) if random.shape[1] > 1 else 0.0,
        more=float(more.mean()),
        interval=percentile_interval(resampled.ravel(), len(top)),
    )


def delete(
    source: ClassSource, path: Path, *, split: str | None, share: float, num_seeds: int, precision: torch.dtype
) -> Deletion:
    """The deletion test on all labelled studies of a path, as `spadunet_evaluate` reads their labels.

    Raises:
        InputError: if there are none, or one cannot be read.
    """
    studies = find_studies(path, source.plan, split=split)
    if is_medmnist(path):
        references = medmnist_references(open_medmnist(path), split)
    else:
        references = read_references(labels_file(path), split, classes=source.classes)
    label_of = dict(zip(references.studies, references.labels.tolist(), strict=True))
    device = next(source.network.parameters()).device

    def try_study(number: int) -> Drops:
        name = studies.names[number]
        return drops_of(
            source,
            name,
            studies[number],
            label_of[name],
            share=share,
            seeds=range(num_seeds),
            device=device,
            precision=precision,
        )

    numbers = [number for number, name in enumerate(studies.names) if name in label_of]
    outcomes = list(map_cases(try_study, numbers, title="Deleting"))
    if problems := [outcome.problem for outcome in outcomes if outcome.problem]:
        raise InputError("\n".join(problems))
    drops = [outcome.result for outcome in outcomes if outcome.result and not np.isnan(outcome.result.top)]
    if not drops:
        raise InputError(f"{path}: no study has a label, or a finding that is there; nothing can be tested")
    return judge(str(source.folder), drops, share)


def text_of(found: Deletion) -> str:
    """What is printed."""
    ends = "no interval" if found.interval is None else f"95 % {found.interval[0]:.4f} to {found.interval[1]:.4f}"
    return "\n".join(
        [
            f"{found.studies} studies, {found.removed_percent:.0f} % of slices removed: the right probability falls by",
            f"  {found.top:8.4f}  without the slices with most weight",
            f"  {found.random:8.4f}  without random ones (SD {found.random_spread:.4f} over {found.seeds} seeds)",
            f"  {found.more:8.4f}  difference ({ends} over studies)",
            found.verdict,
        ]
    )


def main() -> None:
    """Test, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", type=Path, required=True, help="model folder with a classifier")
    parser.add_argument("-d", "--dataset", help="its task, where it has several classifiers")
    parser.add_argument("-i", "--input", type=Path, required=True, help="MedMNIST file, or folder with a labels.csv")
    parser.add_argument("--split", help="of the studies (default: test if there is one)")
    parser.add_argument("--share", type=float, default=20.0, help="percent of the slices that are removed")
    parser.add_argument("--seeds", type=int, default=5, help="of random slices")
    parser.add_argument("--device", default="auto")
    parser.add_argument("-o", "--output", type=Path, help="where to write the numbers as JSON")
    options = parser.parse_args()
    device = choose_device(options.device)
    source = open_class_source(options.model, options.dataset)
    source.network.to(device)
    found = delete(
        source,
        options.input,
        split=options.split,
        share=options.share / 100,
        num_seeds=options.seeds,
        precision=choose_precision("auto", device),
    )
    print(text_of(found))
    if options.output:
        write_record(options.output, found)


if __name__ == "__main__":
    main()
