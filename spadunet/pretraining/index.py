"""Any folders of images to a corpus: found, made by worker processes, weighted, a few held out."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ..formats import PICTURE_ENDINGS, ending_of
from ..parallel import map_cases
from ..record import write_record
from ..sizes import most_values
from ..workers import THIS_PROCESS, Workers
from .corpus import CORPUS_JSON, CorpusFilters, CorpusImage, CorpusIndex, SkippedImage
from .make import JOURNAL, Made, StoredImage, is_kept, make_images, memory_to_make, read_journal, write_journal
from .manifest import ManifestDataset
from .modality import COLOURLESS, UNKNOWN, modality_in, more_telling, of_colour
from .series import look_into
from .sources import Filters, Source, Walk, walk, with_unique_keys
from .standardise import bytes_to_standardise

log = logging.getLogger("spadunet")


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the user decides of a corpus; none of it changes a stored image."""

    filters: Filters = Filters()
    min_side: int = 16
    """Pixels of the shorter in-plane side; smaller images are left out."""
    max_da: int | None = None
    modality: str | None = None
    """Of all datasets that have none of their own in `modalities`."""
    modalities: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    """By dataset; 1 where there is none."""
    datasets: tuple[ManifestDataset, ...] = ()
    """Of a manifest."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Indexed:
    """What a run did."""

    index: CorpusIndex
    num_made: int
    num_kept: int
    left_out: Counter[str]
    """Images, or files, that a rule leaves out: how many, by the rule."""


def find_sources(
    folders: Sequence[tuple[str, Path]], choices: Choices, workers: Workers = THIS_PROCESS
) -> tuple[list[Source], list[SkippedImage], Walk]:
    """All sources in folders, sorted by key, those that cannot be used, and what was passed over.

    Args:
        folders: name of the dataset, and where it lies.

    Raises:
        InputError: as `sources.walk`.
    """
    found = walk(folders, choices.filters, are_named=bool(choices.datasets))
    sources, skipped = list(found.sources), list(found.skipped)
    for outcome in map_cases(look_into, found.dicom, title="Reading DICOM headers", workers=workers):
        if outcome.result is None:
            skipped.append(SkippedImage(source=outcome.item.name, reason=str(outcome.problem)))
        else:
            sources += outcome.result.sources
            skipped += outcome.result.skipped
    return with_unique_keys(sources), skipped, found


def index_images(
    name: str,
    folder: Path,
    sources: Sequence[Source],
    choices: Choices,
    *,
    skipped: Sequence[SkippedImage] = (),
    workers: Workers = THIS_PROCESS,
) -> Indexed | None:
    """Store the images of all sources in a corpus folder and write its index; those that are there already are kept.

    Args:
        skipped: what could not be used so far.

    Returns:
        None, and no index, if no image could be used; all reasons are logged.

    Raises:
        OutputError: if the disk is full or the folder cannot be written.
    """
    made = read_journal(folder)
    todo = [source for source in sources if not is_kept(source, made.get(source.key), folder)]
    problems = list(skipped)
    folder.mkdir(parents=True, exist_ok=True)
    end_last_line(folder / JOURNAL)
    done: set[str] = set()
    with (folder / JOURNAL).open("a", encoding="utf-8") as journal:
        for outcome in map_cases(
            partial(make_images, folder=folder),
            todo,
            title=f"Indexing {name}",
            workers=workers,
            memory_of=memory_to_make,
            most_memory_of=most_memory,
        ):
            if outcome.result is None:
                problems.append(SkippedImage(source=outcome.item.name, reason=str(outcome.problem)))
                made.pop(outcome.item.key, None)
                continue
            made[outcome.item.key] = outcome.result
            journal.write(f"{outcome.result.model_dump_json()}\n")
            journal.flush()
            done.add(outcome.item.key)
    write_journal(folder, [made[key] for key in sorted(made)])
    problems += [problem for source in sources if source.key in made for problem in made[source.key].skipped]
    problems = sorted(set(problems), key=lambda problem: (problem.source, problem.reason))
    entries, left_out = entries_of(sources, made, choices)
    entries = hold_out(entries, choices.seed)
    if not entries:
        for problem in problems:
            log.error(problem.reason)
        return None
    filters = CorpusFilters(
        include=choices.filters.include,
        exclude=choices.filters.exclude,
        min_side=choices.min_side,
        max_da=choices.max_da,
    )
    index = CorpusIndex(name=name, filters=filters, images=tuple(entries), skipped=tuple(problems))
    write_record(folder / CORPUS_JSON, index)
    return Indexed(index=index, num_made=len(done), num_kept=len(sources) - len(todo), left_out=left_out)


def end_last_line(path: Path) -> None:
    """So that a line that a killed run left half-written spoils none of this run's."""
    with contextlib.suppress(OSError):
        if path.read_bytes()[-1:] not in (b"", b"\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")


