"""Damaged copies of the files of `sources`: what was done, and where the copy lies."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mutate import (
    Damaged,
    Rng,
    damage_bytes,
    damage_gzipped,
    damage_json,
    damage_nifti,
    damage_text_header,
    flip_bits,
    pick,
)

from spadunet.files import sha256_of_file


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A damaged copy."""

    kind: str
    """Key of `KINDS`."""
    said: str
    """What was done."""
    path: Path
    """What to read."""
    source: Path
    """What it was."""


Damage = Callable[[Rng, Path, Path], Mutant]
"""Generator, folder of sound files and an empty one, in which the copy goes."""


def rewrite(path: Path, rng: Rng, damage: Callable[[Rng, bytes], Damaged]) -> str:
    """Damage a file in place; what was done."""
    said, content = damage(rng, path.read_bytes())
    path.write_bytes(content)
    return f"{path.name}: {said}"


def damaged_image(pattern: str, damage: Callable[[Rng, bytes], Damaged], rng: Rng, sources: Path, to: Path) -> Mutant:
    """One of the images of a kind."""
    source = pick(rng, sorted((sources / "images").glob(pattern)))
    path = to / source.name
    shutil.copy(source, path)
    if source.name == "deep.tif":
        shutil.copy(source.with_suffix(".json"), to)
    return Mutant(kind="image", said=rewrite(path, rng, damage), path=path, source=source)


def damaged_sidecar(rng: Rng, sources: Path, to: Path) -> Mutant:
    """The spacing beside a TIFF of several slices."""
    for name in ("deep.tif", "deep.json"):
        shutil.copy(sources / "images" / name, to)
    said = rewrite(to / "deep.json", rng, damage_json)
    return Mutant(kind="sidecar", said=said, path=to / "deep.tif", source=sources / "images/deep.tif")


# --- DICOM

TEXT_TAGS = {
    "position": b"\x20\x00\x32\x00",
    "orientation": b"\x20\x00\x37\x00",
    "spacing": b"\x28\x00\x30\x00",
    "rows": b"\x28\x00\x10\x00",
    "columns": b"\x28\x00\x11\x00",
    "bits": b"\x28\x00\x00\x01",
    "uid": b"\x20\x00\x0e\x00",
    "pixels": b"\xe0\x7f\x10\x00",
}


def damage_tag(rng: Rng, content: bytes) -> Damaged:
    """A bit of one of the tags that place a slice, its value or its header."""
    name = pick(rng, sorted(TEXT_TAGS))
    place = content.find(TEXT_TAGS[name])
    said, changed = flip_bits(rng, content, place, place + 8 + content[place + 4])
    return f"{name}: {said}", changed


def damage_dicom(rng: Rng, content: bytes) -> Damaged:
    """One file."""
    return damage_tag(rng, content) if rng.random() < 0.6 else damage_bytes(rng, content)


def damage_series(rng: Rng, folder: Path) -> str:
    """A folder of slices: one of them damaged, gone, there twice, in another's place or of another size."""
    paths = sorted(folder.iterdir())
    what, (first, second) = rng.random(), rng.choice(len(paths), 2, replace=False).tolist()
    one, other = paths[first], paths[second]
    if what < 0.5:
        return rewrite(one, rng, damage_dicom)
    if what < 0.6:
        one.unlink()
        return f"{one.name} missing"
    if what < 0.7:
        shutil.copy(one, folder / "copy.dcm")
        return f"{one.name} twice"
    if what < 0.75:
        shutil.copy(one, other)
        return f"{one.name} for {other.name}"
    tag = pick(rng, ("position", "orientation", "spacing", "rows", "columns"))
    a, b = one.read_bytes(), other.read_bytes()
    if what < 0.85:
        one.write_bytes(with_value(a, "position", value_of(b, "position")))
        other.write_bytes(with_value(b, "position", value_of(a, "position")))
        return f"positions of {one.name} and {other.name} swapped"
    values = {
        "position": (b"9\\9\\9", b"0\\0", b"nan\\0\\0", b"1e300\\1\\1", b"a\\b\\c"),
        "orientation": (
            b"1\\0\\0\\1\\0\\0",
            b"0\\1\\0\\1\\0\\0",
            b"0\\0\\0\\0\\0\\0",
            b"2\\0\\0\\0\\2\\0",
            b"1\\0\\0\\.5\\1\\0",
        ),
        "spacing": (b"0\\0", b"-1\\1", b"1", b"1e30\\1", b"nan\\1"),
        "rows": tuple(struct.pack("<H", number) for number in (0, 1, 7, 9, 65535)),
        "columns": tuple(struct.pack("<H", number) for number in (0, 1, 5, 7, 65535)),
    }
    chosen = paths if rng.random() < 0.4 else [one]
    value = pick(rng, values[tag])
    for path in chosen:
        path.write_bytes(with_value(path.read_bytes(), tag, value))
    return f"{tag} of {len(chosen)} = {value!r}"


def value_of(content: bytes, tag: str) -> bytes:
    """Of a tag with a short value."""
    place = content.index(TEXT_TAGS[tag]) + 4
    return content[place + 4 : place + 4 + struct.unpack_from("<I", content, place)[0]]


def with_value(content: bytes, tag: str, value: bytes) -> bytes:
    """A file in which a tag has another value."""
    place = content.index(TEXT_TAGS[tag]) + 4
    old = struct.unpack_from("<I", content, place)[0]
    value += b" " * (len(value) % 2)
    return content[:place] + struct.pack("<I", len(value)) + value + content[place + 4 + old :]


