"""What both pre-training commands share: options, the corpus, the processes, the run before this one."""

from __future__ import annotations

import argparse
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .earlier_run import RunFiles, clear_earlier_run, find_earlier_run, request_of, take_folder
from .options import (
    add_device_options,
    default_workers,
    non_negative_int,
    positive_float,
    positive_int,
)
from .recipes import Recipe, default_text, settle
from .run import add_data_option, add_dry_run_option, write_manifest

if TYPE_CHECKING:
    from ..pretraining.corpus import Corpus
    from ..pretraining.loop import PretrainingOptions
    from ..pretraining.sampling import CropRule, ImageBatch
    from ..training.ranks import Ranks
    from ..training.state import Progress

CROPS_PNG = "crops.png"
"""What the networks see: crops of each degree of anisotropy."""

log = logging.getLogger("spadunet")


def add_pretraining_options(parser: argparse.ArgumentParser, usual: Recipe, *, presets: Iterable[str]) -> None:
    """The shared options; `usual` is only for their help."""

    parser.add_argument("-c", "--corpus", metavar="CORPUS", help="its name or path (default: the one made last)")
    parser.add_argument(
        "--preset", choices=tuple(presets), help="size of the network (default: base on a GPU, tiny without)"
    )
    parser.add_argument("--recipe", choices=("paper",), help="take every number of the paper that is not given here")
    parser.add_argument(
        "--max-steps", type=positive_int, help=f"(default: {usual.options['max_steps']} unless --max-minutes)"
    )
    parser.add_argument("--max-minutes", type=positive_float, help="end after this time of training")
    parser.add_argument(
        "--batch-size",
        type=positive_int,
        help=f"images a step, of all processes together {default_text(usual, 'batch_size')}",
    )
    parser.add_argument(
        "--crop-tokens",
        nargs=2,
        type=positive_int,
        metavar=("PLANE", "DEPTH"),
        help=f"size of crops in tokens of 16 voxels, in plane and along depth {default_text(usual, 'crop_tokens')}",
    )
    parser.add_argument("--learning-rate", type=positive_float, help=f"peak {default_text(usual, 'learning_rate')}")
    parser.add_argument(
        "--seed", type=non_negative_int, default=0, help="of weights, batches and augmentation (default: 0)"
    )
    add_device_options(parser)
    parser.add_argument(
        "--num-workers", type=non_negative_int, help="processes that make batches ahead, for each GPU or process"
    )
    parser.add_argument("--checkpoint-minutes", type=positive_float, default=5.0, help="save this often (default: 5)")
    parser.add_argument(
        "--show-minutes", type=positive_float, default=30.0, help="draw pictures this often (default: 30)"
    )
    parser.add_argument("--restart", action="store_true", help="throw away an earlier run of the same name")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="of the result (default: below results/pretraining/)"
    )
    add_data_option(parser)
    add_dry_run_option(parser)


def stop_advice(options: argparse.Namespace) -> str:
    """What to do after Ctrl-C."""
    return f"the same command goes on from here{', without --restart' if options.restart else ''}"


@dataclass(frozen=True, kw_only=True)
class PretrainingRun:
    """A run whose every input was found sound, before anything of an earlier run is touched."""

    command: str
    arguments: argparse.Namespace
    folder: Path
    files: RunFiles
    corpus: Corpus
    preset: str
    options: PretrainingOptions
    ranks: Ranks
    request: dict[str, str]
    """What was asked for, as kept in the checkpoint and in the result's provenance."""
    done: Progress | None
    """How far the run has come that this one goes on with."""
    started: float
    is_locked: bool
    """As `pretrain` takes it: the folder is held."""

    @property
    def rule(self) -> CropRule:
        """How large crops are."""
        from ..pretraining.sampling import CropRule

        plane, depth = self.arguments.crop_tokens
        return CropRule(tokens_in_plane=plane, tokens_in_depth=depth)

    @property
    def batches(self) -> Callable[[int], Iterable[ImageBatch]]:
        """This rank's part of every batch, from a step on, as `pretrain` takes them."""
        from ..pretraining.sampling import load_batches

        def batches(start_step: int) -> Iterable[ImageBatch]:
            max_steps = self.options.max_steps
            return load_batches(
                self.corpus,
                self.rule,
                batch_size=self.options.batch_size,
                seed=self.options.seed,
                start_step=start_step,
                num_steps=None if max_steps is None else max_steps - start_step,
                rank=self.ranks.rank,
                world_size=self.ranks.world_size,
                num_workers=self.options.num_workers,
            )

        return batches

    def begin(self) -> None:
        """Throw away what an earlier run left, where this one starts anew; call it when all else was found sound."""
        from ..pretraining.crop_sheet import save_crop_sheet

        self.ranks.wait()  # all have read it
        if self.ranks.is_first:
            clear_earlier_run(self.folder, self.files, self.done, restart=self.arguments.restart)
        self.ranks.wait()
        log.info(
            "pre-training on %s, preset %s, %s, %s: %s",
            self.corpus.index.name,
            self.preset,
            f"{self.ranks.world_size} processes" if self.ranks.world_size > 1 else self.options.device,
            self.options.precision,
            self.folder,
        )
        if self.ranks.is_first and self.done is None:
            save_crop_sheet(self.corpus, self.rule, self.options.seed, self.folder / CROPS_PNG)

    def finish(self) -> None:
        """Write the manifest, when the result is written."""
        if self.ranks.is_first:
            write_manifest(
                self.folder / self.files.manifest,
                self.command,
                self.arguments,
                started=self.started,
                device=f"{self.ranks.world_size} × {self.options.device}",
                files=[self.folder],
            )


