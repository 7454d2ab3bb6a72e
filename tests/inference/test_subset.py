"""Only some classes or regions: the same where they are, background where they are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from random_models import CLASSES, REGIONS, Levels, engine_of, hippocampus, member_of, plan_of

from spadunet.errors import InputError
from spadunet.inference.ensemble import Member
from spadunet.inference.predict import predict_image
from spadunet.inference.sources import choose_structures
from spadunet.inference.subset import labels_of, only_outputs


@pytest.mark.parametrize("chosen", [("a",), ("b", "d")])
@pytest.mark.parametrize("spacing", ["native", (1.3, 0.9, 1.1)], ids=["native", "resampled"])
def test_a_subset_is_the_full_prediction_with_the_others_as_background(chosen, spacing):
    image, engine = hippocampus(), engine_of(Member(network=Levels(5, 9), plan=plan_of(spacing=spacing)))
    full = predict_image(image, engine).array
    ids = [dict(zip(CLASSES.names, CLASSES.ids, strict=True))[name] for name in chosen]
    assert all((full == label_id).any() for label_id in ids)
    expected = np.where(np.isin(full, ids), full, 0)
    found = predict_image(image, replace(engine, chosen=chosen)).array
    assert (found == expected).mean() >= 0.999


def test_of_an_ensemble_too():
    image, engine = hippocampus(), engine_of(*(Member(network=Levels(5, side), plan=plan_of()) for side in (3, 7)))
    full = predict_image(image, engine).array
    found = predict_image(image, replace(engine, chosen=("a",))).array
    assert (found == np.where(full == 1, 1, 0)).mean() >= 0.999


def test_of_regions_these_outputs_remain_as_they_are():
    image, engine = hippocampus(), engine_of(member_of(0, plan_of(REGIONS)))
    full = predict_image(image, engine).array
    core = predict_image(image, replace(engine, chosen=("core",))).array
    assert np.array_equal(core == 2, full == 2)
    assert set(np.unique(core).tolist()) == {0, 2}


def test_memory_grows_with_the_subset_only():
    plan = plan_of()
    few, all_of_them = (engine_of(member_of(0, plan), chosen=names).demand((60, 60, 60), 0) for names in (("c",), ()))
    assert few.held_bytes(torch.float32) * 5 == all_of_them.held_bytes(torch.float32) * 2
    x = torch.zeros(1, 1, 4, 4, 4)
    logits = torch.arange(5.0)[None, :, None, None, None].expand(1, 5, 4, 4, 4)
    merged = only_outputs(lambda x, da: logits, CLASSES, ("c",))(x, 0)
    assert merged[0, :, 0, 0, 0].tolist() == [4.0, 3.0]  # d, the largest of what was not chosen, stands for background
    assert logits[0, 0, 0, 0, 0] == 0  # what the network gave is not written over


def test_labels_of_a_subset_keep_ids_and_what_else_was_said():
    subset = labels_of(CLASSES, ("d", "b"))
    assert (subset.names, subset.ids) == (("background", "b", "d"), (0, 2, 7))
    assert subset.left_out == (1, 5)
    assert subset.unknown_ids(np.array([0, 1, 2, 5, 7, 9])) == [9]
    assert subset.to_classes(np.array([0, 1, 2, 5, 7])).tolist() == [0, 0, 1, 0, 2]
    assert labels_of(CLASSES, ("a",)).to_classes(np.array([0, 1, 2, 5, 7])).tolist() == [0, 1, 0, 0, 0]
    assert type(CLASSES).from_json(subset.to_json()) == subset
    assert "left_out" not in CLASSES.to_json()
    paired = CLASSES.model_copy(update={"mirror_pairs": (("a", "b"), ("c", "d")), "ignore_id": 9})
    subset = labels_of(paired, ("a", "b", "c"))
    assert (subset.mirror_pairs, subset.ignore_id) == ((("a", "b"),), 9)
    whole = labels_of(REGIONS, ("whole",))
    assert (whole.ids, whole.output_names) == ((0, 1, 2), ("whole",))
    assert labels_of(CLASSES, ()) is CLASSES


def test_structures_are_in_the_labels_order_and_all_of_them_are_no_subset():
    assert choose_structures(CLASSES, ["d", "b", "d"]) == ("b", "d")
    assert choose_structures(CLASSES, ["d", "c", "b", "a"]) == ()
    assert choose_structures(CLASSES, []) == ()


@pytest.mark.parametrize(("names", "wrong"), [(["a", "lung"], "lung"), (["background"], "background")])
def test_unknown_names_are_told_with_the_known_ones(names, wrong):
    with pytest.raises(InputError, match=f"--roi-subset: {wrong} is not among the labels: a, b, c, d"):
        choose_structures(CLASSES, names)
