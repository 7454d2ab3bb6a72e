"""spadunet_pretrain_mim: stage two, a backbone learns to guess the tokens of masked patches."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..pretrained import TOKENIZER, find_weights
from .earlier_run import require_apart
from .options import find_device, positive_int
from .pretraining import PretrainingRun, add_pretraining_options, open_run, stop_advice
from .recipes import Recipe
from .run import make_parser, run_command

if TYPE_CHECKING:
    from ..network.masked import MaskedUNet, MaskedViT
    from ..pretraining.probe import ProbeCurve
    from ..pretraining.tokenizer_file import LoadedTokenizer
    from ..spacing import Shape

EXAMPLES = """\
  spadunet_pretrain_mim -c mine --max-minutes 60
  spadunet_pretrain_mim -c mine --backbone spad_unet --probe Hippocampus
  spadunet_pretrain_mim -c mine --tokenizer tokenizer_tiny --backbone spad_unet --preset tiny --init spad_unet_tiny
  spadunet_pretrain_mim --recipe paper --init eva02_B_pt_in21k_p14.pt
  torchrun --nproc-per-node 6 $(which spadunet_pretrain_mim) --recipe paper
"""
COMMAND = "spadunet_pretrain_mim"
BACKBONES = ("spad_vit", "spad_unet")
PRESETS = ("tiny", "small", "base", "large")
USUAL = Recipe(
    warm_up_share=0.03,
    lowest_rate=1e-6,
    options={"max_steps": 20_000, "batch_size": 16, "crop_tokens": [4, 2], "learning_rate": 1e-3},
)
"""For `tiny` and minutes on a processor, crops as the tokenizer's; docs/pretraining.md has what was measured."""
PAPER = Recipe(
    warm_up_share=10_000 / 300_000,
    lowest_rate=1e-6,
    options={"max_steps": 300_000, "batch_size": 84, "crop_tokens": [10, 5], "learning_rate": 2e-5, "preset": "base"},
)
"""Luo et al. 2024, section 5.1; what it leaves out as SPAD-Nets' released settings have it."""

UNET_DIFFERS = (
    "--backbone spad_unet, not spad_vit: the paper pre-trains no U-Net, here its decoder too learns by guessing voxels"
)

MAX_GROWTH = 1.3
"""Of crops in plane over those that the tokenizer learned from; the paper's grow from 8 tokens to 10."""

log = logging.getLogger("spadunet")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser(
        "Pre-train a backbone on a corpus: it guesses the visual tokens of masked patches.\n"
        "The result is a model folder without a task, for spadunet_train --init.",
        EXAMPLES,
    )
    parser.add_argument("--backbone", choices=BACKBONES, default="spad_vit", help="(default: spad_vit)")
    parser.add_argument(
        "--tokenizer",
        type=find_weights,
        metavar="FOLDER",
        help=f"as spadunet_pretrain_tokenizer writes it, or {TOKENIZER}, which comes with spadunet (default: the one "
        "made last)",
    )
    parser.add_argument(
        "--init",
        type=find_weights,
        metavar="WEIGHTS",
        help="an EVA-02 file or a model folder that the backbone starts from",
    )
    parser.add_argument(
        "--probe",
        metavar="DATASET",
        help="a preprocessed dataset: now and then a linear classifier of the frozen features learns from five of its "
        "labelled cases and is scored on others",
    )
    parser.add_argument("--probe-every", type=positive_int, default=500, metavar="STEPS", help="(default: 500)")
    add_pretraining_options(parser, USUAL, presets=PRESETS)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options), if_stopped=stop_advice(options))


