"""Stage one: it learns from real images, its gate acts, a run goes on exactly, two ranks are one."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import tokenizer_run
import torch
from tokenizer_corpus import GLOBAL_BATCH, SMALL_RECIPE, TOY, make_corpus, small_batches, small_stage
from toy_stage import toy_options

from spadunet.network import build
from spadunet.network.tokenizer import SpadTokenizer
from spadunet.pretraining.corpus import Corpus
from spadunet.pretraining.loop import pretrain
from spadunet.pretraining.perceptual import MAX_SLICES, Lpips, structural_dissimilarity
from spadunet.pretraining.sampling import ImageBatch
from spadunet.pretraining.tokenizer import LPIPS_WEIGHT, TokenizerStage, share_of_tokens_used
from spadunet.pretraining.tokenizer_file import load_tokenizer
from spadunet.tensors import read_tensors
from spadunet.training.optimiser import take_step
from spadunet.training.ranks import Ranks

MEASURES = (
    "loss",
    "l1",
    "perceptual",
    "entropy",
    "divergence_from_uniform",
    "perplexity",
    "codebook_use",
    "information",
    "gan",
    "discriminator",
    "gate_is_open",
)
NUM_STEPS = 4


@pytest.fixture(autouse=True)
def toy_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(build.TOKENIZER_WIDTHS, "toy", TOY)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def batch(corpus: Corpus) -> ImageBatch:
    """Crops of the demo's images."""
    return next(iter(small_batches(corpus, 1)(0)))


def weights(stage: TokenizerStage, name: str) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in stage.networks[name].state_dict().items()}


def is_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, b[key]) for key, value in a.items())