def damaged_series(rng: Rng, sources: Path, to: Path) -> Mutant:
    """A folder."""
    shutil.copytree(sources / "series", to / "series")
    said = damage_series(rng, to / "series")
    return Mutant(kind="image", said=said, path=to / "series", source=sources / "series")


def damaged_zip(rng: Rng, sources: Path, to: Path) -> Mutant:
    """A zip file: its bytes, its members, their names, or a member that unpacks to far too much."""
    path, what = to / "series.zip", rng.random()
    shutil.copy(sources / "series.zip", path)
    if what < 0.5:
        said = rewrite(path, rng, damage_bytes)
    elif what < 0.7:
        shutil.copytree(sources / "series", to / "inside")
        said = damage_series(rng, to / "inside")
        shutil.make_archive(str(to / "series"), "zip", to / "inside")
        shutil.rmtree(to / "inside")
    else:
        name = pick(
            rng, ("../out.dcm", "/tmp/spadunet-out.dcm", "a/../../out.dcm", "x\\..\\..\\out.dcm", "link", "n" * 300)
        )
        said = add_member(path, name) if what < 0.85 else add_bomb(path, honest=what < 0.93)
    return Mutant(kind="image", said=said, path=path, source=sources / "series.zip")


def add_member(path: Path, name: str) -> str:
    """A file that would lie outside the folder, or a symbolic link out of it."""
    with zipfile.ZipFile(path, "a") as archive:
        member = zipfile.ZipInfo(name)
        member.external_attr = (0o120777 if name == "link" else 0o100644) << 16
        archive.writestr(member, "/etc/passwd")
    return f"member {name}"


def add_bomb(path: Path, *, honest: bool) -> str:
    """A gigabyte of zeros, packed; with `honest` not, a size in the directory that denies it."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("bomb", "w") as file:
        for _ in range(256):
            file.write(bytes(1 << 22))
    if not honest:
        content = bytearray(path.read_bytes())
        place = content.rindex(b"bomb") - 46
        struct.pack_into("<I", content, place + 24, 100)
        path.write_bytes(content)
    return f"bomb, {'' if honest else 'dis'}honest"


def damaged_lone_dicom(rng: Rng, sources: Path, to: Path) -> Mutant:
    """One file."""
    shutil.copy(sources / "lone.dcm", to)
    said = rewrite(to / "lone.dcm", rng, damage_dicom)
    return Mutant(kind="image", said=said, path=to / "lone.dcm", source=sources / "lone.dcm")


# --- documents and weights


def damaged_document(kind: str, name: str, rng: Rng, sources: Path, to: Path) -> Mutant:
    """A JSON document, and nothing beside it."""
    path = to / Path(name).name
    shutil.copy(sources / name, path)
    return Mutant(kind=kind, said=rewrite(path, rng, damage_json), path=path, source=sources / name)


def damage_weights(rng: Rng, content: bytes) -> Damaged:
    """Bits, a hole or an end of a safetensors file; its JSON header more often than its share."""
    size = struct.unpack_from("<Q", content)[0]
    if rng.random() < 0.5:
        said, header = damage_json(rng, content[8 : 8 + size])
        return f"header: {said}", struct.pack("<Q", len(header)) + header + content[8 + size :]
    return flip_bits(rng, content, 0, 8 + size) if rng.random() < 0.5 else damage_bytes(rng, content)


def damaged_model(rng: Rng, sources: Path, to: Path) -> Mutant:
    """One file of a model folder; model.json mostly states the hash of what is now there."""
    folder = to / "model"
    shutil.copytree(sources / "model", folder)
    name = pick(rng, ("model.json", "tasks/Dataset001_Tiny/task.json", "backbone.safetensors", "task.safetensors"))
    path = next(folder.rglob(Path(name).name))
    said = rewrite(path, rng, damage_json if name.endswith(".json") else damage_weights)
    if path.name != "model.json" and rng.random() < 0.85:
        record = json.loads((folder / "model.json").read_text())
        record["sha256"][path.relative_to(folder).as_posix()] = sha256_of_file(path)
        (folder / "model.json").write_text(json.dumps(record))
    return Mutant(kind="model", said=said, path=folder, source=sources / "model")


IMAGES: tuple[tuple[int, Damage], ...] = (
    (24, partial(damaged_image, "*.nii", damage_nifti)),
    (12, partial(damaged_image, "*.nii.gz", partial(damage_gzipped, inside=damage_nifti))),
    (9, partial(damaged_image, "*.nrrd", damage_text_header)),
    (9, partial(damaged_image, "*.mha", damage_text_header)),
    (9, partial(damaged_image, "*.[!nm]*[!n]", damage_bytes)),
    (8, damaged_series),
    (4, damaged_zip),
    (3, damaged_lone_dicom),
    (3, damaged_sidecar),
)
DOCUMENTS: tuple[tuple[int, Damage], ...] = (
    (5, partial(damaged_document, "description", "dataset/dataset.json")),
    (4, partial(damaged_document, "description", "regions/dataset.json")),
    (4, partial(damaged_document, "splits", "stored/splits_final.json")),
    (4, partial(damaged_document, "plan", "stored/plan.json")),
    (4, partial(damaged_document, "fingerprint", "stored/fingerprint.json")),
    (3, partial(damaged_document, "case", "stored/case0.json")),
    (2, partial(damaged_document, "labels", "labels.json")),
    (3, partial(damaged_document, "slices", "chaos/chaos_slices.json")),
    (8, damaged_model),
)
