"""Which crops make a batch, the same for any number of ranks and workers, and whatever becomes of the files."""

from __future__ import annotations

import collections
import itertools
import logging
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_corpus import make_corpus, noise

from spadunet.errors import InputError
from spadunet.pretraining.corpus import Corpus, image_path, store_image
from spadunet.pretraining.rounds import ROUND_SIZE, ImageTable, draw_round
from spadunet.pretraining.sampling import (
    CropRule,
    Draw,
    ImageBatch,
    draw_batches,
    generator_of,
    load_batches,
)
from spadunet.spacing import MAX_DA, degree_of_anisotropy

TOKENIZER = CropRule(tokens_in_plane=8, tokens_in_depth=4)
VIT = CropRule(tokens_in_plane=10, tokens_in_depth=5)
SMALL = CropRule(tokens_in_plane=1, tokens_in_depth=1)

IMAGES = {
    "cubes": (noise(1, 20, 24, 24), (1, 1, 1)),
    "thick": (noise(1, 9, 24, 24), (4.5, 1, 1)),
    "colour": (noise(3, 1, 40, 30), (1, 1, 1)),
    "grey": (noise(1, 1, 30, 40), (1, 1, 1)),
    "spine": (noise(1, 6, 24, 24), (40, 1, 1)),
}


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return make_corpus(tmp_path / "small", IMAGES)


def first_batches(corpus: Corpus, number: int, batch_size: int = 6, seed: int = 1, **options) -> list[tuple[Draw, ...]]:
    return list(itertools.islice(draw_batches(corpus, SMALL, batch_size, seed, **options), number))


def load(corpus: Corpus, num_steps: int | None = 4, **options) -> list[ImageBatch]:
    return list(load_batches(corpus, SMALL, **{"batch_size": 6, "seed": 1, "num_steps": num_steps, **options}))


def assert_equal(batches: list[ImageBatch], expected: list[ImageBatch]) -> None:
    assert len(batches) == len(expected)
    for ours, theirs in zip(batches, expected, strict=True):
        assert (ours.da, ours.names, ours.numbers) == (theirs.da, theirs.names, theirs.numbers)
        assert torch.equal(ours.image, theirs.image)


def test_crop_sizes_by_degree_of_anisotropy():
    """the rule of the networks: half the slices for each degree, and one for 2D images."""
    assert [TOKENIZER.size_of(da) for da in range(7)] == [(d, 128, 128) for d in (64, 32, 16, 8, 4, 2, 1)]
    assert [VIT.size_of(da) for da in range(7)] == [(d, 160, 160) for d in (80, 40, 20, 10, 5, 2, 1)]
    assert CropRule(tokens_in_plane=8, tokens_in_depth=16).size_of(MAX_DA) == (1, 128, 128)


def test_the_degree_of_anisotropy_is_that_of_the_scaled_spacing(corpus):
    batches = [*first_batches(corpus, 150), *first_batches(corpus, 150, seed=2)]
    for batch in batches:
        for draw in batch:
            image = corpus.training[draw.image]
            depth, height, width = image.spacing_mm
            plane = draw.scale_plane
            scaled = (depth * draw.scale_depth, height * plane, width * plane)
            assert draw.da == degree_of_anisotropy(scaled, image.shape[0])
    of_image = collections.defaultdict(set)
    for draw in itertools.chain.from_iterable(batches):
        of_image[corpus.training[draw.image].key].add(draw.da)
    # Scaled by 0.75 … 1.5 in plane, a ratio of 4.5 is one of 6 … 3, and 40 one of 53 … 27.
    assert of_image == {"cubes": {0}, "thick": {1, 2}, "spine": {4, 5}, "colour": {6}, "grey": {6}}


