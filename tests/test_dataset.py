"""Finding a dataset, reading its dataset.json, pairing its files."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from spadunet.dataset import Dataset, RawCase, find_dataset, find_images, find_test_cases, load_dataset
from spadunet.errors import InputError
from spadunet.files import sha256_of_file
from spadunet.formats import files_of
from spadunet.labels import LabelSet

DATA = Path(__file__).parent.parent / "spadunet/demo/data"
JSON = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "heart": 1}, "file_ending": ".nii.gz"}
TWO = JSON | {"channel_names": {"0": "T1", "1": "T2"}}
REMEDY = "write one that names channels and labels, as for nnU-Net"


def make_dataset(
    folder: Path, images: list[str], labels: list[str] | None = None, description: dict | None = None
) -> Path:
    """A dataset of empty files; without `labels`, each image has one."""
    for sub in ("imagesTr", "labelsTr"):
        (folder / sub).mkdir(parents=True)
    for name in images:
        (folder / "imagesTr" / name).touch()
    for name in labels if labels is not None else {name.replace("_0000", "") for name in images}:
        (folder / "labelsTr" / name).touch()
    (folder / "dataset.json").write_text(json.dumps(JSON if description is None else description))
    return folder


def problem_of(folder: Path) -> str:
    """The one line that says why a dataset cannot be loaded, without the path of the folder."""
    with pytest.raises(InputError) as caught:
        load_dataset(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{folder.resolve()}/")


# --- finding


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder with three datasets, of which two have one number, and a stray file."""
    for name in ("Dataset004_Hippocampus", "Dataset004_Heart", "Dataset101_SunnybrookLV", "BTCV"):
        (tmp_path / "raw" / name).mkdir(parents=True)
    (tmp_path / "raw" / "notes.txt").touch()
    return tmp_path / "raw"


@pytest.mark.parametrize("name", ["Hippocampus", "hippocampus", "Dataset004_Hippocampus", "dataset004_hippocampus"])
def test_a_dataset_is_found_by_its_name(raw: Path, name: str):
    assert find_dataset(name, raw) == raw / "Dataset004_Hippocampus"


@pytest.mark.parametrize("name", ["101", "0101"])
def test_a_dataset_is_found_by_its_number(raw: Path, name: str):
    assert find_dataset(name, raw) == raw / "Dataset101_SunnybrookLV"


def test_a_folder_named_otherwise_is_found_by_its_name(raw: Path):
    assert find_dataset("btcv", raw) == raw / "BTCV"


