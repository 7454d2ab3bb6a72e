"""The loop of every kind of run: draw a batch, learn from it, note it, save now and then."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import nn

from ..errors import InputError, OutputError, listed
from .journal import Journal
from .options import LoopOptions
from .ranks import Ranks
from .state import Learned, Progress, checkpoint_path, load_state, read_progress, save_state

ENDLESS = 10**9
"""Steps of a run that ends by the clock."""
MAX_SKIPPED = 10
"""Steps in a row that are skipped; after so many it is the weights, and not the images."""
MAX_NAMES = 8

log = logging.getLogger("spadunet")


class DivergedError(OutputError):
    """A measure was not finite, and no image of the batch is the cause."""


class ImageBatch(Protocol):
    """Images that are learned from in one step."""

    @property
    def da(self) -> int:
        """Degree of anisotropy."""

    @property
    def image(self) -> Sized:
        """The images, as many as it has."""


B = TypeVar("B", bound=ImageBatch)
B_contra = TypeVar("B_contra", bound=ImageBatch, contravariant=True)


class Learner(Protocol[B_contra]):
    """What learns from batches, and all that changes as it does."""

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """Saved in the checkpoint under these names, which hold no full stop; not wrapped."""

    @property
    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        """Each parameter group has "peak", its peak learning rate; without it, that which it has at the start."""

    @property
    def numbers(self) -> dict[str, float]:
        """What else is remembered from step to step; changed in place."""

    def learn(self, batch: B_contra) -> dict[str, float]:
        """One whole step, optimisers included; always the same measures, all finite in a sound run."""


def run_steps(
    learner: Learner[B],
    batches: Callable[[int], Iterable[B]],
    folder: Path,
    options: LoopOptions,
    *,
    run: dict[str, str],
    schedule: Callable[[float, float], float],
    facts: Callable[[B], dict[str, object]],
    by: str = "",
    title: str,
    company: Ranks,
    show: Callable[[int], None] | None = None,
    show_minutes: float = math.inf,
    keep: Callable[[int], None] | None = None,
    course: Callable[[float], float] = lambda share: share,
    after_step: Callable[[int, float], None] | None = None,
    find_cause: Callable[[B], str | None] | None = None,
    names_of: Callable[[B], Collection[str]] = lambda batch: (),
    unreadable_of: Callable[[B], Collection[str]] = lambda batch: (),
) -> Progress:
    """Learn until the run ends; start where the checkpoint in `folder` left off, if there is one.

    Whether to stop, to save and to show is agreed by all processes after every step; the clock is that of the first,
    so that all learn at the same rate.

    Args:
        batches: gives those from a step on; a generator is closed at the end, and its worker processes with it.
        folder: of the result; curves go there, the checkpoint into its state/.
        run: what the run was asked for, kept in the checkpoint.
        schedule: learning rate from the share of the run that is done and a group's peak.
        facts: columns of the curves that tell of a batch.
        by: the fact that splits the curves into several lines.
        title: of the bar.
        show: draws what was learned in so many steps, in the first process: now and then, and at the end.
        keep: writes what others use of the result, in the first process, with every checkpoint.
        course: share of the schedule that is behind a run, from the share of its steps or time; 1 ends it.
        after_step: called in every process with the number of steps done and the seconds of the run; what it decides
            by, and remembers in the learner's numbers, is the same in all.
        find_cause: says what in this process's part of a batch made a measure not finite; in all processes nothing if
            it is the weights, None if it is the gradient alone. The run then ends with the state before that step.
            Without it such a step is skipped and counted, until there are `MAX_SKIPPED` in a row. Either way it must
            have changed nothing.
        names_of: images of this process's part of a batch, for messages.
        unreadable_of: those that should have been read for it, and could not.

    Raises:
        InputError: if the checkpoint is damaged, of another network, or not seen by every process; and what `batches`
            and `after_step` raise as such, when the state is saved.
        OutputError: if a measure is no longer finite; says how one can go on.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when the state is saved.
    """
    checkpoint = checkpoint_path(folder)
    learned = Learned(networks=learner.networks, optimisers=learner.optimisers, numbers=learner.numbers)
    for network in learner.networks.values():
        network.train(any(parameter.requires_grad for parameter in network.parameters()))  # else it stays as it is
    begun = Progress(step=0, seconds=0.0, is_finished=False, run=run)
    if checkpoint.is_file():
        begun = read_progress(checkpoint)
        load_state(checkpoint, learned)
    step, seconds, num_skipped, skipped_in_a_row = begun.step, begun.seconds, begun.num_skipped, begun.skipped_in_a_row
    unreadable = set(begun.unreadable)
    most, least = company.largest([step, -step])
    if most != -least:
        raise InputError(f"{checkpoint}: not seen by every process of the run; give a folder that all machines share")

    def save(*, is_finished: bool, owes_validation: bool = False) -> Progress:
        if any(company.largest([len(unreadable)])):
            unreadable.update(*company.gather(unreadable))
        progress = Progress(
            step=step,
            seconds=seconds,
            is_finished=is_finished,
            run=run,
            num_skipped=num_skipped,
            skipped_in_a_row=skipped_in_a_row,
            unreadable=tuple(sorted(unreadable)),
            owes_validation=owes_validation,
        )
        if company.is_first:
            save_state(checkpoint, learned, progress)
            if keep is not None:
                keep(step)
        company.largest([0])  # nobody leaves before it is written
        return progress

    source = iter(batches(step))
    with contextlib.ExitStack() as stack:
        stack.callback(getattr(source, "close", lambda: None))  # a generator's workers end with it
        is_stopped = stack.enter_context(stop_signal())
        journal = Journal(folder, options, step, seconds, by=by, title=title) if company.is_first else None
        if journal is not None:
            stack.enter_context(contextlib.closing(journal))
        start = time.monotonic() - seconds
        if begun.owes_validation and after_step is not None:
            after_step(step, seconds)
        last_save = last_show = now = time.monotonic()
        is_over = 0.0
        while course(options.share_done(step, seconds)) < 1 and not is_over:
            before, asked = now, time.monotonic()  # saving lies between the two, and is no waiting
            unread: str | None = None
            try:
                batch = next(source)
            except InputError as error:
                unread = str(error)
            except RuntimeError:
                # The signal reaches the workers too, whose end is then no news; others would wait for this process.
                if not is_stopped() or company.world_size > 1:
                    raise
                break
            waited = time.monotonic() - asked
            if any(company.largest([unread is not None])):  # others would wait for this process
                told = next(filter(None, company.gather(unread)))
                if step > begun.step:
                    save(is_finished=False)
                raise InputError(f"{told}; the same command then goes on from step {step}")
            unreadable.update(unreadable_of(batch))
            rate = set_rates(learner.optimisers, schedule, course(options.share_done(step, seconds)))
            measures = learner.learn(batch)
            now = time.monotonic()
            of_first = (now - start, now - last_save, now - last_show) if journal else (0.0, 0.0, 0.0)
            unsound = [name for name, value in measures.items() if not math.isfinite(value)]
            is_over, is_broken, seconds, unsaved, unshown = company.largest([is_stopped(), bool(unsound), *of_first])
            if is_broken:
                where = ", ".join(f"{name} {value}" for name, value in facts(batch).items())
                what = f"{' and '.join(unsound) or 'a measure of another process'} became "
                what += f"{measures[unsound[0]] if unsound else 'not finite'} at step {step}"
                if find_cause is not None:
                    causes = company.gather(find_cause(batch))
                    save(is_finished=False)
                    if None in causes:
                        raise not_followed(step, where, options.precision)
                    raise not_finite(what, where, ", ".join(filter(None, causes)))
                num_skipped, skipped_in_a_row = num_skipped + 1, skipped_in_a_row + 1
                if skipped_in_a_row == MAX_SKIPPED:
                    raise OutputError(
                        f"{what} ({where}), as in the {MAX_SKIPPED - 1} steps before: the weights have diverged; start "
                        "anew with a lower --learning-rate, by --restart or in another folder with -o"
                    )
                names = sorted({name for part in company.gather(tuple(names_of(batch))) for name in part})
                log.warning(
                    "%s (%s; of %s): step skipped (%d so far)", what, where, listed(names, MAX_NAMES), num_skipped
                )
                if journal is not None:
                    journal.bar.update()
            else:
                skipped_in_a_row = 0
                if journal is not None:
                    pace = {
                        "learning_rate": rate,
                        "samples_per_second": len(batch.image) * company.world_size / (now - before),
                        "waiting_share": waited / (now - before),
                    }
                    journal.note(step, seconds, facts(batch), measures, pace)
            step += 1
            if is_over and after_step is not None:  # whoever stops the run may not wait for what follows
                save(is_finished=False, owes_validation=True)
            if after_step is not None:
                try:
                    after_step(step, seconds)
                except InputError as error:
                    if company.world_size > 1:  # who still validates cannot save
                        raise
                    save(is_finished=False, owes_validation=True)
                    raise InputError(f"{error}; the same command then goes on from step {step}") from error
                now = time.monotonic()  # what that took is no part of a step's pace
            if unsaved > options.checkpoint_minutes * 60:
                save(is_finished=False)
                if journal is not None:
                    journal.draw()
                last_save = now
            if unshown > show_minutes * 60:
                if show is not None and company.is_first:
                    show(step)
                last_show = now
        (is_over,) = company.largest([is_stopped()])
        progress = save(is_finished=is_over == 0)
    if is_over:
        raise KeyboardInterrupt
    if show is not None and company.is_first:
        show(step)
    return progress


def not_finite(what: str, where: str, causes: str) -> OutputError:
    """Says what made a measure not finite, and how to go on from the state before it.

    Args:
        causes: cases that did; empty if it is the weights.
    """
    if not causes:
        return DivergedError(
            f"{what} ({where}) with every case of the batch: the weights have diverged; lower --learning-rate and give "
            "--restart"
        )
    return OutputError(
        f"{what} ({where}, {causes}); the state before it is saved: correct the case, run spadunet_preprocess (a new "
        "plan would not fit the run) and go on with the same command, or try a lower --learning-rate with --restart"
    )


def not_followed(step: int, where: str, precision: torch.dtype) -> OutputError:
    """Says that a gradient was not finite though the loss was, and how to go on."""
    more = "" if precision == torch.float32 else ", or --precision float32,"
    return DivergedError(
        f"the gradient became infinite or nan at step {step} ({where}), though the loss of every case was finite: "
        f"training diverged, or overflowed; the state before it is saved; give a lower --learning-rate{more} and "
        "--restart"
    )


def set_rates(
    optimisers: Mapping[str, torch.optim.Optimizer], schedule: Callable[[float, float], float], share: float
) -> float:
    """Set the learning rate of every parameter group; that of the first."""
    groups = [group for optimiser in optimisers.values() for group in optimiser.param_groups]
    for group in groups:
        group["lr"] = schedule(share, group.setdefault("peak", group["lr"]))
    return float(groups[0]["lr"])


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """Tell whether Ctrl-C or SIGTERM came, so that a run stops between two steps; a second Ctrl-C stops at once."""
    came: list[int] = []

    def note(number: int, _: object) -> None:
        came.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: the caller handles signals
        yield lambda: False
        return
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
