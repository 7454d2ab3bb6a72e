"""Stage two: masks, loss, what learns and what does not, and the pictures of it."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from masked_run import NUM_STEPS, RULE, descend, small_batches, small_network, small_stage, small_tokenizer
from matplotlib import image as matplotlib_image
from small_corpus import make_corpus, noise
from toy_stage import toy_options

from spadunet.model import load_model
from spadunet.network.build import BACKBONES, build_backbone, build_masked
from spadunet.network.masked import token_grid
from spadunet.pretraining.corpus import CORPUS_JSON, Corpus, load_corpus
from spadunet.pretraining.loop import pretrain
from spadunet.pretraining.losses import information
from spadunet.pretraining.mim import SEEN_WEIGHT, draw_masks, judge, save_backbone, soft_tokens, voxel_loss
from spadunet.pretraining.mim_sheet import COLUMNS, SheetRow, choose_crops, complete, draw_sheet
from spadunet.pretraining.sampling import CropRule, ImageBatch
from spadunet.record import write_record
from spadunet.tensors import read_tensors
from spadunet.training.curves import read_rows
from spadunet.training.ranks import Ranks

MASKED_RUN = str(Path(__file__).parent.parent / "masked_run.py")
PAPER_RULE = CropRule(tokens_in_plane=10, tokens_in_depth=5)
CHECKPOINT = "state/checkpoint.safetensors"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Volumes, thick slices, and pictures in colour; one of each held out."""
    folder = tmp_path_factory.mktemp("corpus")
    images = {
        f"{kind}_{number}": (noise(channels, depth + number, 50, 56), spacing)
        for kind, channels, depth, spacing in (
            ("cube", 1, 33, (1, 1, 1)),
            ("thick", 1, 9, (4.5, 1, 1)),
            ("colour", 3, 0, (1, 1, 1)),
        )
        for number in (1, 2)
        if depth or number == 1
    } | {"colour_2": (noise(3, 1, 60, 50), (1, 1, 1))}
    index = make_corpus(folder, images).index
    entries = [image.model_copy(update={"is_held_out": image.key.endswith("_2")}) for image in index.images]
    write_record(folder / CORPUS_JSON, index.model_copy(update={"images": tuple(entries)}))
    return load_corpus(folder)


def first_batch(corpus: Corpus) -> ImageBatch:
    return next(iter(small_batches(corpus, 1)(0)))


def test_as_many_patches_are_masked_as_in_the_paper_in_every_sample():
    for num_patches, num_masked in ((500, 275), (100, 55), (1, 1), (2, 1), (3, 2)):
        masks = draw_masks(range(4), num_patches, 0)
        assert masks.shape == (4, num_patches)
        assert masks.sum(1).tolist() == [num_masked] * 4
    assert [math.prod(token_grid(PAPER_RULE.size_of(da), da)) for da in (0, 4, 6)] == [500, 500, 100]


def test_a_mask_follows_from_the_number_of_its_draw_and_from_the_seed_alone():
    masks = draw_masks([7, 8, 9, 10], 100, 3)
    assert torch.equal(torch.cat([draw_masks([7, 8], 100, 3), draw_masks([9, 10], 100, 3)]), masks)
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(draw_masks([7], 100, 4), masks[:1])


def test_every_patch_is_masked_equally_often():
    share = draw_masks(range(2000), 20, 0).float().mean(0)  # 0.55, standard error 0.011
    assert (share - 0.55).abs().max() < 0.045


