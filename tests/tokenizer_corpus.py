"""A corpus of a few real images from the demo's data, and tokenizers small enough for tests on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

import spadunet
from spadunet.image import read_image
from spadunet.pretraining.corpus import CORPUS_JSON, Corpus, CorpusImage, CorpusIndex, load_corpus, store_image
from spadunet.pretraining.sampling import CropRule, ImageBatch, load_batches
from spadunet.pretraining.tokenizer import TokenizerRecipe, TokenizerStage
from spadunet.record import write_record
from spadunet.training.ranks import Ranks

TOY = (16, 16, 16)
DEMO = Path(spadunet.__file__).parent / "demo/data"
SMALL_RULE = CropRule(tokens_in_plane=2, tokens_in_depth=1)
GLOBAL_BATCH = 4


def make_corpus(folder: Path) -> Corpus:
    """Four hippocampi, one of them held out, and two slices of a heart as 2D images."""
    images = []

    def add(key: str, array: np.ndarray, spacing_mm: tuple[float, ...], *, is_held_out: bool = False) -> None:
        low, high = np.percentile(array, [0.5, 99.5])
        store_image(folder, key, np.clip((array - low) / (high - low), 0, 1) * 2 - 1)
        images.append(
            CorpusImage(
                key=key,
                source=key,
                dataset=key.split("_")[0],
                modality="MR",
                shape=array.shape[1:],
                spacing_mm=spacing_mm,
                num_channels=1,
                weight=1.0,
                is_held_out=is_held_out,
            )
        )

    hippocampi = sorted((DEMO / "Dataset004_Hippocampus/imagesTr").glob("*.nii.gz"))[:4]
    for number, path in enumerate(hippocampi):
        image = read_image([path])
        add(f"brain_{number}", np.asarray(image.array, np.float32), image.spacing_mm, is_held_out=number == 0)
    path = sorted((DEMO / "Dataset101_SunnybrookLV/imagesTr").glob("*.nii.gz"))[0]
    heart = read_image([path])
    depth_axis = 1 + int(np.argmax(heart.spacing_mm))
    slices = np.moveaxis(np.asarray(heart.array, np.float32), depth_axis, 1)
    for number in (3, 4):
        add(f"heart_{number}", slices[:, number : number + 1], (8.0, 1.25, 1.25))
    write_record(folder / CORPUS_JSON, CorpusIndex(name="Small", images=tuple(images)))
    return load_corpus(folder)


SMALL_RECIPE = TokenizerRecipe(
    learning_rate=5e-3, discriminator_learning_rate=1e-3, gan=3e-3, evenness=0.03, certainty=0.03
)


def small_stage(corpus: Corpus, ranks: Ranks | None = None, **changes: object) -> TokenizerStage:
    """The preset `toy`, of sixteen channels everywhere: put TOY among the presets before."""
    arguments = {"seed": 0, "ranks": ranks or Ranks(), "precision": torch.float32, "provenance": {"corpus": "Small"}}
    return TokenizerStage(corpus, "toy", **{"recipe": SMALL_RECIPE, "rule": SMALL_RULE, **arguments, **changes})


def small_batches(corpus: Corpus, num_steps: int, ranks: Ranks | None = None) -> Callable[[int], Iterable[ImageBatch]]:
    """As `pretrain` takes them."""
    ranks = ranks or Ranks()
    return lambda start: load_batches(
        corpus,
        SMALL_RULE,
        batch_size=GLOBAL_BATCH,
        seed=0,
        start_step=start,
        num_steps=num_steps - start,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
