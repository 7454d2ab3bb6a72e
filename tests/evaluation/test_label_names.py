"""Where the names of the labels come from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from spadunet.errors import InputError
from spadunet.evaluation.label_names import labels_for
from spadunet.formats import write_array
from spadunet.image import LabelMap, write_label_map
from spadunet.labels import LabelSet
from spadunet.record import write_record

LIVER = LabelSet(names=("background", "liver"), ids=(0, 1))


def write_references(folder: Path, *ids: int, dtype: type = np.uint8) -> Path:
    """One label map that holds these ids; returns its folder."""
    write_label_map(folder / "a.nii.gz", LabelMap(array=np.array([[ids]], dtype), affine=np.eye(4)))
    return folder


def write_description(path: Path, labels: object) -> Path:
    """A dataset.json as nnU-Net has it."""
    description = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    path.write_text(json.dumps(description))
    return path


def test_a_given_file_comes_first_then_the_predictions_then_the_references(tmp_path: Path):
    predictions, references = tmp_path / "p", write_references(tmp_path / "raw/labelsTs", 0, 2, 5)
    predictions.mkdir()
    assert labels_for([predictions], references) == LabelSet(names=("background", "2", "5"), ids=(0, 2, 5))
    write_description(tmp_path / "raw/dataset.json", {"background": 0, "tumour": 2, "kidney": 1})
    by_dataset = LabelSet(names=("background", "kidney", "tumour"), ids=(0, 1, 2))
    assert labels_for([predictions], references) == by_dataset
    write_record(predictions / "labels.json", LIVER)
    problems: list[str] = []
    assert labels_for([predictions], references, problems=problems) == LIVER
    assert "1 is liver and kidney" in problems[0]
    given = write_description(tmp_path / "given.json", {"background": 0, "heart": 3})
    assert labels_for([predictions], references, given).names == ("background", "heart")
    assert labels_for([predictions], references, predictions / "labels.json") == LIVER


def test_references_of_background_only_have_no_labels(tmp_path: Path):
    references = write_references(tmp_path / "r", 0, 0)
    with pytest.raises(InputError, match=r"no reference holds a label but background \(0\).*--labels"):
        labels_for([tmp_path], references)


def test_a_negative_label_is_refused(tmp_path: Path):
    references = write_references(tmp_path / "r", 1, -1, dtype=np.int16)
    with pytest.raises(InputError, match=r"a\.nii\.gz: holds the label value -1"):
        labels_for([tmp_path], references)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"background": 0, "whole tumour": [1, 2]}, r"labels\.json: field 'regions_class_order': expected an id"),
        ({"background": 0, "whole tumour": "x"}, r"labels\.json: field 'labels\.whole tumour': expected a whole"),
        ({"background": 0}, "field 'labels': at least one label beside background"),
        ({"background": 0, "a": 1, "b": 1}, "field 'labels': names and ids must be unique"),
        ({"liver": 1}, "background"),
    ],
)
def test_wrong_descriptions_name_file_and_field(tmp_path: Path, labels: object, message: str):
    path = write_description(tmp_path / "labels.json", labels)
    with pytest.raises(InputError, match=message):
        labels_for([tmp_path], tmp_path, path)


def test_ids_are_those_of_the_good_references_and_all_bad_ones_are_told(tmp_path: Path):
    references = write_references(tmp_path / "r", 0, 3)
    for name, ids in (("b", [1.5]), ("c", [-1, 2])):
        write_array(references / f"{name}.nii.gz", np.array([[ids]], np.float32), np.eye(4))
    problems: list[str] = []
    assert labels_for([tmp_path], references, problems=problems) == LabelSet(names=("background", "3"), ids=(0, 3))
    told = "\n".join(problems)
    assert f"{references}/b.nii.gz: holds the label value 1.5" in told
    assert f"{references}/c.nii.gz: holds the label value -1" in told


def test_a_missing_or_damaged_file_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"none\.json: not found; give a dataset\.json"):
        labels_for([tmp_path], tmp_path, tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"labels": ')
    with pytest.raises(InputError, match=r"half\.json: Invalid JSON"):
        labels_for([tmp_path], tmp_path, tmp_path / "half.json")