def test_a_path_goes_before_names(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = make_dataset(tmp_path / "elsewhere" / "mine", [])
    assert find_dataset(str(folder), raw) == folder
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert find_dataset("mine", raw) == Path("mine")


def test_a_name_that_fits_several_is_refused(raw: Path):
    with pytest.raises(InputError) as caught:
        find_dataset("4", raw)
    assert str(caught.value) == (
        f"-d 4: fits several datasets in {raw}: Dataset004_Heart, Dataset004_Hippocampus; give the full name"
    )


@pytest.mark.parametrize("name", ["Liver", "1", "²", "Dataset004"])
def test_a_name_that_fits_none_lists_what_there_is(raw: Path, name: str):
    with pytest.raises(InputError) as caught:
        find_dataset(name, raw)
    assert str(caught.value) == (
        f"-d {name}: dataset not found; datasets in {raw}: BTCV, Dataset004_Heart, Dataset004_Hippocampus, "
        "Dataset101_SunnybrookLV; give one of them or a path"
    )


def test_a_raw_folder_that_is_not_there_has_none(tmp_path: Path):
    with pytest.raises(InputError, match=r"^-d 4: dataset not found; datasets in .*/raw: none; give one of them"):
        find_dataset("4", tmp_path / "raw")


# --- loading


def test_the_embedded_datasets_load():
    dataset = load_dataset(DATA / "Dataset004_Hippocampus")
    assert dataset.name == "Dataset004_Hippocampus"
    assert dataset.channel_names == ("MRI",)
    assert dataset.labels == LabelSet(names=("background", "Anterior", "Posterior"), ids=(0, 1, 2))
    assert len(dataset.cases) == 40
    first = dataset.cases[0]
    assert first.name == "hippocampus_011"
    assert [path.name for path in first.image_paths] == ["hippocampus_011_0000.nii.gz"]
    assert first.label_path == dataset.folder / "labelsTr/hippocampus_011.nii.gz"
    assert len(load_dataset(DATA / "Dataset101_SunnybrookLV").cases) == 12


def test_channels_are_ordered_by_number_and_labels_by_id(tmp_path: Path):
    description = {
        "channel_names": {"1": "T2", "0": "T1"},
        "labels": {"spleen": 6, "background": 0, "liver": 2},
        "licence": "what the user adds stays unread",
    }
    names = ["b_0001.nii.gz", "b_0000.nii.gz", "a_0000.nii.gz", "a_0001.nii.gz", "._a_0000.nii.gz", "notes.txt"]
    dataset = load_dataset(make_dataset(tmp_path / "X", names, ["a.nii.gz", "b.nii.gz"], description))
    assert dataset.channel_names == ("T1", "T2")
    assert dataset.labels == LabelSet(names=("background", "liver", "spleen"), ids=(0, 2, 6))
    assert [(case.name, [path.name for path in case.image_paths]) for case in dataset.cases] == [
        ("a", ["a_0000.nii.gz", "a_0001.nii.gz"]),
        ("b", ["b_0000.nii.gz", "b_0001.nii.gz"]),
    ]


def test_a_number_at_the_end_is_no_channel_where_there_is_only_one(tmp_path: Path):
    dataset = load_dataset(make_dataset(tmp_path / "X", ["heart_2019.nii.gz", "heart_2020_0000.nii.gz"]))
    assert [case.name for case in dataset.cases] == ["heart_2019", "heart_2020"]


def test_a_surplus_channel_beside_the_first_is_told_where_there_is_only_one(tmp_path: Path):
    folder = make_dataset(tmp_path / "X", ["a_0000.nii.gz", "a_0001.nii.gz"], ["a.nii.gz"])
    with pytest.raises(InputError, match=r"imagesTr/a: wrong channel count: files for channels \[0, 1\], expected 1"):
        load_dataset(folder)


def test_one_channel_needs_no_suffix(tmp_path: Path):
    dataset = load_dataset(make_dataset(tmp_path / "X", ["heart_1.nii.gz", "heart_2_0000.nii.gz"]))
    assert [(case.name, case.image_paths[0].name) for case in dataset.cases] == [
        ("heart_1", "heart_1.nii.gz"),
        ("heart_2", "heart_2_0000.nii.gz"),
    ]


def test_uncompressed_files_are_taken_if_dataset_json_says_so(tmp_path: Path):
    folder = make_dataset(tmp_path / "X", ["a_0000.nii", "b_0000.nii.gz"], description=JSON | {"file_ending": ".nii"})
    assert [case.name for case in load_dataset(folder).cases] == ["a"]


@pytest.mark.parametrize(
    ("images", "description", "message"),
    [
        (
            ["a_0000.nii.gz", "a_0001.nii.gz", "a_0002.nii.gz"],
            TWO,
            "imagesTr/a: wrong channel count: files for channels [0, 1, 2], expected 2, numbered from _0000; "
            "add the missing or remove the extra files",
        ),
        (
            ["a_0001.nii.gz"],
            TWO,
            "imagesTr/a: wrong channel count: files for channels [1], expected 2, numbered from _0000; "
            "add the missing or remove the extra files",
        ),
        (
            ["a_0000.nii.gz", "a_0002.nii.gz"],
            TWO,
            "imagesTr/a: wrong channel count: files for channels [0, 2], expected 2, numbered from _0000; "
            "add the missing or remove the extra files",
        ),
        (
            ["a.nii.gz", "a_0000.nii.gz"],
            JSON,
            "imagesTr/a_0000.nii.gz: a second file for channel 0 of case a; keep one of them",
        ),
        ([], JSON, "imagesTr: no *.nii.gz files; put the images there (or set file_ending in dataset.json)"),
        (
            ["a.nii.gz"],
            JSON | {"file_ending": ".nii"},
            "imagesTr: no *.nii files; put the images there (or set file_ending in dataset.json)",
        ),
    ],
    ids=["too many", "too few", "gap", "twice", "empty", "ending"],
)
def test_files_that_do_not_fit_are_told(tmp_path: Path, images: list[str], description: dict, message: str):
    assert problem_of(make_dataset(tmp_path / "X", images, description=description)) == message


def test_missing_labels_are_told_and_counted(tmp_path: Path):
    names = [f"{name}_0000.nii.gz" for name in "abc"]
    one = make_dataset(tmp_path / "one", names, ["a.nii.gz", "c.nii.gz"])
    remedy = "add it or take its image out of imagesTr"
    assert problem_of(one) == f"labelsTr/b.nii.gz: label file missing; {remedy}"
    two = make_dataset(tmp_path / "two", names, ["b.nii.gz"])
    assert problem_of(two) == f"labelsTr/a.nii.gz: label file missing (and 1 more); {remedy}"


@pytest.mark.parametrize("image", ["b", "b_0000", "b_0000.nii.gz"])
def test_an_image_without_a_label_map_is_no_case_if_a_table_tells_of_it(tmp_path: Path, image: str):
    folder = make_dataset(tmp_path / "X", [f"{name}_0000.nii.gz" for name in "abc"], ["a.nii.gz", "c.nii.gz"])
    (folder / "labels.csv").write_text(f"image,cyst\n{image},1\n")
    dataset = load_dataset(folder)
    assert [case.name for case in dataset.cases] == ["a", "c"]
    assert sorted(dataset.patients) == ["a", "b", "c"]
    (folder / "labels.csv").write_text("anything\n1\n")  # of another kind
    assert problem_of(folder).endswith("take its image out of imagesTr, or give it a row in labels.csv")


def test_a_missing_folder_is_told(tmp_path: Path):
    with pytest.raises(InputError, match=r"/imagesTs: folder not found; it must hold the images$"):
        find_images(tmp_path / "imagesTs", ".nii.gz", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "field 'labels': Input should be an object (found None)"),
        (
            {"labels": {"background": 0, "tumour": [1, 2]}},
            "field 'regions_class_order': expected an id for each of tumour, in this order, since a label is a region "
            "(found None)",
        ),
        (
            {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1]},
            "field 'regions_class_order': expected an id for each of whole, core, in this order, since a label is a "
            "region (found [1])",
        ),
        (
            {"labels": {"background": 0, "core": 2, "whole": [1, 2]}, "regions_class_order": [2, 1]},
            "field 'labels': whole would be painted over all of core; list the larger one first",
        ),
        (
            {"labels": {"background": 0, "tumour": "one"}},
            "field 'labels.tumour': expected a whole number, or a list of them for a region (found 'one')",
        ),
        (
            {"labels": {"background": 0, "tumour": [1, "two"]}},
            "field 'labels.tumour': expected a whole number, or a list of them for a region (found [1, 'two'])",
        ),
        (
            {"labels": {"background": 0, "heart": 1, "tumour": []}},
            "field 'labels': a region needs at least one id (found {'background': 0, 'heart': 1, 'tumour': []})",
        ),
        (
            {"labels": {"heart": 1}},
            "field 'labels': expected \"background\": 0 among the labels (found {'heart': 1})",
        ),
        (
            {"labels": {"background": 1, "heart": 0}},
            "field 'labels': expected \"background\": 0 among the labels (found {'background': 1, 'heart': 0})",
        ),
        (
            {"labels": {"background": 0, "heart": 1, "ignore": [2]}},
            "field 'labels': \"ignore\" is one id, not a list (found {'background': 0, 'heart': 1, 'ignore': [2]})",
        ),
        (
            {"labels": {"background": 0, "heart": 1, "ignore": 1}},
            "field 'labels': ignore needs an id of its own, not 1; the others are [0, 1]",
        ),
        (
            {"optional_channels": ["T2"]},
            "field 'optional_channels': expected names among channel_names, ['MRI'] (found ['T2'])",
        ),
        (
            {"labels": {"background": 0, "heart": 65536}},
            "field 'labels': label ids lie between 0 and 65535 (found {'background': 0, 'heart': 65536})",
        ),
        ({"labels": {"background": 0}}, "field 'labels': at least one label beside background is needed"),
        (
            {"labels": {"background": 0, "a": 1, "b": 1}},
            "field 'labels': names and ids must be unique, not {'background': 0, 'a': 1, 'b': 1}",
        ),
        (
            {"channel_names": {"1": "MRI"}},
            "field 'channel_names': channels are numbered \"0\", \"1\", … (found {'1': 'MRI'})",
        ),
        ({"channel_names": {}}, 'field \'channel_names\': channels are numbered "0", "1", … (found {})'),
        (
            {"file_ending": ".npy"},
            "field 'file_ending': expected one of .nii.gz, .nii, .nrrd, .mha, .mhd, .png, .tif, .tiff, .bmp, .jpg, "
            ".jpeg, .dcm (found '.npy')",
        ),
        ({"patients": ["a"]}, "field 'patients': Input should be an object (found ['a'])"),
    ],
)
def test_a_wrong_dataset_json_is_told_with_its_field(tmp_path: Path, change: dict, message: str):
    folder = make_dataset(tmp_path / "X", ["a_0000.nii.gz"], description=JSON | change)
    assert problem_of(folder).removesuffix(f"; {REMEDY}") == f"dataset.json: {message}"