def execute(options: argparse.Namespace) -> int:
    """Join the other processes, find tokenizer, weights and probe, train, write the backbone."""
    from ..files import sha256_of_file
    from ..model import MODEL_JSON
    from ..pretraining.tokenizer_file import TOKENIZER_FILE, load_tokenizer
    from ..training.ranks import open_ranks
    from ..workspace import find_workspace

    with open_ranks(find_device(options.device)) as ranks:
        folder = options.tokenizer or tokenizer_made_last(find_workspace(options.data).results)
        tokenizer = load_tokenizer(folder)
        opened = open_run(
            options,
            ranks,
            command=COMMAND,
            kind=options.backbone,
            result=MODEL_JSON,
            usual=USUAL,
            paper=PAPER,
            request={
                "tokenizer_digest": sha256_of_file(folder / TOKENIZER_FILE),
                "init": name_and_digest(options.init),
            },
            differs=differences(options),
        )
        with opened as run:
            require_apart(options.init, run.folder)
            if (said := crops_beyond(tokenizer.provenance, options.crop_tokens)) is not None:
                log.warning(said)
            return pretrain_backbone(run, tokenizer, folder, options)


def name_and_digest(source: Path | None) -> str:
    """What a run starts from, in words that go into shared weights: a path would tell of this machine.

    Raises:
        InputError: if a model folder has no model.
    """
    from ..files import sha256_of_file
    from ..model import BACKBONE_FILE, read_model_record

    if source is None:
        return "None"
    digest = sha256_of_file(source) if source.is_file() else read_model_record(source).sha256[BACKBONE_FILE]
    return f"{source.resolve().name}, SHA-256 {digest}"


def differences(options: argparse.Namespace) -> list[str]:
    """What of a run is not as in the paper, beside numbers: it pre-trains SPAD-ViT from EVA-02-B."""
    is_eva02 = options.init is not None and options.init.is_file()
    return [
        *([] if options.backbone == "spad_vit" else [UNET_DIFFERS]),
        *([] if is_eva02 else [f"--init {options.init}, not an EVA-02 file"]),
    ]


def crops_beyond(provenance: Mapping[str, str], crop_tokens: Sequence[int]) -> str | None:
    """A line where crops are much larger than those that the tokenizer learned from, since it then tells less."""
    learned = [int(number) for number in re.findall(r"\d+", provenance.get("crop_tokens", ""))]
    if len(learned) != len(crop_tokens) or crop_tokens[0] <= MAX_GROWTH * learned[0]:
        return None
    crop, known = (" ".join(map(str, tokens)) for tokens in (crop_tokens, learned))
    return (
        f"--crop-tokens {crop}: the tokenizer learned from crops of {known}, and tells less of larger ones; "
        f"give --crop-tokens {known}, or a tokenizer of larger crops"
    )


def pretrain_backbone(
    run: PretrainingRun, tokenizer: LoadedTokenizer, folder: Path, options: argparse.Namespace
) -> int:
    """The run, when everything but the probe's dataset and the first weights was found sound.

    Args:
        folder: of the tokenizer, for messages.
    """
    import torch

    from .. import __version__
    from ..network.build import build_masked
    from ..pretraining.loop import pretrain
    from ..pretraining.mim import MaskedImageModelling, save_backbone
    from ..pretraining.mim_sheet import choose_crops
    from .dry_pretrain import show_pretraining

    torch.manual_seed(run.options.seed)
    network = build_masked(options.backbone, run.preset)
    if options.init is not None and run.done is None:
        start_from(network, options.init, options.backbone, run.preset)
    probe = (
        find_probe(options, run.folder, run.rule.size_of) if options.probe is not None and run.ranks.is_first else None
    )

    def make_stage(probe: ProbeCurve | None) -> MaskedImageModelling:
        return MaskedImageModelling(
            network,
            tokenizer.network,
            run.ranks,
            learning_rate=options.learning_rate,
            seed=run.options.seed,
            precision=run.options.precision,
            crops=choose_crops(run.corpus, run.rule) if run.ranks.is_first else (),
            probe=probe,
        )

    if options.dry_run:
        return show_pretraining(run, lambda: make_stage(None), reads=[f"tokenizer {folder}"])
    stage = make_stage(probe)

    made_with = {
        "tokenizer": folder.resolve().name,
        "tokenizer_corpus_digest": tokenizer.provenance.get("corpus_digest", "unknown"),
    }

    def keep(step: int) -> None:
        provenance = run.request | made_with | {"steps": str(step), "spadunet": __version__}
        save_backbone(run.folder, network, options.backbone, run.preset, provenance)

    run.begin()
    progress = pretrain(
        stage, run.batches, run.folder, run.options, run.ranks, run=run.request, keep=keep, is_locked=run.is_locked
    )
    stage.finish_probe()
    run.finish()
    if run.ranks.is_first:
        log.info("%s after %d steps: %s", options.backbone, progress.step, run.folder)
    return 0


