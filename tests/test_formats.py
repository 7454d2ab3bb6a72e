"""Every format that is read and written, with the geometry that it can hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import write_series

from spadunet.errors import InputError, OutputError
from spadunet.formats import VOLUME_ENDINGS, find_sidecar, read_channels, read_header, read_middle, write_array
from spadunet.image import LabelMap, read_image, read_label_map, write_label_map
from spadunet.itk import ITK_LOCK

GREY = np.arange(4 * 6, dtype=np.uint8).reshape(4, 6)
COLOUR = np.stack([GREY, GREY + 40, GREY + 80], axis=-1)
VOLUME = np.arange(3 * 4 * 6, dtype=np.int16).reshape(3, 4, 6)
PIXELS = np.eye(4)[[2, 1, 0, 3]]
TURN = np.array([[0.8, -0.6, 0, 5], [0.6, 0.8, 0, -3], [0, 0, 1, 7], [0, 0, 0, 1]])
OBLIQUE = TURN @ PIXELS @ np.diag([5, 0.5, 0.75, 1])


def write_picture(path: Path, array: np.ndarray, *, is_vector: bool = False) -> Path:
    """By ITK."""
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=is_vector), str(path))
    return path


def test_itk_reads_and_writes_one_file_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_series(tmp_path / "series", VOLUME)
    called = set()

    def guard(owner, name: str) -> None:
        original = getattr(owner, name)

        def call(*arguments, **options):
            assert ITK_LOCK.locked(), name
            called.add(name)
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    for name in ("ReadImage", "WriteImage"):
        guard(sitk, name)
    for name in ("ReadImageInformation", "Execute"):
        guard(sitk.ImageFileReader, name)
    for ending in (".nii.gz", ".mha", ".png"):
        path = tmp_path / f"a{ending}"
        write_array(path, VOLUME[:1].astype(np.uint8), PIXELS)
        read_header(path)
        read_channels(path)
    read_middle(tmp_path / "a.mha", 1)
    read_channels(tmp_path / "series")
    assert called == {"ReadImage", "WriteImage", "ReadImageInformation", "Execute"}
    assert not ITK_LOCK.locked()


@pytest.mark.parametrize("ending", VOLUME_ENDINGS)
def test_volumes_keep_values_and_oblique_geometry(tmp_path: Path, ending: str):
    image = sitk.GetImageFromArray(VOLUME)
    image.SetSpacing((0.75, 0.5, 5))
    image.SetOrigin(OBLIQUE[:3, 3].tolist())
    image.SetDirection(TURN[:3, :3].ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / f"a{ending}"))
    array, affine = read_channels(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(array, VOLUME[None])
    np.testing.assert_allclose(affine, OBLIQUE, atol=1e-5)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_label_maps_are_written_in_the_format_of_their_ending(tmp_path: Path, ending: str):
    label_map = LabelMap(array=VOLUME.astype(np.uint8), affine=OBLIQUE)
    write_label_map(tmp_path / f"a{ending}", label_map)
    back = read_label_map(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(back.array, label_map.array)
    np.testing.assert_allclose(back.affine, OBLIQUE, atol=1e-5)


@pytest.mark.parametrize("ending", [".png", ".PNG", ".tif", ".tiff", ".bmp"])
def test_pictures_are_one_slice_of_pixels_of_a_millimetre(tmp_path: Path, ending: str):
    image = read_image([write_picture(tmp_path / f"a{ending}", GREY)], num_channels=1)
    np.testing.assert_array_equal(image.array, GREY[None, None])
    np.testing.assert_array_equal(image.affine, PIXELS)
    if ending == ".bmp":  # has no grey of its own
        return
    write_label_map(tmp_path / f"b{ending}", LabelMap(array=GREY[None], affine=PIXELS))
    np.testing.assert_array_equal(read_label_map(tmp_path / f"b{ending}").array, GREY[None])


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp", ".jpg", ".jpeg"])
def test_colours_are_three_channels(tmp_path: Path, ending: str):
    image = read_image([write_picture(tmp_path / f"a{ending}", COLOUR, is_vector=True)], num_channels=3)
    tolerance = 12 if ending.startswith(".jp") else 0
    np.testing.assert_allclose(image.array[:, 0], np.moveaxis(COLOUR, -1, 0), atol=tolerance)


def test_an_alpha_channel_is_left_out(tmp_path: Path):
    with_alpha = np.concatenate([COLOUR, np.full((*GREY.shape, 1), 255, np.uint8)], axis=-1)
    array, _ = read_channels(write_picture(tmp_path / "a.png", with_alpha, is_vector=True))
    np.testing.assert_array_equal(array[:, 0], np.moveaxis(COLOUR, -1, 0))


def test_a_grey_picture_among_colour_ones_and_one_saved_as_colour_fit_in(tmp_path: Path):
    grey = read_image([write_picture(tmp_path / "a.png", GREY)], num_channels=3)
    np.testing.assert_array_equal(grey.array, np.stack([GREY] * 3)[:, None])
    saved = write_picture(tmp_path / "b.png", np.stack([GREY] * 3, axis=-1), is_vector=True)
    np.testing.assert_array_equal(read_image([saved], num_channels=1).array, GREY[None, None])
    np.testing.assert_array_equal(read_label_map(saved).array, GREY[None])


def test_too_few_or_too_many_channels_are_told(tmp_path: Path):
    grey, colour = write_picture(tmp_path / "a.png", GREY), write_picture(tmp_path / "b.png", COLOUR, is_vector=True)
    with pytest.raises(InputError, match=r"a\.png: wrong channel count: 1, expected 2"):
        read_image([grey], num_channels=2)
    with pytest.raises(InputError, match=r"b\.png: wrong channel count: 3, expected 1"):
        read_image([colour], num_channels=1)


def test_a_coloured_label_map_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"a\.png: holds 3 values a voxel \(4D or colour\); a label map has one"):
        read_label_map(write_picture(tmp_path / "a.png", COLOUR, is_vector=True))


@pytest.mark.parametrize("sidecar", ["case_0000.json", "case.json"])
def test_a_tiff_of_slices_has_the_spacing_of_the_file_beside_it(tmp_path: Path, sidecar: str):
    path = write_picture(tmp_path / "case_0000.tif", VOLUME.astype(np.uint8))
    (tmp_path / sidecar).write_text('{"spacing": [5, 0.5, 0.75]}')
    array, affine = read_channels(path)
    np.testing.assert_array_equal(array[0], VOLUME)
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), (5, 0.5, 0.75))


def test_a_tiff_of_slices_is_never_read_without_its_spacing(tmp_path: Path):
    path = write_picture(tmp_path / "case_0000.tif", VOLUME.astype(np.uint8))
    with pytest.raises(InputError, match=r"a TIFF of 3 slices does not say its voxel size; write case\.json beside it"):
        read_channels(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"spacing": 3}', '{"spacing": [1, 2]}', '{"spacing": [1, 0, 2]}'])
def test_a_wrong_spacing_file_is_named(tmp_path: Path, text: str):
    path = write_picture(tmp_path / "a.tif", VOLUME.astype(np.uint8))
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json: .*; write .\"spacing\": .slice, row, column"):
        read_channels(path)


def test_a_written_tiff_has_its_spacing_beside_it(tmp_path: Path):
    label_map = LabelMap(array=VOLUME.astype(np.uint8), affine=PIXELS @ np.diag([5, 0.5, 0.75, 1]))
    write_label_map(tmp_path / "a.tif", label_map)
    assert json.loads((tmp_path / "a.json").read_text()) == {"spacing": [5.0, 0.5, 0.75]}
    assert find_sidecar(tmp_path / "a.tif") == tmp_path / "a.json"
    back = read_label_map(tmp_path / "a.tif")
    np.testing.assert_array_equal(back.array, label_map.array)
    np.testing.assert_allclose(back.affine, label_map.affine)


def test_slices_do_not_fit_into_a_flat_picture(tmp_path: Path):
    with pytest.raises(OutputError, match=r"a\.png: cannot be written"):
        write_array(tmp_path / "a.png", VOLUME.astype(np.uint8), PIXELS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".png", ".tif", ".jpg"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_cut_off_file_is_named(tmp_path: Path, ending: str, share: float):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    path = write_picture(tmp_path / f"a{ending}", noise if ending in (".png", ".tif", ".jpg") else noise[None])
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match=rf"a\{ending}: "):
        read_channels(path)


def test_axes_that_are_not_at_right_angles_are_told_with_the_remedy(tmp_path: Path):
    sheared = np.eye(4)
    sheared[0, 1] = 0.4
    path = tmp_path / "a.nii"
    sitk.WriteImage(sitk.GetImageFromArray(VOLUME), str(path))
    content = bytearray(path.read_bytes())
    content[252:256] = b"\0\0\1\0"  # no qform, an sform
    content[280 : 280 + 48] = sheared[:3].astype("<f4").tobytes()
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.nii: .*its axes are not at right angles .*; resample it to an upright"):
        read_channels(path)


@pytest.mark.parametrize("ending", [*VOLUME_ENDINGS, ".png", ".tif"])
def test_a_header_says_what_the_voxels_will_be(tmp_path: Path, ending: str):
    path = tmp_path / f"a{ending}"
    write_array(path, VOLUME[:1].astype(np.uint8) if ending == ".png" else VOLUME, OBLIQUE)
    array, affine = read_channels(path)
    header = read_header(path)
    assert header is not None
    assert (header.num_channels, *header.shape) == array.shape
    assert header.voxel_type == array.dtype
    np.testing.assert_array_equal(header.affine, affine)


def test_headers_of_colours_and_of_4d_files_tell_their_channels(tmp_path: Path):
    picture = read_header(write_picture(tmp_path / "a.png", COLOUR, is_vector=True))
    sitk.WriteImage(sitk.GetImageFromArray(np.stack([VOLUME, VOLUME]), isVector=False), str(tmp_path / "a.nii.gz"))
    volumes = read_header(tmp_path / "a.nii.gz")
    assert picture is not None
    assert volumes is not None
    assert (picture.num_channels, picture.shape) == (3, (1, 4, 6))
    assert (volumes.num_channels, volumes.shape) == (2, (3, 4, 6))


def test_a_zip_file_is_not_opened_for_its_header(tmp_path: Path):
    (tmp_path / "a.zip").write_bytes(b"no archive")
    assert read_header(tmp_path / "a.zip") is None


@pytest.mark.parametrize("ending", VOLUME_ENDINGS)
def test_middle_slices_lie_where_they_lay(tmp_path: Path, ending: str):
    path = tmp_path / f"a{ending}"
    write_array(path, VOLUME, OBLIQUE)
    array, affine = read_middle(path, 1)
    np.testing.assert_array_equal(array, VOLUME[None, 1:2])
    np.testing.assert_allclose(affine @ [0, 2, 3, 1], read_channels(path)[1] @ [1, 2, 3, 1], atol=1e-5)


@pytest.mark.parametrize(
    ("lines", "is_read"),
    [("", True), ("Offset = 1 2 3\n", False), ("Offset = 1 2 3\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n", True)],
)
def test_a_metaimage_says_all_of_its_place_or_nothing(tmp_path: Path, lines: str, is_read: bool):
    path = tmp_path / "a.mha"
    header = f"ObjectType = Image\nNDims = 3\nBinaryData = True\n{lines}ElementSpacing = 1 2 3\nDimSize = 2 2 2\n"
    path.write_bytes(f"{header}ElementType = MET_UCHAR\nElementDataFile = LOCAL\n".encode() + bytes(range(8)))
    if not is_read:
        with pytest.raises(InputError, match="TransformMatrix"):
            read_channels(path)
        return
    array, affine = read_channels(path)
    assert array.ravel().tolist() == list(range(8))
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), (3, 2, 1))
