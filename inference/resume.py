"""What was asked of an output folder before, and which of its label maps a run may therefore keep.

A label map is kept only where a record beside it says that it was made for the same request, and, where probabilities
are asked for, with these. While a run is unfinished the record is UNFINISHED_FILE; once it is done, it is part of
MANIFEST.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import Field

from ..errors import InputError, listed
from ..model import digest_of_task
from ..record import FormatVersion, Record, RecordType, is_unused, write_record
from .channels import ChannelOrder
from .job import Job
from .label_format import written_before
from .quality_table import MAX_NAMED, REVIEW_FOLDER, review_path
from .saved_probabilities import probabilities_path
from .sources import Source

if TYPE_CHECKING:
    import torch

MANIFEST = "spadunet_predict.json"
UNFINISHED_FILE = "spadunet_predict.unfinished"


class ModelAsked(Record):
    """One of the models."""

    folder: str
    """Only for people: a model that was moved is the same."""
    task: str
    sha256: str
    """Of those of the backbone's file and the task's own: other tasks of the model come and go."""

    def __str__(self) -> str:
        return f"{self.folder} (task {self.task}, SHA-256 {self.sha256[:8]}…)"


class Request(Record):
    """All that decides what the label maps hold."""

    images: str
    """Folder."""
    models: tuple[ModelAsked, ...]
    overlap: float
    precision: str
    label_format: str
    spacing: str
    mirror: tuple[str, ...]
    channels: tuple[str, ...]
    """Where each of the model's is found: `_0000`; `-` where the images do not have it."""
    chosen: tuple[str, ...]
    """Classes or regions; none for all."""
    cleans: bool

    def told(self) -> dict[str, str]:
        """What the user would call each part, and its value in words."""
        return {
            "-i": self.images,
            "model": ", ".join(map(str, self.models)),
            "--overlap": f"{self.overlap:g}",
            "--precision": self.precision,
            "--format": self.label_format,
            "--spacing": self.spacing,
            "--mirror": " ".join(self.mirror) or "none",
            "channels": " ".join(self.channels),
            "--roi-subset": " ".join(self.chosen) or "all",
            "post-processing": "yes" if self.cleans else "no",
        }

    def differences(self, earlier: Request) -> list[str]:
        """What another request asked otherwise: `--overlap 0 → 0.5`."""
        return differences_of(self, earlier)


class Told(Protocol):
    """A request that says in words what it asks."""

    @property
    def models(self) -> tuple[ModelAsked, ...]:
        """Of the prediction."""

    def told(self) -> dict[str, str]:
        """What the user would call each part, and its value in words."""


class Asked(Protocol):
    """A model that predicts one task."""

    @property
    def folder(self) -> Path:
        """Of the model."""

    @property
    def task(self) -> str:
        """Its name."""


class Made(Record):
    """Whose the label maps of an output folder are; file names, each there or in review/."""

    format_version: FormatVersion = 1
    request: Request
    label_maps: tuple[str, ...]
    """Of this request, made or to be made."""
    others: tuple[str, ...] = ()
    """Of requests before, whose images the folder of this one did not have."""
    probabilities: tuple[str, ...] = Field(default=(), exclude_if=is_unused)
    """Each beside the label map of its case, and made with it."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a run finds, and what it may keep."""

    folder: Path
    made: Made
    """As it will be."""
    keeps: bool
    """The request was made before."""
    kept: frozenset[str]
    """Names of cases whose label maps stay."""
    outdated: tuple[Path, ...]
    """Label maps, and their probabilities, of cases that are predicted anew."""
    left: tuple[str, ...]
    """File names of label maps without an image; they stay, and are told."""

    def tell_left(self) -> str:
        """A line for the log; empty if there are none."""
        return (
            f"{self.folder}: {len(self.left)} label map{'s' if len(self.left) > 1 else ''} of earlier runs, without an "
            f"image in -i, beside the new ones: {listed(self.left, MAX_NAMED)}; move away what should not count"
            if self.left
            else ""
        )

    def clear(self) -> None:
        """Delete what will be made anew."""
        for path in self.outdated:
            path.unlink(missing_ok=True)

    def begin(self) -> None:
        """Write down for whom the label maps are; only once none of another request is left among them."""
        write_record(self.folder / UNFINISHED_FILE, self.made)

    def end(self) -> None:
        """Take that back, once the manifest says it."""
        (self.folder / UNFINISHED_FILE).unlink(missing_ok=True)


def request_of(images: Path, sources: Sequence[Source], job: Job, precision: torch.dtype) -> Request:
    """The request that a job on a folder of images makes, with the models as they are on disk."""
    return Request(
        images=str(images.resolve()),
        models=models_asked(sources),
        overlap=job.overlap,
        precision=str(precision).removeprefix("torch."),
        label_format=job.label_format,
        spacing=job.spacing,
        mirror=job.mirror,
        channels=channels_asked(job.order),
        chosen=job.chosen,
        cleans=job.cleans,
    )


def models_asked(sources: Sequence[Asked]) -> tuple[ModelAsked, ...]:
    """Models of any kind of task, as they are on disk."""
    return tuple(
        ModelAsked(folder=str(it.folder.resolve()), task=it.task, sha256=digest_of_task(it.folder, it.task))
        for it in sources
    )


def channels_asked(order: ChannelOrder) -> tuple[str, ...]:
    """Where each of the model's channels is found, as `Request.channels` has it."""
    return tuple("-" if number is None else f"_{number:04}" for number in order.numbers)


