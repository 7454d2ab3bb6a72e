"""A run's page: sound, self-contained, and its numbers those of the files."""

from __future__ import annotations

import csv
import json
import logging
import shutil
import subprocess
from pathlib import Path

import pytest
from html_page import PageReader, read_page
from run_folder import make_run, score_of, status_of, write_curves, write_validation

from spadunet.errors import InputError
from spadunet.record import write_record
from spadunet.training import report as report_module
from spadunet.training.init import INIT_COVERAGE_JSON, Coverage, CoverageRow
from spadunet.training.report import REPORT_HTML, write_report
from spadunet.training.status import status_path

A, B = "Dataset001_A", "Dataset002_B"
HOSTILE = "<img src=x onerror=alert(1)> & $x^$ _\"肝' </td>"
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def show(folder: Path) -> PageReader:
    """The page of a run, written anew."""
    assert write_report(folder) == folder / REPORT_HTML
    return read_page((folder / REPORT_HTML).read_text(encoding="utf-8"))


def test_numbers_of_a_finished_joint_run_are_those_of_its_files(tmp_path: Path):
    make_run(tmp_path, {A: ("liver", "spleen"), B: ("LV",)}, state="finished")
    cases = {
        "good": {"liver": score_of(0.9), "spleen": score_of(0.8)},
        "poor": {"liver": score_of(0.5), "spleen": score_of(0, is_missed=True)},
        "half": {"liver": score_of(0.7), "spleen": score_of(None)},
    }
    write_validation(tmp_path, A, cases, failed=("lost",))
    reader = show(tmp_path)

    header = ("class", "Dice", "ASSD mm", "HD mm", "HD95 mm", "cases", "valid", "missed", "false alarms")
    assert reader.table_with(*header) == [
        ["liver", "0.7000", "1.25", "7.50", "5.50", "3", "3", "0", "0"],
        ["spleen", "0.4000", "7.12", "10.25", "9.25", "3", "1", "1", "0"],  # missed: the image's diagonal of 13 mm
        ["mean", "0.5500", "4.19", "8.88", "7.38", "3", "", "", ""],
    ]
    assert reader.table_with("case", "mean Dice", "liver") == [
        ["poor", "0.250", "0.500", "0.000"],
        ["half", "0.700", "0.700", "–"],
        ["good", "0.850", "0.900", "0.800"],
    ]
    assert "Cases that could not be scored, not counted: lost" in reader.words
    for word in ("Worst: poor", "Median: half", "Best: good", "liver 0.500", "spleen –"):
        assert word in reader.words

    rows = list(csv.DictReader((tmp_path / "curves.csv").read_text(encoding="utf-8").splitlines()))
    own = [float(row["loss"]) for row in rows if row["task"] == B]
    tiles = dict(zip(reader.words[1:], reader.words, strict=False))  # a value stands before its name
    assert tiles["steps"] == "100 of 200"
    assert tiles[f"loss, latest, {B}"] == f"{sum(own[-10:]) / 10:.4g}"  # a fifth of fifty is smoothed over
    assert tiles[f"mean validation Dice, {A}"] == "0.5500"
    assert tiles[f"mean validation Dice, {B}"] == "0.7000"
    assert (tiles["samples per second"], tiles["waiting for data"]) == ("4", "20 %")
    assert len(reader.images) == 3 + 3
    assert (tmp_path / REPORT_HTML).read_text(encoding="utf-8").count("<svg") == 4


def test_the_page_says_what_the_run_was(tmp_path: Path):
    make_run(tmp_path, {A: ("liver",), B: ("LV",)}, num_starts=3)
    rows = (
        CoverageRow(group="encoder.stages.0", fate="loaded", num_tensors=4, num_parameters=300),
        CoverageRow(group="decoder", fate="new", num_tensors=2, num_parameters=100),
    )
    write_record(tmp_path / INIT_COVERAGE_JSON, Coverage(source="/models/a", is_scratch_twin=False, rows=rows))
    reader = show(tmp_path)
    facts = reader.facts()
    assert (facts["spacing"], facts["degree of anisotropy"]) == ("3×0.75×0.75 mm", "2")
    assert facts["patch"] == "16×64×64 voxels (depth, height, width)"
    assert facts["channels"] == "CT (window -175 … 250)"
    assert (facts["backbone"], facts["preset"], facts["device"], facts["torch"]) == (
        "spad_unet",
        "tiny",
        "cpu",
        "2.13.0",
    )
    assert facts["started"].endswith("gone on with 2 times")
    assert "init" not in facts  # was not asked for
    assert reader.table_with("part")[0] == ["encoder.stages.0", "loaded", "4", "300"]
    assert "of 400 parameters: 75.0 % loaded, 25.0 % new" in reader.words
    assert {A, B, "/models/a"} <= set(reader.words)


