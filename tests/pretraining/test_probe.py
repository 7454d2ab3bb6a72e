"""The linear probe: what it finds, what it cannot, and that it leaves the run alone."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from masked_run import RULE, small_batches, small_stage
from matplotlib import image as matplotlib_image
from small_corpus import make_corpus, noise
from toy_stage import toy_options

from spadunet.case import Case, Geometry
from spadunet.dataset import Dataset, RawCase
from spadunet.errors import InputError
from spadunet.labels import LabelSet, Region
from spadunet.preprocessing.store import open_case, store_case
from spadunet.pretraining.linear import classify, features_at, fit
from spadunet.pretraining.loop import pretrain
from spadunet.pretraining.probe import (
    Probe,
    ProbeCase,
    ProbeCurve,
    choose_probe_cases,
    enlarge,
    read_probe_case,
    sample_voxels,
    score,
    spread,
)
from spadunet.tensors import read_tensors
from spadunet.training.ranks import Ranks

LABELS = LabelSet(names=("background", "left", "right"), ids=(0, 1, 2))


def make_case(seed: int, shape: tuple[int, int, int] = (6, 20, 24)) -> ProbeCase:
    """A dark volume with a left and a right block."""
    generator = np.random.default_rng(seed)
    classes = np.zeros(shape, np.uint8)
    row = int(generator.integers(2, 10))
    classes[1:5, row : row + 6, 4:9], classes[1:5, row : row + 6, 14:20] = 1, 2
    image = torch.from_numpy(generator.normal(0, 0.1, (1, 3, *shape)).astype(np.float32) - 0.5)
    return ProbeCase(image=image, da=0, classes=classes)


def make_probe(labels: LabelSet = LABELS, num_cases: int = 2) -> Probe:
    """As many labelled as held-out cases."""
    cases = tuple(make_case(seed) for seed in range(2 * num_cases))
    return Probe(name="Blocks", labels=labels, labelled=cases[:num_cases], held_out=cases[num_cases:])


def told(case: ProbeCase) -> torch.Tensor:
    """Which class each voxel is, hidden in a linear map of four channels: (1, 4, D, H, W)."""
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(case.classes).long(), 3).movedim(-1, 0).float()
    mixed = torch.tensor([[1.0, 2, 0], [0, 1, 3], [5, 0, 1], [1, 1, 1]])
    return torch.einsum("ck,kdhw->cdhw", mixed, one_hot)[None]


def test_features_that_tell_the_classes_linearly_score_one_and_noise_scores_little():
    probe = make_probe()
    by_image = {id(case.image): case for case in (*probe.labelled, *probe.held_out)}
    assert score(probe, lambda image, da: [told(by_image[id(image)])]) == {"left": 1.0, "right": 1.0}
    noisy = score(probe, lambda image, da: [image])
    assert all(value < 0.5 for value in noisy.values())


def test_the_same_features_give_the_same_scores_and_no_global_generator_is_touched():
    probe = make_probe()
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = score(probe, lambda image, da: [image[:, :, ::2, ::2, ::2], image])
    assert score(probe, lambda image, da: [image[:, :, ::2, ::2, ::2], image]) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_regions_are_scored_and_ignored_voxels_are_not():
    labels = LabelSet(
        names=LABELS.names,
        ids=LABELS.ids,
        regions=(Region(name="both", ids=(1, 2), painted_id=1), Region(name="right", ids=(2,), painted_id=2)),
        ignore_id=9,
    )
    probe = make_probe(labels)
    for case in (*probe.labelled, *probe.held_out):
        case.classes[0] = labels.ignore_class
    by_image = {id(case.image): case for case in (*probe.labelled, *probe.held_out)}

    def maps(image: torch.Tensor, da: int) -> list[torch.Tensor]:
        case = by_image[id(image)]
        known = ProbeCase(image=image, da=0, classes=np.where(case.classes > 2, 2, case.classes))
        return [told(known)]

    assert score(probe, maps) == {"both": 1.0, "right": 1.0}


def test_a_structure_that_no_held_out_case_has_and_none_was_given_is_not_a_number():
    probe = make_probe(LabelSet(names=(*LABELS.names, "absent"), ids=(0, 1, 2, 3)))
    by_image = {id(case.image): case for case in (*probe.labelled, *probe.held_out)}
    scores = score(probe, lambda image, da: [told(by_image[id(image)])])
    assert scores["left"] == 1.0
    assert math.isnan(scores["absent"])


def test_voxels_are_drawn_equally_often_from_each_class():
    case = make_case(0)
    voxels = sample_voxels(case.classes, 3, 300, np.random.default_rng(0))
    assert np.bincount(case.classes[tuple(voxels.T)]).tolist() == [100, 100, 100]


def test_classifying_interpolated_logits_is_classifying_interpolated_features():
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, 4, 3, 5, 6, generator=generator), torch.randn(1, 2, 6, 10, 12, generator=generator)]
    weight, bias = torch.randn(3, 6, generator=generator), torch.randn(3, generator=generator)
    shape = (5, 9, 11)
    voxels = np.argwhere(np.ones(shape))
    logits = features_at(maps, voxels, shape) @ weight.T + bias
    assert (classify(maps, weight, bias, shape).ravel() == logits.argmax(1).numpy()).all()


def test_the_bias_learns_that_most_voxels_are_background():
    """Two overlapping classes, 99 to 1: equal samples alone would call half of the overlap foreground."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.arange(2000) % 2
    features = torch.randn(2000, 1, generator=generator) + 2 * numbers[:, None]
    _, even = fit(features, numbers, np.array([1000, 1000]))
    _, rare = fit(features, numbers, np.array([99_000, 1000]))
    assert float(rare[1] - rare[0]) < float(even[1] - even[0]) - 1


