"""The picture of what pre-training sees."""

from __future__ import annotations

import numpy as np
import pytest
from small_corpus import make_corpus, noise

from spadunet.errors import InputError
from spadunet.pretraining.corpus import image_path
from spadunet.pretraining.crop_sheet import CROPS_A_ROW, first_draws, save_crop_sheet
from spadunet.pretraining.sampling import CropRule

RULE = CropRule(tokens_in_plane=1, tokens_in_depth=1)


def test_a_sheet_has_a_row_for_each_degree_of_anisotropy(tmp_path):
    from matplotlib import image as picture

    images = {
        "white": (np.ones((1, 20, 24, 24), np.float32), (1, 1, 1)),
        "thick": (noise(1, 9, 24, 24), (9, 1, 1)),
        "colour": (noise(3, 1, 40, 30), (1, 1, 1)),
    }
    corpus = make_corpus(tmp_path / "small", images)
    assert [(da, len(draws)) for da, draws in first_draws(corpus, RULE, 0).items()] == [
        (da, CROPS_A_ROW) for da in (0, 2, 3, 6)
    ]
    save_crop_sheet(corpus, RULE, 0, tmp_path / "run" / "crops.png")
    pixels = picture.imread(tmp_path / "run" / "crops.png")[..., :3]
    height = len(pixels) // 4
    is_grey = [np.ptp(row, axis=-1).max() < 0.02 for row in (pixels[i * height : (i + 1) * height] for i in range(4))]
    assert is_grey == [True, True, True, False]
    image_path(corpus.folder, "white").unlink()  # others take its place
    save_crop_sheet(corpus, RULE, 0, tmp_path / "again.png")
    for key in ("thick", "colour"):
        image_path(corpus.folder, key).unlink()
    with pytest.raises(InputError, match="none of its 3 images"):
        save_crop_sheet(corpus, RULE, 0, tmp_path / "third.png")
