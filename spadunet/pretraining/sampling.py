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

import blosc2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import InputError, OutputError
from ..spacing import MAX_DA, RATIO_TOLERANCE, Shape
from ..training.workers import begin_worker
from .corpus import Corpus, CorpusImage
from .crops import NEARLY_ISOTROPIC, change_intensities, draw_intensities, place_crop, read_crop

PATCH_SIZE = 16
"""Voxels a token, per axis, of images that are not anisotropic."""
ROUND_SIZE = 16384
"""Draws that are made at once."""
SCALE_PLANE_SHARE, SCALE_PLANE = 0.5, (0.75, 2.0)
"""Share of crops that are scaled in plane, and by how much; above 1 they see more of the image."""
SCALE_DEPTH_SHARE, SCALE_DEPTH = 0.3, (0.8, 1.25)
"""As in plane, of images that are nearly isotropic."""
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

    Raises:
        InputError: if no image may be drawn.
    """
    table = ImageTable.of(corpus)
    waiting = np.empty((5, 0))
    step = 0
    for round_number in itertools.count():
        drawn = np.concatenate([waiting, draw_round(table, rule, seed, round_number)], axis=1)
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
class ImageTable:
    """What the draws need to know of N images."""

    shares: np.ndarray
    """(N,) float64, sum of the weights up to and including each image."""
    ratio: np.ndarray
    """(N,) float64, how many times as far apart slices are as pixels."""
    num_slices: np.ndarray
    """(N,) int64."""
    side: np.ndarray
    """(N,) int64, the smaller of height and width in voxels."""

    @classmethod
    def of(cls, corpus: Corpus) -> ImageTable:
        """The images to train on.

        Raises:
            InputError: if there are none with a weight.
        """
        images = corpus.training
        weights = np.array([image.weight for image in images], float)
        if not weights.any():
            raise InputError(f"{corpus.folder}: no image with a weight above 0 to train on")
        shapes = np.array([image.shape for image in images])
        spacings = np.array([image.spacing_mm for image in images])
        return cls(
            shares=np.cumsum(weights),
            ratio=spacings[:, 0] / spacings[:, 1:].min(1),
            num_slices=shapes[:, 0],
            side=shapes[:, 1:].min(1),
        )


def draw_round(table: ImageTable, rule: CropRule, seed: int, round_number: int) -> np.ndarray:
    """(5, ROUND_SIZE) float64: number, image, DA, scale in plane and in depth of draws by weight, with replacement.

    The scale in plane lies between 0.75 and what the image fills, but 2 at most: a small image is enlarged.
    """
    generator = generator_of(seed, round_number, "round")
    chance, is_scaled, scale, is_scaled_deep, scale_deep = generator.random((5, ROUND_SIZE))
    last = np.searchsorted(table.shares, table.shares[-1])
    image = np.minimum(np.searchsorted(table.shares, chance * table.shares[-1], side="right"), last)
    ratio, is_flat = table.ratio[image], table.num_slices[image] == 1
    lowest, highest = SCALE_PLANE[0], np.minimum(table.side[image] / rule.side, SCALE_PLANE[1])
    scale_plane = np.where(is_scaled < SCALE_PLANE_SHARE, lowest + scale * (highest - lowest), 1.0)
    scales_depth = (is_scaled_deep < SCALE_DEPTH_SHARE) & (ratio <= NEARLY_ISOTROPIC) & ~is_flat
    lowest, highest = SCALE_DEPTH
    scale_depth = np.where(scales_depth, lowest + scale_deep * (highest - lowest), 1.0)
    da = np.where(is_flat, MAX_DA, degrees_of_anisotropy(ratio * scale_depth / scale_plane))
    numbers = round_number * ROUND_SIZE + np.arange(ROUND_SIZE)
    return np.stack([numbers, image, da, scale_plane, scale_depth])


def degrees_of_anisotropy(ratio: np.ndarray) -> np.ndarray:
    """`spacing.degree_of_anisotropy` of many ratios s_slice / s_plane at once."""
    return np.clip(np.floor(np.log2(ratio * (1 + RATIO_TOLERANCE))), 0, MAX_DA).astype(int)


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
        InputError: if ranks cannot share a batch evenly, or no image may be drawn.
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
    )


def begin_crop_worker(number: int) -> None:
    """One thread a worker process, and signals are left to the run."""
    torch.set_num_threads(1)
    blosc2.set_nthreads(1)
    begin_worker()
