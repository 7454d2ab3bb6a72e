"""The report of an evaluation: sound, self-contained, and its numbers those of the scores."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from html_page import PageReader, read_page
from perturbed import EMPTY, HOSTILE, NO_POSTERIOR, SHIFTED, make_folders
from PIL import Image

from spadunet.errors import InputError
from spadunet.evaluation import report as report_module
from spadunet.evaluation.evaluate import evaluate_folders
from spadunet.evaluation.label_names import labels_for
from spadunet.evaluation.pairs import Pair, find_pairs
from spadunet.evaluation.report import find_report_images, write_report
from spadunet.evaluation.report_charts import remark
from spadunet.evaluation.report_tables import ledger_of, libraries_of
from spadunet.evaluation.report_values import (
    choose_cases,
    columns_of,
    format_value,
    mean_of_class,
    num_valid,
    value_of,
    worst_first,
)
from spadunet.evaluation.scoring import DEFAULT_SCORING, Scoring
from spadunet.evaluation.slices import PLANE_NAMES
from spadunet.image import LabelMap, read_label_map, write_label_map
from spadunet.labels import LabelSet
from spadunet.scores import Scores


def show(
    folder: Path,
    predictions: Path,
    references: Path,
    images: Path | None = None,
    *,
    annotated: dict[str, tuple[str, ...]] | None = None,
    labels: LabelSet | None = None,
    scoring: Scoring = DEFAULT_SCORING,
) -> tuple[PageReader, Scores]:
    """The page of two folders, and the scores that it shows."""
    known = labels or labels_for([predictions], references)
    scores = evaluate_folders(predictions, references, known, allow_missing=True, annotated=annotated, scoring=scoring)
    found = find_report_images(images, find_pairs(predictions, references)) if images else None
    path = write_report(
        folder / "report.html",
        scores,
        known,
        find_pairs(predictions, references, annotated),
        predictions=predictions,
        references=references,
        images=found,
    )
    return read_page(path.read_text(encoding="utf-8")), scores


def pair_of(name: str) -> Pair:
    return Pair(name, None, Path(f"references/{name}.nii.gz"))


def stacks_on(path: Path) -> list[list[dict[str, object]]]:
    """The stacks of slices of each case on a page, in the page's order."""
    blobs = re.findall(r'<script type="application/json">(.*?)</script>', path.read_text(encoding="utf-8"))
    return [json.loads(blob) for blob in blobs]


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> tuple[Path, PageReader, Scores]:
    """A page of five cases with everything that can be wrong, with images."""
    folder = tmp_path_factory.mktemp("report")
    return folder / "report.html", *show(folder, *make_folders(folder))


def test_means_and_values_are_those_of_the_scores(shown: tuple[Path, PageReader, Scores]):
    _, reader, scores = shown
    columns = columns_of(scores)
    table = reader.table_with("class", *(column.title for column in columns), "cases", "valid", "missed")
    assert table == [
        *(
            [
                name,
                *(format_value(mean_of_class(row, column.name), column) for column in columns),
                *map(str, (row.num_cases, num_valid(row), row.num_missed, row.num_false_alarms)),
            ]
            for name, row in scores.summary().items()
        ),
        ["mean", *(format_value(scores.mean(column.name), column) for column in columns), "5", "7", "3", "0"],
    ]
    assert [row[-4:] for row in table[:2]] == [["5", "4", "1", "0"], ["5", "3", "2", "0"]]
    shifted = next(case for case in scores.cases if case.case == SHIFTED).classes["Anterior"]
    assert ["Anterior", *(format_value(value_of(shifted, column.name), column) for column in columns)] in [
        row[: len(columns) + 1] for table in reader.tables for row in table
    ]


def test_what_is_missing_is_listed_with_how_much_of_it_there_was(shown: tuple[Path, PageReader, Scores]):
    _, reader, scores = shown
    rows = reader.table_with("case", "class", "what")
    assert [row[:3] for row in rows] == [
        [NO_POSTERIOR, "Posterior", "missed"],
        [EMPTY, "Anterior", "missed"],
        [EMPTY, "Posterior", "missed"],
    ]
    by_name = {case.case: case for case in scores.cases}
    assert [row[3] for row in rows] == [f"{by_name[row[0]].classes[row[1]].num_reference_voxels:,}" for row in rows]


