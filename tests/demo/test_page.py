"""The demo's page: one file, with a picture and scores for every case."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import numpy as np
import pytest
from html_page import read_page

import spadunet
from spadunet.demo.page import Section, write_page
from spadunet.evaluation.evaluate import evaluate_case
from spadunet.evaluation.scoring import gather_scores
from spadunet.image import LabelMap, read_label_map, write_label_map
from spadunet.labels import LabelSet

DEMO = Path(spadunet.__file__).parent / "demo/data/Dataset101_SunnybrookLV"
CASE = "SC-HF-NI-31_ph00"
JPEG = b"\xff\xd8"


def section_of(tmp_path: Path, change=lambda array: array, title: str = "Left ventricle") -> Section:
    """One test case, whose prediction is its reference with some change."""
    reference = read_label_map(DEMO / "labelsTs" / f"{CASE}.nii.gz")
    prediction = LabelMap(array=change(reference.array), affine=reference.affine)
    write_label_map(tmp_path / "predictions" / f"{CASE}.nii.gz", prediction)
    (tmp_path / "images").mkdir()
    shutil.copy(DEMO / "imagesTs" / f"{CASE}_0000.nii.gz", tmp_path / "images")
    labels = LabelSet(names=("background", "LV"), ids=(0, 1))
    return Section(
        title=title,
        image_folder=tmp_path / "images",
        reference_folder=DEMO / "labelsTs",
        prediction_folder=tmp_path / "predictions",
        labels=labels,
        scores=gather_scores([evaluate_case(CASE, prediction, reference, labels)]),
    )


def test_page_shows_picture_and_scores_of_a_case_and_needs_no_other_file(tmp_path: Path):
    write_page(tmp_path / "demo.html", [section_of(tmp_path)], about="One backbone.")
    text = (tmp_path / "demo.html").read_text(encoding="utf-8")
    reader = read_page(text)
    assert "<h2>Left ventricle</h2>" in text
    assert {CASE, "LV 1.000"} <= set(reader.words)  # the reference against itself
    assert reader.table_with("class", "Dice") == [["LV", "1.0000", *["0.00"] * 3, *"1100"]]
    assert len(reader.images) == 3
    for picture in reader.images:
        assert base64.b64decode(picture.removeprefix("data:image/jpeg;base64,")).startswith(JPEG)


def test_a_missed_organ_counts_the_diagonal_of_the_image(tmp_path: Path):
    write_page(tmp_path / "demo.html", [section_of(tmp_path, np.zeros_like)], about="")
    reader = read_page((tmp_path / "demo.html").read_text(encoding="utf-8"))
    assert "LV 0.000" in reader.words
    reference = read_label_map(DEMO / "labelsTs" / f"{CASE}.nii.gz")
    diagonal_mm = np.linalg.norm(np.multiply(reference.shape, reference.spacing_mm))
    assert reader.table_with("class", "Dice") == [["LV", "0.0000", *[f"{diagonal_mm:.2f}"] * 3, *"1010"]]


def test_text_is_escaped(tmp_path: Path):
    write_page(tmp_path / "demo.html", [section_of(tmp_path, title="<b>LV</b> & co")], about="1 < 2")
    text = (tmp_path / "demo.html").read_text(encoding="utf-8")
    assert "<h2>&lt;b&gt;LV&lt;/b&gt; &amp; co</h2>" in text
    assert "1 < 2" in read_page(text).words


@pytest.mark.parametrize("empty", [False, True])
def test_a_case_is_drawn_even_without_reference(tmp_path: Path, empty: bool):
    section = section_of(tmp_path)
    if empty:
        (tmp_path / "references").mkdir()
        reference = read_label_map(DEMO / "labelsTs" / f"{CASE}.nii.gz")
        nothing = LabelMap(array=np.zeros_like(reference.array), affine=reference.affine)
        write_label_map(tmp_path / "references" / f"{CASE}.nii.gz", nothing)
        section = Section(**{**vars(section), "reference_folder": tmp_path / "references"})
    write_page(tmp_path / "demo.html", [section], about="")
    reader = read_page((tmp_path / "demo.html").read_text(encoding="utf-8"))
    assert len(reader.images) == 3