def test_small_images_are_enlarged_to_whole_patches_and_slices_are_not_made_up():
    crop = (80, 160, 160)
    assert enlarge(torch.zeros(1, 1, 35, 50, 36), crop, 0).shape[2:] == (80, 112, 80)
    assert enlarge(torch.zeros(1, 1, 10, 10, 10), crop, 0).shape[2:] == (32, 32, 32)  # four times, to patches
    assert enlarge(torch.zeros(1, 1, 1, 60, 40), (1, 160, 160), 6).shape[2:] == (1, 160, 112)
    assert enlarge(torch.zeros(1, 1, 8, 160, 160), (20, 160, 160), 2).shape[2:] == (8, 160, 160)


def test_a_box_around_the_labels_is_read_no_larger_than_a_crop(tmp_path: Path):
    shape = (6, 70, 60)
    classes = np.zeros(shape, np.uint8)
    classes[2:4, 50:60, 40:50] = 1
    image = np.stack([np.full(shape, 0.5), np.full(shape, -0.5), np.zeros(shape)]).astype(np.float32)
    geometry = Geometry(
        stored_shape=shape,
        stored_affine=np.diag([1.0, 1, 4, 1]).tolist(),
        axes=(0, 1, 2),
        flips=(False, False, False),
        crop=tuple((0, size) for size in shape),
        shape=shape,
        spacing_mm=(4.0, 1.0, 1.0),
    )
    case = Case(name="c", image=image, classes=classes, geometry=geometry, missing_channels=(2,))
    store_case(tmp_path, case, made_from="0", plan_digest="0")
    found = read_probe_case(open_case(tmp_path, "c"), LABELS, RULE.size_of)
    assert found.da == 2
    assert found.classes.shape == (4, 32, 32)  # the crop of DA 2
    assert (found.classes == 1).sum() == 2 * 10 * 10  # whole, in the middle
    assert found.image.shape == (1, 3, 4, 32, 32)
    assert float(found.image.abs().max()) < 1e-3  # the mean of the channels that are there


def test_a_probe_needs_cases_in_which_all_was_annotated(tmp_path: Path):
    cases = tuple(RawCase(name=name, image_paths=(), label_path=None) for name in "abcd")
    dataset = Dataset(
        name="organs",
        folder=tmp_path,
        channel_names=("CT",),
        labels=LABELS,
        file_ending=".nii.gz",
        cases=cases,
        patients={case.name: case.name for case in cases},
        annotated={"a": ("organ",), "c": ("organ",)},
    )
    (tmp_path / "splits_final.json").write_text(json.dumps([{"train": ["a", "b", "d"], "val": ["c"]}]))
    with pytest.raises(InputError, match="--probe organs: needs cases in which all classes were annotated"):
        choose_probe_cases(dataset, tmp_path)
    (tmp_path / "splits_final.json").write_text(json.dumps([{"train": ["a", "b"], "val": ["c", "d"]}]))
    assert choose_probe_cases(dataset, tmp_path) == (["b"], ["d"])


def test_cases_are_spread_over_the_list():
    assert spread([str(n) for n in range(10)], 5) == ["0", "2", "4", "6", "8"]
    assert spread(["a", "b"], 5) == ["a", "b"]


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "probe.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_curve_has_one_row_a_step_and_forgets_what_a_killed_run_did_after(tmp_path: Path):
    curve = ProbeCurve(probe=make_probe(), every_steps=2, folder=tmp_path)
    for step in (0, 2, 4, 2):
        curve.measure(step, lambda image, da: [image])
    assert [row["step"] for row in rows_of(tmp_path)] == ["0", "2"]
    assert list(rows_of(tmp_path)[0]) == ["step", "mean", "left", "right"]
    assert matplotlib_image.imread(tmp_path / "probe.png").ndim == 3


@pytest.mark.parametrize("backbone", ["spad_vit", pytest.param("spad_unet", marks=pytest.mark.slow)])
def test_a_run_with_a_probe_ends_with_the_weights_of_one_without(backbone: str, tmp_path: Path):
    corpus = make_corpus(tmp_path / "corpus", {"cube": (noise(1, 20, 40, 40), (1, 1, 1))})
    case = make_case(0)
    grown = ProbeCase(
        image=enlarge(case.image[:, :1], (16, 32, 32), 0).expand(-1, 3, -1, -1, -1), da=0, classes=case.classes
    )
    probe = Probe(name="Blocks", labels=LABELS, labelled=(grown,), held_out=(grown,))
    for name in ("with", "without"):
        curve = ProbeCurve(probe=probe, every_steps=2, folder=tmp_path / name) if name == "with" else None
        stage = small_stage(backbone, probe=curve)
        options = toy_options(max_steps=3)
        pretrain(stage, small_batches(corpus, 3), tmp_path / name, options, Ranks(), run={})
        stage.finish_probe()
    assert [row["step"] for row in rows_of(tmp_path / "with")] == ["0", "2", "3"]
    first, second = (read_tensors(tmp_path / name / "state/checkpoint.safetensors") for name in ("with", "without"))
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
