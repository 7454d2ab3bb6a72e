"""benchmarks/deletion.py: a network that looks where it says loses most without these slices."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from classifier_model import Bright, bright_source
from medmnist_file import write_medmnist
from study_folder import AXIAL
from torch import Tensor

from spadunet.classes import UNKNOWN, ClassSet
from spadunet.errors import InputError
from spadunet.formats import write_array
from spadunet.inference.predict_classes import Focus
from spadunet.preprocessing.views import View

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NUMBERS = ClassSet(kind="binary", names=("0", "1"))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("deletion")


def cubes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Dark volumes (N, 80, 16, 16); each has a bright slab of 16 slices somewhere."""
    images = rng.integers(0, 60, (count, 80, 16, 16), dtype=np.uint8)
    for image in images:
        start = 16 * rng.integers(5)
        image[start : start + 16] += 180
    return images


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Volumes of which all of class 1 have a bright slab; those of class 0 have none."""
    rng = np.random.default_rng(0)
    members = {}
    for split, count in (("train", 2), ("val", 1), ("test", 8)):
        members[f"{split}_images"] = cubes(rng, count)
        members[f"{split}_labels"] = np.ones((count, 1), np.uint8)
    members["train_images"][0] = 20
    members["train_labels"][0] = 0
    return write_medmnist(tmp_path / "slabs.npz", members)


class Blind(Bright):
    """Says that it looks where it does not."""

    def attention_weights(self, views: list[tuple[Tensor, int]]) -> list[Tensor]:
        """Weight where it is dark."""
        return [(1 - it) / (1 - it).sum() for it in super().attention_weights(views)]


def run(script: ModuleType, source, path: Path, **more):
    return script.delete(source, path, split=None, share=0.2, num_seeds=4, precision=torch.float32, **more)


def test_slices_with_most_weight_cost_most_where_a_network_looks(script: ModuleType, studies: Path):
    source = bright_source(classes=NUMBERS)
    found = run(script, source, studies)
    assert (found.studies, found.seeds, found.share_percent) == (8, 4, 20)
    assert found.top > 0.9  # one slab of five: the bright one
    assert found.random == pytest.approx(found.top / 5, abs=0.25)
    assert found.interval[0] > 0
    assert found.verdict.startswith("passed")
    assert "passed: " in script.text_of(found)
    blind = run(script, replace(source, network=Blind().eval()), studies)
    assert blind.verdict.startswith("failed")
    assert blind.top < 0.01


class Even(Bright):
    """Gives all patches the same weight, as pooling by mean does."""

    def attention_weights(self, views: list[tuple[Tensor, int]]) -> list[Tensor]:
        """Nothing to tell."""
        return [torch.full_like(it, 1 / it.numel()) for it in super().attention_weights(views)]


def test_a_map_of_one_weight_tells_nothing_even_where_the_first_slices_matter(script: ModuleType, tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 60, (24, 80, 16, 16), dtype=np.uint8)
    images[:, :16] += 180
    members = {
        f"{split}_{what}": array
        for split in ("train", "val", "test")
        for what, array in (("images", images), ("labels", np.ones((24, 1), np.uint8)))
    }
    members["train_labels"] = np.arange(24, dtype=np.uint8)[:, None] % 2
    path = write_medmnist(tmp_path / "first.npz", members)
    source = bright_source(classes=NUMBERS)
    even = run(script, replace(source, network=Even().eval()), path)
    assert not even.verdict.startswith("passed")
    assert run(script, source, path).verdict.startswith("passed")
    assert even.removed_percent == pytest.approx(20)


def test_slabs_of_all_views_are_those_of_patches(script: ModuleType):
    views = [
        View(name="a", array=np.zeros((1, 40, 8, 8), np.float32), da=0, geometry=None),
        View(name="b", array=np.zeros((1, 1, 28, 28), np.float32), da=6, geometry=None),
    ]
    focus = [
        Focus(weights=np.full((3, 1, 1), 0.2), size=(40, 8, 8), patch=(16, 16, 16)),
        Focus(weights=np.full((1, 4, 2), 0.05), size=(1, 56, 56), patch=(1, 16, 16)),  # seen at twice the size
    ]
    slabs = script.slabs_of(views, focus)
    assert [(it.view, it.axis, it.first, it.last) for it in slabs] == [
        (0, 0, 0, 16),
        (0, 0, 16, 32),
        (0, 0, 32, 40),
        (1, 1, 0, 8),
        (1, 1, 8, 16),
        (1, 1, 16, 24),
        (1, 1, 24, 28),
    ]
    assert sum(it.weight for it in slabs) == pytest.approx(1)
    volume, picture = script.without(tuple(views), [slabs[2], slabs[4]])
    assert np.flatnonzero(volume.array[0, :, 0, 0]).tolist() == list(range(32, 40))
    assert np.flatnonzero(picture.array[0, 0, :, 3]).tolist() == list(range(8, 16))
    assert not views[0].array.any()


def test_what_is_right_is_the_class_or_the_findings_that_are_there(script: ModuleType):
    findings = ClassSet(kind="multi-label", names=("a", "b", "c"))
    row = np.array([0.2, 0.4, 0.9])
    assert script.right_probability(NUMBERS, [1], np.array([0.3, 0.7])) == 0.7
    assert script.right_probability(findings, [1, 1, 0], row) == pytest.approx(0.3)
    assert np.isnan(script.right_probability(findings, [0, UNKNOWN, 0], row))


def test_a_folder_with_a_table_will_do(script: ModuleType, tmp_path: Path):
    for name, image in zip("ab", cubes(np.random.default_rng(1), 2), strict=True):
        (tmp_path / "images").mkdir(exist_ok=True)
        write_array(tmp_path / f"images/{name}.nii.gz", image, AXIAL)
    (tmp_path / "labels.csv").write_text("image,side\na,right\nb,\n")
    found = run(script, bright_source(), tmp_path)
    assert (found.studies, found.interval) == (1, None)
    assert found.verdict.startswith("undecided: too few studies")
    (tmp_path / "images/b.nii.gz").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"b\.nii\.gz"):
        run(script, bright_source(), tmp_path)
