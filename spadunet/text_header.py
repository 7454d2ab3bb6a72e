"""Text headers of NRRD and MetaImage files, looked at before ITK reads them.

ITK takes a line that is missing or misspelt for its default, so that an image moves without a word, and crashes where
numbers of axes contradict each other.

Formats: https://teem.sourceforge.net/nrrd/format.html, https://itk.org/Wiki/MetaIO/Documentation.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from .errors import InputError
from .record import shortened

MAX_HEADER_BYTES = 1 << 20
MAX_AXES = 7
SPACES = {f"{sideways}-{front}-superior" for sideways in ("left", "right") for front in ("posterior", "anterior")} | {
    "LPS",
    "RAS",
    "LAS",
    "RPS",
}
META_FIELDS = (("ElementSpacing", "ElementSize"), ("Offset", "Position", "Origin"), ("TransformMatrix", "Rotation"))
"""Spacing, place and directions, each by any of its names."""


def check_text_header(path: Path) -> None:
    """Make sure that an NRRD or MetaImage file says its size and where it lies, once and in numbers.

    Raises:
        InputError: if it does not.
    """
    try:
        size = path.stat().st_size if path.suffix.lower() == ".mha" else math.inf
        with path.open("rb") as file:
            head = file.read(MAX_HEADER_BYTES)
        if path.suffix.lower() == ".nrrd":
            check_nrrd(fields_of(head.replace(b"\r\n", b"\n").split(b"\n\n")[0], r"([A-Za-z][\w ]*): ?(.*)"))
        else:
            check_meta(fields_of(re.split(rb"ElementDataFile", head)[0], r"(\w+) *= *(.*)", needs_all=True), size)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: damaged header: {error}; correct it, or export the image again") from error


def voxel_files(path: Path) -> list[str]:
    """Names of the files that an .mhd header says its voxels lie in, as patterns for `glob`; none if in itself."""
    head = path.read_bytes()[:MAX_HEADER_BYTES].decode("utf-8", errors="replace")
    _, found, names = head.partition("ElementDataFile")
    words = names.strip(" =").split()
    if not found or not words or words[0] == "LOCAL":
        return []
    names_listed = words[1:] if words[0] == "LIST" else words[:1]
    return [re.sub(r"%\d*d", "*", name) for name in names_listed if not name.startswith("/") and ".." not in name]


def fields_of(head: bytes, pattern: str, *, needs_all: bool = False) -> dict[str, str]:
    """Fields of a header's lines; with `needs_all` every line must be one."""
    try:
        lines = head.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError("it is no text") from error
    found: dict[str, str] = {}
    for line in lines:
        match = re.fullmatch(pattern, line)
        if match is None:
            if needs_all and line.strip():
                raise ValueError(f"a line '{shortened(ascii(line))}'")
            continue
        if match[1] in found:
            raise ValueError(f"'{match[1]}' stands there twice")
        found[match[1]] = match[2].strip()
    return found


def numbers(fields: dict[str, str], name: str, count: int) -> list[float]:
    """Exactly so many finite numbers."""
    try:
        values = [float(word) for word in re.split(r"[ ,]+", fields.get(name, "").strip(" ()"))]
    except ValueError:
        values = []
    if len(values) != count or not all(map(math.isfinite, values)):
        raise ValueError(f"expected {count} numbers for '{name}'")
    return values


def check_sizes(fields: dict[str, str], axes: str, sizes: str) -> int:
    """Number of axes, each with a size."""
    text = fields.get(axes, "")
    if text not in map(str, range(1, MAX_AXES + 1)):
        raise ValueError(f"expected 1 to {MAX_AXES} for '{axes}'")
    if any(size < 1 or size != int(size) for size in numbers(fields, sizes, int(text))):
        raise ValueError(f"expected whole numbers above zero for '{sizes}'")
    return int(text)


def check_meta(fields: dict[str, str], num_file_bytes: float) -> None:
    """Raise ValueError unless a MetaImage header is whole."""
    num_axes = check_sizes(fields, "NDims", "DimSize")
    if "CompressedDataSize" in fields and not 0 < numbers(fields, "CompressedDataSize", 1)[0] <= num_file_bytes:
        raise ValueError("'CompressedDataSize' is not within the file")
    if re.fullmatch(r"[RLAPSI?]+", fields.get("AnatomicalOrientation", "?")) is None:
        raise ValueError("'AnatomicalOrientation' is none")
    has_place = any(name in fields for names in META_FIELDS[1:] for name in names)  # old files say nothing of it
    for names, count in zip(META_FIELDS, (num_axes, num_axes, num_axes**2), strict=True):
        present = [name for name in names if name in fields]
        if not present and names is not META_FIELDS[0] and not has_place:
            continue
        if not present:
            raise ValueError(f"it has no line '{names[0]} = …'")
        for name in present:
            values = numbers(fields, name, count)
            if names is META_FIELDS[0] and min(values) <= 0:
                raise ValueError(f"expected numbers above zero for '{name}'")


def check_nrrd(fields: dict[str, str]) -> None:
    """Raise ValueError unless an NRRD header is whole: with a spacing alone, or with directions, origin and space."""
    num_axes = check_sizes(fields, "dimension", "sizes")
    if "space directions" not in fields:
        if "space" in fields or "space origin" in fields:
            raise ValueError("it has no line 'space directions: …'")
        if any(side <= 0 for side in numbers(fields, "spacings", num_axes)):
            raise ValueError("expected numbers above zero for 'spacings'")
        return
    num_components = 2 if fields.get("space dimension") == "2" and num_axes == 2 else 3
    if num_components == 3 and fields.get("space") not in SPACES:
        raise ValueError("expected e.g. left-posterior-superior for 'space'")
    vectors = re.findall(r"none|\([^()]*\)", fields["space directions"])
    directions = [vector for vector in vectors if vector != "none"]
    if len(vectors) != num_axes or len(directions) not in (2, 3) or len(directions) < min(num_axes, 3):
        raise ValueError("expected a vector an axis for 'space directions'")
    for vector in directions:
        numbers({"space directions": vector}, "space directions", num_components)
    numbers(fields, "space origin", num_components)
