"""A folder of images to a folder of label maps for each of several tasks of one model.

As in `pipeline`, one case is read, one predicted and one written at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..dataset import RawCase
from ..errors import InputError
from ..formats import is_dicom
from ..image import Image
from ..parallel import Outcome, attempt
from .channels import ChannelOrder
from .dicom_seg import read_headers
from .label_format import LabelFormat, label_ending
from .pipeline import Loaded, Place, prediction_path, read_ordered, write
from .predict import Answer, Engine, Views, segment, views_of
from .shared import Preparation, group, preparation_of, see_the_same, segment_together
from .stages import StageTimes

Key = tuple[tuple[int | None, ...], Preparation]
Ready = dict[str, Outcome[RawCase, Loaded]]
Answered = dict[str, Outcome[RawCase, tuple[Loaded, Answer]]]
Written = dict[str, Outcome[RawCase, Path]]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of the tasks: what it predicts, and where to."""

    engine: Engine
    cases: Mapping[str, RawCase]
    """By name; those that are to be predicted."""
    order: ChannelOrder
    """Of the images' channels."""
    folder: Path
    label_format: LabelFormat
    place: Place


def predict_many(parts: Mapping[str, Part], times: StageTimes) -> Iterator[Written]:
    """What became of each case, by task; a broken one stops no other, and no other task."""
    names = list(dict.fromkeys(name for part in parts.values() for name in part.cases))
    groups = group({task: part.engine for task, part in parts.items()}, see_the_same)
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        coming: Future[Ready] | None = reader.submit(load_all, names[0], parts, times) if names else None
        writing: Future[Written] | None = None
        for following in [*names[1:], None]:
            assert coming is not None
            ready = coming.result()
            coming = None if following is None else reader.submit(load_all, following, parts, times)
            answered = segment_all(ready, parts, groups, times)
            del ready
            if writing is not None:
                yield writing.result()
            writing = writer.submit(write_all, answered, parts, times)
            del answered
        if writing is not None:
            yield writing.result()


def load_all(name: str, parts: Mapping[str, Part], times: StageTimes) -> Ready:
    """A case as each task sees it; what tasks see alike is read and prepared once."""
    images: dict[tuple[int | None, ...], Image] = {}
    prepared: dict[Key, Views] = {}

    def load(part: Part, case: RawCase) -> Loaded:
        if case.problem is not None:
            raise InputError(case.problem)
        path = prediction_path(part.folder, case.name, label_ending(case, part.label_format))
        headers = read_headers(case) if is_dicom(path) else []
        numbers = part.order.numbers
        if numbers not in images:
            images[numbers] = read_ordered(case, part.engine.plan, part.order)
        key = (numbers, preparation_of(part.engine))
        if key not in prepared:
            prepared[key] = views_of(case.name, images[numbers], part.engine)
        return Loaded(raw=case, path=path, views=prepared[key], headers=headers)

    with times.time("loading"):
        return {
            task: attempt(partial(load, part), part.cases[name]) for task, part in parts.items() if name in part.cases
        }


def segment_all(
    ready: Ready, parts: Mapping[str, Part], groups: Sequence[tuple[str, ...]], times: StageTimes
) -> Answered:
    """The answers of all tasks to a case, those of one group by one pass of the backbone."""
    answered: Answered = {}
    for members in groups:
        loaded = {task: ready[task].result for task in members if task in ready}
        sound = {task: it for task, it in loaded.items() if it is not None}
        engines = [parts[task].engine for task in sound]
        together = segment_together(next(iter(sound.values())).views, engines, times) if len(sound) > 1 else None
        for task in [task for task in members if task in ready]:
            it = ready[task]
            if it.result is None:
                answered[task] = it.failed()
            elif together is not None:
                pair = stripped(it.result), together[list(sound).index(task)]
                answered[task] = Outcome(item=it.item, result=pair, problem=None)
            else:
                answered[task] = attempt(partial(segment_one, it.result, parts[task].engine, times), it.item)
    return answered


def segment_one(loaded: Loaded, engine: Engine, times: StageTimes, _: RawCase) -> tuple[Loaded, Answer]:
    """The answer of one task alone."""
    return stripped(loaded), segment(loaded.views, engine, times)


def stripped(loaded: Loaded) -> Loaded:
    """Without the image, which would be held until the label map is written."""
    return replace(loaded, views={})


def write_all(answered: Answered, parts: Mapping[str, Part], times: StageTimes) -> Written:
    """Write the label maps of a case."""
    written: Written = {}
    for task, outcome in answered.items():
        if outcome.result is None:
            written[task] = outcome.failed()
            continue
        with times.time("writing"):
            written[task] = attempt(partial(write_one, parts[task], *outcome.result), outcome.item)
    return written


def write_one(part: Part, loaded: Loaded, answer: Answer, _: RawCase) -> Path:
    """Write the label map of one task."""
    return write(loaded, answer, part.engine, part.place)