def test_scales_lie_within_their_limits_and_small_images_are_enlarged(tmp_path):
    corpus = make_corpus(
        tmp_path,
        {
            "large": (noise(1, 4, 80, 80), (1, 1, 1)),
            "fits": (noise(1, 4, 24, 30), (1, 1, 1)),
            "small": (noise(1, 4, 8, 8), (1, 1, 1)),
            "thick": (noise(1, 4, 24, 24), (1.6, 1, 1)),
        },
    )
    draws = draw_round(ImageTable.of(corpus), SMALL.side, 3, generator_of(0, 3, "round"))
    assert draws[0].tolist() == list(range(3 * ROUND_SIZE, 4 * ROUND_SIZE))
    keys = np.array([image.key for image in corpus.training])[draws[1].astype(int)]
    in_plane = {"large": (0.75, 2.0), "fits": (0.75, 1.5), "small": (0.5, 0.75), "thick": (0.75, 1.5)}
    for key, (lowest, highest) in in_plane.items():
        scales = draws[3][keys == key]
        assert np.mean(scales != 1) == pytest.approx(0.5, abs=0.03)
        scaled = scales[scales != 1]
        assert lowest <= scaled.min() < lowest + 0.02 and highest - 0.02 < scaled.max() <= highest
        deep = draws[4][keys == key]
        assert np.mean(deep != 1) == pytest.approx(0 if key == "thick" else 0.3, abs=0.03)
        assert deep.min() >= 0.8 and deep.max() <= 1.25


def test_images_are_drawn_by_weight_with_replacement(tmp_path):
    images = {key: (noise(1, 4, 8, 8), (1, 1, 1)) for key in ("once", "thrice")}
    corpus = make_corpus(tmp_path, images, weights={"once": 0.5, "thrice": 1.5})
    draws = draw_round(ImageTable.of(corpus), SMALL.side, 0, generator_of(0, 0, "round"))
    assert np.mean(draws[1] == 1) == pytest.approx(0.75, abs=0.01)


def test_batches_take_the_draws_of_a_degree_in_order_and_none_is_lost_between_rounds(corpus):
    batch_size = 700
    batches = first_batches(corpus, 70, batch_size=batch_size)  # three rounds
    table = ImageTable.of(corpus)
    draws = np.concatenate(
        [draw_round(table, SMALL.side, number, generator_of(1, number, "round")) for number in range(4)], axis=1
    )
    filled_by = [batch[-1].number for batch in batches]
    assert filled_by == sorted(filled_by)
    assert filled_by[-1] > 2 * ROUND_SIZE
    for da in range(MAX_DA + 1):
        ours = [draw.number for batch in batches if batch[0].da == da for draw in batch]
        assert ours == draws[0][draws[2] == da][: len(ours)].tolist()
    assert all({draw.da for draw in batch} == {batch[0].da} for batch in batches)


def test_a_stream_that_starts_later_is_the_rest_of_the_stream(corpus):
    batches = first_batches(corpus, 40, batch_size=1000)  # 16 a round
    for start_step in (1, 15, 18, 38):
        rest = batches[start_step : start_step + 2]
        assert first_batches(corpus, 2, batch_size=1000, start_step=start_step) == rest
    assert first_batches(corpus, 3, seed=2) != first_batches(corpus, 3)


def test_random_numbers_hang_on_seed_draw_and_purpose_only():
    first = generator_of(1, 7, "mask").random()
    assert generator_of(1, 7, "mask").random() == first
    others = {generator_of(*key).random() for key in ((2, 7, "mask"), (1, 8, "mask"), (1, 7, "crop"))}
    assert len(others | {first}) == 4


def test_batches_have_three_channels_and_the_size_of_their_degree(corpus):
    batches = load(corpus, 12)
    for batch in batches:
        assert batch.image.shape == (6, 3, *SMALL.size_of(batch.da))
        assert batch.image.dtype == torch.float32
        assert batch.image.min() >= -1 and batch.image.max() <= 1
    flat = next(batch for batch in batches if {"grey", "colour"} <= set(batch.names))
    for name, image in zip(flat.names, flat.image, strict=True):
        assert torch.equal(image[0], image[1]) == (name == "grey")