def tokenizer_made_last(results: Path) -> Path:
    """The folder of the newest tokenizer; told to the user.

    Raises:
        InputError: if there is none.
    """
    from ..model import TOKENIZER_JSON

    found = sorted(results.rglob(TOKENIZER_JSON), key=lambda path: path.stat().st_mtime) if results.is_dir() else []
    if not found:
        raise InputError(
            f"{results}: no tokenizer; make one with spadunet_pretrain_tokenizer, or give its folder with --tokenizer; "
            f"{TOKENIZER} comes with spadunet"
        )
    log.info("tokenizer: %s, %s", found[-1].parent, "the only one" if len(found) == 1 else "made last")
    return found[-1].parent


def start_from(network: MaskedViT | MaskedUNet, source: Path, backbone: str, preset: str) -> None:
    """Take over a model's backbone, as far as it is pre-trained, or an EVA-02.

    Raises:
        InputError: if the weights cannot be read, or are for another backbone or preset.
    """
    from ..model import load_model
    from ..network.masked import MaskedViT
    from ..training.eva02 import read_eva02, read_mask_token
    from ..training.init import kind_of, load_tensors

    given = kind_of(source)
    if (given.backbone, given.preset) != (backbone, preset):
        raise InputError(
            f"--init {source}: is a {given.backbone} {given.preset}, not a {backbone} {preset}; "
            f"give --backbone {given.backbone} --preset {given.preset}"
        )
    if source.is_file():
        assert isinstance(network, MaskedViT)
        state = {f"vit.{name}": value for name, value in read_eva02(source, network.vit).items()}
        state |= read_mask_token(source)
    else:
        state = load_model(source).backbone_state
    own = network.state_dict()
    fates = load_tensors(network, {name: value for name, value in state.items() if name in own}, source)
    fresh = sorted({name.split(".")[0] for name, fate in fates.items() if fate == "new"})
    log.info(
        "--init %s: %d tensors taken over; new: %s",
        source,
        len(own) - list(fates.values()).count("new"),
        ", ".join(fresh),
    )


def find_probe(options: argparse.Namespace, folder: Path, size_of: Callable[[int], Shape]) -> ProbeCurve:
    """The dataset of --probe, its cases read into memory.

    Args:
        folder: of the result, where the probe's table goes.
        size_of: degree of anisotropy to the size of a crop, which no case exceeds.

    Raises:
        InputError: if the dataset is not there, or not preprocessed.
    """
    from ..dataset import load_dataset
    from ..pretraining.probe import ProbeCurve, load_probe
    from ..workspace import find_workspace
    from .planned import find_planned
    from .stages import CASES_FOLDER, read_plan

    workspace = find_workspace(options.data)
    try:
        dataset = load_dataset(find_planned(options.probe, workspace), dry_run=options.dry_run)
        preprocessed = workspace.preprocessed / dataset.name
        plan = read_plan(preprocessed, dataset)
        probe = load_probe(dataset, plan, preprocessed, preprocessed / CASES_FOLDER, size_of, dry_run=options.dry_run)
    except InputError as error:
        raise InputError(f"--probe {options.probe}: {error}") from error
    return ProbeCurve(probe=probe, every_steps=options.probe_every, folder=folder)


if __name__ == "__main__":
    main()
