"""Checked JSON documents: what every stage leaves on disk for the next."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import InputError
from .files import write_text

FormatVersion = Literal[1]
"""Version of most documents written here; another one is an error."""

Side = Annotated[float, Field(gt=0)]
PositiveSpacing = tuple[Side, Side, Side]
Size = Annotated[int, Field(ge=1)]
PositiveShape = tuple[Size, Size, Size]
"""As `spacing.Spacing` and `Shape`, of documents."""
MAX_SHOWN = 100
"""Characters of a wrong value that are told."""

RecordType = TypeVar("RecordType", bound="Record")


def is_unused(value: object) -> bool:
    """For `exclude_if` of a field that came later: left out of JSON where it holds nothing.

    So documents of datasets that do not use it, and their digests, stay what they were.
    """
    return value in (None, (), {})


class NewerFormatError(InputError):
    """A document that only a newer spadunet can read."""


class Record(BaseModel):
    """A frozen, checked value that travels to and from JSON; an unknown field is an error that names it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_json(self) -> str:
        """Human-readable JSON; `from_json` gives an equal value back."""
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls: type[RecordType], text: str, *, source: str | Path = "JSON") -> RecordType:
        """Parse and check.

        Raises:
            InputError: if the text is no JSON, or a field is missing, unknown or wrong; names `source` and field.
            NewerFormatError: if the document states a newer format version.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            for problem in error.errors(include_url=False):
                if problem["loc"][-1:] != ("format_version",) or problem["type"] != "literal_error":
                    continue
                version, newest = problem["input"], int(problem["ctx"]["expected"])
                if isinstance(version, int) and version > newest:
                    raise NewerFormatError(
                        f"{source}: format version {version} is newer than {newest}, the newest known here; "
                        "update spadunet"
                    ) from error
            raise InputError(f"{source}: {first_problem(error)}") from error

    def digest(self) -> str:
        """Short fingerprint of the content, to tell whether two documents are the same."""
        return digest_of(self.model_dump_json())


def digest_of(text: str) -> str:
    """Short fingerprint of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def first_problem(error: ValidationError) -> str:
    """The first of pydantic's findings as one line that names the field and its value."""
    problem = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"])
    text = problem["msg"].removeprefix("Value error, ").replace("\n", " ")
    if problem["type"] == "json_invalid" or not field:
        return text
    if problem["type"] in ("missing", "extra_forbidden"):
        return f"field '{field}': {text.lower()}"
    return f"field '{field}': {text} (found {shortened(ascii(problem['input']))})"


def shortened(text: str) -> str:
    """A text, or its beginning."""
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def read_record(path: Path, kind: type[RecordType], *, remedy: str) -> RecordType:
    """Read a document from disk.

    Raises:
        InputError: if the file is missing (with `remedy`), unreadable or not a valid document of this kind.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path}: not found; {remedy}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error}); {remedy}") from error
    try:
        return kind.from_json(text, source=path)
    except NewerFormatError:
        raise
    except InputError as error:
        raise InputError(f"{error}; {remedy}" if remedy else str(error)) from error


def write_record(path: Path, record: Record) -> None:
    """Write a document whole or not at all."""
    write_text(path, record.to_json() + "\n")