def test_every_case_has_a_dot_that_tells_its_name_and_leads_to_it(shown: tuple[Path, PageReader, Scores]):
    path, reader, scores = shown
    text = path.read_text(encoding="utf-8")
    for number, case in enumerate(scores.cases):
        assert text.count(f'href="#case-{number}"') >= 2 and f"case-{number}" in reader.ids
        value = case.classes["Anterior"].dice
        assert f"{case.case}: {value:.4f}" in reader.words
    assert HOSTILE in reader.words and "<b onmouseover" not in text


def test_rows_say_which_classes_have_no_dot_because_they_have_no_value(shown: tuple[Path, PageReader, Scores]):
    _, reader, scores = shown
    distances = [column for column in columns_of(scores) if column.better == "lower"]
    assert [remark(scores, "Posterior", column) for column in distances] == ["2 missed (without a value)"] * 3
    assert reader.words.count("2 missed (without a value)") == 3
    assert reader.words.count("2 missed") == 1  # of Dice, which is 0


def test_each_case_has_three_planes_of_slices_with_image_outlines_and_sides(shown: tuple[Path, PageReader, Scores]):
    path, reader, scores = shown
    assert all(len(stacks) == 3 for stacks in stacks_on(path)) and len(stacks_on(path)) == 5
    for stack in stacks_on(path)[0]:
        assert str(stack["strip"]).startswith("data:image/webp;base64,")
        assert len(stack["reference"]) == len(stack["prediction"]) == len(stack["numbers"]) == len(stack["places"])
    for name in set(PLANE_NAMES.values()):
        assert reader.words.count(name) == 5
    assert {"R", "L", "A", "P", "S", "I"} <= set(reader.words)
    # Two rows of three maps, but the empty prediction has none of its own.
    assert len(reader.images) == 5 * 6 - 3
    assert "The prediction has nothing here." in reader.words


def test_definitions_versions_and_sources_are_told(shown: tuple[Path, PageReader, Scores]):
    path, reader, scores = shown
    facts = reader.facts()
    assert scores.definitions.items() <= facts.items()
    assert facts["labels"] == "Anterior: 1; Posterior: 2"
    assert facts["predictions"] == str(path.parent / "predictions")
    assert {"spadunet", "Python", "numpy", "SimpleITK", "written", "references", "images"} <= facts.keys()


def test_the_worst_comes_first_by_every_metric_and_class(shown: tuple[Path, PageReader, Scores]):
    path, _, scores = shown
    text = path.read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="scores">(.*?)</script>', text)[1])
    columns = [column for column in columns_of(scores) if column.better]
    names = [None, *scores.summary()]
    for by_metric, column in zip(data["orders"], columns, strict=True):
        for order, name in zip(by_metric, names, strict=True):
            numbers = [data["cases"][place] for place in order]
            assert numbers == worst_first(scores, column, name)
    by_name = {case.case: number for number, case in enumerate(scores.cases)}
    for column in columns:
        order = worst_first(scores, column)
        assert order[0] == by_name[EMPTY]  # both classes missed
        assert order[-1] == by_name["perfect"]
        assert worst_first(scores, column, "Posterior")[:2] == [by_name[NO_POSTERIOR], by_name[EMPTY]]


def test_cases_without_prediction_and_those_that_could_not_be_scored_are_in_the_ledger(tmp_path: Path):
    predictions, references, images = make_folders(tmp_path)
    (predictions / f"{SHIFTED}.nii.gz").unlink()
    reader, scores = show(tmp_path, predictions, references, images)
    rows = reader.table_with("case", "class", "what")
    assert rows[0][:3] == [SHIFTED, "all", "no prediction"]
    failed = scores.model_copy(update={"failed": ("case 7",)})
    assert "<td>case 7</td><td>all</td><td>could not be scored" in "".join(ledger_of(failed))


def test_an_image_that_cannot_be_used_is_said_and_the_outlines_are_drawn(tmp_path: Path, caplog):
    predictions, references, images = make_folders(tmp_path)
    (images / f"{SHIFTED}_0000.nii.gz").write_bytes(b"")
    reader, _ = show(tmp_path, predictions, references, images)
    problem = next(word for word in reader.words if f"{SHIFTED}_0000.nii.gz: the file is empty" in word)
    assert problem in caplog.text
    assert sum(stacks[0]["strip"] == "" for stacks in stacks_on(tmp_path / "report.html")) == 1


def test_a_case_that_cannot_be_drawn_is_said_and_leaves_the_others(tmp_path: Path):
    predictions, references, _ = make_folders(tmp_path)
    labels = labels_for([predictions], references)
    scores = evaluate_folders(predictions, references, labels)
    (predictions / f"{SHIFTED}.nii.gz").write_bytes(b"")
    path = tmp_path / "report.html"
    write_report(
        path, scores, labels, find_pairs(predictions, references), predictions=predictions, references=references
    )
    reader = read_page(path.read_text(encoding="utf-8"))
    assert any(word.startswith("cannot be drawn:") and SHIFTED in word for word in reader.words)
    assert len(stacks_on(path)) == 4


