"""A zip file in which nothing can hide: files lie stored one behind the other, and nothing else is there.

What is stored unpacks to itself, so no file can unpack to more than it is, nor two share their bytes. Any tool that
knows zip opens it.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, NoReturn

from ..errors import InputError

MAX_FILES = 512
"""A model has two for each task: enough for 250 tasks."""
MAX_NAME_LENGTH = 200
MAX_BYTES = 2_000_000_000
"""Of all files. The largest preset's weights take 1.54 GB; from 2 GiB on zip needs its extensions."""
MAX_DIRECTORY_BYTES = MAX_FILES * (46 + 4 * MAX_NAME_LENGTH)
"""46 bytes and the name for each file."""
END = struct.Struct("<4s4H2LH")
END_SIGNATURE, ZIP64_SIGNATURE, ZIP64_BYTES = b"PK\x05\x06", b"PK\x06\x07", 20
"""Of the record that ends a zip file, and of the one that the extensions put before it."""
NAME_IS_UTF8 = 0x800
IS_ENCRYPTED = 0x1
FIRST_DATE = (1980, 1, 1, 0, 0, 0)
"""Of all files: the same content makes the same file."""
CHUNK_BYTES = 1 << 20
FORBIDDEN = set('\\:*?"<>|')
"""In names: what leads elsewhere on some system."""
DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE | re.DOTALL)
"""What Windows takes for a device, whatever follows a dot."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where a file lies in the zip file."""

    start: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A zip file of which names and places were found sound; its contents were not looked at."""

    path: Path
    file: BinaryIO
    writer: str
    """Command that writes such files, for whoever needs another."""
    entries: Mapping[str, Entry] = field(default_factory=dict)

    def refuse(self, why: str) -> NoReturn:
        """Raise InputError with what to do."""
        raise InputError(f"{self.path}: refused: {why}; get it again from whom you trust, as {self.writer} wrote it")

    def chunks(self, name: str, first: int = 0, size: int | None = None) -> Iterator[bytes]:
        """The content of a file from some byte on, piece by piece; all pieces but the last have `CHUNK_BYTES`."""
        entry = self.entries[name]
        self.file.seek(entry.start + first)
        left = entry.size - first if size is None else size
        while left:
            chunk = self.file.read(min(CHUNK_BYTES, left))
            if not chunk:
                self.refuse(f"{name} ends early")
            left -= len(chunk)
            yield chunk

    def read(self, name: str, max_bytes: int) -> bytes:
        """The content of a small file.

        Raises:
            InputError: if it is larger.
        """
        if self.entries[name].size > max_bytes:
            self.refuse(f"{name} has {self.entries[name].size} bytes, more than {max_bytes}")
        return b"".join(self.chunks(name))


def write_archive(path: Path, contents: Mapping[str, bytes | Path]) -> None:
    """Write files into a new zip file; the same files make the same bytes.

    Args:
        contents: by name, in this order; a path stands for the content of the file there.

    Raises:
        InputError: if they are too large.
    """
    sizes = [len(content) if isinstance(content, bytes) else content.stat().st_size for content in contents.values()]
    if sum(sizes) > MAX_BYTES:
        raise InputError(f"{path}: {sum(sizes)} bytes are more than {MAX_BYTES}, which one file may hold")
    with zipfile.ZipFile(path, "w", allowZip64=False) as archive:
        for (name, content), size in zip(contents.items(), sizes, strict=True):
            info = zipfile.ZipInfo(name, FIRST_DATE)
            info.create_system = 3  # Unix, whatever the system is
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            info.file_size = size
            with archive.open(info, "w") as target:
                for chunk in [content] if isinstance(content, bytes) else chunks_of(content):
                    target.write(chunk)


def chunks_of(path: Path) -> Iterator[bytes]:
    """A file on disk, piece by piece."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


