"""The scores of an evaluation that is not done yet, a line a case: what an interrupted one goes on from."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ..errors import InputError
from ..formats import files_of
from ..locks import flock
from ..record import Record
from ..scores import CaseScore
from .pairs import Pair

PARTIAL_JSONL = "scores.partial.jsonl"

log = logging.getLogger("spadunet")


class ScoredCase(Record):
    """A line: a score, and of what it is."""

    files: tuple[tuple[str, int, int], ...]
    """Path, bytes and time of the last change in ns of all files of prediction and reference."""
    annotated: tuple[str, ...]
    score: CaseScore


@dataclass(frozen=True, kw_only=True)
class KeptScores:
    """What earlier calls scored, and the file that further scores go to."""

    found: dict[str, ScoredCase] = field(default_factory=dict)
    file: IO[bytes] | None = None

    def get(self, pair: Pair) -> CaseScore | None:
        """The score of a pair whose files are what they were."""
        kept = self.found.get(pair.name)
        is_same = kept is not None and (kept.files, kept.annotated) == (state_of(pair), pair.annotated)
        return kept.score if kept is not None and is_same else None

    def add(self, pair: Pair, score: CaseScore) -> None:
        """Append a line, which a killed process leaves behind."""
        if self.file is None:
            return
        line = ScoredCase(files=state_of(pair), annotated=pair.annotated, score=score).model_dump_json()
        self.file.write(f"{line}\n".encode())
        self.file.flush()


@contextlib.contextmanager
def keep_scores(path: Path | None, settings: str) -> Iterator[KeptScores]:
    """Open the scores that an interrupted evaluation left, to be read and added to.

    A last line that was cut off is thrown away; so is everything where the settings are others.

    Args:
        path: of the file, made where it is not there; None keeps nothing.
        settings: what the scores depend on beside the files, in one line.

    Raises:
        InputError: if another process writes into the file.
    """
    if path is None:
        yield KeptScores()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f"{settings}\n".encode()
    with path.open("a+b") as file:
        try:
            flock(file.fileno())
        except BlockingIOError as error:
            raise InputError(
                f"{path}: another evaluation writes here; wait for it, or choose another folder with -o"
            ) from error
        except OSError:
            log.debug("%s: no locks here", path)
        file.seek(0)
        found, end = read_lines(file, head)
        file.truncate(end)
        if not end:
            file.write(head)
        yield KeptScores(found=found, file=file)


def read_lines(file: IO[bytes], head: bytes) -> tuple[dict[str, ScoredCase], int]:
    """The whole lines after the head by case name, and where the last of them ends; none where the head is another."""
    found: dict[str, ScoredCase] = {}
    if file.readline() != head:
        return found, 0
    end = len(head)
    for line in file:
        if not line.endswith(b"\n"):
            break
        try:
            kept = ScoredCase.from_json(line.decode())
        except (InputError, UnicodeDecodeError):
            break
        found[kept.score.case] = kept
        end += len(line)
    return found, end


def state_of(pair: Pair) -> tuple[tuple[str, int, int], ...]:
    """What tells that a pair's files are what they were."""
    paths = [path for path in (pair.prediction, pair.reference) if path is not None]
    facts = [(str(file), file.stat()) for path in paths for file in files_of(path)]
    return tuple((name, fact.st_size, fact.st_mtime_ns) for name, fact in facts)