def test_dice_while_it_trained_is_shown_by_dataset_and_class(tmp_path: Path):
    make_run(tmp_path, {A: ("liver", "spleen"), B: ("LV",)})
    lines = [f"10,{A},liver,0.2", f"10,{A},spleen,", f"10,{B},LV,0.1", f"20,{A},liver,0.6543", f"20,{B},LV,0.25"]
    (tmp_path / "validation.csv").write_text("\n".join(["step,dataset,class,dice", *lines, "30,x"]), encoding="utf-8")
    reader = show(tmp_path)
    for word in (f"Dice of patches while it trained, {A}", "liver 0.654", "spleen –", "LV 0.250"):
        assert word in reader.words
    assert (tmp_path / REPORT_HTML).read_text(encoding="utf-8").count("<svg") == 4 + 2


def test_hostile_names_are_text(tmp_path: Path):
    case = HOSTILE.replace("/", "")  # it is a file's name
    make_run(tmp_path, {HOSTILE.replace("/", ""): (HOSTILE,)}, state="finished", reason=f"{HOSTILE}: unreadable")
    shutil.rmtree(tmp_path / "validation")
    write_validation(tmp_path, case, {case: {HOSTILE: score_of(0.5)}})
    (tmp_path / "validation.csv").write_text('step,dataset,class,dice\n5,"<b>","<i>&$",0.5\n', encoding="utf-8")
    reader = show(tmp_path)
    text = (tmp_path / REPORT_HTML).read_text(encoding="utf-8")
    assert "<b>Dice of patches while it trained, &lt;b&gt;</b>" in text
    assert "<img src=x" not in text
    assert f"Worst: {case}" in reader.words
    assert reader.table_with("class")[0][0] == HOSTILE


def test_a_run_of_all_cases_says_that_there_is_no_validation(tmp_path: Path):
    make_run(tmp_path, {A: ("liver",)}, state="finished", request=status_of().request | {"fold": "all"})
    reader = show(tmp_path)
    assert "No case was held out (fold all), so there is no validation." in reader.words
    assert not reader.images


@pytest.mark.parametrize("state", ["running", "interrupted", "failed", "finished"])
def test_the_state_is_told_and_a_page_is_shown_anew_only_while_the_run_goes_on(tmp_path: Path, state: str):
    make_run(tmp_path, {A: ("liver",)}, state=state, reason="loss became nan" if state == "failed" else "")
    reader = show(tmp_path)
    text = (tmp_path / REPORT_HTML).read_text(encoding="utf-8")
    assert state.capitalize() in reader.words
    assert ("refresh" in text) == ("No news for" in text) == (state == "running")
    assert ("loss became nan" in reader.words) == (state == "failed")
    assert ("The same command goes on from its last checkpoint." in reader.words) == (
        state in ("interrupted", "failed")
    )


def test_a_run_that_has_not_begun_has_a_page(tmp_path: Path):
    write_record(status_path(tmp_path), status_of())
    assert "0 of 200" in show(tmp_path).words


def test_scores_of_an_earlier_run_in_the_folder_are_not_shown(tmp_path: Path):
    make_run(tmp_path, {A: ("liver",)}, state="finished")
    make_run(tmp_path, {A: ("liver",)}, started="2099-01-01T00:00:00Z")
    reader = show(tmp_path)
    assert "Held-out cases are scored at the end of the run." in reader.words
    assert not reader.images


