"""What was asked for of runs, told apart, and what earlier ones may have seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from spadunet.training.asked import EARLIER, digest_of_cases, digests_of_held_out, runs_behind, warn_if_seen


def test_a_case_that_changes_sides_makes_another_run_and_the_order_does_not():
    asked = digest_of_cases([(["a", "b"], ["c"])])
    assert asked == digest_of_cases([(["b", "a"], ["c"])])
    assert len({asked, digest_of_cases([(["a"], ["b", "c"])]), digest_of_cases([(["a", "b", "c"], [])])}) == 3


@pytest.mark.parametrize(
    ("earlier", "changes", "is_warned"),
    [
        ({}, {}, False),
        ({"fold": "1"}, {}, True),
        ({"fold": "all", "datasets": "B A"}, {}, True),
        ({"fold": "1", "datasets": "B"}, {}, False),
        ({"fold": "1"}, {"fold": "all"}, False),
        ({"cases": "other"}, {}, True),
        ({"cases": "other", "fraction": "0.5"}, {}, False),
        ({"cases": "other", "datasets": "A B"}, {}, False),
    ],
)
def test_a_model_that_may_have_seen_the_validation_cases_is_warned_of(earlier, changes, is_warned: bool, caplog):
    """Not where only the training cases differ, or none are held out."""
    usual = {"datasets": "A", "fold": "0", "cases": "same", "fraction": "1.0", "fraction_seed": "0"}
    warn_if_seen(Path("model"), runs_behind(usual | earlier), usual | changes)
    assert ("may have seen cases" in caplog.text) == is_warned


MAPS = {"datasets": "A", "fold": "0", "cases": "maps", "fraction": "1.0", "fraction_seed": "0"}
STUDIES = {"task": "classification", "datasets": "A", "fold": "0", "cases": "studies"}
BOTH = MAPS | {"datasets": "A A_findings", "findings": "A_findings", "findings_cases": "by maps"}


@pytest.mark.parametrize(
    ("earlier", "request_now", "is_warned"),
    [
        (STUDIES, MAPS, True),
        (MAPS, STUDIES, True),
        (MAPS | {"fraction": "0.5"}, STUDIES, True),
        (MAPS | {"datasets": "A B"}, STUDIES, True),
        (STUDIES, MAPS | {"datasets": "A B"}, True),
        (STUDIES, MAPS | {"fold": "all"}, False),
        (STUDIES, MAPS | {"datasets": "B"}, False),
        (STUDIES, STUDIES, False),
        (STUDIES, STUDIES | {"cases": "other"}, True),
        (BOTH, MAPS, False),
        (MAPS, BOTH, False),
        (MAPS | {"cases": "other"}, BOTH, True),
        (BOTH, STUDIES, True),
        (STUDIES, BOTH, True),
        (STUDIES, BOTH | {"findings_cases": "studies"}, False),
        (BOTH | {"findings_cases": "studies"}, STUDIES, False),
        (BOTH, BOTH, False),
        (BOTH, BOTH | {"findings_cases": "other"}, True),
    ],
)
def test_folds_of_label_maps_and_of_studies_are_not_taken_for_the_same(earlier, request_now, is_warned: bool, caplog):
    """Whichever came first, also where another run was between."""
    between = MAPS | {"datasets": "C", EARLIER: "; ".join(runs_behind(earlier))}
    for model in (earlier, between):
        caplog.clear()
        warn_if_seen(Path("model"), runs_behind(model), request_now)
        assert ("may have seen cases" in caplog.text) == is_warned


@pytest.mark.parametrize(
    ("earlier", "changes", "is_warned"),
    [
        ({"datasets": "A B", "held_out": "old b"}, {}, True),
        ({"datasets": "B A", "held_out": "b new"}, {}, False),
        ({"datasets": "A B", "held_out": "new b"}, {"datasets": "B C", "held_out": "other c"}, True),
        ({"fraction": "0.5", "held_out": "old"}, {}, True),
        ({"fraction": "0.5", "held_out": "new"}, {}, False),
        ({"datasets": "A A_findings", "findings": "A_findings", "held_out": "old"}, {}, True),
        ({"datasets": "A A_findings", "findings": "A_findings", "held_out": "new"}, {}, False),
    ],
)
def test_a_rewritten_split_is_noticed_whatever_else_is_learned(earlier, changes, is_warned: bool, caplog):
    """By the held-out cases of each dataset that both runs have."""
    request_now = MAPS | {"cases": "now", "held_out": "new"} | changes
    warn_if_seen(Path("model"), runs_behind(MAPS | earlier), request_now)
    assert ("may have seen cases" in caplog.text) == is_warned


def test_the_digests_of_held_out_cases_are_by_dataset():
    first, second = digests_of_held_out([(["a"], ["b", "c"]), (["d"], ["e"])]).split()
    assert digests_of_held_out([(["x", "y"], ["e"]), ([], ["c", "b"])]) == f"{second} {first}"
    assert digests_of_held_out([(["d"], ["a"])]) not in (first, second)


def test_what_the_models_before_have_seen_is_warned_of_too(caplog):
    """A fold of A, then B, then another fold of A."""
    asked = {"fold": "0", "cases": "same", "fraction": "1.0", "fraction_seed": "0"}
    first = asked | {"datasets": "A C"}
    second = asked | {"datasets": "B", EARLIER: "; ".join(runs_behind(first))}
    third = asked | {"datasets": "D", EARLIER: "; ".join(runs_behind(second))}
    for model in (second, third):
        caplog.clear()
        warn_if_seen(Path("model"), runs_behind(model), asked | {"datasets": "A"})
        warn_if_seen(Path("model"), runs_behind(model), asked | {"datasets": "E", "fold": "1"})
        assert not caplog.text
        warn_if_seen(Path("model"), runs_behind(model), asked | {"datasets": "A", "fold": "1"})
        assert "has learned from A with fold 0 and may have seen cases" in caplog.text
    assert len(runs_behind(third)) == 3
    assert runs_behind(third | {EARLIER: "; ".join(runs_behind(third))}) == runs_behind(third)  # each is told once
    assert runs_behind({"kind": "mim"}) == ()
