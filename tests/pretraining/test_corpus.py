"""A corpus on disk, read box by box."""

from __future__ import annotations

from pathlib import Path

import blosc2
import numpy as np
import pytest

from spadunet.errors import InputError
from spadunet.pretraining.corpus import (
    CORPUS_JSON,
    Corpus,
    CorpusImage,
    CorpusIndex,
    find_corpus,
    image_path,
    load_corpus,
    store_image,
)
from spadunet.record import write_record
from spadunet.spacing import MAX_DA, Shape

SHAPE = (5, 70, 66)  # more than one chunk in plane


def entry(key: str, shape: Shape = SHAPE, **changes: object) -> CorpusImage:
    """An entry of the index."""
    facts = {"source": f"/images/{key}.nii.gz", "dataset": "A", "modality": "CT", "spacing_mm": (4, 1, 1)}
    return CorpusImage.model_validate({**facts, "key": key, "shape": shape, "num_channels": 1, "weight": 1, **changes})


def array_of(image: CorpusImage) -> np.ndarray:
    """Values that float16 holds exactly."""
    shape = (image.num_channels, *image.shape)
    return np.random.default_rng(0).integers(-64, 65, shape).astype(np.float32) / 64


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    folder = tmp_path / "small"
    images = (entry("a"), entry("b", (1, 40, 50), num_channels=3, modality="RGB/fundus"), entry("c", is_held_out=True))
    for image in images:
        store_image(folder, image.key, array_of(image))
    write_record(folder / CORPUS_JSON, CorpusIndex(name="small", images=images))
    return load_corpus(folder)


def test_it_comes_back_as_it_was_written(corpus: Corpus):
    assert [image.key for image in corpus.training] == ["a", "b"]
    assert [image.key for image in corpus.held_out] == ["c"]
    for image in corpus.index.images:
        box = corpus.read_box(image, (0, 0, 0), image.shape)
        assert box.dtype == np.float32
        np.testing.assert_array_equal(box, array_of(image))
    assert CorpusIndex.from_json(corpus.index.to_json()) == corpus.index


def test_degree_of_anisotropy_is_that_of_the_stored_spacing(corpus: Corpus):
    volume, picture = corpus.training
    assert volume.da == 2
    assert picture.da == MAX_DA


def test_outside_the_volume_a_box_is_dark(corpus: Corpus):
    image = corpus.training[0]
    box = corpus.read_box(image, (-2, 60, -3), (9, 20, 10))
    expected = np.full((1, 9, 20, 10), -1, np.float32)
    expected[:, 2:7, :10, 3:] = array_of(image)[:, :, 60:, :7]
    np.testing.assert_array_equal(box, expected)
    assert (corpus.read_box(image, (100, 100, 100), (2, 3, 4)) == -1).all()


def test_a_stored_image_that_goes_or_is_damaged_while_others_read_is_named(corpus: Corpus):
    image = corpus.training[0]
    path = image_path(corpus.folder, "a")
    content = path.read_bytes()

    def refused(what: str) -> None:
        with pytest.raises(InputError, match=f"a.b2nd: {what}.*run the spadunet_index command"):
            corpus.read_box(image, (0, 0, 0), SHAPE)

    path.unlink()
    refused("not found")
    path.write_bytes(b"")
    refused("cannot be read")
    path.write_bytes(content[: len(content) // 2])
    refused("cannot be read")
    blosc2.asarray(np.zeros((1, 2, 2, 2), np.float16), urlpath=str(path), mode="w")
    refused("is not the image of the index")
    wrong = array_of(image)
    wrong[0, 1, 2, 3] = np.nan
    store_image(corpus.folder, "a", wrong)
    refused("damaged")
    corpus.read_box(corpus.training[1], (0, 0, 0), (1, 2, 2))  # the others are none the worse


@pytest.mark.slow
def test_any_damage_to_a_stored_file_is_told_as_such_or_harmless(corpus: Corpus):
    """Its header says how much memory to take, which a changed byte makes anything."""
    image, path, random = corpus.training[0], image_path(corpus.folder, "a"), np.random.default_rng(0)
    content = np.frombuffer(path.read_bytes(), np.uint8)
    places = np.r_[0:200, len(content) - 200 : len(content)]  # header and trailer
    num_refused = 0
    for _ in range(300):
        damaged = content.copy()
        damaged[random.choice(places, 2)] = random.integers(0, 256, 2)
        path.write_bytes(damaged.tobytes())
        try:
            corpus.read_box(image, (0, 0, 0), SHAPE)
        except InputError as error:
            assert "run the spadunet_index command" in str(error)
            num_refused += 1
    assert num_refused > 30


def test_missing_images_are_told_before_any_work_starts(corpus: Corpus):
    image_path(corpus.folder, "b").unlink()
    assert len(load_corpus(corpus.folder, may_lack_images=True).index.images) == 3  # for a run that goes on
    with pytest.raises(InputError, match=r"b\.b2nd: not found \(1 of 3 are missing\); run the spadunet_index command"):
        load_corpus(corpus.folder)


def test_an_index_is_checked(tmp_path: Path):
    with pytest.raises(ValueError, match="key a stands there twice"):
        CorpusIndex(name="n", images=(entry("a"), entry("a")))
    with pytest.raises(ValueError, match="none is left to train on"):
        CorpusIndex(name="n", images=(entry("a", is_held_out=True),))
    with pytest.raises(ValueError, match="weight"):
        entry("a", weight=0)
    with pytest.raises(ValueError, match="key"):
        entry("../a")
    with pytest.raises(InputError, match="corpus.json: not found; make it with spadunet_index"):
        load_corpus(tmp_path)


def test_a_corpus_is_found_by_name_or_path(corpus: Corpus, tmp_path: Path):
    assert find_corpus("small", tmp_path) == corpus.folder
    assert find_corpus(str(corpus.folder), tmp_path / "elsewhere") == corpus.folder
    with pytest.raises(InputError, match="large: corpus not found; corpora in .*: small; make one"):
        find_corpus("large", tmp_path)