def test_the_loss_is_the_soft_cross_entropy_and_its_excess_over_the_entropy_the_divergence():
    target = torch.tensor([[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    guess = judge(torch.zeros(2, 4), target)
    assert float(guess.loss) == pytest.approx(math.log(4))
    assert float(guess.kl) == pytest.approx(math.log(4) - math.log(2) / 2)
    perfect = judge(torch.log(target + 1e-12), target)
    assert float(perfect.loss) == pytest.approx(math.log(2) / 2, abs=1e-6)
    assert float(perfect.kl) == pytest.approx(0, abs=1e-6)
    half = judge(torch.tensor([[0.0, 0.0, 0.0, 9.0], [9.0, 0.0, 0.0, 0.0]]), target)
    assert float(half.agreement) == 0.5


def test_masked_voxels_weigh_as_much_as_ten_seen_ones_and_are_told_apart():
    image = torch.zeros(1, 3, 16, 16, 32)  # two patches
    masked = torch.tensor([[False, True]])
    for first, second in ((0.0, 1.0), (1.0, 0.0), (1.0, 1.0)):
        guessed = torch.cat([torch.full((1, 3, 16, 16, 16), side) for side in (first, second)], 4)
        guessed[:, 0] *= -1  # a distance, whatever its sign
        loss, of_masked = voxel_loss(guessed, image, masked, 0)
        assert float(of_masked) == pytest.approx(second)
        expected = (SEEN_WEIGHT * first + second) / (1 + SEEN_WEIGHT)
        assert float(loss) == pytest.approx(expected)


def test_tokens_that_tell_only_the_place_hold_no_information_and_those_that_tell_images_apart_do():
    place = torch.eye(4)[None].expand(2, -1, -1)  # a token of its own for each of four places, in both images
    assert float(information(place)) == pytest.approx(0, abs=1e-6)
    image = torch.eye(4)[:2, None].expand(-1, 4, -1)  # a token of its own for each of two images
    assert float(information(image)) == pytest.approx(math.log(2))
    tokens = torch.rand(3, 5, 4).softmax(2)
    knows_place = tokens.mean(0, keepdim=True).expand(3, -1, -1)
    guess = judge(knows_place.flatten(0, 1).log(), tokens.flatten(0, 1))
    assert float(guess.kl) == pytest.approx(float(information(tokens)), abs=1e-6)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_step_changes_the_masked_network_and_never_the_tokenizer(backbone: str, corpus: Corpus):
    stage = small_stage(backbone)
    before = {name: value.clone() for name, value in stage.network.state_dict().items()}
    frozen = {name: value.clone() for name, value in stage.tokenizer.state_dict().items()}
    stage.optimisers["masked"].param_groups[0]["lr"] = stage.optimisers["masked"].param_groups[1]["lr"] = 1e-2
    measures = stage.learn(first_batch(corpus))
    own = {"voxels"} if backbone == "spad_unet" else set()
    assert set(measures) == {"loss", "kl", "information", "agreement"} | own
    assert measures["kl"] >= 0
    unchanged = [name for name, value in stage.network.state_dict().items() if torch.equal(value, before[name])]
    assert unchanged == []
    assert all(torch.equal(value, frozen[name]) for name, value in stage.tokenizer.state_dict().items())
    assert not any(parameter.requires_grad for parameter in stage.tokenizer.parameters())
    assert not stage.tokenizer.training
    assert set(stage.networks) == {"masked"}  # nothing else is saved or learned


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_step_goes_down_a_gradient_of_norm_a_half_at_most(backbone: str, corpus: Corpus):
    stage, batch = small_stage(backbone), first_batch(corpus)
    stage.network.head[-1].weight.data *= 100  # sure of wrong tokens: a gradient much longer than that
    stage.optimisers["masked"] = torch.optim.SGD(stage.network.parameters(), lr=1.0)
    before = {name: value.clone() for name, value in stage.network.named_parameters()}
    stage.learn(batch)
    moved = torch.stack([(value - before[name]).norm() for name, value in stage.network.named_parameters()]).norm()
    assert float(moved.detach()) == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_step_that_is_not_finite_changes_no_weight(backbone: str, corpus: Corpus):
    stage, batch = small_stage(backbone), first_batch(corpus)
    before = {name: value.clone() for name, value in stage.network.state_dict().items()}
    assert math.isnan(stage.learn(replace(batch, image=torch.full_like(batch.image, math.inf)))["loss"])
    assert all(torch.equal(value, before[name]) for name, value in stage.network.state_dict().items())


def test_the_target_is_made_of_the_whole_image_and_the_guess_of_the_masked_one(corpus: Corpus, monkeypatch):
    stage, batch = small_stage("spad_vit"), first_batch(corpus)
    seen = {}
    real = stage.tokenizer.encode
    monkeypatch.setattr(stage.tokenizer, "encode", lambda x, da: seen.setdefault("image", x) is None or real(x, da))
    stage.network.register_forward_pre_hook(lambda _, inputs: seen.update(masked=inputs[2]))
    stage.learn(batch)
    assert torch.equal(seen["image"], batch.image)
    num_patches = seen["masked"].shape[1]
    assert torch.equal(seen["masked"], draw_masks(batch.numbers, num_patches, stage.seed))
    assert seen["masked"].sum() == len(batch.image) * round(0.55 * num_patches)


def test_weights_decay_but_for_biases_norms_positions_and_tokens():
    for backbone in BACKBONES:
        stage = small_stage(backbone)
        decayed, kept = stage.optimisers["masked"].param_groups
        names = {id(parameter): name for name, parameter in stage.network.named_parameters()}
        assert (decayed["weight_decay"], kept["weight_decay"]) == (0.05, 0.0)
        assert decayed["peak"] == kept["peak"] == 3e-3
        not_decayed = {names[id(parameter)] for parameter in kept["params"]}
        assert {"mask_token", "head.0.bias"} <= not_decayed
        assert "head.0.weight" in {names[id(parameter)] for parameter in decayed["params"]}
        if backbone == "spad_vit":
            assert {"vit.cls_token", "vit.pos_embed", "vit.norm.weight"} <= not_decayed


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_guesses_begin_near_ln_1024_and_get_better_on_one_batch(backbone: str, precision: torch.dtype, corpus: Corpus):
    stage, batch = small_stage(backbone, precision=precision), first_batch(corpus)
    computed = set()
    for module in (stage.network.head, stage.tokenizer.to_logits):
        module.register_forward_hook(lambda _module, _inputs, output: computed.add(output.dtype))
    for group in stage.optimisers["masked"].param_groups:
        group["lr"] = 1e-2
    steps = [stage.learn(batch) for _ in range(15)]
    assert steps[-1]["kl"] < steps[0]["kl"] - 0.5
    if backbone == "spad_vit":
        assert steps[0]["loss"] == pytest.approx(math.log(1024), abs=0.3)
    else:
        assert steps[-1]["voxels"] < 0.95 * steps[0]["voxels"]
    assert computed == {precision}
    assert {parameter.dtype for parameter in stage.network.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["spad_vit", "spad_unet"])
def test_a_run_stopped_and_gone_on_with_ends_with_the_very_same_weights(backbone: str, corpus: Corpus, tmp_path: Path):
    class Killed(BaseException):
        pass

    def run(name: str, stage, batches) -> None:
        pretrain(stage, batches, tmp_path / name, toy_options(checkpoint_minutes=1e-9, max_steps=4), Ranks(), run={})

    batches = small_batches(corpus, 4)
    run("whole", small_stage(backbone), batches)

    def until_step_2(start: int):
        for number, batch in enumerate(batches(start)):
            if number == 2:
                raise Killed
            yield batch

    with pytest.raises(Killed):
        run("parts", small_stage(backbone), until_step_2)
    run("parts", small_stage(backbone), batches)
    whole, parts = (read_tensors(tmp_path / name / CHECKPOINT) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    assert [row["loss"] for row in read_rows(tmp_path / "whole/curves.csv")] == [
        row["loss"] for row in read_rows(tmp_path / "parts/curves.csv")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
def test_two_processes_with_half_of_every_batch_learn_what_one_learns(backbone: str, corpus: Corpus, tmp_path: Path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [MASKED_RUN, str(corpus.folder), str(tmp_path / "two.safetensors"), backbone]
    done = subprocess.run([*launcher, *arguments], capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    two, one = read_tensors(tmp_path / "two.safetensors"), descend(corpus, backbone, Ranks())
    start = small_network(backbone).state_dict()
    assert NUM_STEPS > 1
    moved = max(float((one[name] - start[name]).abs().max()) for name in one)
    apart = max(float((one[name] - two[name]).abs().max()) for name in one)
    assert moved > 1e-3
    assert apart < 1e-8 * moved  # rounding of float64: measured 3e-14


def test_the_pre_trained_tensors_fit_the_whole_backbone_and_the_head_is_left_out(tmp_path: Path):
    for backbone in BACKBONES:
        network = build_masked(backbone, "tiny")
        save_backbone(tmp_path / backbone, network, backbone, "tiny", {"corpus": "small"})
        model = load_model(tmp_path / backbone)
        assert (model.backbone, model.preset, model.tasks, model.provenance["corpus"]) == (
            backbone,
            "tiny",
            {},
            "small",
        )
        whole = build_backbone(backbone, "tiny").state_dict()
        learned = {name: x for name, x in whole.items() if backbone == "spad_unet" or name.startswith("vit.")}
        assert {name: x.shape for name, x in model.backbone_state.items()} == {n: x.shape for n, x in learned.items()}


def test_the_sheet_shows_held_out_images_of_every_kind_with_the_seen_tokens_kept(corpus: Corpus, tmp_path: Path):
    crops = choose_crops(corpus, RULE)
    assert {crop.key for crop in crops} == {"cube_2", "thick_2", "colour_2"}
    assert sorted(crop.da for crop in crops) == [0, 2, 6]
    stage = small_stage("spad_vit", crops=crops)
    state = torch.get_rng_state()
    stage.show(tmp_path, 7)
    assert torch.equal(torch.get_rng_state(), state)
    assert matplotlib_image.imread(tmp_path / "guesses.png").ndim == 3
    assert all(p.grad is None for p in stage.network.parameters())


def test_a_perfect_guess_is_drawn_as_the_tokenizer_itself_would(corpus: Corpus):
    tokenizer = small_tokenizer()

    def knows(image, da, masked):
        return soft_tokens(tokenizer, image, da)[masked].log(), image

    for crop in choose_crops(corpus, RULE):
        masked = draw_masks([0], crop.num_patches, 0)
        row = complete(crop, masked, knows, tokenizer)
        image, covered, own, guessed, voxels = (torch.from_numpy(picture) for picture in row.pictures)
        assert torch.equal(voxels, image)
        with torch.no_grad():
            made, _ = tokenizer(crop.image, crop.da)
        for picture, volume in ((image, crop.image), (own, made)):
            slice_ = volume[0, :, volume.shape[2] // 2].movedim(0, -1)  # (H, W, 3)
            torch.testing.assert_close(picture, (slice_.clamp(-1, 1) + 1) / 2, atol=1e-5, rtol=0)
        assert (covered[covered != image] == 0.5).all()  # grey
        assert row.title.endswith("KL 0.00, 100 % agree")
        torch.testing.assert_close(own, guessed, atol=1e-4, rtol=0)
        assert (covered != image).any()
        assert (covered == image).any()


@pytest.mark.parametrize("num_columns", [4, 5])
def test_each_picture_of_the_sheet_stands_in_its_row_and_column(num_columns: int):
    pictures = torch.rand(2, num_columns, 6, 5, 3, generator=torch.Generator().manual_seed(0)).numpy()
    figure = draw_sheet(
        [SheetRow(title=f"row {row}", pictures=tuple(pictures[row])) for row in (0, 1)], "after 7 steps"
    )
    assert len(figure.axes) == 2 * num_columns
    for number, panel in enumerate(figure.axes):
        row, column = divmod(number, num_columns)
        [shown] = panel.images
        assert (shown.get_array() == pictures[row, column]).all()
        assert panel.get_title() == ("" if row else COLUMNS[column])
        assert panel.get_ylabel() == ("" if column else f"row {row}")
    assert figure.get_suptitle() == "after 7 steps"
