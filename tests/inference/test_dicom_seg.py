"""DICOM SEG read back by highdicom: every voxel where the label map has it, and what it says of patient and source."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import AXIAL, write_series, write_slice

from spadunet import __version__
from spadunet.dataset import RawCase
from spadunet.dicom import read_slice
from spadunet.errors import InputError, OutputError
from spadunet.formats import read_channels
from spadunet.image import LabelMap
from spadunet.inference.dicom_seg import read_headers, require_highdicom, write_segmentation
from spadunet.labels import LabelSet, Region

LABELS = LabelSet(names=("background", "liver", "Milz, groß", "肝臓"), ids=(0, 4, 2, 7))
VOLUME = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
OBLIQUE = ((0.8, 0.6, 0.0), (0.0, 0.0, -1.0))
SHUFFLED = ["IM3", "IM10", "IM1", "IM2"]


def case_of(path: Path, series: str | None = None) -> RawCase:
    return RawCase(name="a", image_paths=(path,), label_path=None, series=series)


def segment(case: RawCase, output: Path, array: np.ndarray | None = None) -> LabelMap:
    """Write a label map of the case's shape, random but for two empty slices, and give it back."""
    values, affine = read_channels(case.image_paths[0])
    if array is None:
        array = np.random.default_rng(0).choice(LABELS.ids, values.shape[1:]).astype(np.uint8)
        array[1:3] = 0
    label_map = LabelMap(array=array, affine=affine)
    write_segmentation(output, label_map, read_headers(case), LABELS, "Dataset007_Liver")
    return label_map


def rebuild(path: Path, label_map: LabelMap) -> np.ndarray:
    """The ids that a SEG has at the label map's voxels, found through positions in the patient alone."""
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    array = np.zeros_like(label_map.array)
    places = np.argwhere(volume.array)
    millimetres = places @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    inverse = np.linalg.inv(label_map.affine)
    indices = millimetres @ inverse[:3, :3].T + inverse[:3, 3]
    np.testing.assert_allclose(indices, np.rint(indices), atol=1e-3)
    array[tuple(np.rint(indices).astype(int).T)] = np.array(LABELS.ids)[volume.array[tuple(places.T)]]
    return array


@pytest.mark.parametrize(
    ("directions", "step_mm", "names"),
    [
        (AXIAL, (0, 0, 5), None),
        (AXIAL, (0, 0, -5), SHUFFLED),
        (OBLIQUE, (-1.8, 2.4, 0), SHUFFLED),
        (OBLIQUE, (1.8, -2.4, 0), None),
    ],
    ids=["upwards", "downwards, shuffled names", "oblique, shuffled names", "oblique, against its normal"],
)
@pytest.mark.parametrize("is_zipped", [False, True])
def test_a_seg_shows_the_label_map_voxel_by_voxel(tmp_path: Path, directions, step_mm, names, is_zipped: bool):
    path = tmp_path / "case"
    write_series(path, VOLUME, directions=directions, step_mm=step_mm, names=names, first_mm=(3, -7, 11))
    if is_zipped:
        path = Path(shutil.make_archive(str(path), "zip", path))
    label_map = segment(case_of(path), tmp_path / "a.dcm")
    np.testing.assert_array_equal(rebuild(tmp_path / "a.dcm", label_map), label_map.array)


