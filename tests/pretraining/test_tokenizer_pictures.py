"""What a tokenizer does with held-out images: the numbers, the panels of the sheet, the bars of the codebook."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from tokenizer_corpus import SMALL_RULE, TOY, make_corpus, small_stage

from spadunet.network import build
from spadunet.pretraining import tokenizer_pictures
from spadunet.pretraining.corpus import Corpus
from spadunet.pretraining.sampling import CropRule
from spadunet.pretraining.tokenizer_pictures import HeldOutMeasures, show_tokenizer
from spadunet.record import read_record

RULE = CropRule(tokens_in_plane=8, tokens_in_depth=4)


@pytest.fixture(autouse=True)
def toy_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(build.TOKENIZER_WIDTHS, "toy", TOY)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def test_held_out_images_are_measured_and_drawn(corpus, tmp_path):
    stage = small_stage(corpus, rule=RULE)
    stage.show(tmp_path, 7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codebook.png", "held_out.json", "reconstructions.png"]
    found = read_record(tmp_path / "held_out.json", HeldOutMeasures, remedy="")
    assert (found.step, [image.key for image in found.images]) == (7, ["brain_0"])
    [image] = corpus.held_out
    assert all(isinstance(size, int) for size in image.shape)
    size = tuple(min(a, b) for a, b in zip((64, 128, 128), image.shape, strict=True))
    assert size == image.shape  # smaller than a crop: measured as a whole, without what would surround it
    whole = torch.from_numpy(corpus.read_box(image, (0, 0, 0), size)).expand(3, -1, -1, -1)[None]
    with torch.no_grad():
        made, logits = stage.tokenizer(whole, image.da)
    error = made - whole
    assert found.l1 == found.images[0].l1 == pytest.approx(float(error.abs().mean()), rel=1e-4)
    assert found.psnr_db == pytest.approx(10 * math.log10(4 / float(error.square().mean())), abs=1e-3)
    assert found.mean_entropy + found.divergence_from_uniform == pytest.approx(math.log(1024), abs=1e-4)
    mean = logits.softmax(1).mean((0, 2, 3, 4))
    assert found.share_of_tokens_used == pytest.approx(float((mean >= 1 / 10240).float().mean()))
    assert HeldOutMeasures.from_json(found.to_json()) == found


def hold_out(corpus: Corpus, **modalities: str) -> Corpus:
    """The same images with these held out, and of these modalities."""
    images = tuple(
        image.model_copy(
            update={"is_held_out": image.key in modalities, "modality": modalities.get(image.key, image.modality)}
        )
        for image in corpus.index.images
    )
    return Corpus(folder=corpus.folder, index=corpus.index.model_copy(update={"images": images}))


def draw(corpus: Corpus, network: torch.nn.Module, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """The figures that are written, by name of their file."""
    figures: dict[str, Figure] = {}
    monkeypatch.setattr(tokenizer_pictures, "save_figure", lambda figure, path: figures.update({path.name: figure}))
    show_tokenizer(network, corpus, RULE, folder, 7, torch.device("cpu"))
    return figures


def test_the_sheet_shows_each_image_beside_what_comes_back_of_it_and_the_bars_the_use_of_each_token(
    corpus, tmp_path, monkeypatch
):
    kinds = {"brain_1": "CT", "brain_2": "MR", "heart_3": "US"}
    own = hold_out(corpus, **kinds)
    torch.manual_seed(1)
    network = small_stage(corpus).tokenizer
    network.to_logits.weight.data *= 20  # decided enough that tokens differ in use
    figures = draw(own, network, tmp_path, monkeypatch)
    panels = figures["reconstructions.png"].axes
    use = []
    for number, image in enumerate(own.held_out):
        assert image.key == list(kinds)[number]
        depth, height, width = size = tuple(min(a, b) for a, b in zip(RULE.size_of(image.da), image.shape, strict=True))
        first = [(whole - part) // 2 for whole, part in zip(image.shape, size, strict=True)]
        box = torch.from_numpy(own.read_box(image, first, size)).expand(3, -1, -1, -1)[None]
        with torch.no_grad():
            made, logits = network(box, image.da)
        seen, back = (panels[2 * number + place].images[0].get_array() for place in (0, 1))
        for shown, volume in ((seen, box), (back, made)):
            slice_ = volume[0, :, depth // 2].movedim(0, -1)  # (H, W, 3)
            np.testing.assert_allclose(shown, (slice_.clamp(-1, 1) + 1) / 2, atol=1e-5)
        assert np.abs(seen - back).max() > 0.1
        assert panels[2 * number].get_title() == f"{kinds[image.key]}, DA {image.da}"
        assert panels[2 * number + 1].get_title().endswith(" dB")
        use.append(logits.softmax(1).movedim(1, -1).flatten(0, -2))  # (N, K)
    assert not any(panel.images for panel in panels[2 * len(kinds) :])
    mean = torch.cat(use).mean(0).sort(descending=True).values
    assert mean[0] > 10 * mean[-1]
    [panel] = figures["codebook.png"].axes
    [bars] = panel.patches
    np.testing.assert_allclose(bars.get_data().values, 100 * mean, rtol=1e-4)
    assert panel.get_title().startswith("step 7: ")


def test_a_sheet_with_room_for_few_images_shows_several_modalities(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer_pictures, "MAX_PAIRS", 2)
    own = hold_out(corpus, brain_0="CT", brain_1="CT", brain_2="MR", brain_3="MR")
    panels = draw(own, small_stage(corpus).tokenizer, tmp_path, monkeypatch)["reconstructions.png"].axes
    assert [panel.get_title() for panel in panels[::2] if panel.images] == ["CT, DA 0", "MR, DA 0"]
    found = read_record(tmp_path / "held_out.json", HeldOutMeasures, remedy="")
    assert len(found.images) == 4  # all of them measured


def test_training_images_are_shown_where_none_is_held_out(corpus, tmp_path):
    images = tuple(image.model_copy(update={"is_held_out": False}) for image in corpus.index.images)
    everything = Corpus(folder=corpus.folder, index=corpus.index.model_copy(update={"images": images}))
    stage = small_stage(everything)
    found = show_tokenizer(stage.tokenizer, everything, SMALL_RULE, tmp_path, 0, torch.device("cpu"))
    assert [image.key for image in found.images] == [image.key for image in images]
    assert {image.da for image in found.images} == {0, 6}


def test_a_held_out_image_that_is_gone_is_named_and_left_out_of_the_pictures(corpus, tmp_path, caplog):
    lost, other = corpus.training[:2]
    index = corpus.index.model_copy(
        update={
            "images": tuple(
                image.model_copy(update={"is_held_out": image.key in (lost.key, other.key)})
                for image in corpus.index.images
            )
        }
    )
    shutil.copytree(corpus.folder, tmp_path / "corpus")
    (tmp_path / "corpus/images" / f"{lost.key}.b2nd").unlink()
    shrunk = Corpus(folder=tmp_path / "corpus", index=index)
    found = show_tokenizer(small_stage(corpus).tokenizer, shrunk, SMALL_RULE, tmp_path, 0, torch.device("cpu"))
    assert [image.key for image in found.images] == [other.key]
    assert f"{lost.key}.b2nd" in caplog.text
    (tmp_path / "corpus/images" / f"{other.key}.b2nd").unlink()
    assert show_tokenizer(small_stage(corpus).tokenizer, shrunk, SMALL_RULE, tmp_path, 1, torch.device("cpu")) is None