@contextlib.contextmanager
def open_archive(path: Path, writer: str) -> Iterator[Archive]:
    """Open a zip file that `write_archive` may have written; any other is refused before a byte of content is read.

    Args:
        writer: the command that writes such files, to be told of one that is refused.

    Raises:
        InputError: if it is not there, is no zip file, or holds anything but plain stored files one behind the other:
            links, folders, encrypted or packed files, names that lead elsewhere or mean the same file, too many or too
            large files, or bytes before, between or behind them.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a file of {writer}") from error
    with file:
        archive = Archive(path=path, file=file, writer=writer)
        num_files = check_end(archive)
        try:
            infos = zipfile.ZipFile(file).infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            archive.refuse(f"its list of files is damaged ({error})")
        if len(infos) != num_files:
            archive.refuse(f"it lists {len(infos)} files and says {num_files}")
        check_names(archive, [info.orig_filename for info in infos])
        yield replace(archive, entries=locate(archive, infos))


def check_end(archive: Archive) -> int:
    """The number of files, after the record at the end was found to fit; only then is their list read.

    Raises:
        InputError: if it does not.
    """
    size = archive.file.seek(0, os.SEEK_END)
    archive.file.seek(max(size - END.size - ZIP64_BYTES, 0))
    tail = archive.file.read()
    if tail[-END.size :][:4] != END_SIGNATURE:
        archive.refuse("it is no zip file, or something follows it")
    _, disk, first_disk, number, total, directory_bytes, directory_start, comment = END.unpack(tail[-END.size :])
    if tail.startswith(ZIP64_SIGNATURE) or disk or first_disk or number != total or comment:
        archive.refuse("it is a zip file of a kind that models do not need")
    if total > MAX_FILES or directory_bytes > MAX_DIRECTORY_BYTES:
        archive.refuse(f"it lists {total} files in {directory_bytes} bytes, more than {MAX_FILES} files")
    if directory_start + directory_bytes + END.size != size:
        archive.refuse("something lies before or behind its files")
    return int(total)


def check_names(archive: Archive, names: list[str]) -> None:
    """Refuse names that lead out of the folder, cannot be read, or mean the same file on some system.

    Raises:
        InputError: names them.
    """
    seen: set[str] = set()
    for name in names:
        told = ascii(name[:MAX_NAME_LENGTH])
        if name.endswith("/"):
            archive.refuse(f"{told} is a folder")
        if len(name) > MAX_NAME_LENGTH or not all(is_plain(part) for part in name.split("/")):
            archive.refuse(f"the name {told} is not a plain one inside the model's folder")
        alike = unicodedata.normalize("NFKC", name).casefold()
        if alike in seen:
            archive.refuse(f"{told} is there twice, or differs from another name only in its spelling")
        seen.add(alike)


def is_plain(part: str) -> bool:
    """True for the name of a file or folder that means the same everywhere: no `..`, drive, device or odd character."""
    if DEVICE.fullmatch(part):
        return False
    return part.isprintable() and not FORBIDDEN & set(part) and part == part.strip(" .") != ""


def locate(archive: Archive, infos: list[zipfile.ZipInfo]) -> dict[str, Entry]:
    """Where each file's content lies, after all were found to be plain and to follow each other without a gap.

    Raises:
        InputError: if one is not.
    """
    file, place = archive.file, 0
    entries: dict[str, Entry] = {}
    for info in infos:
        name, mode = info.filename, info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG) or info.external_attr & 0x10:
            archive.refuse(f"{name} is a link, a folder or a special file")
        if info.flag_bits & IS_ENCRYPTED:
            archive.refuse(f"{name} is encrypted")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            archive.refuse(f"{name} is packed, and would unpack from {info.compress_size} to {info.file_size} bytes")
        if info.flag_bits & ~NAME_IS_UTF8 or info.extra or info.comment or info.volume:
            archive.refuse(f"{name} has properties that a model's files do not need")
        if info.header_offset != place or place + info.file_size > MAX_BYTES:
            archive.refuse(f"{name} is too large, or overlaps with others or lies apart from them")
        header = info.FileHeader(zip64=False)  # as the list of files has it; before the content stands the same
        file.seek(place)
        if file.read(len(header)) != header:
            archive.refuse(f"{name} is described in two ways")
        entries[name] = Entry(start=place + len(header), size=info.file_size)
        place += len(header) + info.file_size
    file.seek(0, os.SEEK_END)
    directory_bytes = sum(46 + len(info.filename.encode()) for info in infos)
    if place + directory_bytes + END.size != file.tell():
        archive.refuse("something lies between its files and their list")
    return entries