def test_of_many_cases_the_worst_are_drawn_and_a_page_stays_small(tmp_path: Path, monkeypatch):
    predictions, references, images = make_folders(tmp_path)
    monkeypatch.setattr(report_module, "MAX_PICTURED", 2)
    monkeypatch.setattr(report_module, "MAX_LISTED", 3)
    reader, scores = show(tmp_path, predictions, references, images)
    assert len(stacks_on(tmp_path / "report.html")) == 2
    assert len([it for it in reader.ids if it.startswith("case-")]) == 3
    assert "Not among the cases that are drawn on this page." in reader.words
    assert any(word.startswith("2 of 5 cases are drawn") and "3 are listed" in word for word in reader.words)
    assert scores.cases[choose_cases(scores, 2)[0]].case == EMPTY


def test_the_worst_of_each_class_and_metric_are_among_the_drawn(shown: tuple[Path, PageReader, Scores]):
    scores = shown[2]
    chosen = choose_cases(scores, 4)
    assert len(set(chosen)) == 4 and choose_cases(scores, 100) != []
    assert sorted(choose_cases(scores, 100)) == [0, 1, 2, 3, 4]
    for column in columns_of(scores):
        if column.better:
            for name in scores.summary():
                assert worst_first(scores, column, name)[0] in chosen


def test_of_sizes_alone_cases_are_sorted_by_dice_of_the_counts(tmp_path: Path):
    scoring = Scoring(metrics=("volume_ml", "rvd_percent"))
    reader, scores = show(tmp_path, *make_folders(tmp_path), scoring=scoring)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="scores">(.*?)</script>', text)[1])
    assert data["metrics"] == [{"title": "Dice", "places": 4}]
    order = [scores.cases[data["cases"][place]].case for place in data["orders"][0][0]]
    assert (order[0], order[-1], len(order)) == (EMPTY, "perfect", 5)
    assert len(stacks_on(tmp_path / "report.html")) == 5
    assert "No metric here tells the worse of two cases: they are sorted by Dice of the counts." in reader.words


def test_libraries_that_only_some_metrics_need_are_told_with_these():
    scores = Scores(metrics=("dice", "cldice", "panoptic_quality", "lesion_f1"), cases=())
    assert libraries_of(scores)[3:] == ["scikit-image", "panoptica"]
    assert "panoptica" not in libraries_of(Scores(metrics=("dice",), cases=()))


def test_pictures_in_2d_with_regions_and_ignored_pixels(tmp_path: Path):
    """Label maps as PNG files: one plane, no sides, no voxel of the ignored drawn."""
    labels = LabelSet.model_validate(
        {
            "names": ("background", "rim", "core"),
            "ids": (0, 1, 2),
            "regions": (
                {"name": "whole", "ids": (1, 2), "painted_id": 1},
                {"name": "core", "ids": (2,), "painted_id": 2},
            ),
            "ignore_id": 9,
        }
    )
    reference = np.zeros((40, 60), np.uint8)
    reference[10:30, 10:40], reference[15:20, 15:30], reference[:, 50:] = 1, 2, 9
    prediction = np.zeros_like(reference)
    prediction[10:30, 10:60] = 1
    for name, array in (("predictions", prediction), ("references", reference)):
        (tmp_path / name).mkdir()
        Image.fromarray(array).save(tmp_path / name / "slide 1.png")
    reader, _ = show(tmp_path, tmp_path / "predictions", tmp_path / "references", labels=labels)
    ((stack,),) = stacks_on(tmp_path / "report.html")
    assert stack["strip"] == "" and stack["numbers"] == [1]
    assert [number for number, _ in stack["reference"][0]] == [0, 1]
    assert [number for number, _ in stack["prediction"][0]] == [0]
    assert not {"L", "R", "axial"} & set(reader.words) and "image plane" in reader.words
    assert reader.table_with("case", "class", "what")[0][:3] == ["slide 1", "core", "missed"]


def test_a_class_that_was_not_annotated_is_not_drawn(tmp_path: Path):
    predictions, references, _ = make_folders(tmp_path)
    annotated = {SHIFTED: ("Anterior",)}
    _, scores = show(tmp_path, predictions, references, annotated=annotated)
    number = [case.case for case in scores.cases].index(SHIFTED)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    card = text.split(f'id="case-{number}"')[1].split("</details>")[0]
    stacks = json.loads(re.search(r'json">(.*?)</script>', card)[1])
    drawn = {place for stack in stacks for line in ("reference", "prediction") for it in stack[line] for place, _ in it}
    assert drawn == {0}
    assert 'data-class="1"' not in card


