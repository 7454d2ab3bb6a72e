"""Cases on disk, read piece by piece."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path

import blosc2
import numpy as np
import pytest

from spadunet.case import Case, Geometry
from spadunet.errors import InputError, OutputError
from spadunet.files import partial_path
from spadunet.preprocessing import store
from spadunet.preprocessing.store import StoredCase, open_case, sample_foreground, store_case

SHAPE = (5, 70, 66)  # more than one chunk in plane
FILES = ["a.b2nd", "a.classes.b2nd", "a.foreground.npy", "a.json"]


def case_of(shape: tuple[int, int, int] = SHAPE, num_channels: int = 2, name: str = "a") -> Case:
    """A case of random values, exact in half precision, with two classes."""
    rng = np.random.default_rng(0)
    image = rng.integers(-64, 65, (num_channels, *shape)).astype(np.float32) / 64
    classes = rng.choice(3, shape, p=[0.8, 0.1, 0.1]).astype(np.uint8)
    geometry = Geometry(
        stored_shape=shape,
        stored_affine=((0, 0, 1, 0), (0, 1, 0, 0), (4, 0, 0, 0), (0, 0, 0, 1)),
        axes=(0, 1, 2),
        flips=(False, False, False),
        crop=((0, shape[0]), (0, shape[1]), (0, shape[2])),
        shape=shape,
        spacing_mm=(4, 1, 1),
    )
    return Case(name=name, image=image, classes=classes, geometry=geometry)


@pytest.fixture(scope="module")
def case() -> Case:
    return case_of()


@pytest.fixture(scope="module")
def stored(case: Case, tmp_path_factory: pytest.TempPathFactory) -> StoredCase:
    folder = tmp_path_factory.mktemp("cases")
    store_case(folder, case, made_from="these files", plan_digest="this plan")
    return open_case(folder, "a")


def names(folder: Path) -> list[str]:
    """What lies in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def test_a_case_is_four_files_and_its_header_says_what_it_is(stored: StoredCase, case: Case):
    assert names(stored.folder) == FILES
    assert (stored.name, stored.da, stored.header.num_channels) == ("a", 2, 2)
    assert (stored.header.made_from, stored.header.plan_digest) == ("these files", "this plan")
    assert stored.header.geometry == case.geometry


