"""benchmarks/metrics.py: what it draws, and that the tools it times agree with ours."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SHAPE, SPACING_MM = (30, 80, 80), (10.0, 5.0, 5.0)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("metrics")


def test_all_organs_are_drawn_and_predicted_well_but_not_perfectly(script: ModuleType):
    prediction, reference = script.draw(SHAPE, SPACING_MM)
    values = script.ours("monai")(prediction, reference, SPACING_MM, len(script.ORGANS))
    assert len(values) == 13
    assert 0.8 < np.mean([scores["dice"] for scores in values.values()]) < 1
    assert values["7"]["hd_mm"] > 30  # the island


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.filterwarnings("ignore:Please .*scipy.ndimage. namespace:DeprecationWarning")
@pytest.mark.parametrize(
    ("definition", "module"),
    [("medpy", "medpy"), ("monai", "monai"), ("surface-distance", "surface_distance")],
)
def test_each_peer_agrees(script: ModuleType, definition: str, module: str):
    pytest.importorskip(module)
    drawn = script.draw(SHAPE, SPACING_MM)
    theirs = script.PEERS[definition]()(*drawn, SPACING_MM, 13)
    mine = script.ours(definition)(*drawn, SPACING_MM, 13)
    for label, expected in theirs.items():
        assert mine[label] == pytest.approx(expected, rel=script.ROUNDING[definition])


def test_goals_that_are_not_reached_end_it_with_an_error(script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys):
    seconds, peak_gb = {"spadunet": 1.0, "monai": 20.0}, {"spadunet": 0.5, "monai": 3.0}
    values = {str(label): {"dice": 0.9} for label in range(1, 14)}
    monkeypatch.setattr(script, "draw", lambda shape, spacing_mm: np.zeros((2, 1, 1, 1), np.uint8))
    monkeypatch.setattr(
        script,
        "measured",
        lambda folder, name, *_: {"seconds": seconds[name], "peak_gb": peak_gb[name], "values": values},
    )
    monkeypatch.setattr("sys.argv", ["metrics.py", "--peers", "monai", "--grids", "0"])
    script.main()
    assert capsys.readouterr().out.startswith("goals: at most 1 GB, and 9 times as fast as monai\n")
    seconds["monai"], peak_gb["spadunet"] = 8.0, 1.01
    with pytest.raises(SystemExit) as caught:
        script.main()
    assert str(caught.value).splitlines() == [
        "goals not reached:",
        "(96, 320, 320): 8.0 times as fast as monai, not 9",
        "(96, 320, 320): 1.01 GB under the definition of monai, not at most 1",
    ]


def test_the_first_line_says_that_medpy_is_measured_on_one_organ(script: ModuleType):
    assert "MedPy is measured on 1 of 13 organs, and its time multiplied" in script.introduction(["medpy", "monai"], 1)
    assert "multiplied" not in script.introduction(["medpy", "monai"], 13)