def test_predictions_stored_with_other_axes_first_are_drawn_in_place(tmp_path: Path):
    predictions, references, _ = make_folders(tmp_path)
    path = predictions / "perfect.nii.gz"
    label_map = read_label_map(path)
    affine = label_map.affine.copy()
    affine[:3, 3] += (label_map.shape[2] - 1) * affine[:3, 2]
    affine[:3, 2] *= -1
    write_label_map(path, LabelMap(array=label_map.array[:, :, ::-1], affine=affine))
    show(tmp_path, predictions, references)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    card = next(card for card in text.split('<details class="case"') if "<b>perfect</b>" in card)
    for stack in json.loads(re.search(r'json">(.*?)</script>', card)[1]):
        assert stack["reference"] == stack["prediction"] and any(stack["reference"])


def test_images_are_found_by_the_names_of_their_cases(tmp_path: Path, caplog):
    for name in ("a_0001.nii.gz", "a_0000.nii.gz", "b.png", "c_2019_0000.mha", ".a.nii.gz", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "d").mkdir()
    found = find_report_images(tmp_path, [pair_of(name) for name in ("a", "b", "c_2019", "d", "e")])
    names = {"a": "a_0000.nii.gz", "b": "b.png", "c_2019": "c_2019_0000.mha", "d": "d"}
    assert {case: path.name for case, path in found.items()} == names
    assert "no image of 1 cases" in caplog.text
    with pytest.raises(InputError, match="holds no image of any case; expected names such as x_0000"):
        find_report_images(tmp_path, [pair_of("x")])
    with pytest.raises(InputError, match="folder not found"):
        find_report_images(tmp_path / "nowhere", [pair_of("x")])


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch):
    predictions, references, _ = make_folders(tmp_path)
    show(tmp_path, predictions, references)
    before = (tmp_path / "report.html").read_bytes()
    monkeypatch.setattr(report_module, "page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        show(tmp_path, predictions, references)
    assert (tmp_path / "report.html").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions", "raw", "report.html"]


@pytest.mark.slow
def test_thirty_large_cases_make_a_page_below_20_mb(tmp_path: Path):
    """Thirteen rough organs in noise that no picture format can pack: the worst that slices can be."""
    generator = np.random.default_rng(0)
    predictions, references, images = (tmp_path / name for name in ("predictions", "references", "images"))
    for folder in (predictions, references, images):
        folder.mkdir()
    places = np.indices((40, 320, 320))
    reference = np.zeros((40, 320, 320), np.uint8)
    for label_id in range(1, 14):
        centre = generator.uniform(0.15, 0.85, 3) * reference.shape
        away = sum(((at - middle) / size) ** 2 for at, middle, size in zip(places, centre, (9, 45, 45), strict=True))
        reference[away + generator.normal(0, 0.05, reference.shape) < 1] = label_id
    affine = np.diag([-3.0, 0.8, 0.8, 1.0])[[2, 1, 0, 3]]
    affine[:3, 3] = (-100, -100, 50)
    noise = generator.normal(0, 100, reference.shape).astype(np.int16)
    write_label_map(references / "case 00.nii.gz", LabelMap(array=reference, affine=affine))
    write_label_map(predictions / "case 00.nii.gz", LabelMap(array=np.roll(reference, 4, axis=2), affine=affine))
    write_label_map(images / "case 00_0000.nii.gz", LabelMap(array=noise, affine=affine))
    labels = labels_for([predictions], references)
    scores = evaluate_folders(predictions, references, labels)
    cases = []
    for number in range(30):
        for folder, ending in ((predictions, ""), (references, ""), (images, "_0000")):
            if number:
                source, copy = (folder / f"case {it:02}{ending}.nii.gz" for it in (0, number))
                shutil.copy(source, copy)
        cases.append(scores.cases[0].model_copy(update={"case": f"case {number:02}"}))
    scores = scores.model_copy(update={"cases": tuple(cases)})
    found = find_report_images(images, pairs := find_pairs(predictions, references))
    path = tmp_path / "report.html"
    write_report(path, scores, labels, pairs, predictions=predictions, references=references, images=found)
    assert len(stacks_on(path)) == 30
    assert path.stat().st_size < 20_000_000
    read_page(path.read_text(encoding="utf-8"))