def differences_of(request: Told, earlier: Told) -> list[str]:
    """What a request asked otherwise than an earlier one of its kind; a model that was moved is the same."""
    told, before = request.told(), earlier.told()
    if [(it.task, it.sha256) for it in request.models] == [(it.task, it.sha256) for it in earlier.models]:
        del told["model"]
    return [f"{name} {before[name]} → {value}" for name, value in told.items() if before[name] != value]


def read_last(folder: Path, kind: type[RecordType]) -> RecordType | None:
    """What the record of the last run says; None where there is none, or none that can be read as this kind.

    That of an unfinished run counts alone: the manifest beside it is of a run before.
    """
    unfinished, manifest = folder / UNFINISHED_FILE, folder / MANIFEST
    try:
        if unfinished.is_file():
            return kind.from_json(unfinished.read_text(encoding="utf-8"), source=unfinished)
        return kind.from_json(json.dumps(json.loads(manifest.read_text(encoding="utf-8"))["made"]), source=manifest)
    except (OSError, ValueError, KeyError, TypeError):  # InputError is a ValueError
        return None


def read_made(folder: Path) -> Made | None:
    """Of label maps, as `read_last`."""
    return read_last(folder, Made)


def find_start(
    folder: Path, request: Request, paths: Mapping[str, Path], *, must_keep: bool, saves_probabilities: bool = False
) -> Start:
    """What is in an output folder of a request; nothing is changed.

    Args:
        paths: where the label map of each case goes.
        must_keep: keep label maps also of a finished run; those of an unfinished one are kept anyway.
        saves_probabilities: keep a label map only where its probabilities are there, too.

    Raises:
        InputError: if label maps or probabilities that are no predictions would be written over, or if some should be
            kept that were made for another request.
    """
    is_unfinished, made = (folder / UNFINISHED_FILE).is_file(), read_made(folder)
    beside = {name: probabilities_path(path, name) for name, path in paths.items()}
    known = set() if made is None else set(made.probabilities)
    require_own(folder, paths, beside.values() if saves_probabilities else (), made)
    if must_keep and made is None and (is_unfinished or (folder / MANIFEST).is_file()):
        raise InputError(
            f"--continue: nothing in {folder} says what its label maps were made for; leave --continue out to predict "
            "all anew, or give another folder"
        )
    differences = [] if made is None else request.differences(made.request)
    if must_keep and differences:
        raise InputError(
            f"--continue: the label maps in {folder} were made otherwise: {'; '.join(differences)}; give the same "
            "options, leave --continue out to predict all anew, or give another folder"
        )
    is_same = made is not None and not differences
    keeps = must_keep or (is_same and is_unfinished)
    earlier = () if made is None else made.label_maps
    trusted = set(earlier) if keeps else set()
    kept = frozenset(
        name
        for name, path in paths.items()
        if path.name in trusted
        and is_there(path)
        and (not saves_probabilities or (beside[name].name in known and is_there(beside[name])))
    )
    anew = [name for name in paths if name not in kept]
    gone = [beside[name] for name in anew if beside[name].name in known]
    outdated = [at for path in (*(paths[name] for name in anew), *gone) for at in (path, review_path(path))]
    probabilities = known - {path.name for path in gone}
    probabilities |= {path.name for path in beside.values()} if saves_probabilities else set()
    current = {path.name for path in paths.values()}
    own = current.union(earlier) if is_same else current
    others = {*earlier, *(() if made is None else made.others)} - own
    return Start(
        folder=folder,
        made=Made(
            request=request,
            label_maps=in_order(own),
            others=in_order(others),
            probabilities=in_order(probabilities),
        ),
        keeps=keeps,
        kept=kept,
        outdated=tuple(path for path in outdated if path.is_file()),
        left=tuple(name for name in in_order((own | others) - current) if is_there(folder / name)),
    )


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Sorted."""
    return tuple(sorted(names))


def is_there(path: Path) -> bool:
    """True if a file lies there, or in review/."""
    return path.is_file() or review_path(path).is_file()


def require_own(
    folder: Path, predictions: Mapping[str, Path], probabilities: Iterable[Path], made: Made | None
) -> None:
    """Refuse to write over label maps that are no predictions: a slip of `-o` must not cost hand-drawn references.

    Nor beside one of the same case in another format: it would pass as this run's.

    Args:
        predictions: by case name.
        probabilities: files of these that would be written.
        made: what the record of the last run says, where there is one that can be read.

    Raises:
        InputError: if such files lie in the folder, and nothing tells that `spadunet_predict` wrote them, or if a
            prediction of another format does.
    """
    known = None if made is None else {*made.label_maps, *made.others}
    is_own = any((folder / name).is_file() for name in (UNFINISHED_FILE, MANIFEST))
    there = [
        (path, prediction)
        for case, prediction in predictions.items()
        for place in (folder, folder / REVIEW_FOLDER)
        for path in written_before(place, case)
    ]
    for path, prediction in there:
        shown = path.relative_to(folder)
        is_other_format = path.name != prediction.name
        if not is_own or (known is not None and path.name not in known and not is_other_format):
            raise InputError(f"-o {folder}: holds {shown}, which spadunet_predict did not write; give another folder")
        if is_other_format:
            raise InputError(f"-o {folder}: holds {shown}, the same case in another format; give another folder")
    for path in (at for own in probabilities for at in (own, review_path(own)) if at.is_file()):
        if not is_own or (made is not None and path.name not in made.probabilities):
            shown = path.relative_to(folder)
            raise InputError(f"-o {folder}: holds {shown}, which spadunet_predict did not write; give another folder")
