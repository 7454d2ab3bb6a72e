"""Images in and out: geometry stays as it was, and every damaged file has its line."""

from __future__ import annotations

import errno
import itertools
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from spadunet.errors import InputError, OutputError
from spadunet.image import (
    Image,
    LabelMap,
    corner_distance_mm,
    geometry_difference,
    read_image,
    read_label_map,
    turned_onto,
    write_label_map,
)

DATA = Path(__file__).parent.parent / "spadunet/demo/data"
HIPPOCAMPUS = DATA / "Dataset004_Hippocampus/imagesTr/hippocampus_011_0000.nii.gz"
SUNNYBROOK = DATA / "Dataset101_SunnybrookLV/imagesTr/SC-N-02_ph00_0000.nii.gz"


def turn(degrees: float, axis: int) -> np.ndarray:
    """Rotation matrix about one axis."""
    i, j = (other for other in range(3) if other != axis)
    matrix = np.eye(3)
    angle = np.deg2rad(degrees)
    matrix[[i, j], [i, j]] = np.cos(angle)
    matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
    return matrix


DIRECTIONS = {
    "axial": np.eye(3),
    "flipped": np.diag([-1.0, -1.0, 1.0]),
    "mirrored": np.diag([1.0, 1.0, -1.0]),
    "sagittal": np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]]),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "oblique": turn(20, 0) @ turn(-13, 2),
}