def test_a_dataset_json_that_is_missing_or_no_json_is_told(tmp_path: Path):
    folder = make_dataset(tmp_path / "X", ["a_0000.nii.gz"], description={"channel_names": {"0": "MRI"}})
    assert problem_of(folder) == f"dataset.json: field 'labels': field required; {REMEDY}"
    (folder / "dataset.json").write_text("{'labels': 0}")
    assert problem_of(folder) == f"dataset.json: Invalid JSON: key must be a string at line 1 column 2; {REMEDY}"
    (folder / "dataset.json").unlink()
    assert problem_of(folder) == f"dataset.json: not found; {REMEDY}"


def test_regions_have_a_class_for_each_id_and_keep_their_own_order(tmp_path: Path):
    # As nnU-Net's users write it for BraTS, whose labels are 1, 2 and 3.
    labels = {"background": 0, "whole tumour": [3, 1, 2], "tumour core": [2, 3], "enhancing": 3, "ignore": 9}
    description = JSON | {"labels": labels, "regions_class_order": [1, 2, 3]}
    found = load_dataset(make_dataset(tmp_path / "X", ["a_0000.nii.gz"], description=description)).labels
    assert (found.names, found.ids) == (("background", "label 1", "label 2", "enhancing"), (0, 1, 2, 3))
    assert [(it.name, it.ids, it.painted_id) for it in found.regions] == [
        ("whole tumour", (3, 1, 2), 1),
        ("tumour core", (2, 3), 2),
        ("enhancing", (3,), 3),
    ]
    assert found.ignore_id == 9


