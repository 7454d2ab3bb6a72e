"""Expected Dice is learned from answers whose Dice is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spadunet.dataset import RawCase
from spadunet.errors import InputError
from spadunet.image import LabelMap, write_label_map
from spadunet.inference.calibrate import (
    MIN_POINTS,
    calibrate,
    fit_classes,
    fit_dice,
    measure_volumes,
    unseen_kinds,
    usual_volumes,
)
from spadunet.inference.judge import volumes_of
from spadunet.inference.spoil import Spoiling
from spadunet.inference.trials import Trial
from spadunet.labels import LabelSet, Region
from spadunet.quality import FEATURES, Calibration, ClassQuality, expected_dice

LIVER = {"liver": usual_volumes([1.0, 1.0])}


def trial(case: str, soft_dice: float, dice: float | None, volume_ml: float = 1.0) -> Trial:
    """One class; what is around shrinks as the network is surer."""
    quality = ClassQuality(
        volume_ml=volume_ml,
        soft_dice=soft_dice,
        entropy_in=1 - soft_dice,
        entropy_around=0.5,
        share_around=1 - soft_dice,
    )
    return Trial(case=case, what=None, qualities={"liver": quality}, dice={"liver": dice})


def trials_of(num_cases: int, num_each: int, noise: float = 0.02) -> list[Trial]:
    """Dice is the square of what the network thinks of itself."""
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.3, 1, (num_cases, num_each))
    return [
        trial(f"case_{number}", value, float(np.clip(value**2 + rng.normal(0, noise), 0, 1)))
        for number, row in enumerate(sure)
        for value in row.tolist()
    ]


def test_what_is_learned_holds_for_cases_left_out():
    calibration = calibrate(trials_of(10, 10), LIVER, num_copies=9, seed=0)
    assert calibration.trials.spearman > 0.95
    assert calibration.trials.error < 0.05
    assert (calibration.trials.num_cases, calibration.trials.num_points) == (10, 100)
    known = calibration.classes["liver"]
    assert known.is_own
    for sure in (0.5, 0.7, 0.9):
        (quality,) = trial("x", sure, None).qualities.values()
        assert expected_dice(quality, known) == pytest.approx(sure**2, abs=0.05)
    assert Calibration.from_json(calibration.to_json()) == calibration


def test_kinds_that_were_left_out_tell_how_far_the_others_teach_them():
    plain = trials_of(8, 8)
    noise = Spoiling(kind="noise", strength=0.5, seed=(0,))
    odd = Spoiling(kind="cut", strength=0.5, seed=(0,))
    copies = [replace(it, what=noise) for it in trials_of(8, 4)]
    wrong = [replace(trial(f"case_{n % 8}", 0.3 + n / 60, 1 - n / 40), what=odd) for n in range(32)]  # sure and wrong
    found = unseen_kinds([*plain, *copies, *wrong], LIVER)
    assert list(found) == ["cut", "noise"]
    assert found["noise"] > 0.9
    assert found["cut"] < -0.9
    assert unseen_kinds(plain, LIVER) == {}


def test_noise_alone_is_not_believed():
    rng = np.random.default_rng(1)
    points = [trial(f"case_{n % 10}", rng.uniform(0.3, 1), rng.uniform(0.4, 0.6)) for n in range(100)]
    calibration = calibrate(points, LIVER, num_copies=9, seed=0)
    found = [expected_dice(it.qualities["liver"], calibration.classes["liver"]) for it in points]
    assert min(found) > 0.4
    assert max(found) < 0.6
    assert calibration.trials.spearman is None or calibration.trials.spearman < 0.3


def test_more_entropy_never_raises_what_is_expected():
    rng = np.random.default_rng(0)
    features = rng.uniform(size=(200, len(FEATURES)))
    dice = np.clip(features[:, 1], 0, 1)  # against its meaning: entropy as Dice
    fit = fit_dice(list(zip(features.tolist(), dice.tolist(), strict=True)))
    assert fit.weights[0] >= 0
    assert max(fit.weights[1:]) <= 0
    assert list(fit.dice) == sorted(fit.dice)


def test_few_answers_of_a_class_share_the_fit_of_all():
    both = {"liver": LIVER["liver"], "spleen": LIVER["liver"]}
    found = fit_classes(trials_of(8, MIN_POINTS // 8 + 1), both)
    assert found["liver"].is_own
    assert not found["spleen"].is_own
    assert found["spleen"].num_points == 0
    assert found["spleen"].fit == found["liver"].fit  # all answers are of the liver
    few = fit_classes(trials_of(8, 3), both)
    assert not few["liver"].is_own
    assert few["liver"].fit == few["spleen"].fit


def test_answers_that_say_nothing_are_left_out():
    good = trials_of(6, 12)
    nothing = [trial("case_0", 0.9, None), trial("case_1", 0.0, 0.0, volume_ml=0)]
    assert fit_classes([*good, *nothing], LIVER) == fit_classes(good, LIVER)
    with pytest.raises(InputError, match="nothing was found in any held-out case"):
        fit_classes(nothing, LIVER)


def test_too_few_cases_are_refused():
    with pytest.raises(InputError, match="4 held-out cases are too few .* at least 5"):
        calibrate(trials_of(4, 40), LIVER, num_copies=39, seed=0)


def test_volumes_by_hand():
    found = usual_volumes([0.0, 1.0, float(np.exp(2))])
    assert (found.num_cases, found.share_present) == (3, pytest.approx(2 / 3))
    assert (found.mean_log_ml, found.std_log_ml) == pytest.approx((1, 1))
    never = usual_volumes([0.0])
    assert (never.share_present, never.mean_log_ml, never.z(1.0)) == (0, None, None)


def test_volumes_of_references_count_voxels_by_their_size_and_only_what_was_annotated(tmp_path: Path):
    labels = LabelSet(
        names=("background", "a", "b"),
        ids=(0, 1, 300),
        regions=(Region(name="both", ids=(1, 300), painted_id=1), Region(name="b", ids=(300,), painted_id=300)),
    )
    array = np.zeros((4, 5, 6), np.uint16)
    array[0, 0, :4], array[1, 0, :2] = 1, 300
    label_map = LabelMap(array=array, affine=np.diag([5.0, 2.0, 1.0, 1.0]))
    assert volumes_of(label_map, labels) == pytest.approx({"both": 0.06, "b": 0.02})
    write_label_map(tmp_path / "a.nii.gz", label_map)
    cases = [
        RawCase(name="a", image_paths=(), label_path=tmp_path / "a.nii.gz", annotated=told) for told in ((), ("b",))
    ]
    found = measure_volumes([*cases, RawCase(name="c", image_paths=(), label_path=None)], labels)
    assert {name: it.num_cases for name, it in found.items()} == {"both": 1, "b": 2}
    with pytest.raises(InputError, match="missing.nii.gz"):
        measure_volumes([RawCase(name="x", image_paths=(), label_path=tmp_path / "missing.nii.gz")], labels)