def most_memory(source: Source) -> int:
    """More bytes than a source can take."""
    return bytes_to_standardise(most_values(source.files))


def entries_of(
    sources: Sequence[Source], made: Mapping[str, Made], choices: Choices
) -> tuple[list[CorpusImage], Counter[str]]:
    """Entries of the index sorted by key, and how many images each filter leaves out."""
    entries, left_out = [], Counter[str]()
    manifest = {dataset.name: dataset for dataset in choices.datasets}
    for source in sources:
        for image in made[source.key].images if source.key in made else ():
            dataset = manifest.get(source.dataset)
            weight = choices.weights.get(source.dataset, dataset.weight if dataset else 1.0)
            entry = CorpusImage(
                key=image.key,
                source=image.source,
                channel=image.channel,
                dataset=source.dataset,
                modality=modality_of_image(source, image, choices, dataset),
                shape=image.shape,
                spacing_mm=image.spacing_mm,
                num_channels=3 if image.num_channels == 3 else 1,
                weight=image.weight * weight,
                sha256=image.sha256,
            )
            if min(entry.shape[1:]) < choices.min_side:
                left_out[f"smaller than {choices.min_side} pixels in plane (--min-side)"] += 1
            elif choices.max_da is not None and entry.da > choices.max_da:
                left_out[f"of a degree of anisotropy above {choices.max_da} (--max-da)"] += 1
            else:
                entries.append(entry)
    return sorted(entries, key=lambda entry: entry.key), left_out


def modality_of_image(source: Source, image: StoredImage, choices: Choices, dataset: ManifestDataset | None) -> str:
    """What the user says; else the one that the manifest says; else channel name, DICOM tags and file name together."""
    said = choices.modalities.get(source.dataset, choices.modality)
    if said is not None:
        return of_colour(said, image.num_channels)
    names = source.channel_names
    number = image.channel or 0
    channel = names[number] if number < len(names) else ""
    told = more_telling(modality_in(channel), source.modality, modality_in(source.path.name))
    if dataset is not None:
        general = dataset.modalities
        told = more_telling(general[0], told) if len(general) == 1 else told
    if told == UNKNOWN and (image.num_channels > 1 or ending_of(source.path, PICTURE_ENDINGS)):
        told = COLOURLESS
    return of_colour(told, image.num_channels)


def hold_out(entries: Sequence[CorpusImage], seed: int) -> list[CorpusImage]:
    """Mark one image of each dataset and modality, drawn by weight; none where there is only one, which is trained on.

    The draw depends on the group's images and the seed alone, not on what else lies in the corpus, or in which order.
    """
    groups: dict[tuple[str, str], list[CorpusImage]] = {}
    for entry in sorted(entries, key=lambda entry: entry.key):
        groups.setdefault((entry.dataset, entry.modality), []).append(entry)
    chosen = set()
    for group, members in groups.items():
        if len(members) > 1:
            generator = np.random.default_rng([seed, *"\0".join(group).encode()])
            weights = np.array([member.weight for member in members])
            chosen.add(members[int(generator.choice(len(members), p=weights / weights.sum()))].key)
    return [entry.model_copy(update={"is_held_out": True}) if entry.key in chosen else entry for entry in entries]