def test_a_list_of_one_id_is_that_id(tmp_path: Path):
    description = JSON | {"labels": {"background": 0, "heart": [1]}, "regions_class_order": [1]}
    found = load_dataset(make_dataset(tmp_path / "X", ["a_0000.nii.gz"], description=description)).labels
    assert found == LabelSet(names=("background", "heart"), ids=(0, 1))


# --- optional channels

THREE = JSON | {
    "channel_names": {"0": "in-phase", "1": "out-phase", "2": "T2"},
    "optional_channels": ["T2", "in-phase"],
}


def test_optional_channels_may_be_missing(tmp_path: Path):
    names = ["a_0000.nii.gz", "a_0001.nii.gz", "a_0002.nii.gz", "b_0001.nii.gz", "c_0001.nii.gz", "c_0002.nii.gz"]
    folder = make_dataset(tmp_path / "X", names, [f"{name}.nii.gz" for name in "abc"], THREE)
    dataset = load_dataset(folder)
    assert dataset.optional_channels == ("T2", "in-phase")
    found = [[path and path.name for path in case.image_paths] for case in dataset.cases]
    assert found == [names[:3], [None, "b_0001.nii.gz", None], [None, "c_0001.nii.gz", "c_0002.nii.gz"]]
    assert [path.name for path in dataset.cases[1].paths] == ["b_0001.nii.gz", "b.nii.gz"]


