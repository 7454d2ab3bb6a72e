"""Seeded damage to files: bits, fields, lines and nodes, as broken disks, bad exports and slips of editors do it.

Every function takes a generator and gives what it did in words beside the changed content.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

Rng = np.random.Generator
Damaged = tuple[str, bytes]

SPECIAL = (0, -1, 1, 2, 3, 127, 255, 32767, -32768, 2**31 - 1, 2**62, 0.5, 1e-30, 1e30, float("nan"), float("inf"))


def pick(rng: Rng, items: Any) -> Any:
    """One of a sequence."""
    return items[int(rng.integers(len(items)))]


# --- bytes


def flip_bits(rng: Rng, content: bytes, first: int = 0, last: int | None = None) -> Damaged:
    """One to three bits between two places."""
    changed = bytearray(content)
    places = rng.integers(first, min(last or len(content), len(content)), size=int(rng.integers(1, 4)))
    for place in places:
        changed[place] ^= 1 << int(rng.integers(8))
    return f"bits flipped in bytes {places.tolist()}", bytes(changed)


def truncate(rng: Rng, content: bytes) -> Damaged:
    """Cut anywhere, more often near either end."""
    ends = (len(content), 600, 400, len(content))
    length = int(rng.integers(0, min(pick(rng, ends), len(content))))
    if rng.random() < 0.3:
        length = len(content) - int(rng.integers(1, min(40, len(content))))
    return f"cut to {length} of {len(content)} bytes", content[:length]


def zero_block(rng: Rng, content: bytes) -> Damaged:
    """A hole, as a lost disk block leaves it."""
    first = int(rng.integers(len(content)))
    size = int(pick(rng, (1, 4, 16, 64, 512)))
    hole = content[first : first + size]
    return f"{size} zeros at {first}", content[:first] + bytes(len(hole)) + content[first + len(hole) :]


def swap_blocks(rng: Rng, content: bytes) -> Damaged:
    """Two pieces of a file change places."""
    size = int(pick(rng, (1, 2, 4, 16)))
    if len(content) < 2 * size:
        return truncate(rng, content)
    first, second = sorted(rng.choice(len(content) // size, 2, replace=False) * size)
    a, b = content[first : first + size], content[second : second + size]
    changed = content[:first] + b + content[first + size : second] + a + content[second + size :]
    return f"{size} bytes at {first} and {second} swapped", changed


def append_bytes(rng: Rng, content: bytes) -> Damaged:
    """Something behind the end."""
    size = int(pick(rng, (1, 100, 5000)))
    return f"{size} bytes appended", content + rng.bytes(size)


BYTES: tuple[Callable[[Rng, bytes], Damaged], ...] = (
    flip_bits,
    flip_bits,
    truncate,
    zero_block,
    swap_blocks,
    append_bytes,
)


def damage_bytes(rng: Rng, content: bytes) -> Damaged:
    """Any of these; headers more often than their share."""
    if rng.random() < 0.4:
        return flip_bits(rng, content, 0, 200)
    return pick(rng, BYTES)(rng, content)


# --- NIfTI headers

FIELDS_1 = {
    "sizeof_hdr": ("i", 0),
    "dim_info": ("B", 39),
    "dim": ("8h", 40),
    "intent_code": ("h", 68),
    "datatype": ("h", 70),
    "bitpix": ("h", 72),
    "pixdim": ("8f", 76),
    "vox_offset": ("f", 108),
    "scl": ("2f", 112),
    "xyzt_units": ("B", 123),
    "codes": ("2h", 252),
    "quatern": ("3f", 256),
    "qoffset": ("3f", 268),
    "srow": ("12f", 280),
    "magic": ("4B", 344),
    "extension": ("4B", 348),
}
FIELDS_2 = {
    "sizeof_hdr": ("i", 0),
    "magic": ("8B", 4),
    "datatype": ("h", 12),
    "bitpix": ("h", 14),
    "dim": ("8q", 16),
    "pixdim": ("8d", 104),
    "vox_offset": ("q", 168),
    "scl": ("2d", 176),
    "codes": ("2i", 344),
    "quatern": ("3d", 352),
    "qoffset": ("3d", 376),
    "srow": ("12d", 400),
    "xyzt_units": ("i", 500),
    "intent_code": ("i", 504),
    "extension": ("4B", 540),
}
SWAPPED = ("dim", "pixdim", "codes", "quatern", "qoffset", "srow", "scl")


def damage_nifti(rng: Rng, content: bytes) -> Damaged:
    """An uncompressed file: a field of its header, or its bytes."""
    fields = FIELDS_1 if content[:4] == struct.pack("<i", 348) else FIELDS_2
    what = rng.random()
    if what < 0.15:
        return damage_bytes(rng, content)
    name = pick(rng, SWAPPED if what < 0.3 else list(fields))
    kind, place = fields[name]
    values = list(struct.unpack_from("<" + kind, content, place))
    index = int(rng.integers(len(values)))
    changed = bytearray(content)
    if what < 0.22 and name == "srow":
        row, other = rng.choice(3, 2, replace=False).tolist()
        for column in range(4):
            a, b = 4 * row + column, 4 * other + column
            values[a], values[b] = values[b], values[a]
        said = f"srow {row} and {other} swapped"
    elif what < 0.3:
        index, other = rng.choice(min(len(values), 4), 2, replace=False).tolist() if len(values) > 1 else (0, 0)
        values[index], values[other] = values[other], values[index]
        said = f"{name}[{index}] and [{other}] swapped"
    elif what < 0.5:
        values[index] = pick(rng, SPECIAL)
        if kind[-1] not in "fd":
            bits = 8 * struct.calcsize(kind[-1])
            number = int(values[index]) if np.isfinite(values[index]) else -1
            number %= 2**bits
            values[index] = number - 2**bits if kind[-1] in "hiq" and number >= 2 ** (bits - 1) else number
        said = f"{name}[{index}] = {values[index]}"
    else:
        size = struct.calcsize("<" + kind) // len(values)
        byte, bit = place + index * size + int(rng.integers(size)), int(rng.integers(8))
        changed[byte] ^= 1 << bit
        return f"{name}[{index}]: bit {bit} of byte {byte}", bytes(changed)
    struct.pack_into("<" + kind, changed, place, *values)
    return said, bytes(changed)


def damage_gzipped(rng: Rng, content: bytes, inside: Callable[[Rng, bytes], Damaged]) -> Damaged:
    """A gzip file: what is in it, or the stream itself."""
    if rng.random() < 0.7:
        said, changed = inside(rng, gzip.decompress(content))
        return said, gzip.compress(changed, mtime=0)
    if rng.random() < 0.1:
        return "compressed twice", gzip.compress(content, mtime=0)
    said, changed = damage_bytes(rng, content)
    return f"gzip stream: {said}", changed


# --- text headers of NRRD and MHA

WORDS = (
    b"",
    b"none",
    b"nan",
    b"-1",
    b"0",
    b"1e400",
    b"99999999999999999999",
    b"\xff\xfe",
    b"(1,2)",
    b"2147483647",
    b"1",
)


def damage_text_header(rng: Rng, content: bytes) -> Damaged:
    """A line of the header: gone, twice, with another's value, or with another word; or the bytes of the file."""
    end = content.find(b"\n\n") + 1 or content.find(b"ElementDataFile")
    lines = content[:end].splitlines(keepends=True)
    what, index = rng.random(), int(rng.integers(len(lines)))
    line = lines[index]
    if what < 0.2:
        said = f"without {line!r}"
        del lines[index]
    elif what < 0.3:
        said = f"twice {line!r}"
        lines.insert(index, line)
    elif what < 0.4:
        other = int(rng.integers(len(lines)))
        for mark in (b": ", b" = "):
            if mark in line and mark in lines[other]:
                (a, x), (b, y) = line.split(mark, 1), lines[other].split(mark, 1)
                lines[index], lines[other] = a + mark + y, b + mark + x
        said = f"values of {line!r} and line {other} swapped"
    elif what < 0.75:
        words = line.split(b" ")
        place = int(rng.integers(len(words)))
        word = pick(rng, WORDS)
        said = f"{line!r}: word {place} is {word!r}"
        words[place] = word + (b"\n" if words[place].endswith(b"\n") else b"")
        lines[index] = b" ".join(words)
    elif what < 0.85:
        return flip_bits(rng, content, 0, end)
    else:
        return damage_bytes(rng, content)
    return said, b"".join(lines) + content[end:]