@pytest.mark.parametrize(
    ("first", "size"),
    [((0, 0, 0), SHAPE), ((1, 2, 3), (2, 10, 20)), ((4, 60, 60), (1, 10, 6)), ((2, 63, 1), (1, 2, 64))],
)
def test_a_patch_is_that_part_of_the_arrays(stored: StoredCase, case: Case, first, size):
    image, classes = stored.read_patch(first, size)
    box = tuple(slice(f, f + s) for f, s in zip(first, size, strict=True))
    np.testing.assert_array_equal(image, case.image[(slice(None), *box)])
    assert case.classes is not None
    np.testing.assert_array_equal(classes, case.classes[box])
    assert (image.dtype, classes.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize(
    ("first", "size"),
    [
        ((-2, -3, -4), (9, 80, 80)),  # around the whole volume
        ((-2, 10, 60), (4, 10, 20)),  # over two edges
        ((3, -5, 0), (8, 6, 66)),
        ((-9, 0, 0), (9, 8, 8)),  # just outside
        ((5, 0, 0), (2, 8, 8)),
        ((100, 100, -100), (2, 3, 4)),  # far outside
    ],
)
def test_outside_the_volume_a_patch_is_dark_background(stored: StoredCase, case: Case, first, size):
    image, classes = stored.read_patch(first, size)
    pad = [(200, 200)] * 3
    assert case.classes is not None
    whole_image = np.pad(case.image, [(0, 0), *pad], constant_values=-1)
    whole_classes = np.pad(case.classes, pad)
    box = tuple(slice(200 + f, 200 + f + s) for f, s in zip(first, size, strict=True))
    np.testing.assert_array_equal(image, whole_image[(slice(None), *box)])
    np.testing.assert_array_equal(classes, whole_classes[box])


def test_outside_the_volume_a_patch_may_be_of_another_class(stored: StoredCase, case: Case):
    _, classes = stored.read_patch((-1, 0, 0), (2, *SHAPE[1:]), 9)
    assert (classes[0] == 9).all()
    assert case.classes is not None
    np.testing.assert_array_equal(classes[1], case.classes[0])


def test_a_patch_is_read_without_the_chunks_that_it_does_not_touch(tmp_path: Path):
    case = case_of((70, 130, 130))
    store_case(tmp_path, case, made_from="", plan_digest="")
    for path in (tmp_path / "a.b2nd", tmp_path / "a.classes.b2nd"):
        array = blosc2.open(str(path), mode="r")
        assert array.chunks[-3:] == (64, 64, 64)
        chunks = array.schunk
        assert chunks.nchunks == 2 * 3 * 3  # all channels in one chunk
        content = path.read_bytes()
        for number in range(1, chunks.nchunks):  # the first alone survives
            chunk = chunks.get_chunk(number)
            assert content.count(chunk) == 1
            content = content.replace(chunk, bytes(len(chunk)))
        del array, chunks
        path.write_bytes(content)
    stored = open_case(tmp_path, "a")
    image, classes = stored.read_patch((3, 5, 0), (17, 35, 64))
    np.testing.assert_array_equal(image, case.image[:, 3:20, 5:40, :64])
    assert case.classes is not None
    np.testing.assert_array_equal(classes, case.classes[3:20, 5:40, :64])
    with pytest.raises(InputError, match=r"a\.b2nd: damaged"):
        stored.read_patch((3, 5, 1), (17, 35, 64))  # one voxel over the border


def test_a_single_voxel_is_stored_too(tmp_path: Path):
    case = case_of((1, 1, 1), num_channels=1)
    store_case(tmp_path, case, made_from="", plan_digest="")
    image, _ = open_case(tmp_path, "a").read_patch((0, 0, 0), (1, 1, 1))
    np.testing.assert_array_equal(image, case.image)


def test_a_missing_channel_is_zero_inside_and_around_the_volume(tmp_path: Path):
    case = case_of((2, 8, 8))
    case.image[1] = 0
    without = dataclasses.replace(case, missing_channels=(1,))
    store_case(tmp_path, without, made_from="", plan_digest="")
    stored = open_case(tmp_path, "a")
    assert stored.header.missing_channels == (1,)
    image, _ = stored.read_patch((-1, -1, -1), (4, 10, 10))
    assert not image[1].any()
    assert (image[0, 0] == -1).all()


def test_headers_without_missing_channels_are_as_they_were(tmp_path: Path):
    store_case(tmp_path, case_of((2, 8, 8)), made_from="", plan_digest="")
    assert list(json.loads((tmp_path / "a.json").read_text())) == [
        "format_version",
        "name",
        "made_from",
        "plan_digest",
        "num_channels",
        "geometry",
    ]
    assert open_case(tmp_path, "a").header.missing_channels == ()


# --- foreground


def test_foreground_voxels_are_listed_with_their_class():
    classes = np.zeros((2, 2, 3), np.uint8)
    classes[0, 1, 2], classes[1, 0, 0], classes[1, 1, 1] = 2, 1, 2
    np.testing.assert_array_equal(sample_foreground(classes), [[1, 1, 0, 0], [2, 0, 1, 2], [2, 1, 1, 1]])


def test_ignored_voxels_are_no_foreground(tmp_path: Path):
    classes = np.array([[[0, 2, 1, 2]]], np.uint8)
    np.testing.assert_array_equal(sample_foreground(classes, 2), [[0, 0, 0, 0], [1, 0, 0, 2]])  # background too
    assert sample_foreground(np.full((1, 1, 4), 2, np.uint8), 2).shape == (0, 4)
    case = case_of((2, 8, 8))
    store_case(tmp_path, case, made_from="", plan_digest="", ignore_class=2)
    assert set(open_case(tmp_path, "a").foreground_voxels()[:, 0].tolist()) == {0, 1}


def test_no_foreground_gives_no_rows():
    rows = sample_foreground(np.zeros((2, 2, 2), np.uint8))
    assert (rows.shape, rows.dtype) == ((0, 4), np.int32)


def test_a_large_class_is_sampled_everywhere_and_a_small_one_kept_whole():
    classes = np.ones((40, 50, 100), np.uint8)  # a stride of a hundred would stay in one column
    classes[0, 0, 0] = 2
    rows = sample_foreground(classes)
    assert rows[-1].tolist() == [2, 0, 0, 0]
    assert len(rows) == store.MAX_FOREGROUND_VOXELS + 1
    for axis, size in enumerate(classes.shape):
        assert set(rows[:-1, 1 + axis].tolist()) == set(range(size))
    np.testing.assert_array_equal(rows, sample_foreground(classes))


def test_stored_foreground_lies_on_voxels_of_its_class(stored: StoredCase, case: Case):
    rows = stored.foreground_voxels()
    assert case.classes is not None
    assert set(rows[:, 0].tolist()) == {1, 2}
    np.testing.assert_array_equal(case.classes[tuple(rows[:, 1:].T)], rows[:, 0])


# --- whole or absent


def test_a_case_without_its_header_does_not_exist(tmp_path: Path):
    store_case(tmp_path, case_of((2, 8, 8)), made_from="", plan_digest="")
    (tmp_path / "a.json").unlink()
    with pytest.raises(InputError) as caught:
        open_case(tmp_path, "a")
    assert str(caught.value) == f"{tmp_path}/a.json: not found; run spadunet_preprocess"


def test_a_damaged_header_is_told(tmp_path: Path):
    store_case(tmp_path, case_of((2, 8, 8)), made_from="", plan_digest="")
    text = (tmp_path / "a.json").read_text()
    (tmp_path / "a.json").write_text(text[:50])
    with pytest.raises(InputError, match=f"^{tmp_path}/a.json: Invalid JSON: EOF while parsing"):
        open_case(tmp_path, "a")
    (tmp_path / "a.json").write_text(text.replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(InputError, match=f"^{tmp_path}/a.json: format version 2 is newer than 1"):
        open_case(tmp_path, "a")


def test_what_a_killed_run_left_is_overwritten(tmp_path: Path):
    for name in FILES:
        partial_path(tmp_path / name, 99999999).write_bytes(b"left behind")
    (tmp_path / "a.b2nd").write_bytes(b"older")
    store_case(tmp_path, case_of((2, 8, 8)), made_from="", plan_digest="")
    assert names(tmp_path) == FILES
    assert open_case(tmp_path, "a").read_patch((0, 0, 0), (2, 8, 8))[0].shape == (2, 2, 8, 8)


def test_a_case_of_the_same_name_replaces_the_older_one(tmp_path: Path):
    store_case(tmp_path, case_of((2, 8, 8)), made_from="older", plan_digest="")
    newer = case_of((3, 4, 5), num_channels=1)
    store_case(tmp_path, newer, made_from="newer", plan_digest="")
    stored = open_case(tmp_path, "a")
    np.testing.assert_array_equal(stored.read_patch((0, 0, 0), (3, 4, 5))[0], newer.image)
    assert stored.header.made_from == "newer"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("Error while creating the NDArray"), "Error while creating the NDArray"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "no space is left on the device"),
    ],
)
def test_a_full_disk_is_told_and_leaves_no_case(tmp_path: Path, monkeypatch, error: Exception, reason: str):
    def write_half(array: np.ndarray, *, urlpath: str, **options) -> None:
        Path(urlpath).write_bytes(b"half")
        raise error

    monkeypatch.setattr(blosc2, "asarray", write_half)
    with pytest.raises(OutputError) as caught:
        store_case(tmp_path, case_of((2, 8, 8)), made_from="", plan_digest="")
    assert str(caught.value).startswith(f"{tmp_path}/a.b2nd: cannot be written")
    assert reason in str(caught.value)
    assert names(tmp_path) == []
