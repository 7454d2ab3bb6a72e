"""What a NIfTI header announces, written byte by byte."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from spadunet.errors import InputError
from spadunet.formats import read_channels
from spadunet.nifti import read_voxels

DATA = Path(__file__).parent.parent / "spadunet/demo/data"


def nifti_1(
    sizes: tuple[int, ...], spacing_mm: tuple[float, ...], order: str = "<", kind: tuple[int, int] = (4, 16)
) -> bytes:
    """Header of a .nii file, 352 bytes, with only the fields that are looked at; kind is datatype and bits a voxel."""
    header = bytearray(352)
    struct.pack_into(f"{order}i", header, 0, 348)
    struct.pack_into(f"{order}{1 + len(sizes)}h", header, 40, len(sizes), *sizes)
    struct.pack_into(f"{order}hh", header, 70, *kind)
    struct.pack_into(f"{order}{1 + len(spacing_mm)}f", header, 76, 1, *spacing_mm)
    struct.pack_into(f"{order}f", header, 108, 352)
    header[344:348] = b"n+1\0"
    return bytes(header)


def nifti_2(sizes: tuple[int, ...], spacing_mm: tuple[float, ...], order: str = "<", kind=(4, 16)) -> bytes:
    """The same for NIfTI-2, 544 bytes."""
    header = bytearray(544)
    struct.pack_into(f"{order}i", header, 0, 540)
    header[4:12] = b"n+2\0\r\n\x1a\n"
    struct.pack_into(f"{order}hh", header, 12, *kind)
    struct.pack_into(f"{order}{1 + len(sizes)}q", header, 16, len(sizes), *sizes)
    struct.pack_into(f"{order}{1 + len(spacing_mm)}d", header, 104, 1, *spacing_mm)
    struct.pack_into(f"{order}q", header, 168, 544)
    return bytes(header)


def problem_of(path: Path, content: bytes) -> str | None:
    """Write a file and say what is wrong with it, without its path."""
    path.write_bytes(content)
    try:
        read_voxels(path)
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")
    return None


@pytest.mark.parametrize("write", [nifti_1, nifti_2])
@pytest.mark.parametrize("order", "<>")
def test_a_whole_file_of_either_version_and_byte_order_passes_and_a_byte_less_does_not(tmp_path, write, order: str):
    header = write((2, 3, 4), (1, 2, 3), order)
    whole = header + bytes(2 * 3 * 4 * 2)
    assert problem_of(tmp_path / "a.nii", whole) is None
    assert problem_of(tmp_path / "a.nii", whole + b"t") is None
    truncated = "truncated: 47 of the 48 bytes of voxels that its header announces; copy it again from its source"
    assert problem_of(tmp_path / "a.nii", whole[:-1]) == truncated
    assert problem_of(tmp_path / "a.nii.gz", gzip.compress(whole[:-1])) == truncated


@pytest.mark.parametrize("write", [nifti_1, nifti_2])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("kind", "code"), [((16, 32), "f"), ((64, 64), "d")])
def test_voxels_that_are_no_numbers_are_counted(tmp_path, write, order: str, kind: tuple[int, int], code: str):
    header = write((2, 2, 2), (1, 1, 1), order, kind)
    sound = struct.pack(f"{order}8{code}", *range(8))
    bad = struct.pack(f"{order}8{code}", 0, math.nan, 2, math.inf, -math.inf, 5, 6, 7)
    assert problem_of(tmp_path / "a.nii", header + sound + b"\xff" * 7) is None  # what trails is no voxel
    expected = "holds 3 NaN or infinite values; replace them by a number, e.g. the minimum"
    assert problem_of(tmp_path / "a.nii", header + bad) == expected
    assert problem_of(tmp_path / "a.nii.gz", gzip.compress(header + bad)) == expected


def test_voxels_are_those_that_simpleitk_reads():
    for path in [*sorted(DATA.glob("*/imagesTr/*"))[::20], *sorted(DATA.glob("*/labelsTr/*"))[::20]]:
        expected = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        voxels = read_voxels(path)
        assert voxels is not None
        np.testing.assert_array_equal(voxels.reshape(expected.shape), expected)
        assert voxels.dtype == expected.dtype


@pytest.mark.parametrize("write", [nifti_1, nifti_2])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("kind", "code"),
    [((2, 8), "u1"), ((4, 16), "i2"), ((8, 32), "i4"), ((16, 32), "f4"), ((64, 64), "f8")]
    + [((256, 8), "i1"), ((512, 16), "u2"), ((768, 32), "u4")],
)
def test_voxels_of_every_plain_type_are_given_as_they_are(tmp_path: Path, write, order: str, kind, code: str):
    values = np.arange(24).astype(code) - (12 if code[0] != "u" else 0)
    header = write((2, 3, 4), (1, 2, 3), order, kind)
    path = tmp_path / "a.nii"
    path.write_bytes(header + values.astype(f"{order}{code}").tobytes() + b"m")
    voxels = read_voxels(path)
    assert voxels is not None
    np.testing.assert_array_equal(voxels, values)
    assert voxels.dtype == values.dtype
    if write is nifti_1:  # these few fields of a NIfTI-2 header are not enough for SimpleITK
        np.testing.assert_array_equal(voxels, sitk.GetArrayFromImage(sitk.ReadImage(str(path))).ravel())


@pytest.mark.parametrize(("slope", "intercept", "is_plain"), [(0, 5, True), (1, 0, True), (2, 0, False), (1, 3, False)])
def test_scaled_voxels_are_left_to_simpleitk(tmp_path: Path, slope: float, intercept: float, is_plain: bool):
    header = bytearray(nifti_1((2, 1, 1), (1, 1, 1)))
    struct.pack_into("<2f", header, 112, slope, intercept)
    path = tmp_path / "a.nii"
    path.write_bytes(bytes(header) + struct.pack("<2h", 7, -7))
    assert (read_voxels(path) is not None) == is_plain
    array, _ = read_channels(path)
    assert array.ravel().tolist() == ([7, -7] if is_plain else [7 * slope + intercept, -7 * slope + intercept])


def test_a_header_that_announces_more_than_could_be_packed_takes_no_memory(tmp_path: Path):
    content = gzip.compress(nifti_1((32767, 32767, 32767), (1, 1, 1)) + bytes(100))
    problem = problem_of(tmp_path / "a.nii.gz", content)
    assert problem is not None
    assert problem.startswith("truncated: at most ")


@pytest.mark.parametrize("side", [0.0, -3.0, math.nan, math.inf])
def test_a_spacing_that_cannot_be_is_told(tmp_path: Path, side: float):
    content = nifti_1((2, 3, 4), (1, 2, side)) + bytes(48)
    assert problem_of(tmp_path / "a.nii", content) == (
        f"voxel spacing 1×2×{side:g} mm; each must be above zero: correct the header"
    )


def test_only_the_axes_of_space_have_a_spacing(tmp_path: Path):
    assert problem_of(tmp_path / "a.nii", nifti_1((6, 4), (1, 2, 0)) + bytes(48)) is None
    assert problem_of(tmp_path / "a.nii", nifti_1((2, 3, 4, 1), (1, 2, 3, 0)) + bytes(48)) is None


def test_an_image_without_voxels_is_told(tmp_path: Path):
    assert problem_of(tmp_path / "a.nii", nifti_1((2, 0, 4), (1, 2, 3))) == (
        "the header gives 2×0×4 voxels; each must be above zero: copy the file again"
    )


def test_single_bits_are_counted_in_whole_bytes(tmp_path: Path):
    header = nifti_1((3, 3, 1), (1, 1, 1), kind=(1, 1))
    assert problem_of(tmp_path / "a.nii", header + bytes(2)) is None
    assert problem_of(tmp_path / "a.nii", header + bytes(1)) is not None


@pytest.mark.parametrize("content", [b"", b"abc", b"no image at all" * 100, nifti_1((2, 3, 4), (1, 2, 3))[:100]])
def test_what_is_no_nifti_is_told(tmp_path: Path, content: bytes):
    problem = "cannot be read as NIfTI: its header is damaged or that of another format; copy it again"
    assert problem_of(tmp_path / "a.nii", content) == problem


def test_a_damaged_gzip_file_is_told(tmp_path: Path):
    whole = gzip.compress(nifti_1((2, 3, 4), (1, 2, 3)) + bytes(48))
    assert problem_of(tmp_path / "a.nii.gz", whole[: len(whole) // 2]) == (
        "damaged gzip file (Compressed file ended before the end-of-stream marker was reached); "
        "copy it again from its source"
    )
    for content in (b"no gzip", whole[:20] + b"!!!" + whole[23:], whole[:-8] + b"\0\0\0\0" + whole[-4:]):
        problem = problem_of(tmp_path / "a.nii.gz", content)
        assert problem is not None
        assert problem.startswith("damaged gzip file (")
        assert "\n" not in problem


@pytest.mark.parametrize(
    ("qform_code", "sform_code", "is_read"), [(1, 1, False), (1, 4, True), (1, 2, True), (2, 2, False)]
)
def test_two_places_in_one_space_are_refused_and_in_two_spaces_read(
    tmp_path: Path, qform_code: int, sform_code: int, is_read: bool
):
    image = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4))
    image.set_qform(np.diag([1, 1, 1, 1]), qform_code)
    moved = np.eye(4)
    moved[:3, 3] = (30, 0, 0)
    image.set_sform(moved, sform_code)
    path = tmp_path / "a.nii.gz"
    nibabel.save(image, path)
    if is_read:
        assert read_channels(path)[0].shape == (1, 5, 4, 3)
        return
    with pytest.raises(InputError, match="qform and sform disagree where it lies"):
        read_channels(path)
