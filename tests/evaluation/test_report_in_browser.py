"""The report in a headless browser, as a reader uses it: sliders, sorting, dots, ticks, and a phone's width."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from perturbed import EMPTY, SHIFTED, make_folders

from spadunet.evaluation.evaluate import evaluate_folders, evaluate_pairs
from spadunet.evaluation.label_names import labels_for
from spadunet.evaluation.outlines import outline_slice
from spadunet.evaluation.pairs import find_pairs
from spadunet.evaluation.report import find_report_images, write_report
from spadunet.evaluation.report_values import columns_of, worst_first
from spadunet.evaluation.scoring import Scoring
from spadunet.image import read_label_map
from spadunet.overlay import read_overlay
from spadunet.scores import Scores

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT_SECONDS = 10
PHONE, DESKTOP = 360, 1300

Browser = Any
"""Of selenium, an extra for development."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    """A browser of its own, with nothing of the user's."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra: dev)")
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("needs Chromium and chromedriver on the path (Debian: apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> tuple[Path, Scores]:
    """A page of five real cases, and its scores."""
    folder = tmp_path_factory.mktemp("report")
    predictions, references, images = make_folders(folder)
    labels = labels_for([predictions], references)
    scores = evaluate_folders(predictions, references, labels)
    found = find_report_images(images, pairs := find_pairs(predictions, references))
    path = folder / "report.html"
    write_report(path, scores, labels, pairs, predictions=predictions, references=references, images=found)
    return path, scores


@pytest.fixture
def opened(browser: Browser, report: tuple[Path, Scores]) -> Iterator[Callable[[int], Browser]]:
    """Open the page in a window so wide; fails at the end if the browser complained of anything."""

    def at(width: int, place: str = "") -> Browser:
        browser.get("about:blank")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(report[0].as_uri() + place)
        wait_for(lambda: is_drawn(browser, browser.execute_script("return document.querySelector('.case[open]').id")))
        return browser

    browser.get_log("browser")
    yield at
    assert browser.get_log("browser") == []


def wait_for(is_so: Callable[[], object]) -> None:
    """Ask until it is so; fails if it never is."""
    until = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < until, "the page did not get there"
        time.sleep(0.05)


def is_drawn(browser: Browser, case: str) -> bool:
    """A case is open, and its first view shows an image: a PNG of one colour would take some hundred bytes."""
    script = "return document.getElementById(arguments[0]).querySelector('.pane canvas').toDataURL().length"
    return bool(browser.execute_script(script, case) > 1500)


def first_pane(browser: Browser, case: str) -> dict[str, Any]:
    """What the first view of a case says and shows."""
    script = """const pane = document.getElementById(arguments[0]).querySelector(".pane");
      return { words: pane.querySelector("label span").textContent, image: pane.querySelector("canvas").toDataURL(),
        value: pane.querySelector("input").value,
        lines: [...pane.querySelectorAll("path")].map((it) => [it.dataset.line, it.dataset.class,
          it.getAttribute("stroke-dasharray"), it.style.display, it.getBBox()]) };"""
    found: dict[str, Any] = browser.execute_script(script, case)
    return found


def number_of(scores: Scores, name: str) -> int:
    """A case's number on the page."""
    return [case.case for case in scores.cases].index(name)


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_nothing_is_wider_than_the_window_and_nothing_is_loaded(opened, report, width: int):
    browser = opened(width)
    browser.execute_script("document.querySelectorAll('details').forEach((it) => (it.open = true))")
    wait_for(lambda: is_drawn(browser, f"case-{number_of(report[1], SHIFTED)}"))
    seen = browser.execute_script("""return { wide: document.documentElement.scrollWidth, window: innerWidth,
      views: [...document.querySelectorAll(".view")].map((it) => it.getBoundingClientRect().right),
      flat: [...document.querySelectorAll(".view")].filter((it) => it.getBoundingClientRect().height < 20).length,
      loaded: performance.getEntriesByType("resource").filter((it) => !it.name.startsWith("data:")).length }""")
    assert seen["wide"] <= seen["window"] == width
    assert max(seen["views"]) <= width and seen["flat"] == 0
    assert seen["loaded"] == 0


def test_it_opens_with_the_worst_case_and_only_opened_cases_hold_pictures(opened, report):
    browser = opened(DESKTOP)
    scores = report[1]
    is_open = browser.execute_script("return [...document.querySelectorAll('.case')].map((it) => [it.id, it.open])")
    assert is_open[0] == [f"case-{number_of(scores, EMPTY)}", True]
    assert not any(state for _, state in is_open[1:])
    browser.execute_script("document.querySelector('.case').open = false")
    wait_for(lambda: browser.execute_script("return document.querySelector('.case canvas').width") == 1)


def test_the_slider_goes_through_the_slices_by_keyboard(opened, report):
    browser = opened(DESKTOP)
    case = f"case-{number_of(report[1], EMPTY)}"
    before = first_pane(browser, case)
    slider = browser.find_element("css selector", f"#{case} .pane input")
    slider.send_keys("\ue014")  # arrow to the right
    after = first_pane(browser, case)
    assert int(after["value"]) == int(before["value"]) + 1
    assert after["words"] != before["words"] and after["words"].startswith("slice ")
    assert after["image"] != before["image"]
    assert after["lines"] != before["lines"]


def test_outlines_lie_where_the_label_maps_have_their_classes(opened, report):
    path, scores = report
    number = number_of(scores, SHIFTED)
    browser = opened(DESKTOP, f"#case-{number}")
    shown = first_pane(browser, f"case-{number}")
    stack = browser.execute_script(
        "return JSON.parse(document.querySelector(`#case-${arguments[0]} .slices script`).textContent)[0]", number
    )
    labels = labels_for([path.parent / "predictions"], path.parent / "raw/labelsTs")
    names = [path.parent / folder / f"{SHIFTED}.nii.gz" for folder in ("raw/labelsTs", "predictions")]
    overlay = read_overlay(None, names[0], names[1], labels)
    in_file = stack["numbers"][int(shown["value"])] - 1
    index = len(overlay.reference) - 1 - in_file if overlay.flips[0] else in_file
    for line, array in (("reference", overlay.reference), ("prediction", overlay.prediction)):
        found = {int(place): box for kind, place, _, _, box in shown["lines"] if kind == line}
        assert set(found) == {it for it, _ in outline_slice(array[index], dict(enumerate(labels.structures)))}
        for place, box in found.items():
            rows, columns = (array[index] == labels.structures[place].ids[0]).nonzero()
            assert box["width"] == 2 * (columns.max() - columns.min() + 1)
            assert box["height"] == 2 * (rows.max() - rows.min() + 1)
    assert {dashes for line, _, dashes, _, _ in shown["lines"] if line == "reference"} == {"4 3"}
    assert {dashes for line, _, dashes, _, _ in shown["lines"] if line == "prediction"} == {None}
    assert stack["of"] in read_label_map(names[0]).shape


def test_a_click_in_a_view_moves_the_others_there(opened, report):
    case = f"case-{number_of(report[1], EMPTY)}"
    browser = opened(DESKTOP)
    script = """const panes = document.querySelectorAll(`#${arguments[0]} .slices .pane`);
      const box = panes[0].querySelector(".view").getBoundingClientRect();
      panes[0].querySelector(".view").dispatchEvent(new MouseEvent("click", { bubbles: true,
        clientX: box.left + arguments[1] * box.width, clientY: box.top + arguments[1] * box.height }));
      return [...panes].map((it) => it.querySelector("input")).map((it) => [Number(it.value), Number(it.max)]);"""
    upper_left = browser.execute_script(script, case, 0.05)
    lower_right = browser.execute_script(script, case, 0.95)
    assert [value for value, _ in upper_left[1:]] == [0, 0]
    assert all(value == most for value, most in lower_right[1:])
    assert upper_left[0] == lower_right[0]


def test_cases_are_sorted_by_metric_and_class(opened, report):
    scores = report[1]
    browser = opened(DESKTOP)
    columns = [column for column in columns_of(scores) if column.better]
    for place, column in enumerate(columns):
        for number, name in enumerate([None, *scores.summary()]):
            for key, value in (("by-metric", place), ("by-class", number)):
                browser.find_element("css selector", f"#{key} option[value='{value}']").click()
            shown = browser.execute_script(
                """return [...document.querySelectorAll(".case")].map(
                     (it) => [it.id, it.querySelector(".value").textContent])"""
            )
            assert [it for it, _ in shown] == [f"case-{it}" for it in worst_first(scores, column, name)]
            assert all(words.startswith(column.title + (f" of {name} " if name else " ")) for _, words in shown)


def test_a_page_of_sizes_alone_lives_too(browser: Browser, tmp_path: Path):
    predictions, references, _ = make_folders(tmp_path)
    labels, pairs = labels_for([predictions], references), find_pairs(predictions, references)
    scores = evaluate_pairs(pairs, labels, scoring=Scoring(metrics=("volume_ml",)))
    path = write_report(tmp_path / "report.html", scores, labels, pairs, predictions=predictions, references=references)
    browser.get_log("browser")
    browser.get(path.as_uri())
    worst = browser.find_element("css selector", ".case[open]")
    assert worst.get_attribute("id") == f"case-{number_of(scores, EMPTY)}"
    assert "Dice 0.0000" in worst.text
    assert browser.get_log("browser") == []


def test_a_dot_tells_its_case_and_leads_to_it(opened, report):
    scores = report[1]
    number = number_of(scores, SHIFTED)
    browser = opened(DESKTOP)
    dot = browser.find_element("css selector", f".spread a[href='#case-{number}'] circle")
    dot.click()
    wait_for(lambda: is_drawn(browser, f"case-{number}"))
    told = browser.execute_script("return document.querySelector('.spread').nextElementSibling.textContent")
    assert told == f"{SHIFTED}: {scores.cases[number].classes['Anterior'].dice:.4f}"
    assert browser.execute_script("return location.hash") == f"#case-{number}"
    wait_for(
        lambda: (
            abs(browser.execute_script(f"return document.getElementById('case-{number}').getBoundingClientRect().top"))
            < 900
        )
    )


def test_ticks_hide_classes_and_lines(opened, report):
    number = number_of(report[1], SHIFTED)
    browser = opened(DESKTOP, f"#case-{number}")

    def seen() -> set[tuple[str, str]]:
        lines = first_pane(browser, f"case-{number}")["lines"]
        return {(line, place) for line, place, _, display, _ in lines if display != "none"}

    def tick(data: str) -> None:
        browser.find_element("css selector", f"#case-{number} input[{data}]").click()

    everything = seen()
    assert {line for line, _ in everything} == {"reference", "prediction"}
    tick("data-line=reference")
    assert seen() == {it for it in everything if it[0] == "prediction"}
    tick("data-line=reference")
    tick("data-class='0'")
    assert seen() == {it for it in everything if it[1] != "0"}
    tick("data-all")
    tick("data-all")
    assert seen() == everything
    browser.find_element("css selector", f"#case-{number} input[data-contrast]").send_keys("\ue014")
    style = browser.execute_script(f"return document.querySelector('#case-{number} canvas').style.filter")
    assert style.startswith("brightness(1) contrast(1.0")