@contextlib.contextmanager
def open_run(
    arguments: argparse.Namespace,
    ranks: Ranks,
    *,
    command: str,
    kind: str,
    result: str,
    usual: Recipe,
    paper: Recipe,
    request: Mapping[str, str],
    differs: Sequence[str] = (),
) -> Iterator[PretrainingRun]:
    """Open the corpus, and find the run to go on with; hold its folder.

    Args:
        arguments: of `add_pretraining_options` and the stage's own; those not given are set by the recipe.
        kind: what is trained: a backbone, or tokenizer.
        result: the file that is written last of what is trained.
        request: what else the run is asked for; a run with other wishes is not gone on with.
        differs: from the paper's run, beside the recipe's numbers.

    Raises:
        InputError: if the corpus or the folder cannot be used, or holds another or a finished run.
    """
    import torch

    from ..files import sha256_of_file
    from ..network.device import choose_precision
    from ..pretraining.corpus import CORPUS_JSON, load_corpus
    from ..pretraining.loop import PretrainingOptions
    from ..workspace import find_workspace

    started = time.time()
    files = RunFiles(result=result, manifest=f"{command}.json")
    workspace = find_workspace(arguments.data)
    recipe, lines = settle(arguments, usual, paper, differs)
    ranks.share(arguments.batch_size)
    corpus_folder = choose_corpus(arguments.corpus, workspace.corpora)
    earlier = {} if arguments.restart or arguments.output is None else request_of(arguments.output)
    preset = arguments.preset or earlier.get("preset") or ("base" if ranks.device.type == "cuda" else "tiny")
    folder = arguments.output or workspace.results / "pretraining" / f"{kind}_{preset}"
    earlier = {} if arguments.restart else request_of(folder)
    corpus = load_corpus(corpus_folder, may_lack_images=bool(earlier))
    with take_folder(folder, is_first=ranks.is_first, dry_run=arguments.dry_run) as is_locked:
        for line in lines:
            log.info(line)
        precision = choose_precision(arguments.precision, ranks.device)
        if arguments.precision == "auto" and "precision" in earlier:  # begun on another machine
            precision = getattr(torch, earlier["precision"].removeprefix("torch."))
        options = PretrainingOptions(
            max_steps=arguments.max_steps,
            max_minutes=arguments.max_minutes,
            seed=arguments.seed,
            device=ranks.device,
            precision=precision,
            num_workers=default_workers() if arguments.num_workers is None else arguments.num_workers,
            checkpoint_minutes=arguments.checkpoint_minutes,
            batch_size=arguments.batch_size,
            warm_up_share=recipe.warm_up_share,
            lowest_rate=recipe.lowest_rate,
            show_minutes=arguments.show_minutes,
        )
        asked = {
            "kind": kind,
            "preset": preset,
            "corpus": corpus.index.name,
            "corpus_digest": sha256_of_file(corpus.folder / CORPUS_JSON),
            **{name: str(getattr(arguments, name)) for name in paper.options if name != "preset"},
            "seed": str(options.seed),
            "max_minutes": str(options.max_minutes),
            "warm_up_share": str(options.warm_up_share),
            "lowest_rate": str(options.lowest_rate),
            "precision": str(precision),
            **request,
        }
        yield PretrainingRun(
            command=command,
            arguments=arguments,
            folder=folder,
            files=files,
            corpus=corpus,
            preset=preset,
            options=options,
            ranks=ranks,
            request=asked,
            done=find_earlier_run(folder, files, asked, restart=arguments.restart),
            started=started,
            is_locked=is_locked,
        )


def choose_corpus(name: str | None, corpora: Path) -> Path:
    """The folder of a corpus by name or path; without either the one made last, which is told.

    Raises:
        InputError: if there is none.
    """
    from ..pretraining.corpus import CORPUS_JSON, find_corpus

    if name is not None:
        return find_corpus(name, corpora)
    made = sorted(corpora.glob(f"*/{CORPUS_JSON}"), key=lambda path: path.stat().st_mtime)
    if not made:
        raise InputError(f"{corpora}: no corpus; make one with spadunet_index, or give its path with -c")
    log.info("corpus: %s, %s", made[-1].parent.name, "the only one" if len(made) == 1 else "made last")
    return made[-1].parent
