"""Which crops make a batch (Luo et al. 2024, appendix C): drawn by weight, gathered by degree of anisotropy.

Everything is drawn from (seed, number of the draw), so that a run can resume anywhere, and any number of ranks and
workers sees the same stream.
"""

from __future__ import annotations

import itertools
import logging
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import InputError, OutputError
from ..network.vit import PATCH_SIZE
from ..spacing import MAX_DA, Shape
from ..training.workers import begin_worker, end_threads
from .corpus import Corpus, CorpusImage
from .crops import change_intensities, draw_intensities, place_crop, read_crop
from .rounds import ImageTable, degrees_of_anisotropy, draw_round

MAX_READ = 1.5
"""Slices that are read for a crop at most, as a share of the rule's base depth."""
BATCHES_AHEAD = 2
"""Batches that workers make ahead of the one in use."""

log = logging.getLogger("spadunet")


@dataclass(frozen=True, kw_only=True)
class CropRule:
    """How large crops are, in tokens of 16 voxels: 8 and 4 for the tokenizer, 10 and 5 for the ViT."""

    tokens_in_plane: int
    tokens_in_depth: int

    @property
    def side(self) -> int:
        """Height and width of every crop in voxels."""
        return self.tokens_in_plane * PATCH_SIZE

    @property
    def base_depth(self) -> int:
        """Slices of a crop at DA 0."""
        return self.tokens_in_depth * PATCH_SIZE

    def size_of(self, da: int) -> Shape:
        """Size (D, H, W) of the crops of a degree of anisotropy: half the slices for each; one slice for 2D images."""
        return 1 if da >= MAX_DA else max(self.base_depth >> da, 1), self.side, self.side


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One crop to be made."""

    number: int
    """Position in the endless stream of draws: the key of every random choice that is made for this crop."""
    image: int
    """Position in `corpus.training`."""
    da: int
    """Of the scaled spacing; largest for an image of one slice."""
    scale_plane: float
    """Stored voxels that a voxel of the crop spans, along height and width; above 1 the crop sees more."""
    scale_depth: float
    """As `scale_plane`, along depth."""


def generator_of(seed: int, number: int, purpose: str) -> np.random.Generator:
    """The random numbers of one purpose ("crop", "mask" …) for draw `number`, whoever asks and whenever."""
    return np.random.default_rng([seed, number, zlib.crc32(purpose.encode())])


def draw_batches(
    corpus: Corpus, rule: CropRule, batch_size: int, seed: int, *, start_step: int = 0
) -> Iterator[tuple[Draw, ...]]:
    """The endless stream of global batches, each of one degree of anisotropy, from a step on.

    Images are drawn by weight, with replacement, and wait with others of their DA until a batch of them is full. What
    waits at the end of a round stays for the next.
    """
    table = ImageTable.of(corpus)
    waiting = np.empty((5, 0))
    step = 0
    for round_number in itertools.count():
        drawn = np.concatenate(
            [waiting, draw_round(table, rule.side, round_number, generator_of(seed, round_number, "round"))], axis=1
        )
        full, left = [], []
        for da in range(MAX_DA + 1):
            bucket = np.flatnonzero(drawn[2] == da)
            num_full = len(bucket) // batch_size * batch_size
            full.append(bucket[:num_full].reshape(-1, batch_size))
            left.append(bucket[num_full:])
        waiting = drawn[:, np.concatenate(left)]
        batches = np.concatenate(full)  # (num_batches, batch_size) places in drawn
        batches = batches[np.argsort(batches[:, -1])]  # by the draw that filled them
        for batch in batches[max(start_step - step, 0) :]:
            yield tuple(
                Draw(number=int(number), image=int(image), da=int(da), scale_plane=scale_plane, scale_depth=scale_depth)
                for number, image, da, scale_plane, scale_depth in drawn[:, batch].T.tolist()
            )
        step += len(batches)


@dataclass(frozen=True, kw_only=True)
class ImageBatch:
    """This rank's part of a global batch: augmented crops of one degree of anisotropy."""

    da: int
    image: Tensor
    """(B, 3, D, H, W) float32 in [-1, 1]. Grey is repeated without being copied: never write into it."""
    names: tuple[str, ...]
    """Keys of the images."""
    numbers: tuple[int, ...]
    """`Draw.number` of each crop."""
    unreadable: tuple[str, ...] = ()
    """Keys of images that should have been read, and could not."""


@dataclass(frozen=True, kw_only=True)
class Crop:
    """What a worker hands over."""

    draw: Draw
    image: Tensor
    """(1 or 3, D, H, W) float32 in [-1, 1]."""
    name: str
    unreadable: dict[str, str]
    """Images that should have been read, by key, and why they could not."""