def test_batches_are_the_same_for_any_number_of_workers_and_ranks_and_any_start(corpus):
    expected = load(corpus)
    assert [batch.numbers for batch in expected] == [tuple(d.number for d in b) for b in first_batches(corpus, 4)]
    for num_workers in (1, 2):
        assert_equal(load(corpus, num_workers=num_workers), expected)
    assert_equal(load(corpus, 2, start_step=2, num_workers=1), expected[2:])
    for world_size in (2, 3):
        ranks = [load(corpus, rank=rank, world_size=world_size) for rank in range(world_size)]
        for parts, whole in zip(zip(*ranks, strict=True), expected, strict=True):
            assert torch.equal(torch.cat([part.image for part in parts]), whole.image)
            assert sum((part.numbers for part in parts), ()) == whole.numbers
            assert sum((part.names for part in parts), ()) == whole.names


def test_ranks_that_cannot_share_a_batch_are_told(corpus):
    with pytest.raises(InputError, match="--batch-size 6: must be a multiple of the number of ranks, 4"):
        load(corpus, world_size=4)


def test_a_corpus_that_shrinks_while_it_is_read_goes_on(corpus, caplog):
    """At step 5 an image is gone and another is damaged: others take their places, of the same degree."""
    expected = load(corpus, 20)
    caplog.set_level(logging.WARNING, "spadunet")
    loader = load_batches(corpus, SMALL, batch_size=6, seed=1, num_steps=20)
    batches = []
    for batch in loader:
        batches.append(batch)
        if len(batches) == 5:
            image_path(corpus.folder, "colour").unlink()
            image_path(corpus.folder, "thick").write_bytes(b"no array")
            store_image(corpus.folder, "spine", noise(1, 2, 2, 2))
    assert_equal(batches[:5], expected[:5])
    assert [batch.numbers for batch in batches] == [batch.numbers for batch in expected]
    assert [batch.image.shape for batch in batches] == [batch.image.shape for batch in expected]
    assert set(loader.unreadable) == {"colour", "thick", "spine"}
    assert {key for batch in batches for key in batch.unreadable} == set(loader.unreadable)
    assert len(caplog.records) == 3  # once an image
    assert "colour.b2nd: not found" in caplog.text and "3 unreadable so far" in caplog.text
    later = [dict(zip(batch.numbers, batch.names, strict=True)) for batch in batches[5:]]
    meant = [dict(zip(batch.numbers, batch.names, strict=True)) for batch in expected[5:]]
    for ours, theirs, batch in zip(later, meant, batches[5:], strict=True):
        for number, name in ours.items():
            if theirs[number] in ("cubes", "grey"):
                assert name == theirs[number]
            elif batch.da == MAX_DA:
                assert name == "grey"
            else:
                assert name in ("cubes", "grey")  # none of these degrees is left
    assert_equal(load(corpus, 8, start_step=12, num_workers=1), batches[12:])  # resumed after that: the same


def test_a_corpus_that_is_gone_as_a_whole_ends_the_run_in_a_line(corpus):
    for image in corpus.training:
        image_path(corpus.folder, image.key).unlink()
    for num_workers in (0, 1):
        with pytest.raises(InputError, match=r"small: none of its 5 images can be read any more") as told:
            load(corpus, num_workers=num_workers)
        assert "\n" not in str(told.value)


LOSES_ITS_WORKER = """
import os, signal, sys
from pathlib import Path
import torch
from spadunet.errors import OutputError
from spadunet.pretraining.corpus import load_corpus
from spadunet.pretraining.sampling import CropRule, load_batches

rule = CropRule(tokens_in_plane=1, tokens_in_depth=1)
batches = iter(load_batches(load_corpus(Path(sys.argv[1])), rule, batch_size=6, seed=1, num_workers=1))
next(batches)
(worker,) = torch.multiprocessing.active_children()
signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler raises wherever the process is at that moment
os.kill(worker.pid, signal.SIGKILL)
try:
    for _ in batches:
        pass
except OutputError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_worker_process_that_dies_is_told_in_a_line(corpus):
    """In a process of its own, whose handler of signals it changes."""
    command = [sys.executable, "-c", LOSES_ITS_WORKER, str(corpus.folder)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert re.fullmatch(r"a worker process that makes crops died .*--num-workers.*\n", run.stdout), run.stderr
