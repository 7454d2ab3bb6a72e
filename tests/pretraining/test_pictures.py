"""Which images pictures show."""

from __future__ import annotations

from spadunet.pretraining.corpus import CorpusImage
from spadunet.pretraining.pictures import choose_images


def entry(dataset: int, modality: str, thickness_mm: float) -> CorpusImage:
    return CorpusImage(
        key=f"{dataset:02}_{modality}",
        source="",
        dataset=str(dataset),
        modality=modality,
        shape=(8, 8, 8),
        spacing_mm=(thickness_mm, 1.0, 1.0),
        num_channels=1,
        weight=1.0,
    )


def test_few_of_many_images_are_of_every_modality_and_anisotropy_whatever_their_datasets_are_called():
    images = [entry(n, "CT", 1) for n in range(20)] + [entry(n, "CT", 5) for n in range(20, 30)]
    images += [entry(n, "MR", 1) for n in range(30, 40)]
    chosen = choose_images(images, 4)
    assert [(image.modality, image.da) for image in chosen] == [("CT", 0), ("CT", 0), ("MR", 0), ("CT", 2)]
    assert len({image.key for image in chosen}) == 4


def test_all_are_chosen_where_there_are_few_and_none_of_none():
    images = [entry(1, "MR", 1), entry(0, "MR", 1)]
    assert choose_images(images, 24) == images[::-1]
    assert choose_images([], 24) == []