# --- JSON

VALUES = (None, True, -1, 0, 1, 2.5, 10**40, float("nan"), float("inf"), "", "nan", "\ud800", "a/../../b", [], {}, [[]])


def damage_json(rng: Rng, content: bytes) -> Damaged:
    """A node of the document: gone, of another type, absurd, swapped with its neighbour; or the text."""
    what = rng.random()
    if what < 0.3:
        return damage_json_text(rng, content)
    document = json.loads(content)
    places = list(places_in(document))
    holder, key = pick(rng, places)
    if what < 0.5:
        said = f"without {key!r}"
        del holder[key]
    elif what < 0.6 and len(holder) > 1:
        other = pick(rng, list(holder) if isinstance(holder, dict) else range(len(holder)))
        holder[key], holder[other] = holder[other], holder[key]
        said = f"{key!r} and {other!r} swapped"
    elif what < 0.65:
        value: Any = 1
        for _ in range(50_000):
            value = [value]
        said, holder[key] = f"{key!r} nested deep", "DEEP"
        text = json.dumps(document).replace('"DEEP"', "[" * 50_000 + "]" * 50_000)
        return said, text.encode()
    elif what < 0.7 and isinstance(holder, dict):
        holder[f"{key}X"] = holder.pop(key)
        said = f"{key!r} renamed"
    else:
        value = pick(rng, VALUES)
        said, holder[key] = f"{key!r} = {value!r}", value
    return said, json.dumps(document, indent=1).encode()


def damage_json_text(rng: Rng, content: bytes) -> Damaged:
    """The text of a document."""
    text = content.decode()
    choices: tuple[Callable[[], Damaged], ...] = (
        lambda: ("byte order mark", b"\xef\xbb\xbf" + content),
        lambda: ("UTF-16", text.encode("utf-16")),
        lambda: ("Latin-1", text.replace("a", "\u00e4", 1).encode("latin-1")),
        lambda: ("empty", b""),
        lambda: ("null", b"null"),
        lambda: ("a list", b"[" + content + b"]"),
        lambda: ("a number", b"1" * 5000),
        lambda: ("keys twice", content.rstrip()[:-1] + b"," + content.lstrip()[1:] if content[:1] == b"{" else content),
        lambda: ("nested deep", b"[" * 100_000),
        lambda: truncate(rng, content),
        lambda: flip_bits(rng, content),
        lambda: swap_blocks(rng, content),
    )
    return pick(rng, choices)()


def places_in(document: Any) -> Any:
    """Every (holder, key) of a document."""
    keys = list(document) if isinstance(document, dict) else range(len(document))
    for key in keys:
        yield document, key
        if isinstance(document[key], dict | list):
            yield from places_in(document[key])
