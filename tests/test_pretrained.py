"""The weights that come with spadunet are whole, small, and made of what their card says."""

from __future__ import annotations

import csv
import hashlib
import re
from pathlib import Path

import pytest
import torch

import spadunet
from spadunet.image import read_image
from spadunet.model import Model, load_model, save_model
from spadunet.network.build import build_backbone
from spadunet.pretrained import BACKBONE, FOLDER, TOKENIZER, find_weights
from spadunet.pretrained.store import store
from spadunet.pretraining.standardise import standardise
from spadunet.pretraining.tokenizer_file import load_tokenizer

DATA = Path(spadunet.__file__).parent / "demo/data"
MAX_BYTES = 15_000_000
LICENCES = {"Apache-2.0", "BSD-3-Clause", "CC0-1.0", "MIT"}
"""None asks that what is made from an image has the image's licence."""


def read_images() -> list[dict[str, str]]:
    """images.csv: what the weights were made from."""
    with (FOLDER / "images.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", [BACKBONE, TOKENIZER])
def test_each_is_small_and_says_nothing_of_the_machine_that_made_it(name: str):
    folder = FOLDER / name
    assert sum(path.stat().st_size for path in folder.iterdir()) <= MAX_BYTES
    load = load_model if name == BACKBONE else load_tokenizer
    provenance = load(folder).provenance  # type: ignore[operator]
    assert not any("/" in value or "\\" in value for value in provenance.values()), provenance
    assert int(provenance["steps"]) > 1000


def test_the_backbone_is_all_that_is_pretrained_of_its_network_and_made_with_this_tokenizer():
    model = load_model(FOLDER / BACKBONE)
    assert (model.backbone, model.preset, model.tasks) == ("spad_unet", "tiny", {})
    assert model.backbone_state.keys() == build_backbone("spad_unet", "tiny").state_dict().keys()
    digest = hashlib.sha256((FOLDER / TOKENIZER / "tokenizer.safetensors").read_bytes()).hexdigest()
    assert model.provenance["tokenizer_digest"] == digest
    assert model.provenance["corpus_digest"] == load_tokenizer(FOLDER / TOKENIZER).provenance["corpus_digest"]


def test_no_test_image_of_the_demo_and_no_share_alike_image_was_learned_from():
    images = read_images()
    assert {row["licence"] for row in images} <= LICENCES
    learned = {row["sha256"] for row in images}
    for dataset in DATA.iterdir():
        for path in (dataset / "imagesTs").glob("*.nii.gz"):
            assert hashlib.sha256(path.read_bytes()).hexdigest() not in learned, path
    heart = DATA / "Dataset101_SunnybrookLV/imagesTr"  # a training image is known again: the list is not of other bytes
    assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in heart.glob("*.nii.gz")} <= learned


def test_no_patient_of_the_demos_test_cases_was_learned_from():
    learned = {row["file"].split("_ph")[0] for row in read_images()}
    test = {path.name.split("_ph")[0] for path in (DATA / "Dataset101_SunnybrookLV/imagesTs").glob("*.nii.gz")}
    assert len(test) == 4 and not test & learned


def test_the_card_names_every_licence_and_source():
    card = (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert not re.search("[A-Z]{3,}_[A-Z]{3,}|TODO", card)  # nothing was left to fill in
    for row in read_images():
        assert row["licence"] in card
        assert row["source"] in card


def test_the_tokenizer_brings_back_hearts_of_patients_that_it_has_never_seen():
    """Measured: 44 to 68 % of the variance around the heart, and 3.3 nats that tokens tell of their place."""
    tokenizer, shares = load_tokenizer(FOLDER / TOKENIZER).network, []
    for path in sorted((DATA / "Dataset101_SunnybrookLV/imagesTs").glob("*.nii.gz")):
        array = standardise(read_image([path])).array  # (1, D, H, W)
        top, left = (size // 2 - 32 for size in array.shape[2:])
        crop = array[:, :8, top : top + 64, left : left + 64]
        x = torch.from_numpy(crop).float()[None].expand(-1, 3, -1, -1, -1)
        with torch.no_grad():
            restored, logits = tokenizer(x, 2)
        shares.append(float(1 - (restored - x).square().mean() / x.var()))
        tokens = torch.softmax(logits, 1)
        of_mean, mean = torch.special.entr(tokens.mean((0, 2, 3, 4))).sum(), torch.special.entr(tokens).sum(1).mean()
        assert of_mean - mean > 3
    assert len(shares) == 4
    assert sum(shares) / 4 > 0.5


def test_a_name_means_shipped_weights_unless_a_path_of_that_name_is_there(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_weights(BACKBONE) == FOLDER / BACKBONE
    assert find_weights("elsewhere/model") == Path("elsewhere/model")
    (tmp_path / BACKBONE).mkdir()
    assert find_weights(BACKBONE) == Path(BACKBONE)


def test_stored_weights_take_half_the_place_and_stay_right_to_one_part_in_2048(tmp_path: Path):
    state = {"weight": torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))}
    save_model(
        tmp_path / "run", Model(backbone="b", preset="p", backbone_state=state, tasks={}, provenance={"steps": "9"})
    )
    store(tmp_path / "run", tmp_path / "shipped")
    stored = load_model(tmp_path / "shipped")
    assert stored.provenance == {"steps": "9"}
    assert stored.backbone_state["weight"].dtype == torch.float16
    torch.testing.assert_close(stored.backbone_state["weight"].float(), state["weight"], rtol=2**-11, atol=1e-7)
    state["weight"][0] = 1e6
    save_model(tmp_path / "run", Model(backbone="b", preset="p", backbone_state=state, tasks={}, provenance={}))
    with pytest.raises(ValueError, match="too large for float16: weight"):
        store(tmp_path / "run", tmp_path / "other")
    assert not (tmp_path / "other").exists()
