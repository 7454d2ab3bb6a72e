"""A folder of images to a folder of label maps: one case is read, one predicted and one written at the same time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..channels import pick_channels
from ..dataset import RawCase
from ..errors import InputError
from ..formats import NIFTI_ENDINGS, is_dicom, num_axes_of
from ..image import Image, LabelMap, read_image, write_label_map
from ..parallel import Outcome, attempt, with_progress
from ..plan import Plan
from .channels import ChannelOrder
from .dicom_seg import read_headers, write_segmentation
from .label_format import LabelFormat, label_ending
from .postprocess import clean
from .predict import Answer, Engine, Views, segment, views_of
from .saved_probabilities import probabilities_path, write_probabilities
from .stages import StageTimes

if TYPE_CHECKING:
    from pydicom import Dataset

log = logging.getLogger("spadunet")

Place = Callable[[str, Path, LabelMap, Answer], Path]
"""By a case's name, where its label map would go, the label map and the answer that it is of: where it goes."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A case as the network sees it, ready to be predicted."""

    raw: RawCase
    path: Path
    """Where its label map goes."""
    views: Views
    headers: list[Dataset]
    """Of its DICOM slices, where the label map becomes a DICOM SEG."""


def predict_cases(
    cases: Sequence[RawCase],
    engine: Engine,
    folder: Path,
    *,
    take: Callable[[Sequence[RawCase]], Iterator[RawCase]] | None = None,
    label_format: LabelFormat = "nifti",
    order: ChannelOrder | None = None,
    is_quiet: bool = False,
    times: StageTimes | None = None,
    place: Place | None = None,
) -> Iterator[Outcome[RawCase, Path]]:
    """Predict one case after the other; a broken one never stops the others.

    While the network works on a case, the next one is read and preprocessed and the last one written.

    Args:
        take: gives those of the cases that fall to this process, each when its turn comes; None for all.
        order: of the image's channels; None for that of the plan.
        is_quiet: without a bar, as beside another process that has one.
        times: gets the seconds of each stage.
        place: asked for each label map before it is written, in one thread at a time.
    """
    read = partial(load, engine=engine, folder=folder, label_format=label_format, order=order)
    outcomes = flow(take(cases) if take else cases, read, engine, times or StageTimes(), place)
    title = "Predicting, this process's part" if take else "Predicting"
    return outcomes if is_quiet else with_progress(outcomes, len(cases), title=title)


def flow(
    cases: Iterable[RawCase],
    read: Callable[[RawCase], Loaded],
    engine: Engine,
    times: StageTimes,
    place: Place | None = None,
) -> Generator[Outcome[RawCase, Path]]:
    """Outcomes of all cases, each of which goes through three hands: one reads, this thread predicts, one writes.

    A case that ran out of memory beside others is tried again at the end, alone.
    """

    def load_one(case: RawCase) -> Outcome[RawCase, Loaded]:
        with times.time("loading"):
            return attempt(read, case)

    def write_one(loaded: Loaded, answer: Answer) -> Outcome[RawCase, Path]:
        with times.time("writing"):
            return attempt(lambda case: write(loaded, answer, engine, place), loaded.raw)

    def predict_one(outcome: Outcome[RawCase, Loaded]) -> Outcome[RawCase, tuple[Loaded, Answer]]:
        if outcome.result is None:
            return outcome.failed()
        loaded = outcome.result
        written = replace(loaded, views={})  # else the image would be held until its label map is written
        return attempt(lambda case: (written, segment(loaded.views, engine, times)), outcome.item)

    again: list[RawCase] = []
    waiting = iter(cases)

    def unless_again(outcome: Outcome[RawCase, Path], *, is_alone: bool) -> Iterator[Outcome[RawCase, Path]]:
        if outcome.may_pass_alone and not is_alone:
            log.warning("%s; tried again alone at the end", outcome.problem)
            again.append(outcome.item)
        else:
            yield outcome

    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:

        def load_next() -> Future[Outcome[RawCase, Loaded]] | None:
            case = next(waiting, None)
            return None if case is None else reader.submit(load_one, case)

        coming, is_alone = load_next(), True
        writing: Future[Outcome[RawCase, Path]] | None = None
        while coming is not None:
            loaded = coming.result()
            coming = load_next()
            is_alone = is_alone and coming is None
            predicted = predict_one(loaded)
            del loaded
            if writing is not None:
                yield from unless_again(writing.result(), is_alone=False)
                writing = None
            if predicted.result is not None:
                writing = writer.submit(write_one, *predicted.result)
            else:
                yield from unless_again(predicted.failed(), is_alone=is_alone)
            del predicted
        if writing is not None:
            yield from unless_again(writing.result(), is_alone=is_alone)
    for case in again:
        predicted = predict_one(load_one(case))
        yield predicted.failed() if predicted.result is None else write_one(*predicted.result)


def load(
    case: RawCase, *, engine: Engine, folder: Path, label_format: LabelFormat, order: ChannelOrder | None
) -> Loaded:
    """Read and preprocess a case.

    Raises:
        InputError: if it cannot be read.
    """
    if case.problem is not None:
        raise InputError(case.problem)
    path = prediction_path(folder, case.name, label_ending(case, label_format))
    headers = read_headers(case) if is_dicom(path) else []  # what is wrong with them is told before the work
    image = read_ordered(case, engine.plan, order)
    return Loaded(raw=case, path=path, views=views_of(case.name, image, engine), headers=headers)


def write(loaded: Loaded, answer: Answer, engine: Engine, place: Place | None) -> Path:
    """Clean a label map by the engine's rules and write it in its format; the path.

    Probabilities, where there are any, come before it: a label map that is there has them.
    """
    label_map = clean(answer.label_map, engine.labels, engine.rules)
    path = place(loaded.raw.name, loaded.path, label_map, answer) if place else loaded.path
    if answer.probabilities is not None:
        write_probabilities(probabilities_path(path, loaded.raw.name), answer.probabilities)
    if loaded.headers:
        write_segmentation(path, label_map, loaded.headers, engine.labels, engine.plan.dataset_name)
    else:
        write_label_map(path, label_map, num_axes=num_axes_of(loaded.raw.paths[0]))
    return path


def read_ordered(case: RawCase, plan: Plan, order: ChannelOrder | None) -> Image:
    """A case's image with the channels of the plan, in its order."""
    if order is None:
        return read_image(case.image_paths, num_channels=len(plan.channel_names), series=case.series)
    image = read_image(case.image_paths, num_channels=len(order.names), series=case.series)
    try:
        return pick_channels(image, order.numbers)
    except InputError as error:
        raise InputError(f"{case.name}: {error}") from error


def prediction_path(folder: Path, case: str, ending: str = NIFTI_ENDINGS[0]) -> Path:
    """Where a case's label map goes."""
    return folder / f"{case}{ending}"