class CropMaker(Dataset):
    """The crop of a draw, for any draw."""

    def __init__(self, corpus: Corpus, rule: CropRule, seed: int):
        self.corpus, self.rule, self.seed = corpus, rule, seed
        self.images = corpus.training
        table = ImageTable.of(corpus)
        self.das = np.where(table.num_slices == 1, MAX_DA, degrees_of_anisotropy(table.ratio))

    def __getitem__(self, draw: Draw) -> Crop | InputError:
        """As `make`; an error is handed over, since one that is raised loses its line on the way."""
        try:
            return self.make(draw)
        except InputError as error:
            return error

    def make(self, draw: Draw) -> Crop:
        """Read and augment.

        An image that cannot be read is replaced by another, drawn from the draw's number, so that all ranks and every
        resumed run agree: of the same DA, at scale 1; where none of these is left either, of another DA, whose slices
        are taken as if they lay as far apart as the batch's.

        Raises:
            InputError: if no image of the corpus can be read any more.
        """
        unreadable: dict[str, str] = {}
        for image, scales in self.candidates(draw):
            placement = place_crop(
                image, self.rule.size_of(draw.da), scales, generator_of(self.seed, draw.number, "crop")
            )
            try:
                crop = read_crop(self.corpus, image, placement, int(MAX_READ * self.rule.base_depth))
            except InputError as error:
                unreadable[image.key] = str(error)
                continue
            crop = change_intensities(crop, draw_intensities(generator_of(self.seed, draw.number, "intensity")))
            return Crop(draw=draw, image=crop, name=image.key, unreadable=unreadable)
        raise InputError(f"{self.corpus.folder}: none of its {len(self.images)} images can be read any more")

    def candidates(self, draw: Draw) -> Iterator[tuple[CorpusImage, tuple[float, float, float]]]:
        """Images for a draw, best first, and the scales (depth, height, width) to read them at."""
        yield self.images[draw.image], (draw.scale_depth, draw.scale_plane, draw.scale_plane)
        others = generator_of(self.seed, draw.number, "replacement").permutation(len(self.images))
        is_same_da = self.das[others] == draw.da
        for index in np.concatenate([others[is_same_da], others[~is_same_da]]):
            if index != draw.image:
                yield self.images[index], (1.0, 1.0, 1.0)


class BatchLoader:
    """Batches of one rank, made ahead by worker processes."""

    def __init__(self, maker: CropMaker, parts: Iterator[tuple[Draw, ...]], num_workers: int, part_size: int):
        self.part_size = part_size
        self.unreadable: dict[str, str] = {}
        """Images that could not be read so far, by key, and why."""
        self.crops: DataLoader[Crop | InputError] = DataLoader(
            maker,
            batch_size=None,
            sampler=itertools.chain.from_iterable(parts),
            num_workers=num_workers,
            prefetch_factor=math.ceil(BATCHES_AHEAD * part_size / num_workers) if num_workers else None,
            worker_init_fn=begin_crop_worker,
        )

    def __iter__(self) -> Iterator[ImageBatch]:
        """The batches, once.

        Raises:
            InputError: if no image of the corpus can be read any more.
            OutputError: if a worker process dies.
        """
        if self.crops.num_workers:
            end_threads()
        crops = iter(self.crops)
        try:
            while part := [self.checked(crop) for crop in itertools.islice(crops, self.part_size)]:
                yield join(part)
        except (RuntimeError, OSError, EOFError) as error:
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise OutputError(
                f"a worker process that makes crops died ({reason}); use fewer --num-workers, or give the machine more "
                "memory, in a container shared memory too"
            ) from error

    def checked(self, crop: Crop | InputError) -> Crop:
        """The crop, after a warning for each image that could not be read for the first time."""
        if isinstance(crop, InputError):
            raise crop
        for key, reason in crop.unreadable.items():
            if key not in self.unreadable:
                self.unreadable[key] = reason
                log.warning("%s; another image takes its place (%d unreadable so far)", reason, len(self.unreadable))
        return crop


def load_batches(
    corpus: Corpus,
    rule: CropRule,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    num_steps: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
) -> BatchLoader:
    """Augmented batches of one rank, from a step on.

    Crop i of batch s is the same whatever the number of ranks and workers, and wherever a run starts.

    Args:
        batch_size: of all ranks together.
        num_steps: how many batches; None for no end.
        num_workers: processes that make crops; 0 for this one.

    Raises:
        InputError: if ranks cannot share a batch evenly.
    """
    if batch_size < 1 or batch_size % world_size:
        raise InputError(f"--batch-size {batch_size}: must be a multiple of the number of ranks, {world_size}")
    part_size = batch_size // world_size
    batches = draw_batches(corpus, rule, batch_size, seed, start_step=start_step)
    parts = (batch[rank * part_size : (rank + 1) * part_size] for batch in itertools.islice(batches, num_steps))
    return BatchLoader(CropMaker(corpus, rule, seed), parts, num_workers, part_size)


def join(part: Sequence[Crop]) -> ImageBatch:
    """Crops of one DA as a batch."""
    num_channels = max(len(crop.image) for crop in part)
    image = torch.stack([crop.image.expand(num_channels, -1, -1, -1) for crop in part])
    return ImageBatch(
        da=part[0].draw.da,
        image=image.expand(-1, 3, -1, -1, -1),
        names=tuple(crop.name for crop in part),
        numbers=tuple(crop.draw.number for crop in part),
        unreadable=tuple(sorted({key for crop in part for key in crop.unreadable})),
    )


def begin_crop_worker(number: int) -> None:
    """One thread a worker process, and signals are left to the run."""
    torch.set_num_threads(1)
    begin_worker()
