"""Reading, predicting and writing side by side: what each hand is given, and cases that ran out of memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from spadunet.inference import pipeline
from spadunet.inference.pipeline import Loaded, flow
from spadunet.inference.stages import StageTimes


class Hands:
    """Reader, network and writer that take note; each of the named steps runs out of memory once a case."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *short: str) -> None:
        self.short, self.seen = list(short), []
        monkeypatch.setattr(pipeline, "segment", self.segment)
        monkeypatch.setattr(pipeline, "write", self.write)

    def take(self, step: str) -> None:
        self.seen.append(step)
        if step in self.short:
            self.short.remove(step)
            raise MemoryError

    def read(self, case) -> Loaded:
        self.take(f"read {case.name}")
        return Loaded(raw=case, path=Path(case.name), views={None: case.name}, headers=[])

    def segment(self, views, engine, times) -> str:
        (name,) = views.values()
        self.take(f"predict {name}")
        return f"answer to {name}"

    def write(self, loaded: Loaded, answer, engine, place) -> Path:
        assert not loaded.views  # the image is no longer held
        assert answer == f"answer to {loaded.raw.name}"
        self.take(f"write {loaded.raw.name}")
        return loaded.path

    def run(self, names: str) -> dict[str, object]:
        """Result, or problem, of each case in the order in which they are told."""
        cases = [SimpleNamespace(name=name) for name in names]
        outcomes = flow(cases, self.read, None, StageTimes())
        return {outcome.item.name: outcome.result or outcome.problem for outcome in outcomes}


@pytest.mark.parametrize("step", ["predict b", "write b", "write c", "read b"])
def test_a_case_that_ran_out_of_memory_beside_others_is_tried_again_at_the_end(step: str, monkeypatch, caplog):
    hands = Hands(monkeypatch, step)
    found = hands.run("abc")
    name = step[-1]
    assert list(found)[-1] == name
    assert found == {case: Path(case) for case in "abc"}
    assert hands.seen[-3:] == [f"read {name}", f"predict {name}", f"write {name}"]
    assert caplog.messages == [
        f"{name}: out of memory; free some, or use a larger machine; tried again alone at the end"
    ]


@pytest.mark.parametrize("step", ["predict", "write"])
def test_a_case_that_runs_out_of_memory_alone_fails_by_name(step: str, monkeypatch):
    hands = Hands(monkeypatch, f"{step} a")
    assert hands.run("a") == {"a": "a: out of memory; free some, or use a larger machine"}
    hands = Hands(monkeypatch, f"{step} b", f"{step} b")
    assert hands.run("abc") == {
        "a": Path("a"),
        "c": Path("c"),
        "b": "b: out of memory; free some, or use a larger machine",
    }