@pytest.mark.parametrize("precision", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
def test_real_images_come_back_better_after_some_steps(corpus, batch, precision):
    stage = small_stage(corpus, precision=precision)
    found = [stage.learn(batch) for _ in range(15)]
    assert tuple(found[0]) == MEASURES
    assert found[-1]["l1"] < 0.8 * found[0]["l1"]
    assert found[-1]["perceptual"] < 0.95 * found[0]["perceptual"]
    assert all(math.isfinite(value) for measures in found for value in measures.values())


def test_measures_of_a_step_are_those_of_the_images_before_it(corpus, batch):
    stage = small_stage(corpus)
    with torch.no_grad():
        made, logits = stage.tokenizer(batch.image, batch.da)
        verdict = stage.discriminator(made, batch.da)
    found = stage.learn(batch)
    q = logits.softmax(1)
    entropy = -(q * q.log()).sum(1).mean()
    mean = q.mean((0, 2, 3, 4))
    assert found["l1"] == pytest.approx(float((made - batch.image).abs().mean()), rel=1e-5)
    assert found["gan"] == pytest.approx(-float(verdict.mean()), rel=1e-3, abs=1e-5)
    assert found["entropy"] == pytest.approx(float(entropy), rel=1e-5)
    assert found["divergence_from_uniform"] == pytest.approx(math.log(1024) - float(entropy), abs=1e-5)
    assert found["perplexity"] == pytest.approx(float(torch.exp(-(mean * mean.log()).sum())), rel=1e-5)


HEAVY_RECIPE = replace(SMALL_RECIPE, gan=0.7, evenness=0.5, certainty=0.3)
"""Each term weighs enough to be seen in loss and gradient."""


def heavy_stage(corpus: Corpus, *, adversarial: str = "shut", perceptual: Lpips | None = None) -> TokenizerStage:
    """Of a tokenizer whose positions differ in their tokens; `adversarial` is open, shut or none."""
    gan = 0.0 if adversarial == "none" else HEAVY_RECIPE.gan
    stage = small_stage(corpus, recipe=replace(HEAVY_RECIPE, gan=gan), perceptual=perceptual)
    stage.tokenizer.to_logits.weight.data *= 20
    if adversarial == "open":
        stage.numbers |= {"running": 0.0, "last": 0.0}
    return stage


def as_slices(volume: torch.Tensor) -> torch.Tensor:
    """(B, C, D, H, W) to all its slices (B*D, C, H, W)."""
    return volume.movedim(2, 1).flatten(0, 1)


def terms_of(stage: TokenizerStage, batch: ImageBatch) -> tuple[SpadTokenizer, dict[str, torch.Tensor]]:
    """A copy of the stage's tokenizer and the terms of the loss as it is, with gradients to that copy."""
    tokenizer = deepcopy(stage.tokenizer)
    made, logits = tokenizer(batch.image, batch.da)
    q = logits.softmax(1)
    mean = q.mean((0, 2, 3, 4))
    distance = structural_dissimilarity if stage.perceptual is None else deepcopy(stage.perceptual)
    assert batch.image.shape[2] <= MAX_SLICES  # all are compared
    terms = {
        "l1": (made - batch.image).abs().mean(),
        "perceptual": distance(as_slices(made), as_slices(batch.image)),
        "mean entropy": -(q * q.log()).sum(1).mean(),
        "entropy of the mean": -(mean * mean.log()).sum(),
    }
    if stage.recipe.gan > 0:
        terms["generator"] = -deepcopy(stage.discriminator)(made, batch.da).mean()
    return tokenizer, terms


def assert_learns_from(
    stage: TokenizerStage, batch: ImageBatch, tokenizer: SpadTokenizer, loss: torch.Tensor
) -> dict[str, float]:
    """Measures of a step, which has this loss and goes down its gradient, clipped to norm 1."""
    loss.backward()
    torch.nn.utils.clip_grad_norm_(tokenizer.parameters(), 1.0)
    measures = stage.learn(batch)
    assert measures["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    for (name, ours), theirs in zip(stage.tokenizer.named_parameters(), tokenizer.parameters(), strict=True):
        apart = (ours.grad - theirs.grad).norm() / theirs.grad.norm().clamp_min(1e-4)
        assert apart < 1e-3, name
    return measures


@pytest.mark.parametrize("adversarial", ["none", pytest.param("shut", marks=pytest.mark.slow), "open"])
def test_a_step_goes_down_the_weighted_sum_of_l1_perceptual_prior_and_behind_an_open_gate_adversarial_term(
    corpus, batch, adversarial
):
    stage = heavy_stage(corpus, adversarial=adversarial)
    tokenizer, terms = terms_of(stage, batch)
    assert all(term.detach().abs() > 0.01 for term in terms.values())
    loss = terms["l1"] + terms["perceptual"] + 0.3 * terms["mean entropy"] - 0.5 * terms["entropy of the mean"]
    if adversarial == "open":
        loss = loss + 0.7 * terms["generator"]
    assert_learns_from(stage, batch, tokenizer, loss)


def test_lpips_of_the_slices_takes_the_place_of_the_substitute(corpus, batch):
    torch.manual_seed(2)
    lpips = Lpips().requires_grad_(False)
    for weight in lpips.linear:
        weight.uniform_()
    stage = heavy_stage(corpus, perceptual=lpips)
    batch = replace(batch, image=batch.image[:1], names=batch.names[:1], numbers=batch.numbers[:1])  # VGG takes time
    tokenizer, terms = terms_of(stage, batch)
    weighted = LPIPS_WEIGHT * terms["perceptual"]
    assert weighted > 0.1
    loss = terms["l1"] + weighted + 0.3 * terms["mean entropy"] - 0.5 * terms["entropy of the mean"]
    measures = assert_learns_from(stage, batch, tokenizer, loss)
    assert measures["perceptual"] == pytest.approx(float(weighted.detach()), rel=1e-5)
    _, with_substitute = terms_of(heavy_stage(corpus), batch)
    assert (weighted - with_substitute["perceptual"]).abs() > 0.1


def test_the_discriminator_counts_only_behind_an_open_gate_and_never_learns_from_it(corpus, batch):
    after = {}
    for running in (0.0, 1.0):
        stage = small_stage(corpus)
        stage.numbers |= {"running": running, "last": 0.0}
        assert stage.learn(batch)["gate_is_open"] == float(running == 0.0)
        assert all(parameter.requires_grad for parameter in stage.discriminator.parameters())
        after[running] = {name: weights(stage, name) for name in stage.networks}
    assert not is_same(after[0.0]["tokenizer"], after[1.0]["tokenizer"])
    assert is_same(after[0.0]["discriminator"], after[1.0]["discriminator"])


def test_the_gate_follows_the_discriminators_loss(corpus, batch):
    stage = small_stage(corpus)
    assert (stage.numbers["running"], stage.numbers["last"]) == (0.1, math.inf)
    found = stage.learn(batch)
    assert stage.numbers["last"] == found["discriminator"]
    assert stage.numbers["running"] == pytest.approx(0.9 * 0.1 + 0.1 * found["discriminator"])
    stage.numbers |= {"running": 0.0, "last": 0.0}
    open_, shut = stage.learn(batch), stage.learn(batch)  # a discriminator of one step is not that good
    assert (open_["gate_is_open"], shut["gate_is_open"]) == (1.0, 0.0)


def test_a_step_that_is_not_finite_changes_neither_weights_nor_gate(corpus, batch):
    stage = small_stage(corpus)
    stage.learn(batch)
    before, numbers = {name: weights(stage, name) for name in stage.networks}, dict(stage.numbers)
    found = stage.learn(replace(batch, image=torch.full_like(batch.image, math.inf)))
    assert math.isnan(found["loss"]) and math.isnan(found["discriminator"])
    assert all(is_same(before[name], weights(stage, name)) for name in before)
    assert stage.numbers == numbers


def test_without_an_adversarial_term_there_is_no_discriminator(corpus, batch):
    stage = small_stage(corpus, recipe=replace(SMALL_RECIPE, gan=0.0))
    assert tuple(stage.learn(batch)) == MEASURES[:8]
    assert (tuple(stage.networks), tuple(stage.optimisers), stage.numbers) == (("tokenizer",), ("tokenizer",), {})


def test_decay_is_for_kernels_and_every_group_has_its_peak(corpus):
    stage = small_stage(corpus)
    for name, peak in (("tokenizer", 5e-3), ("discriminator", 1e-3)):
        groups = stage.optimisers[name].param_groups
        assert [group["weight_decay"] for group in groups] == [0.05, 0.0]
        assert {group["peak"] for group in groups} == {peak}
    decayed, kept = ({id(p) for p in group["params"]} for group in stage.optimisers["tokenizer"].param_groups)
    assert id(stage.tokenizer.codebook.weight) in kept
    assert id(stage.tokenizer.to_logits.weight) in decayed


def test_share_of_tokens_used_by_hand():
    logits = torch.zeros(1, 8, 1, 1, 4)
    for position, token in enumerate((2, 2, 5, 7)):
        logits[0, token, 0, 0, position] = 1
    assert float(share_of_tokens_used(logits)) == 3 / 8


# --- Runs


def run(corpus: Corpus, folder: Path, stage: TokenizerStage) -> None:
    pretrain(
        stage,
        small_batches(corpus, NUM_STEPS),
        folder,
        toy_options(max_steps=NUM_STEPS, batch_size=GLOBAL_BATCH),
        Ranks(),
        run={},
        keep=lambda step: stage.save(folder, step),
    )


@pytest.mark.slow
def test_a_stopped_run_leaves_a_tokenizer_and_goes_on_to_the_very_same_weights(corpus, tmp_path):
    whole = small_stage(corpus)
    run(corpus, tmp_path / "whole", whole)
    stopped = small_stage(corpus)
    learn, calls = stopped.learn, []

    def learn_until_stopped(batch: ImageBatch) -> dict[str, float]:
        calls.append(batch.numbers)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return learn(batch)

    stopped.learn = learn_until_stopped
    with pytest.raises(KeyboardInterrupt):
        run(corpus, tmp_path / "parts", stopped)
    left = load_tokenizer(tmp_path / "parts")
    assert left.provenance == {"corpus": "Small", "steps": "2"}
    assert is_same(left.network.state_dict(), weights(stopped, "tokenizer"))
    resumed = small_stage(corpus)
    run(corpus, tmp_path / "parts", resumed)
    for name in whole.networks:
        assert is_same(weights(whole, name), weights(resumed, name))
    assert resumed.numbers == whole.numbers
    ended = load_tokenizer(tmp_path / "parts")
    assert ended.provenance["steps"] == str(NUM_STEPS)
    assert is_same(ended.network.state_dict(), weights(whole, "tokenizer"))


@pytest.mark.slow
def test_two_processes_with_half_a_batch_each_learn_as_one(corpus, tmp_path):
    command = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "localhost:0"]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", *command, tokenizer_run.__file__, str(corpus.folder), str(tmp_path / "two.safetensors")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    two, one = read_tensors(tmp_path / "two.safetensors"), tokenizer_run.descend(corpus, Ranks())
    without = tokenizer_run.descend(corpus, Ranks(), evenness=0.0)
    begun = {
        f"{name}.{key}": v for name, n in small_stage(corpus).networks.items() for key, v in n.state_dict().items()
    }
    assert two.keys() == one.keys()
    for name in sorted(one.keys() - begun.keys()):  # of the whole batch, also those that no mean of two halves gives
        assert float(two[name]) == pytest.approx(float(one[name]), rel=1e-4), name
    assert 0.025 < float(one["gate.running"]) < float(one["gate.last"])
    moved = max(float((one[key] - begun[key]).abs().max()) for key in begun)
    apart, by_evenness = (max(float((one[key] - other[key]).abs().max()) for key in begun) for other in (two, without))
    assert moved > 1e-2
    assert apart < 1e-4 * moved
    assert by_evenness > 0.1 * moved  # the term of the global batch: two ranks that held it for theirs would show


def test_a_gradient_that_is_not_finite_changes_no_weight_and_is_told_as_the_loss():
    weight = torch.nn.Parameter(torch.zeros(2))
    network = torch.nn.ParameterList([weight])
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    loss = weight[0].sqrt() + weight[1]  # finite, with an infinite slope at zero
    assert loss.isfinite()
    assert take_step(loss, network, optimiser, 1.0).isnan()
    assert weight.tolist() == [0, 0]
    assert take_step(weight[1] * 3, network, optimiser, 1.0) == 0
    assert weight.tolist() == [0, pytest.approx(-1)]