def test_a_case_without_a_channel_that_is_not_optional_is_told(tmp_path: Path):
    folder = make_dataset(tmp_path / "X", ["a_0000.nii.gz", "a_0002.nii.gz"], ["a.nii.gz"], THREE)
    assert problem_of(folder) == (
        "imagesTr/a: wrong channel count: files for channels [0, 2], expected 3, numbered from _0000 "
        "(0, 2 may be missing); add the missing or remove the extra files"
    )


def test_a_channel_that_no_case_has_is_told(tmp_path: Path):
    folder = make_dataset(tmp_path / "X", ["a_0000.nii.gz", "a_0001.nii.gz"], ["a.nii.gz"], THREE)
    assert problem_of(folder) == (
        "imagesTr: no case has channel 2 (T2); add its files (…_0002) or take it out of dataset.json"
    )


def test_a_file_that_holds_all_channels_has_no_number_where_some_are_optional(tmp_path: Path):
    folder = make_dataset(tmp_path / "X", ["a.png", "b_0001.png"], [], THREE | {"file_ending": ".png"})
    images = find_images(folder / "imagesTr", ".png", 3, (0, 2))
    assert [[path and path.name for path in paths] for paths in images.values()] == [
        ["a.png"],
        [None, "b_0001.png", None],
    ]
    (folder / "imagesTr/c_0000.png").touch()
    with pytest.raises(InputError, match=r"imagesTr/c: wrong channel count: files for channels \[0\], expected 3"):
        find_images(folder / "imagesTr", ".png", 3, (0, 2))


def test_the_content_of_a_case_says_which_channels_are_missing(tmp_path: Path):
    path = tmp_path / "x.nii.gz"
    path.write_bytes(b"x")
    contents = {
        RawCase(name="a", image_paths=paths, label_path=None).content()
        for paths in ((path,), (path, None), (None, path), (None, path, None))
    }
    assert len(contents) == 4
    assert sha256_of_file(path) in contents  # as before there were optional channels


# --- patients


def test_dataset_json_knows_patients_better_than_names_do(tmp_path: Path):
    description = JSON | {"patients": {"a1_ph1": "Ann", "b": "Ann"}}
    names = ["a1_ph1.nii.gz", "a1_ph2.nii.gz", "b.nii.gz", "c.nii.gz"]
    dataset: Dataset = load_dataset(make_dataset(tmp_path / "X", names, description=description))
    assert dataset.patients == {"a1_ph1": "Ann", "a1_ph2": "a1_ph2", "b": "Ann", "c": "c"}


def test_slices_of_a_named_case_belong_to_its_patient(tmp_path: Path):
    description = JSON | {"patients": {"a1": "Ann"}}
    dataset = load_dataset(make_dataset(tmp_path / "X", ["a1_s03.nii.gz"], description=description))
    assert dataset.patients == {"a1_s03": "Ann"}


def test_patients_of_cases_that_are_not_there_are_refused(tmp_path: Path):
    names = ["a_0000.nii.gz", "b_0000.nii.gz"]
    for number, key in enumerate(("c", "a_0000", "a.nii.gz", "t_0000")):
        folder = make_dataset(tmp_path / f"{number}", names, description=JSON | {"patients": {"b": "Ann", key: "Ann"}})
        (folder / "imagesTs").mkdir()
        (folder / "imagesTs/t_visit2_0000.nii.gz").touch()
        expected = f"dataset.json: field 'patients': no case is called {key}; expected names as in imagesTr, such as a"
        assert problem_of(folder) == expected


def test_patients_of_test_cases_and_of_studies_of_a_table_are_known(tmp_path: Path):
    patients = dict.fromkeys(("a", "t", "t_visit2", "exam 1", "d"), "Ann")
    folder = make_dataset(tmp_path / "X", ["a_0000.nii.gz"], description=JSON | {"patients": patients})
    (folder / "imagesTs").mkdir()
    (folder / "imagesTs/t_visit2_0000.nii.gz").touch()
    (folder / "labels.csv").write_text("image,study,grade\nimagesTr/d_0000.png,exam 1,low\n")
    assert load_dataset(folder).patients == {"a": "Ann"}


