"""MedMNIST's files: layout, classes, and whatever can be wrong with one."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from medmnist_file import COUNTS, members_of, write_medmnist

from spadunet import copies, medmnist
from spadunet.classes import ClassSet
from spadunet.errors import InputError
from spadunet.medmnist import open_medmnist, read_images
from spadunet.medmnist_doubts import warn_doubts
from spadunet.medmnist_names import CLASSES
from spadunet.spacing import MAX_DA


@pytest.mark.parametrize(
    ("stored", "layout", "da"),
    [((5, 4), (1, 1, 5, 4), MAX_DA), ((5, 4, 3), (3, 1, 5, 4), MAX_DA), ((4, 5, 6), (1, 4, 5, 6), 0)],
)
def test_grey_pictures_colours_and_volumes_are_told_apart(tmp_path: Path, stored, layout, da):
    members = members_of(stored)
    dataset = open_medmnist(write_medmnist(tmp_path / "mine.npz", members))
    assert ((dataset.num_channels, *dataset.shape), dataset.da) == (layout, da)
    for split, count in COUNTS.items():
        images = read_images(dataset, split)
        assert (images.shape, images.dtype) == ((count, *layout), np.uint8)
        np.testing.assert_array_equal(dataset.labels[split], members[f"{split}_labels"])
    channel = members["test_images"][2][..., 1] if layout[0] == 3 else members["test_images"][2]
    np.testing.assert_array_equal(images[2, -2 if layout[0] == 3 else 0].squeeze(), channel)


@pytest.mark.parametrize("name", ["organmnist3d", "organmnist3d_64", "OrganMNIST3D"])
def test_classes_are_those_published_for_a_file_of_this_name(tmp_path: Path, name: str):
    dataset = open_medmnist(write_medmnist(tmp_path / f"{name}.npz", members_of(num_classes=3)))
    assert dataset.classes.kind == "multi-class"
    assert (dataset.classes.names[0], dataset.classes.names[10]) == ("liver", "pancreas")
    assert (dataset.name, dataset.study_name("val", 2)) == (name, "val_00002")


@pytest.mark.parametrize(("name", "shape"), [("organmnist3d", (4, 4)), ("organamnist", (4, 4, 4))])
def test_a_name_of_volumes_is_none_of_pictures_and_the_other_way_round(tmp_path: Path, name: str, shape: tuple):
    dataset = open_medmnist(write_medmnist(tmp_path / f"{name}.npz", members_of(shape, num_classes=3)))
    assert dataset.classes.names == ("0", "1", "2")


def test_doubts_are_told_before_anything_is_learned(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    warn_doubts(open_medmnist(write_medmnist(tmp_path / "a.npz", members_of())))
    assert not caplog.records
    labels = np.array([[1], [3]] * 3, np.uint8)
    members = changed(train_labels=labels, val_labels=labels[:3], test_labels=labels[[0, 0, 0, 0]])
    members["test_images"][1] = members["train_images"][4]
    members["test_images"][2] = members["test_images"][3]  # of one split
    members["val_images"][2] = members["train_images"][0]
    path = write_medmnist(tmp_path / "b.npz", members)
    warn_doubts(open_medmnist(path))
    assert [record.getMessage().removeprefix(f"{path}: ").partition(";")[0] for record in caplog.records] == [
        "0, 2 cannot be learned: no study at all",
        "split test has no study of 3: its AUC is not defined there",
        "there are images in two splits: 2, such as val_00002 and train_00000, test_00001 and train_00004",
    ]


def test_large_files_are_not_searched_for_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    dataset = open_medmnist(write_medmnist(tmp_path / "a.npz", members_of()))
    monkeypatch.setattr(copies, "MAX_IMAGE_BYTES", 13 * 64 - 1)
    monkeypatch.setattr(copies, "read_images", None)
    warn_doubts(dataset)


def test_all_eighteen_datasets_are_known():
    kinds = [classes.kind for classes in CLASSES.values()]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "multi-class": 10,
        "binary": 6,
        "ordinal": 1,
        "multi-label": 1,
    }
    sizes = {name: len(CLASSES[name].names) for name in ("pathmnist", "chestmnist", "retinamnist", "tissuemnist")}
    assert sizes == {"pathmnist": 9, "chestmnist": 14, "retinamnist": 5, "tissuemnist": 8}


@pytest.mark.parametrize(
    ("num_classes", "num_labels", "expected"),
    [
        (2, 1, ClassSet(kind="binary", names=("0", "1"))),
        (3, 1, ClassSet(kind="multi-class", names=("0", "1", "2"))),
        (2, 3, ClassSet(kind="multi-label", names=("0", "1", "2"))),
    ],
)
def test_labels_tell_the_classes_of_any_other_file(tmp_path: Path, num_classes: int, num_labels: int, expected):
    path = write_medmnist(tmp_path / "mine.npz", members_of((4, 4), num_classes, num_labels))
    assert open_medmnist(path).classes == expected


def test_the_digest_follows_the_content_and_not_the_name(tmp_path: Path):
    members = members_of()
    first, same = (open_medmnist(write_medmnist(tmp_path / f"{name}.npz", members)) for name in "ab")
    members["test_images"][0, 0, 0, 0] ^= 1
    other = open_medmnist(write_medmnist(tmp_path / "c.npz", members))
    assert first.digest == same.digest != other.digest


def changed(**change: np.ndarray | None) -> dict[str, np.ndarray]:
    """Members with some replaced, or left out where None."""
    return {name: array for name, array in (members_of() | change).items() if array is not None}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (changed(val_labels=None), "holds no val_labels, but train_images, train_labels, val_images"),
        (changed(val_images=np.zeros((3, 4, 4, 5), np.uint8)), "images of its splits have different shapes"),
        (changed(train_images=np.zeros((6, 4, 4, 4))), "train_images is 6×4×4×4 of float64; expected N×28×28"),
        (changed(train_images=np.zeros((6, 4), np.uint8)), "train_images is 6×4 of uint8; expected N×28×28"),
        (changed(test_images=np.zeros((0, 4, 4, 4), np.uint8)), "test_images is empty"),
        (changed(test_images=np.zeros((4, 0, 4, 4), np.uint8)), "test_images is 4×0×4×4 of uint8; expected"),
        (changed(val_labels=np.zeros(3, np.uint8)), "val_labels is 3 of uint8; expected N×1 (a class) or N×L"),
        (changed(val_labels=np.zeros((3, 1))), "val_labels is 3×1 of float64; expected N×1"),
        (changed(val_labels=np.full((3, 1), "a")), "val_labels holds str"),
        (changed(val_labels=np.zeros((2, 1), np.uint8)), "val_labels has 2 rows for 3 images"),
        (changed(val_labels=np.zeros((3, 2), np.uint8)), "splits have [1, 2] labels an image"),
        (changed(train_labels=np.full((6, 1), -1)), "train_labels: row 0 is -1; expected 0 to 1"),
        (changed(train_labels=np.ones((6, 1), np.uint8)), "every label of train_labels is [1]; expected at least two"),
        (changed(train_labels=np.full((6, 1), 99999)), "a label is 99999; expected classes 0, 1, …"),
        (
            changed(val_labels=np.full((3, 1), 2**64 - 1, np.uint64)),
            "val_labels: row 0 is 18446744073709551615; expected classes 0, 1, …",
        ),
        ({**members_of(num_labels=2), "val_labels": np.full((3, 2), 2)}, "val_labels: row 0 is 2; expected 0 to 1"),
    ],
)
def test_a_file_of_another_layout_is_refused_in_one_line(tmp_path: Path, members: dict, message: str):
    path = write_medmnist(tmp_path / "mine.npz", members)
    with pytest.raises(InputError, match=f"^{re.escape(f'{path}: {message}')}[^\n]*$"):
        open_medmnist(path)


def test_labels_that_are_not_those_of_the_published_dataset_are_refused(tmp_path: Path):
    path = write_medmnist(tmp_path / "nodulemnist3d.npz", members_of(num_classes=3))
    message = "train_labels: row 2 is 2; expected 0 to 1, as nodulemnist3d is binary"
    with pytest.raises(InputError, match=re.escape(message)):
        open_medmnist(path)
    path = write_medmnist(tmp_path / "chestmnist.npz", members_of((4, 4)))
    with pytest.raises(InputError, match="train_labels has 1 columns; expected 14, as chestmnist is multi-label"):
        open_medmnist(path)


def test_a_missing_file_and_one_that_is_no_archive_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"a\.npz: not found"):
        open_medmnist(tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"a\.npz: cannot be read as an \.npz file .*damaged"):
        open_medmnist(tmp_path / "a.npz")


def test_a_truncated_file_is_damaged(tmp_path: Path):
    path = write_medmnist(tmp_path / "a.npz", members_of())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"a\.npz: .*damaged"):
        open_medmnist(path)


def test_a_flipped_byte_is_found_when_the_images_are_read(tmp_path: Path):
    path = tmp_path / "a.npz"
    np.savez(path, **members_of())
    content = bytearray(path.read_bytes())
    content[zipfile.ZipFile(path).getinfo("train_images.npy").header_offset + 300] ^= 255
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npz: train_images cannot be read \(Bad CRC"):
        read_images(open_medmnist(path), "train")


def test_objects_are_never_unpickled(tmp_path: Path):
    path = write_medmnist(tmp_path / "a.npz", changed(train_labels=np.array([[{}]] * 6, dtype=object)))
    with pytest.raises(InputError, match="train_labels holds object values; expected numbers"):
        open_medmnist(path)


def test_a_header_that_says_more_than_there_is_takes_no_memory(tmp_path: Path):
    path = write_medmnist(tmp_path / "a.npz", changed(train_images=None))
    text = io.BytesIO()
    np.lib.format.write_array_header_1_0(text, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 28, 28, 28)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train_images.npy", text.getvalue())
    with pytest.raises(InputError, match=r"train_images says 1000000000×28×28×28, .* bytes, but has 128; damaged"):
        open_medmnist(path)


@pytest.mark.parametrize("header", ["{'descr': '|u1', 'shape': (3, 1", "{'shape': (1,)}", "('a' 1)", "\\"])
def test_a_header_that_makes_no_sense_is_damage(tmp_path: Path, header: str):
    path = write_medmnist(tmp_path / "a.npz", changed(train_images=None))
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train_images.npy", content)
    with pytest.raises(InputError, match=r"a\.npz: train_images cannot be read \(.*damaged"):
        open_medmnist(path)


def test_images_that_do_not_fit_into_memory_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    dataset = open_medmnist(write_medmnist(tmp_path / "a.npz", members_of()))
    monkeypatch.setattr(medmnist, "available_bytes", lambda: 100)
    with pytest.raises(InputError, match="train_images takes 3.84e-07 GB, but 1e-07 GB of memory are free"):
        read_images(dataset, "train")


def test_a_file_that_was_replaced_meanwhile_is_told(tmp_path: Path):
    dataset = open_medmnist(write_medmnist(tmp_path / "a.npz", members_of()))
    write_medmnist(tmp_path / "a.npz", members_of((4, 4)))
    with pytest.raises(InputError, match="has changed since it was opened"):
        read_images(dataset, "train")