def itk_image(array: np.ndarray, direction: np.ndarray = DIRECTIONS["oblique"]) -> sitk.Image:
    """A 3D image with an odd spacing and origin."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.7, 1.1, 3.3))
    image.SetOrigin((-12.3, 45.6, 7.8))
    image.SetDirection(direction.ravel())
    return image


def write(path: Path, array: np.ndarray) -> Path:
    """Write an array as an image."""
    sitk.WriteImage(itk_image(array), str(path))
    return path


RAMP = np.arange(120, dtype=np.int16).reshape(6, 5, 4)


# --- geometry


def test_the_affine_is_worked_out_from_spacing_direction_and_origin(tmp_path: Path):
    path = tmp_path / "a.nii"
    sitk.WriteImage(itk_image(RAMP, DIRECTIONS["sagittal"]), str(path))
    image = read_image([path])
    assert image.shape == (6, 5, 4)
    assert image.spacing_mm == pytest.approx((3.3, 1.1, 0.7))
    # One step along the first array axis goes 3.3 mm to the left, the second 1.1 mm down, the third 0.7 mm back.
    expected = [[3.3, 0, 0, -12.3], [0, 0, 0.7, 45.6], [0, -1.1, 0, 7.8], [0, 0, 0, 1]]
    np.testing.assert_allclose(image.affine, expected, rtol=1e-6)
    np.testing.assert_array_equal(image.array, RAMP[None])
    assert image.array.dtype == np.int16


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
@pytest.mark.parametrize("shape", [(6, 5, 4), (1, 5, 4), (6, 1, 4), (6, 5, 1), (1, 1, 1)])
@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_written_label_map_has_the_geometry_of_what_was_read(tmp_path: Path, name: str, shape, ending: str):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    source, copy = tmp_path / "source.nii.gz", tmp_path / f"copy{ending}"
    sitk.WriteImage(itk_image(array, DIRECTIONS[name]), str(source))
    write_label_map(copy, read_label_map(source))
    before, after = sitk.ReadImage(str(source)), sitk.ReadImage(str(copy))
    assert after.GetSize() == before.GetSize() == shape[::-1]
    assert after.GetSpacing() == before.GetSpacing()
    assert after.GetOrigin() == before.GetOrigin()
    np.testing.assert_allclose(after.GetDirection(), before.GetDirection(), atol=1e-7)  # float32 quaternions
    np.testing.assert_array_equal(sitk.GetArrayFromImage(after), array)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, copy.name])


@pytest.mark.parametrize("path", [HIPPOCAMPUS, SUNNYBROOK])
def test_a_real_image_keeps_its_geometry_through_a_label_map(tmp_path: Path, path: Path):
    image = read_image([path])
    label_map = LabelMap(array=(image.array[0] > 100).astype(np.uint8), affine=image.affine)
    write_label_map(tmp_path / "a.nii.gz", label_map)
    before, after = sitk.ReadImage(str(path)), sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    for get in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(after, get)() == getattr(before, get)()
    again = read_label_map(tmp_path / "a.nii.gz")
    assert geometry_difference(image, again) is None
    np.testing.assert_array_equal(again.array, label_map.array)


def test_real_images_have_the_shape_and_spacing_of_their_headers():
    assert (read_image([HIPPOCAMPUS]).shape, read_image([HIPPOCAMPUS]).spacing_mm) == ((31, 50, 36), (1, 1, 1))
    assert (read_image([SUNNYBROOK]).shape, read_image([SUNNYBROOK]).spacing_mm) == ((9, 256, 256), (8, 1.25, 1.25))


def test_a_2d_file_is_a_single_slice(tmp_path: Path):
    image = sitk.GetImageFromArray(RAMP[0])
    image.SetSpacing((0.5, 0.25))
    image.SetOrigin((3, 4))
    sitk.WriteImage(image, str(tmp_path / "a.nii"))
    read = read_image([tmp_path / "a.nii"])
    assert (read.shape, read.spacing_mm) == ((1, 5, 4), (1, 0.25, 0.5))
    np.testing.assert_array_equal(read.affine[:3, 3], (3, 4, 0))
    np.testing.assert_array_equal(read.array, RAMP[None, :1])


def test_channels_are_stacked_in_the_order_of_their_files(tmp_path: Path):
    paths = [write(tmp_path / f"a_{index:04}.nii.gz", RAMP * index) for index in (1, 2, 3)]
    np.testing.assert_array_equal(read_image(paths).array, np.stack([RAMP, RAMP * 2, RAMP * 3]))


# --- comparing grids


def test_a_missing_channel_is_zero_and_named(tmp_path: Path):
    first, second = np.full((2, 3, 4), 7, np.int16), np.full((2, 3, 4), 9, np.int16)
    paths = [None, write(tmp_path / "a_0001.nii.gz", first), None, write(tmp_path / "a_0003.nii.gz", second)]
    image = read_image(paths, num_channels=4)
    assert image.missing_channels == (0, 2)
    assert image.array.dtype == np.int16
    assert [np.unique(channel).tolist() for channel in image.array] == [[0], [7], [0], [9]]
    alone = read_image([None, None, paths[1]], num_channels=3)  # not taken for a grey picture among colour ones
    assert [np.unique(channel).tolist() for channel in alone.array] == [[0], [0], [7]]
    assert read_image([paths[1], paths[3]], num_channels=2).missing_channels == ()


def test_a_4d_file_cannot_stand_for_one_channel_of_several(tmp_path: Path):
    write_4d(tmp_path / "a_0001.nii.gz")
    with pytest.raises(InputError, match=r"a_0001.nii.gz: wrong channel count: \d+, expected 1 \(it is 4D"):
        read_image([None, tmp_path / "a_0001.nii.gz"], num_channels=2)


@pytest.mark.parametrize("missing", [(0, 1), (2,), (-1,)])
def test_channels_that_cannot_be_missing_are_refused(missing: tuple[int, ...]):
    with pytest.raises(ValueError, match="of 2 channels, .* cannot be missing"):
        Image(array=np.zeros((2, 1, 1, 1)), affine=np.eye(4), missing_channels=missing)


def test_corner_distance_is_that_of_the_furthest_corner():
    stretched = np.diag([1.0, 1.0, 1.5, 1.0])
    assert corner_distance_mm((4, 4, 5), np.eye(4), stretched) == 2.0  # the last of five voxels lies at 6, not 4
    moved = np.eye(4)
    moved[:3, 3] = (3, 4, 0)
    assert corner_distance_mm((1, 1, 1), np.eye(4), moved) == 5.0


def test_grids_are_the_same_up_to_half_of_the_smallest_voxel_side():
    def at(depth_mm: float, shape=(2, 2, 2)) -> LabelMap:
        affine = np.diag([8.0, 1.0, 2.0, 1.0])
        affine[0, 3] = depth_mm
        return LabelMap(array=np.zeros(shape, np.uint8), affine=affine)

    assert geometry_difference(at(0), at(0.49)) is None
    assert geometry_difference(at(0), at(0.51)) == (
        "corners lie up to 0.51 mm apart (origin 0, 0, 0 against 0.51, 0, 0 mm (LPS))"
    )
    assert geometry_difference(at(0), at(0, (3, 2, 2))) == "shape 2×2×2 against 2×2×3 voxels (x×y×z)"


def test_what_differs_between_two_grids_is_told_as_the_file_has_it():
    def grid(affine: np.ndarray) -> LabelMap:
        return LabelMap(array=np.zeros((10, 10, 10), np.uint8), affine=affine)

    plain = grid(np.eye(4)[[2, 1, 0, 3]])
    turned = grid(np.eye(4))
    assert geometry_difference(plain, turned) == "corners lie up to 12.7 mm apart (axes turned by up to 90°)"  # 9 · √2
    coarse = grid(np.diag([1.0, 1.0, 3.0, 1.0])[[2, 1, 0, 3]])
    assert geometry_difference(plain, coarse) == (
        "corners lie up to 18 mm apart (spacing 1×1×1 against 3×1×1 mm, x×y×z)"
    )


def test_arrays_and_affines_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"^an image array has 4 axes .*, not shape \(2, 2, 2\)$"):
        Image(array=np.zeros((2, 2, 2), np.float32), affine=np.eye(4))
    with pytest.raises(ValueError, match=r"^a label map's array has 3 axes, not shape \(2, 2\)$"):
        LabelMap(array=np.zeros((2, 2), np.uint8), affine=np.eye(4))
    with pytest.raises(ValueError, match=r"^a label map's array is of integers, not float64$"):
        LabelMap(array=np.zeros((2, 2, 2)), affine=np.eye(4))
    for affine in (np.eye(3), np.full((4, 4), np.nan)):
        with pytest.raises(ValueError, match=r"^an affine is a finite \(4, 4\) matrix, not "):
            LabelMap(array=np.zeros((2, 2, 2), np.uint8), affine=affine)
    with pytest.raises(ValueError, match=r"^the affine is singular: a voxel side is zero or two axes coincide$"):
        LabelMap(array=np.zeros((2, 2, 2), np.uint8), affine=np.diag([1.0, 0, 1, 1]))


# --- damaged files


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def set_zero_depth_spacing(path: Path) -> None:
    """pixdim begins at byte 76 with a sign; the third side follows two others."""
    content = bytearray(path.read_bytes())
    struct.pack_into("<f", content, 76 + 3 * 4, 0.0)
    path.write_bytes(content)


def write_4d(path: Path) -> None:
    sitk.WriteImage(sitk.JoinSeries([itk_image(RAMP), itk_image(RAMP)]), str(path))


def write_vectors(path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4, 2), np.float32), isVector=True), str(path))


def write_nan(path: Path) -> None:
    array = RAMP.astype(np.float32)
    array[0, 0, :2] = np.nan
    array[0, 0, 2] = np.inf
    write(path, array)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("a.nii", Path.unlink, "not found"),
        ("a.nii", lambda path: path.write_bytes(b""), "the file is empty (0 bytes); copy it again from its source"),
        (
            "a.nii.gz",
            cut_in_half,
            "damaged gzip file (Compressed file ended before the end-of-stream marker was reached); "
            "copy it again from its source",
        ),
        (
            "a.nii",
            lambda path: path.write_bytes(path.read_bytes()[:-100]),
            "truncated: 140 of the 240 bytes of voxels that its header announces; copy it again from its source",
        ),
        (
            "a.nii",
            lambda path: path.write_bytes(bytes(reversed(path.read_bytes()))),
            "cannot be read as NIfTI: its header is damaged or that of another format; copy it again",
        ),
        ("a.nii", set_zero_depth_spacing, "voxel spacing 0.7×1.1×0 mm; each must be above zero: correct the header"),
        ("a.nii", write_4d, "wrong channel count: 2, expected 1 (it is 4D, 4×5×6×2; split it into volumes)"),
        ("a.nii", write_vectors, "holds 2 values a voxel; expected one: write one file a channel"),
        ("a.nii", write_nan, "holds 3 NaN or infinite values; replace them by a number, e.g. the minimum"),
    ],
    ids=["missing", "empty", "half-gzip", "half", "header", "zero-spacing", "4d", "vectors", "nan"],
)
def test_a_damaged_file_is_told_in_one_line(tmp_path: Path, name: str, damage: Callable[[Path], object], message: str):
    path = write(tmp_path / name, RAMP)
    damage(path)
    with pytest.raises(InputError) as caught:
        read_image([path], num_channels=1)
    assert str(caught.value) == f"{path}: {message.format(path=path)}"


def test_a_spacing_of_zero_and_nan_are_told_in_other_formats_too(tmp_path: Path):
    path = tmp_path / "a.mha"
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nElementSpacing = 1 0 1\nDimSize = 2 2 2\n"
        "ElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    )
    path.write_bytes(header.encode() + bytes(8))
    with pytest.raises(InputError, match=f"^{path}: damaged header: expected numbers above zero for .ElementSpacing."):
        read_image([path])
    write_nan(path)
    with pytest.raises(InputError, match=f"^{path}: holds 3 NaN or infinite values; replace them by a number"):
        read_image([path])
    with pytest.raises(InputError, match=f"^{path}: holds NaN or infinite label values; labels are whole numbers$"):
        read_label_map(path)


def test_channels_on_different_grids_are_told(tmp_path: Path):
    first, second = write(tmp_path / "a_0000.nii", RAMP), write(tmp_path / "a_0001.nii", RAMP[1:])
    with pytest.raises(InputError) as caught:
        read_image([first, second])
    assert str(caught.value) == (
        f"{second}: does not lie on the grid of {first}: shape 4×5×6 against 4×5×5 voxels (x×y×z); "
        "resample one to the other"
    )


# --- label maps


def test_whole_numbers_stored_as_floats_are_labels(tmp_path: Path):
    array = np.zeros((2, 2, 2), np.float32)
    array[0, 0, 1] = 7
    label_map = read_label_map(write(tmp_path / "a.nii", array))
    assert np.issubdtype(label_map.array.dtype, np.integer)
    np.testing.assert_array_equal(label_map.array, array)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [((0, 255), np.uint8), ((0, 256), np.uint16), ((-1, 7), np.int32), ((0, 70000), np.int32), ((0, 2**32), np.int64)],
)
def test_labels_stored_as_floats_take_no_more_memory_than_they_need(tmp_path: Path, values, dtype: type):
    array = np.zeros((3, 2, 2))
    array[1, 0], array[2, 1] = values
    label_map = read_label_map(write(tmp_path / "a.nii", array))
    assert label_map.array.dtype == dtype
    np.testing.assert_array_equal(label_map.array, array)


def test_a_label_beyond_all_whole_numbers_is_told(tmp_path: Path):
    path = write(tmp_path / "a.nii", np.full((2, 2, 2), 1e30))
    with pytest.raises(
        InputError, match=f"^{path}: holds label values from 0 to 1e.30; label ids have at most 64 bits$"
    ):
        read_label_map(path)


@pytest.mark.parametrize("value", [1e300, -1e39])
def test_values_that_float32_does_not_hold_are_told(tmp_path: Path, value: float):
    array = np.zeros((2, 2, 2))
    array[0, 0, 1] = value
    path = write(tmp_path / "a.nii", array)
    with pytest.raises(InputError, match=f"^{path}: holds values from .* more than float32 holds"):
        read_image([path])
    array[0, 0, 1] = np.sign(value) * 1e38
    assert read_image([write(path, array)]).array.dtype == np.float32


def test_labels_that_are_no_whole_numbers_are_told(tmp_path: Path):
    path = write(tmp_path / "a.nii", np.full((2, 2, 2), 0.25, np.float32))
    message = f"^{path}: holds the label value 0.25, not a whole number; was it interpolated[?]$"
    with pytest.raises(InputError, match=message):
        read_label_map(path)
    write(path, np.full((2, 2, 2), np.nan, np.float32))
    with pytest.raises(InputError, match=f"^{path}: holds 8 NaN or infinite values; replace them by a number"):
        read_label_map(path)


# --- writing


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_a_full_disk_is_told_and_the_older_file_stays(tmp_path: Path, monkeypatch, ending: str):
    """ITK says nothing of a .nii cut short by a full disk; of a .nii.gz it does."""
    path = tmp_path / f"a{ending}"
    label_map = LabelMap(array=RAMP, affine=np.eye(4))
    write_label_map(path, label_map)
    before = path.read_bytes()

    def write_half(image: sitk.Image, name: str, **options) -> None:
        real_write(image, name, **options)
        cut_in_half(Path(name))

    real_write = sitk.WriteImage
    monkeypatch.setattr(sitk, "WriteImage", write_half)
    with pytest.raises(OutputError) as caught:
        write_label_map(path, label_map)
    assert str(caught.value) == f"{path}: cannot be written; is the disk full or the folder read-only?"
    assert path.read_bytes() == before
    assert [left.name for left in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(image: sitk.Image, name: str, **options) -> None:
        raise RuntimeError("sitk::ERROR: could not open")

    monkeypatch.setattr(sitk, "WriteImage", refuse)
    with pytest.raises(OutputError, match=r"a\.nii: cannot be written; is the disk full or the folder read-only\?$"):
        write_label_map(tmp_path / "a.nii", LabelMap(array=RAMP, affine=np.eye(4)))

    def replace(source: Path, target: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.undo()
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OutputError, match=r"a\.nii: cannot be written: the file system is read-only; choose another"):
        write_label_map(tmp_path / "a.nii", LabelMap(array=RAMP, affine=np.eye(4)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", list(itertools.product([False, True], repeat=3)))
def test_one_grid_stored_in_another_order_is_turned_back(axes: tuple[int, ...], flips: tuple[bool, ...]):
    affine = np.array([[0, 0.2, 3, 4], [0.1, 2, -0.2, 5], [1, 0, 0.1, -6], [0, 0, 0, 1]], float)
    original = LabelMap(array=np.arange(2 * 3 * 4).reshape(2, 3, 4), affine=affine)
    array, other = original.array.transpose(axes), affine.copy()
    other[:3, :3] = affine[:3, list(axes)]
    for axis in range(3):
        if flips[axis]:
            array = np.flip(array, axis)
            other[:3, 3] += (array.shape[axis] - 1) * other[:3, axis]
            other[:3, axis] *= -1
    turned = turned_onto(LabelMap(array=array, affine=other), original)
    assert turned is not None
    np.testing.assert_array_equal(turned.array, original.array)
    np.testing.assert_allclose(turned.affine, affine, atol=1e-12)


def test_another_grid_is_not_turned():
    label_map = LabelMap(array=np.zeros((2, 3, 4), int), affine=np.eye(4))
    moved, wider = np.eye(4), np.diag([1.0, 2, 1, 1])
    moved[0, 3] = 1
    for other in (moved, wider):
        assert turned_onto(label_map, LabelMap(array=np.zeros((2, 3, 4), int), affine=other)) is None
    assert turned_onto(label_map, LabelMap(array=np.zeros((4, 3, 2), int), affine=np.eye(4))) is None