def test_what_lies_in_another_file_counts_as_content(tmp_path: Path):
    image = sitk.GetImageFromArray(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    sitk.WriteImage(image, str(tmp_path / "a.mhd"))
    sitk.WriteImage(image, str(tmp_path / "a.tif"))
    (tmp_path / "a.json").write_text('{"spacing": [1, 1, 1]}')
    assert files_of(tmp_path / "a.mhd") == (tmp_path / "a.mhd", tmp_path / "a.raw")
    assert files_of(tmp_path / "a.tif") == (tmp_path / "a.tif", tmp_path / "a.json")
    for path, other in (("a.mhd", "a.raw"), ("a.tif", "a.json")):
        case = RawCase(name="a", image_paths=(tmp_path / path,), label_path=None)
        before = case.content()
        content = (tmp_path / other).read_bytes()
        (tmp_path / other).write_bytes(content[:-3] + b"]} " if other == "a.json" else content[:-1] + b"!")
        os.utime(tmp_path / other, ns=(1, 1))
        assert case.content() != before


# --- what was annotated, and how much it counts

ORGANS = JSON | {"labels": {"background": 0, "liver": 1, "spleen": 2, "ignore": 9}}


def test_cases_that_tell_of_some_classes_are_known_by_name_in_training_and_test(tmp_path: Path):
    annotated = {"a": ["liver"], "b": ["spleen", "liver"], "t": ["spleen"]}
    folder = make_dataset(
        tmp_path, ["a_0000.nii.gz", "b_0000.nii.gz"], description=ORGANS | {"labelled_classes": annotated}
    )
    (folder / "imagesTs").mkdir()
    (folder / "imagesTs/t_0000.nii.gz").touch()
    dataset = load_dataset(folder)
    assert {case.name: case.annotated for case in dataset.cases} == {"a": ("liver",), "b": ()}  # b tells of all
    assert [case.annotated for case in find_test_cases(dataset)] == [("spleen",)]
    plain = load_dataset(make_dataset(tmp_path / "plain", ["a_0000.nii.gz"], description=ORGANS))
    assert plain.cases[0].annotated == ()
    assert plain.cases[0].content() != dataset.cases[0].content()  # so that stages know when to work again


@pytest.mark.parametrize(
    ("labelled", "message"),
    [
        ({"c": ["liver"]}, "field 'labelled_classes': no case is called c; expected names as in imagesTr, such as a"),
        ({"a": ["livr"]}, "a: expected at least one of the labels liver, spleen, not livr"),
        ({"a": ["background"]}, "a: expected at least one of the labels liver, spleen, not background"),
        ({"a": []}, "a: expected at least one of the labels liver, spleen, not none"),
    ],
)
def test_annotation_of_unknown_cases_or_classes_is_refused(tmp_path: Path, labelled: dict, message: str):
    folder = make_dataset(tmp_path, ["a_0000.nii.gz"], description=ORGANS | {"labelled_classes": labelled})
    assert message in problem_of(folder)


def test_weights_of_classes_are_read_and_those_of_unknown_classes_refused(tmp_path: Path):
    def make(name: str, weights: dict[str, float]) -> Path:
        return make_dataset(tmp_path / name, ["a_0000.nii.gz"], description=ORGANS | {"class_weights": weights})

    assert load_dataset(make("good", {"spleen": 2, "background": 0.5})).class_weights == {
        "spleen": 2,
        "background": 0.5,
    }
    unknown = "field 'class_weights': livr is none of the labels background, liver, spleen"
    assert unknown in problem_of(make("unknown", {"livr": 2}))
    assert "field 'class_weights.liver': Input should be greater than 0 (found 0)" in problem_of(
        make("0", {"liver": 0})
    )


@pytest.mark.parametrize(
    ("paths", "is_colour"), [(["a.png"], True), (["a.nii.gz"], False), (["a_0000.png", "a_0001.png"], False)]
)
def test_channels_of_one_picture_are_colours(tmp_path: Path, paths: list[str], is_colour: bool):
    dataset = Dataset(
        name="A",
        folder=tmp_path,
        channel_names=("red", "green"),
        labels=LabelSet(names=("background", "a"), ids=(0, 1)),
        file_ending="",
        cases=(RawCase(name="a", image_paths=tuple(map(Path, paths)), label_path=None),),
        patients={"a": "a"},
    )
    assert dataset.is_colour == is_colour
    assert not replace(dataset, channel_names=("CT",)).is_colour