def test_pre_training_shows_every_measure_and_its_pictures(tmp_path: Path):
    request = {"kind": "tokenizer", "corpus": "mine", "preset": "tiny", "max_steps": "None", "max_minutes": "60.0"}
    make_run(tmp_path, {A: ("liver",)}, kind="tokenizer", request=request, plans=())
    (tmp_path / "curves.csv").write_text(
        "step,minutes,da,entropy,codes_used,learning_rate\n0,0.5,0,6.5,900,0.1\n1,1.0,2,5.5,1000,0.1\n",
        encoding="utf-8",
    )
    (tmp_path / "reconstructions.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "crops.png").write_bytes(bytes(3_000_000))
    reader = show(tmp_path)
    assert {"Pre-training of a tokenizer: mine", "Entropy", "Codes used", "1.0 of 60"} <= set(reader.words)
    assert "Held-out images and their reconstructions" in reader.words
    assert len(reader.images) == 1


def test_what_cannot_be_shown_is_said_and_leaves_the_rest(tmp_path: Path, monkeypatch, caplog):
    make_run(tmp_path, {A: ("liver",)}, state="finished")
    (tmp_path / "validation" / A / "scores.json").write_text("{", encoding="utf-8")
    monkeypatch.setattr(report_module, "draw_chart", lambda *_, **__: 1 / 0)
    with caplog.at_level(logging.WARNING, "spadunet"):
        reader = show(tmp_path)
    assert "The curves cannot be shown: division by zero" in reader.words
    assert any("scores.json" in word for word in reader.words)
    assert reader.facts()["labels"] == "liver"
    assert "ZeroDivisionError" in caplog.text


def test_a_long_run_with_many_cases_and_classes_makes_a_page_of_bounded_size(tmp_path: Path):
    classes = [f"organ {number}" for number in range(15)]
    make_run(tmp_path, {A: classes}, state="finished")
    write_curves(tmp_path, [A], 20_000)
    write_validation(tmp_path, A, {f"c{n:04}": dict.fromkeys(classes, score_of(n / 1000)) for n in range(600)})
    reader = show(tmp_path)
    assert (tmp_path / REPORT_HTML).stat().st_size < 500_000
    assert len(reader.table_with("case")) == 300
    assert "600 cases, the worst first (the first 300)" in reader.words


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"no state/run\.json"):
        write_report(tmp_path)


def probe_in_browser(page: Path, width: int) -> dict[str, object]:
    """What a headless browser says of a page in a window so wide."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium here")
    script = """<script>addEventListener("load", () => { document.body.textContent = JSON.stringify({
        wide: document.documentElement.scrollWidth, seen: innerWidth,
        images: [...document.images].every(it => it.naturalWidth > 0), count: document.images.length,
        charts: [...document.querySelectorAll("svg")].every(it => it.getBoundingClientRect().height > 80),
        loaded: performance.getEntriesByType("resource").filter(it => !it.name.startsWith("data:")).length,
        ground: getComputedStyle(document.body).backgroundColor,
        news: document.getElementById("news")?.textContent ?? "" }) })</script>"""
    copy = page.with_name("probe.html")
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{script}</body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom"]
    done = subprocess.run([browser, *options, copy.as_uri()], capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout.split("<body>")[1].split("</body>")[0].replace("&amp;", "&"))


@pytest.mark.slow
@pytest.mark.parametrize("width", [500, 1400])  # 500 is as narrow as its window gets
def test_a_browser_shows_all_of_it_without_scrolling_sideways(tmp_path: Path, width: int):
    make_run(tmp_path, {"Dataset001_" + "Long" * 30: ("liver", "spleen" * 20), B: ("LV",)}, state="finished")
    write_report(tmp_path)
    seen = probe_in_browser(tmp_path / REPORT_HTML, width)
    assert seen["wide"] <= seen["seen"]
    assert seen["images"] and seen["count"] == 6 and seen["charts"]
    assert seen["loaded"] == 0


@pytest.mark.slow
def test_a_page_of_a_run_that_was_killed_says_so_when_it_is_opened_later(tmp_path: Path):
    make_run(tmp_path, {A: ("liver",)})
    write_report(tmp_path)
    assert str(probe_in_browser(tmp_path / REPORT_HTML, 800)["news"]).startswith("As of")
    status = status_of(updated="2020-01-01T00:00:00Z")
    write_record(status_path(tmp_path), status)
    write_report(tmp_path)
    assert "the run was probably killed" in str(probe_in_browser(tmp_path / REPORT_HTML, 800)["news"])
