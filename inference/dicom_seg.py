"""Label maps as DICOM Segmentation objects (DICOM PS3.3, section A.51), by highdicom (Bridge et al. 2022).

pydicom and highdicom are an extra: they are imported inside the functions.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import __version__
from ..dataset import RawCase
from ..dicom import opened, the_one_series
from ..errors import InputError, OutputError
from ..files import atomic_path
from ..formats import DICOM_ENDING, ending_of
from ..image import LabelMap
from ..labels import LabelSet

if TYPE_CHECKING:
    import highdicom
    from pydicom import Dataset

MAX_CHARACTERS = 64
"""Of a label or a description (value representation LO)."""
SERIES_NUMBER_STEP = 1000
"""Above the number of the series that was segmented, so that viewers list the result after all images."""
REQUIRED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber"),
)


def require_highdicom() -> None:
    """Raise InputError if the extra is not installed."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise InputError("--format: DICOM SEG needs highdicom: pip install 'spadunet[dicom]', or use nifti") from error


@contextlib.contextmanager
def as_written() -> Iterator[None]:
    """Take what scanners and anonymisers wrote as it is, without an error or a warning over each odd value."""
    import pydicom

    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        yield


def read_headers(case: RawCase) -> list[Dataset]:
    """Headers of the slices of a case's first channel, in the order of its image's first axis.

    What anonymisers take away and a SEG must have is filled in: empty values, one frame of reference for the series,
    and the real distance of slices, which the files may state wrongly.

    Raises:
        InputError: if the image is a multi-frame one, or lacks a UID that a SEG refers to.
    """
    import pydicom

    path = case.paths[0]
    with as_written():
        if path.is_file() and ending_of(path, (DICOM_ENDING,)):
            headers = [pydicom.dcmread(path, stop_before_pixels=True, force=True)]
        else:
            with opened(path) as folder:
                slices = the_one_series(path, folder, case.series).slices
                headers = [pydicom.dcmread(part.path, stop_before_pixels=True, force=True) for part in slices]
        for header in headers:
            complete(header, headers[0], path)
        if len(headers) > 1:
            ends = (np.array(header.ImagePositionPatient, float) for header in (headers[0], headers[-1]))
            distance_mm = np.linalg.norm(np.subtract(*ends)) / (len(headers) - 1)
            headers[0].SpacingBetweenSlices = f"{distance_mm:.10g}"
    return headers


def complete(header: Dataset, first: Dataset, path: Path) -> None:
    """Fill in what a SEG must have; orientation and frame of reference are those of the series' first slice."""
    from highdicom import UID, PatientSexValues
    from pydicom.valuerep import DA, IS, TM

    missing = [keyword for keyword in REQUIRED if not header.get(keyword)]
    if missing:
        raise InputError(f"{path}: has no {missing[0]}, which a DICOM SEG refers to: use --format nifti")
    kinds = {"PatientBirthDate": DA, "PatientSex": PatientSexValues, "StudyDate": DA, "StudyTime": TM}
    for keyword, kind in {**kinds, "SeriesNumber": IS, "NumberOfFrames": IS}.items():
        try:
            kind(header.get(keyword))
        except ValueError:  # such as X for a sex; all of these may be missing or empty
            header.pop(keyword, None)
    for keyword in MAY_BE_EMPTY:
        header.setdefault(keyword, "")
    if "PerFrameFunctionalGroupsSequence" in header or int(header.get("NumberOfFrames") or 1) > 1:
        raise InputError(
            f"{path}: is a multi-frame DICOM image; SEG is written for single slices and series: use --format nifti"
        )
    if "ImagePositionPatient" in header:
        first.setdefault("FrameOfReferenceUID", UID())
        header.FrameOfReferenceUID = first.FrameOfReferenceUID
        header.ImageOrientationPatient = first.ImageOrientationPatient


def write_segmentation(
    path: Path, label_map: LabelMap, headers: Sequence[Dataset], labels: LabelSet, dataset_name: str
) -> None:
    """Write a binary SEG with a segment for each foreground class, or region, numbered from 1 in their order.

    It holds a frame for each slice where a segment is. A SEG without frames is not valid, so an empty label map
    becomes an empty frame a segment on the first slice.

    Args:
        headers: of the slices (A0) that the label map lies on, by `read_headers`.

    Raises:
        OutputError: if the disk is full, the folder cannot be written, or the headers do not make a SEG.
    """
    import highdicom

    if labels.regions:  # which overlap: (A0, A1, A2, R)
        segments = np.stack([region.mask_in(label_map.array) for region in labels.regions], axis=-1)
    else:
        segments = labels.to_classes(label_map.array)  # (A0, A1, A2)
    is_empty = not segments.any()
    planes = slice(1 if is_empty else None)
    number_of_source = int(headers[0].get("SeriesNumber") or 0)
    with as_written():
        try:
            segmentation = highdicom.seg.Segmentation(
                source_images=headers[planes],
                pixel_array=segments[planes],
                segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[
                    describe_segment(number, structure.name, dataset_name)
                    for number, structure in enumerate(labels.structures, start=1)
                ],
                omit_empty_frames=not is_empty,
                series_instance_uid=highdicom.UID(),
                series_number=max(number_of_source, 0) + SERIES_NUMBER_STEP,
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                series_description=f"spadunet {dataset_name}"[:MAX_CHARACTERS],
                content_label="SEGMENTATION",
                manufacturer="spadunet",
                manufacturer_model_name="spadunet",
                software_versions=__version__,
                device_serial_number="0",
                specific_character_set="ISO_IR 192",  # UTF-8, for names of labels in any language
            )
        except (AttributeError, ValueError) as error:
            raise OutputError(f"{path}: the DICOM headers do not make a SEG ({error}); use --format nifti") from error
        with atomic_path(path) as partial:
            segmentation.save_as(partial)


def describe_segment(number: int, name: str, dataset_name: str) -> highdicom.seg.SegmentDescription:
    """A segment called as the label; nothing is known of what it is but tissue, which viewers take for unnamed."""
    import highdicom
    from pydicom.sr.codedict import codes

    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name.replace("\\", "/")[:MAX_CHARACTERS],  # a backslash parts values
        segmented_property_category=codes.SCT.Tissue,
        segmented_property_type=codes.SCT.Tissue,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=f"spadunet {dataset_name}"[:MAX_CHARACTERS],
            family=codes.DCM.ArtificialIntelligence,
            version=__version__,
        ),
    )
