"""Where damaged files lie as others read them: nibabel, pydicom, Pillow, and the few lines that NRRD and MHA take.

All give the shape (A0, A1, A2) and the affine (4, 4) of array indices in ITK's frame, or None where they refuse.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from io import BytesIO
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pydicom

Placed = tuple[tuple[int, ...], np.ndarray]
FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
UNITS = {1: 1000.0, 3: 0.001}


def second_opinion(path: Path) -> Placed | None:
    """What another reader makes of a file or folder."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if path.is_dir() or path.suffix in (".zip", ".dcm"):
                return read_dicom(path)
            if ".nii" in path.suffixes:
                return read_nifti(path)
            if path.suffix == ".nrrd":
                return read_nrrd(path.read_bytes())
            return read_mha(path.read_bytes()) if path.suffix == ".mha" else read_picture(path)
    except Exception:  # whatever it is, the other reader refuses too
        return None


def in_array_order(sizes: list[int], matrix: np.ndarray, origin: np.ndarray) -> Placed:
    """From (x, y, z) order."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.asarray(matrix)[:, ::-1], origin
    return tuple([*sizes, 1, 1][:3][::-1]), affine


def read_nifti(path: Path) -> Placed:
    """By nibabel: sform first, then qform."""
    image = nibabel.load(path)
    affine = FLIP @ image.affine
    affine[:3] *= UNITS.get(int(image.header["xyzt_units"]) & 7, 1.0)
    return in_array_order(list(image.shape), affine[:3, :3], affine[:3, 3])


def read_nrrd(content: bytes) -> Placed:
    """https://teem.sourceforge.net/nrrd/format.html, of scalar volumes in space."""
    header = content.split(b"\n\n")[0].decode("ascii")
    fields = dict(line.split(":", 1) for line in header.splitlines() if re.match(r"[\w ]+: ", line))
    flips = {"left-posterior-superior": (1, 1, 1), "LPS": (1, 1, 1), "right-anterior-superior": (-1, -1, 1)}
    flips |= {"RAS": (-1, -1, 1), "left-anterior-superior": (1, -1, 1), "LAS": (1, -1, 1)}
    sizes = [int(word) for word in fields["sizes"].split()]
    rows = [
        [float(number) for number in row.split(",")] for row in re.findall(r"\(([^)]*)\)", fields["space directions"])
    ]
    origin = [float(number) for number in fields["space origin"].strip(" ()").split(",")]
    flip = np.array(flips[fields["space"].strip()])
    return in_array_order(sizes, np.array(rows).T * flip[:, None], np.array(origin) * flip)


def read_mha(content: bytes) -> Placed:
    """https://itk.org/Wiki/MetaIO/Documentation"""
    header = content.split(b"ElementDataFile")[0].decode("ascii")
    fields = dict(line.split(" = ", 1) for line in header.splitlines() if " = " in line)
    sizes = [int(word) for word in fields["DimSize"].split()]
    spacing, matrix, origin = (
        [float(word) for word in fields[name].split()] for name in ("ElementSpacing", "TransformMatrix", "Offset")
    )
    return in_array_order(sizes, np.array(matrix).reshape(3, 3).T * spacing, np.array(origin))


def read_picture(path: Path) -> Placed:
    """By Pillow."""
    with PIL.Image.open(path) as picture:
        return (getattr(picture, "n_frames", 1), picture.height, picture.width), np.eye(4)[[2, 1, 0, 3]]


def read_dicom(path: Path) -> Placed:
    """By pydicom: slices in the order of their positions."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            files = [BytesIO(archive.read(name)) for name in archive.namelist() if name.endswith(".dcm")]
    else:
        files = [BytesIO(file.read_bytes()) for file in ([path] if path.is_file() else path.iterdir())]
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
    row, column = np.array(headers[0].ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(row, column)
    places = np.array([np.array(header.ImagePositionPatient, float) for header in headers])
    places = places[np.argsort(places @ normal)]
    step = (places[-1] - places[0]) / (len(places) - 1) if len(places) > 1 else normal
    height, width = (float(side) for side in headers[0].PixelSpacing)
    matrix = np.stack([row * width, column * height, step], axis=1)
    return in_array_order([headers[0].Columns, headers[0].Rows, len(headers)], matrix, places[0])