def test_each_frame_refers_to_the_slice_that_it_lies_on(tmp_path: Path):
    write_series(tmp_path / "case", VOLUME, step_mm=(0, 0, -5), names=SHUFFLED)
    label_map = segment(case_of(tmp_path / "case"), tmp_path / "a.dcm")
    headers = read_headers(case_of(tmp_path / "case"))
    array = highdicom.seg.segread(tmp_path / "a.dcm").get_pixels_by_source_instance(
        [header.SOPInstanceUID for header in headers], combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(LABELS.to_ids(array), label_map.array)
    sources = {pydicom.dcmread(path).SOPInstanceUID for path in (tmp_path / "case").iterdir()}
    (referenced,) = pydicom.dcmread(tmp_path / "a.dcm").ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == "1.2.3"
    assert {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence} == sources


def test_a_seg_belongs_to_the_patient_and_says_what_made_it(tmp_path: Path):
    patient = {"0010_0010": "Roe^Jane", "0010_0020": "17", "0010_0030": "19700131", "0010_0040": "F"}
    study = {"0008_0050": "A5", "0020_0010": "S9", "0020_0011": "3", "0020_0052": "1.2.77"}
    write_series(tmp_path / "case", VOLUME, **patient, **study)
    segment(case_of(tmp_path / "case"), tmp_path / "a.dcm")
    seg = pydicom.dcmread(tmp_path / "a.dcm")
    assert (seg.Modality, seg.SegmentationType, seg.BitsAllocated) == ("SEG", "BINARY", 1)
    assert (seg.PatientName, seg.PatientID, seg.PatientBirthDate, seg.PatientSex) == ("Roe^Jane", "17", "19700131", "F")
    assert (seg.StudyInstanceUID, seg.AccessionNumber, seg.StudyID) == ("1.2", "A5", "S9")
    assert (seg.SeriesNumber, seg.FrameOfReferenceUID) == (1003, "1.2.77")
    assert seg.SeriesDescription == "spadunet Dataset007_Liver"
    assert [item.SegmentLabel for item in seg.SegmentSequence] == list(LABELS.names[1:])
    for item in seg.SegmentSequence:
        (algorithm,) = item.SegmentationAlgorithmIdentificationSequence
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("spadunet Dataset007_Liver", __version__)
        (kind,) = item.SegmentedPropertyCategoryCodeSequence
        assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("85756007", "SCT")


def test_the_distance_of_frames_is_the_real_one_whatever_the_files_say(tmp_path: Path):
    write_series(tmp_path / "case", VOLUME, step_mm=(0, 0, 2.5))
    assert pydicom.dcmread(tmp_path / "case/0.dcm").SpacingBetweenSlices == 1
    segment(case_of(tmp_path / "case"), tmp_path / "a.dcm")
    (measures,) = pydicom.dcmread(tmp_path / "a.dcm").SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert (measures.SpacingBetweenSlices, list(measures.PixelSpacing)) == (2.5, [0.5, 0.75])


def test_regions_are_segments_that_overlap(tmp_path: Path):
    regions = (Region(name="tumour", ids=(4, 2), painted_id=4), Region(name="core", ids=(2,), painted_id=2))
    labels = LabelSet(names=("background", "edge", "inner"), ids=(0, 4, 2), regions=regions)
    write_series(tmp_path / "case", VOLUME)
    case = case_of(tmp_path / "case")
    array = np.random.default_rng(0).choice(labels.ids, VOLUME.shape).astype(np.uint8)
    _, affine = read_channels(tmp_path / "case")
    write_segmentation(
        tmp_path / "a.dcm", LabelMap(array=array, affine=affine), read_headers(case), labels, "Dataset001_Tumour"
    )
    segmentation = highdicom.seg.segread(tmp_path / "a.dcm")
    assert [item.SegmentLabel for item in segmentation.SegmentSequence] == ["tumour", "core"]
    sources = [header.SOPInstanceUID for header in read_headers(case)]
    masks = segmentation.get_pixels_by_source_instance(sources)  # (A0, A1, A2, R)
    np.testing.assert_array_equal(masks[..., 0], array > 0)
    np.testing.assert_array_equal(masks[..., 1], array == 2)


def test_an_empty_label_map_is_an_empty_frame_a_segment(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_series(tmp_path / "case", VOLUME)
    segment(case_of(tmp_path / "case"), tmp_path / "a.dcm", np.zeros(VOLUME.shape, np.uint8))
    seg = highdicom.seg.segread(tmp_path / "a.dcm")
    assert (seg.NumberOfFrames, seg.number_of_segments) == (3, 3)
    assert not seg.pixel_array.any()
    assert [item.SeriesInstanceUID for item in seg.ReferencedSeriesSequence] == ["1.2.3"]
    assert not caplog.records


def test_a_single_slice_has_a_seg(tmp_path: Path):
    write_series(tmp_path, VOLUME[:1], first_mm=(3, -7, 11))
    array = np.array([[[0, 4, 2, 7, 0, 4]] * 5], np.uint8)
    segment(case_of(tmp_path / "0.dcm"), tmp_path / "a.dcm", array)
    seg = highdicom.seg.segread(tmp_path / "a.dcm")
    assert seg.NumberOfFrames == 3
    for item, frame in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        number = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        np.testing.assert_array_equal(frame, array[0] == LABELS.ids[number])
        assert item.PlanePositionSequence[0].ImagePositionPatient == [3, -7, 11]


def change(folder: Path, **values: object) -> None:
    """Set elements of every file of a folder; None deletes one."""
    with pydicom.config.disable_value_validation():
        for path in folder.iterdir():
            dataset = pydicom.dcmread(path)
            for keyword, value in values.items():
                if value is None:
                    dataset.pop(keyword, None)
                else:
                    setattr(dataset, keyword, value)
            dataset.save_as(path)


def test_an_x_ray_without_a_place_in_space_has_a_seg(tmp_path: Path):
    write_slice(tmp_path / "in/0.dcm", VOLUME[0], {"0008|0060": "CR", "0020|000e": "1.2.3"}, (0.5, 0.75))
    change(tmp_path / "in", SOPClassUID="1.2.840.10008.5.1.4.1.1.1", ImagePositionPatient=None)
    array = np.array([[[0, 4, 2, 7, 0, 4]] * 5], np.uint8)
    write_segmentation(
        tmp_path / "a.dcm",
        LabelMap(array=array, affine=np.eye(4)),
        read_headers(case_of(tmp_path / "in/0.dcm")),
        LABELS,
        "Dataset007_Liver",
    )
    np.testing.assert_array_equal(highdicom.seg.segread(tmp_path / "a.dcm").pixel_array[0], array[0] == 4)


def test_what_anonymisers_leave_is_no_hindrance(tmp_path: Path):
    write_series(tmp_path / "case", VOLUME, **{"0020_0011": "33"})
    gone = ("PatientID", "StudyID", "StudyTime", "AccessionNumber", "ReferringPhysicianName")
    odd = {"PatientBirthDate": "UNKNOWN", "PatientSex": "X", "StudyDate": "0000", "PatientName": "Anonymous"}
    change(tmp_path / "case", **odd, **dict.fromkeys(gone))
    paths = sorted((tmp_path / "case").iterdir())
    for path in paths:  # a series number that is none, which pydicom does not write
        path.write_bytes(path.read_bytes().replace(b"\x20\0\x11\0\x02\0\0\x0033", b"\x20\0\x11\0\x02\0\0\x001A"))
    last = pydicom.dcmread(paths[-1])
    last.ImageOrientationPatient = [1, 0, 0, 0, 1, 0.00001]
    last.save_as(paths[-1])
    label_map = segment(case_of(tmp_path / "case"), tmp_path / "a.dcm")
    np.testing.assert_array_equal(rebuild(tmp_path / "a.dcm", label_map), label_map.array)
    seg = pydicom.dcmread(tmp_path / "a.dcm")
    assert (seg.PatientBirthDate, seg.PatientSex, seg.StudyDate, seg.PatientID) == ("", "", "", "")
    assert (seg.PatientName, seg.SeriesNumber) == ("Anonymous", 1000)


def test_a_patients_name_keeps_its_letters(tmp_path: Path):
    write_series(tmp_path / "case", VOLUME)
    change(tmp_path / "case", SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg")
    segment(case_of(tmp_path / "case"), tmp_path / "a.dcm")
    seg = pydicom.dcmread(tmp_path / "a.dcm")
    assert (str(seg.PatientName), seg.SegmentSequence[2].SegmentLabel) == ("Müller^Jörg", "肝臓")


def test_headers_that_a_seg_cannot_refer_to_are_told_before_the_work(tmp_path: Path):
    write_series(tmp_path / "case", VOLUME)
    change(tmp_path / "case", StudyInstanceUID=None)
    with pytest.raises(InputError, match=r"case: has no StudyInstanceUID, which a DICOM SEG refers to: use --format n"):
        read_headers(case_of(tmp_path / "case"))
    sitk.WriteImage(sitk.GetImageFromArray(VOLUME.astype(np.uint16)), str(tmp_path / "frames.dcm"))
    assert pydicom.dcmread(tmp_path / "frames.dcm").NumberOfFrames == 4
    with pytest.raises(InputError, match=r"frames\.dcm: is a multi-frame DICOM image; SEG is written for single"):
        read_headers(case_of(tmp_path / "frames.dcm"))


def test_headers_that_make_no_seg_are_told(tmp_path: Path):
    write_series(tmp_path / "case", VOLUME)
    headers = read_headers(case_of(tmp_path / "case"))
    headers[1].SeriesInstanceUID = "1.2.9"
    with pytest.raises(OutputError, match=r"a\.dcm: the DICOM headers do not make a SEG \(Source images must all be"):
        write_segmentation(
            tmp_path / "a.dcm", LabelMap(array=VOLUME % 2 * 4, affine=np.eye(4)), headers, LABELS, "Dataset007_Liver"
        )
    assert not (tmp_path / "a.dcm").exists()


def test_a_full_disk_leaves_no_half_seg(tmp_path: Path, limited_files):
    volume = np.zeros((4, 256, 256), np.int16)
    write_series(tmp_path / "case", volume)
    with limited_files(4096), pytest.raises(OutputError, match=r"a\.dcm: cannot be written"):
        segment(case_of(tmp_path / "case"), tmp_path / "a.dcm", np.full(volume.shape, 4, np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["case"]


def test_a_seg_is_no_image_of_the_series_beside_it(tmp_path: Path):
    write_series(tmp_path / "case", VOLUME)
    segment(case_of(tmp_path / "case"), tmp_path / "case/seg.dcm")
    assert read_slice(tmp_path / "case/seg.dcm") is None
    np.testing.assert_array_equal(read_channels(tmp_path / "case")[0], VOLUME[None])


def test_a_missing_extra_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    require_highdicom()
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(InputError, match=r"DICOM SEG needs highdicom: pip install 'spadunet\[dicom\]'"):
        require_highdicom()
