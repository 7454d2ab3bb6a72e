"""Any folders to a corpus."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import DEMO
from dicom_files import write_series, write_slice

from spadunet.errors import InputError
from spadunet.pretraining import make
from spadunet.pretraining.corpus import CorpusImage, image_path, load_corpus
from spadunet.pretraining.index import Choices, Indexed, find_sources, hold_out, index_images
from spadunet.pretraining.make import JOURNAL
from spadunet.pretraining.sources import Filters
from spadunet.pretraining.standardise import frame_weight
from spadunet.spacing import MAX_DA

HIPPOCAMPUS, SUNNYBROOK = DEMO / "Dataset004_Hippocampus", DEMO / "Dataset101_SunnybrookLV"


def index(folder: Path, *folders: Path, choices: Choices | None = None) -> Indexed:
    """Find and store, in this process."""
    choices = choices or Choices()
    sources, skipped, _ = find_sources([(path.name, path) for path in folders], choices)
    done = index_images("test", folder, sources, choices, skipped=skipped)
    assert done is not None
    return done


def noise(*shape: int, low: int = 0, high: int = 1000) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, shape).astype(np.int16)


def write(path: Path, array: np.ndarray, *, is_vector: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=is_vector), str(path))
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with three real volumes."""
    folder = tmp_path / "images"
    folder.mkdir()
    for path in sorted((HIPPOCAMPUS / "imagesTr").iterdir())[:3]:
        shutil.copy(path, folder)
    return folder


def test_raw_datasets_give_their_training_images_and_never_test_images_or_labels(tmp_path: Path):
    raw = tmp_path / "raw"
    for dataset in (HIPPOCAMPUS, SUNNYBROOK):
        for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            (raw / dataset.name / part).mkdir(parents=True)
            for path in sorted((dataset / part).glob("*.nii.gz"))[:2]:
                shutil.copy(path, raw / dataset.name / part)
        shutil.copy(dataset / "dataset.json", raw / dataset.name)
    shutil.copytree(raw / HIPPOCAMPUS.name / "imagesTs", tmp_path / "elsewhere/imagesTs")
    shutil.copytree(raw / HIPPOCAMPUS.name / "labelsTr", tmp_path / "elsewhere/Masks")
    shutil.copy(raw / HIPPOCAMPUS.name / "imagesTr/hippocampus_011_0000.nii.gz", tmp_path / "elsewhere/a.nii.gz")
    shutil.copy(raw / HIPPOCAMPUS.name / "labelsTr/hippocampus_011.nii.gz", tmp_path / "elsewhere/a_seg.nii.gz")
    folders = [("raw", raw), ("elsewhere", tmp_path / "elsewhere")]
    sources, _, found = find_sources(folders, Choices())
    assert {source.dataset for source in sources} == {HIPPOCAMPUS.name, SUNNYBROOK.name, "elsewhere"}
    assert len(sources) == 2 + 2 + 1
    for source in sources:
        assert source.path.parent.name == "imagesTr" or source.path.name == "a.nii.gz"
    assert sum(found.passed_over.values()) == 2 * 6 + 2 + 2 + 1
    assert find_sources(folders[::-1], Choices())[0] == sources  # whatever the order of folders


def test_volumes_are_turned_and_scaled_and_keep_their_spacing(tmp_path: Path):
    folder = tmp_path / "heart"
    (folder / "imagesTr").mkdir(parents=True)
    for path in sorted((SUNNYBROOK / "imagesTr").iterdir())[:2]:
        shutil.copy(path, folder / "imagesTr")
    shutil.copy(SUNNYBROOK / "dataset.json", folder)
    done = index(tmp_path / "corpus", folder)
    assert {image.modality for image in done.index.images} == {"MRI"}  # of dataset.json
    assert {image.da for image in done.index.images} == {2}
    corpus = load_corpus(tmp_path / "corpus")
    for image in corpus.index.images:
        box = corpus.read_box(image, (0, 0, 0), image.shape)
        assert image.spacing_mm == pytest.approx((8, 1.25, 1.25))
        assert (box.min(), box.max()) == (-1, 1)
        assert (box == 1).mean() < 0.02


def test_frames_of_a_series_share_a_weight_and_those_without_diffusion_have_one_each(tmp_path: Path):
    write(tmp_path / "data/bold.nii.gz", noise(5, 3, 20, 20))
    write(tmp_path / "data/dwi.nii.gz", noise(4, 3, 20, 20))
    (tmp_path / "data/dwi.bval").write_text("0 1000 1000 0\n")
    weights = {image.key: image.weight for image in index(tmp_path / "corpus", tmp_path / "data").index.images}
    assert [weights[f"data-bold+{number:03}"] for number in range(5)] == [9 / 25] * 5  # (2t - 1) / t²
    assert [weights[f"data-dwi+{number:03}"] for number in range(4)] == [1, frame_weight(2), frame_weight(2), 1]
    assert frame_weight(1) == 1
    assert 200 * frame_weight(200) == pytest.approx(2, abs=0.01)


def test_channels_that_dataset_json_names_are_images_of_their_own_modality(tmp_path: Path):
    folder = tmp_path / "Task05_Prostate"
    write(folder / "imagesTr/prostate_00.nii.gz", noise(2, 4, 20, 20))
    (folder / "dataset.json").write_text(
        '{"modality": {"0": "T2", "1": "ADC"}, "labels": {"0": "background", "1": "a"}}'
    )
    found = [(image.modality, image.weight) for image in index(tmp_path / "corpus", folder).index.images]
    assert found == [("MRI/T2", 1), ("MRI/ADC", 1)]


def test_pictures_keep_their_scale_and_colour_that_is_grey_becomes_grey(tmp_path: Path):
    folder = tmp_path / "pictures"
    colour = np.random.default_rng(0).integers(1, 256, (30, 40, 3)).astype(np.uint8)
    framed = np.zeros((50, 60, 3), np.uint8)
    framed[10:40, 10:50] = colour
    write(folder / "fundus_1.png", framed, is_vector=True)
    write(folder / "xray.png", np.repeat(colour[..., :1] // 2 + 1, 3, axis=-1), is_vector=True)
    write(folder / "deep.tif", noise(30, 40).astype(np.uint16))
    done = index(tmp_path / "corpus", folder)
    corpus = load_corpus(tmp_path / "corpus")
    by_key = {image.key: image for image in done.index.images}
    fundus, xray, deep = (by_key[f"pictures-{name}"] for name in ("fundus_1", "xray", "deep"))
    assert [(it.modality, it.num_channels, it.da) for it in (fundus, xray, deep)] == [
        ("RGB/fundus", 3, MAX_DA),
        ("gray/XR", 1, MAX_DA),
        ("gray", 1, MAX_DA),
    ]
    box = corpus.read_box(fundus, (0, 0, 0), fundus.shape)
    np.testing.assert_allclose(box[:, 0], np.moveaxis(colour, -1, 0) / 127.5 - 1, atol=1e-3)
    assert corpus.read_box(xray, (0, 0, 0), xray.shape).max() < 0.02  # half of 255
    assert corpus.read_box(deep, (0, 0, 0), deep.shape).max() == 1  # percentiles


def test_a_large_image_is_averaged_to_a_short_side_of_512_and_its_spacing_follows(tmp_path: Path):
    checks = np.indices((3, 1024, 1536)).sum(axis=0) % 2 * 900 + np.indices((3, 1024, 1536))[2] // 64
    path = write(tmp_path / "large/a.nii.gz", checks.astype(np.int16))
    image = sitk.ReadImage(str(path))
    image.SetSpacing((0.5, 0.5, 4))
    sitk.WriteImage(image, str(path))
    (stored,) = index(tmp_path / "corpus", path.parent).index.images
    assert stored.shape == (3, 512, 768)
    assert stored.spacing_mm == pytest.approx((4, 1, 1))
    corpus = load_corpus(tmp_path / "corpus")
    inner = corpus.read_box(stored, (1, 100, 100), (1, 200, 200))
    assert inner.std() < 0.05  # one pixel in two is bright: no aliasing is left


def test_dicom_series_files_and_pictures_are_told_apart(tmp_path: Path):
    folder = tmp_path / "dicom"
    write_series(folder / "study", noise(4, 20, 24), uid="1.2.3", **{"0008_0060": "CT"})
    write_series(folder / "study", noise(3, 20, 24), uid="1.2.4", names=["a", "b", "c"], **{"0008_103e": "t2 tse"})
    write_series(folder / "study/derived", noise(4, 20, 24), uid="1.2.5", **{"0008_0060": "SEG"})
    colour = np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype(np.uint8)
    ultrasound = sitk.GetImageFromArray(colour, isVector=True)
    ultrasound.SetMetaData("0008|0060", "US")
    sitk.WriteImage(ultrasound, str(folder / "us.dcm"))
    write_slice(folder / "film.dcm", noise(20, 24), {"0008|0060": "DX"}, (1, 1))
    (folder / "study/notes.txt").write_text("no image")
    shutil.make_archive(str(folder / "packed"), "zip", folder / "study")
    (folder / "study/damaged.dcm").write_bytes(b"no DICOM")
    done = index(tmp_path / "corpus", folder)
    found = sorted((image.modality, image.shape[0]) for image in done.index.images)
    assert found == [("CT", 4), ("CT", 4), ("MRI/T2", 3), ("MRI/T2", 3), ("RGB/US", 1), ("gray/XR", 1)]
    assert sum("packed.zip#" in image.source for image in done.index.images) == 2
    (problem,) = done.index.skipped
    assert "damaged.dcm: damaged DICOM file" in problem.reason


def test_a_dicom_image_whose_largest_value_is_black_is_turned_round(tmp_path: Path):
    pydicom = pytest.importorskip("pydicom")
    plane = noise(20, 24)
    write_slice(tmp_path / "films/a.dcm", plane, {"0008|0060": "DX"}, (1, 1))
    film = pydicom.dcmread(tmp_path / "films/a.dcm")
    film.PhotometricInterpretation = "MONOCHROME1"
    film.save_as(tmp_path / "films/a.dcm")
    (image,) = index(tmp_path / "corpus", tmp_path / "films").index.images
    box = load_corpus(tmp_path / "corpus").read_box(image, (0, 0, 0), image.shape)[0, 0]
    assert np.corrcoef(box.ravel(), plane.ravel())[0, 1] < -0.99


def test_frames_of_a_dicom_film_are_pictures_that_share_a_weight(tmp_path: Path):
    film = sitk.GetImageFromArray(noise(3, 20, 24, high=250).astype(np.uint8))
    film.SetMetaData("0008|0060", "US")
    (tmp_path / "films").mkdir()
    sitk.WriteImage(film, str(tmp_path / "films/a.dcm"))
    images = index(tmp_path / "corpus", tmp_path / "films").index.images
    assert [(image.modality, image.shape, image.weight) for image in images] == [("gray/US", (1, 20, 24), 5 / 9)] * 3


def test_bad_images_are_named_with_the_reason_and_the_others_are_there(images: Path, tmp_path: Path):
    write(images / "constant.nii.gz", np.full((4, 20, 20), 7, np.int16))
    write(images / "mask.nii.gz", noise(4, 20, 20, high=3))
    write(images / "mask_of_floats.nii.gz", noise(4, 20, 20, high=4).astype(np.float32))
    (images / "empty.nii.gz").write_bytes(b"")
    (images / "text.nii.gz").write_text("no image")
    content = (images / "hippocampus_011_0000.nii.gz").read_bytes()
    (images / "half.nii.gz").write_bytes(content[: len(content) // 2])
    holed = noise(4, 20, 20).astype(np.float32)
    holed[1, 2, 3] = np.nan
    write(images / "nan.nrrd", holed)
    done = index(tmp_path / "corpus", images)
    assert len(done.index.images) == 3
    reasons = {Path(problem.source).name: problem.reason for problem in done.index.skipped}
    assert {name: words for name, words in BAD.items() if words not in reasons.get(name, "")} == {}
    assert len(reasons) == len(BAD)
    assert all(str(images / name) in reason for name, reason in reasons.items())


BAD = {
    "constant.nii.gz": "every voxel is 7",
    "mask.nii.gz": "only 3 different values",
    "mask_of_floats.nii.gz": "only 4 different values",
    "empty.nii.gz": "0 bytes",
    "text.nii.gz": "damaged",
    "half.nii.gz": "damaged",
    "nan.nrrd": "NaN",
}


def test_an_image_larger_than_the_memory_is_refused_by_a_line(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(images / "giant.nii.gz", np.broadcast_to(np.arange(200, dtype=np.int16), (40, 200, 200)))
    monkeypatch.setattr(make, "available_bytes", lambda: 5_000_000)
    (problem,) = index(tmp_path / "corpus", images).index.skipped
    assert "giant.nii.gz: 1,600,000 voxels take about 0.0256 GB of memory, and 0.005 GB are free" in problem.reason


def test_a_folder_that_shrinks_while_it_is_indexed_loses_that_image_only(images: Path, tmp_path: Path):
    sources, _, _ = find_sources([("images", images)], Choices())
    sources[1].path.unlink()
    done = index_images("test", tmp_path / "corpus", sources, Choices())
    assert done is not None
    assert len(done.index.images) == 2
    assert [problem.reason for problem in done.index.skipped] == [f"{sources[1].path}: not found"]


def test_links_to_nothing_are_named_as_images_that_are_skipped(images: Path, tmp_path: Path):
    """As git-annex and DVC leave them, where the data were not fetched."""
    for name in ("annexed.nii.gz", "IM0001", "README.md", "annexed_seg.nii.gz", ".hidden.nii.gz"):
        (images / name).symlink_to(tmp_path / "objects" / name)
    (images / "loop.nii.gz").symlink_to(images / "loop.nii.gz")
    done = index(tmp_path / "corpus", images)
    assert len(done.index.images) == 3
    reasons = {Path(problem.source).name: problem.reason for problem in done.index.skipped}
    assert set(reasons) == {"annexed.nii.gz", "IM0001", "loop.nii.gz"}
    link = images / "annexed.nii.gz"
    target = tmp_path / "objects/annexed.nii.gz"
    assert reasons[link.name] == f"{link}: a link to {target}, which is not there; fetch that, or delete the link"
    assert "cannot be looked into (Too many levels" in reasons["loop.nii.gz"]


@pytest.mark.parametrize("raw", [False, True])
def test_a_folder_that_may_not_be_read_is_named(raw: bool, images: Path, tmp_path: Path, monkeypatch):
    closed = images / ("set/imagesTr/deep" if raw else "closed")
    closed.mkdir(parents=True)
    scandir = os.scandir

    def refuse(path):
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    sources, skipped, _ = find_sources([("images", images)], Choices())
    assert len(sources) == 3
    assert [problem.reason for problem in skipped] == [f"{closed}: cannot be looked into (Permission denied)"]


def test_a_folder_that_goes_while_it_is_looked_into_is_named(images: Path, monkeypatch):
    gone = images / "gone"
    write(gone / "a.nii.gz", noise(4, 20, 20))
    listdir = os.listdir

    def lose(path):
        if Path(path) == gone:
            shutil.rmtree(gone)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", lose)
    sources, skipped, _ = find_sources([("images", images)], Choices())
    assert len(sources) == 3
    assert [problem.reason for problem in skipped] == [f"{gone}: cannot be looked into (No such file or directory)"]


def test_only_what_has_changed_or_gone_is_made_again(images: Path, tmp_path: Path):
    folder = tmp_path / "corpus"
    first = index(folder, images)
    keys = [image.key for image in first.index.images]
    times = [image_path(folder, key).stat().st_mtime_ns for key in keys]
    again = index(folder, images)
    assert (again.num_made, again.num_kept, again.index) == (0, 3, first.index)
    assert [image_path(folder, key).stat().st_mtime_ns for key in keys] == times
    image_path(folder, keys[0]).unlink()
    path = image_path(folder, keys[1])
    path.write_bytes(path.read_bytes()[:-10])  # damaged
    write(images / "new.nii.gz", noise(4, 20, 20))
    assert index(folder, images).num_made == 3
    shutil.copy(images / "new.nii.gz", images / "hippocampus_011_0000.nii.gz")  # another image of that name
    changed = index(folder, images)
    assert changed.num_made == 1
    assert load_corpus(folder).index == changed.index


def test_a_run_that_was_killed_goes_on_from_its_journal(images: Path, tmp_path: Path):
    folder = tmp_path / "corpus"
    first = index(folder, images)
    lines = (folder / JOURNAL).read_text().splitlines()
    (folder / JOURNAL).write_text("\n".join([*lines[:2], lines[2][: len(lines[2]) // 2]]))  # killed in the third line
    (folder / "corpus.json").unlink()
    again = index(folder, images)
    assert (again.num_made, again.num_kept, again.index) == (1, 2, first.index)
    assert len((folder / JOURNAL).read_text().splitlines()) == 3


def test_filters_leave_images_out_and_say_how_many(images: Path, tmp_path: Path):
    write(images / "small.nii.gz", noise(4, 12, 30))
    write(images / "flat.png", noise(30, 30, high=250).astype(np.uint8))
    done = index(tmp_path / "corpus", images, choices=Choices(max_da=5))
    assert len(done.index.images) == 3
    assert sum(done.left_out.values()) == 2
    assert index(tmp_path / "corpus", images, choices=Choices(min_side=8)).num_made == 0  # it was stored
    for filters, number in ((Filters(include=("*.nii.gz",)), 4), (Filters(exclude=("hippo*", "small*")), 1)):
        assert len(find_sources([("images", images)], Choices(filters=filters))[0]) == number


def test_the_index_says_by_what_it_was_filtered_and_of_each_image_its_anisotropy_and_channel(tmp_path: Path):
    write(tmp_path / "images/thick_a.nii.gz", noise(3, 4, 20, 20))  # a 4D series
    choices = Choices(filters=Filters(exclude=("*.png",)), min_side=10)
    done = index(tmp_path / "corpus", tmp_path / "images", choices=choices)
    text = json.loads((tmp_path / "corpus/corpus.json").read_text())
    assert text["filters"] == {"include": [], "exclude": ["*.png"], "min_side": 10, "max_da": None}
    assert [image["channel"] for image in text["images"]] == [0, 1, 2]
    assert {image["da"] for image in text["images"]} == {0}
    assert load_corpus(tmp_path / "corpus").index == done.index


def test_the_same_image_in_another_format_has_the_same_digest_and_changed_voxels_another(images: Path, tmp_path: Path):
    first = sorted(images.iterdir())[0]
    volume = sitk.ReadImage(str(first))
    sitk.WriteImage(volume, str(images / "other.nrrd"))
    before = index(tmp_path / "corpus", images).index
    digests = {image.key: image.sha256 for image in before.images}
    assert len(digests) == 4 and len(set(digests.values())) == 3
    turned = sitk.GetImageFromArray(sitk.GetArrayFromImage(volume)[::-1])
    turned.CopyInformation(volume)
    sitk.WriteImage(turned, str(first))  # as large, in the same place
    changed = index(tmp_path / "corpus", images).index
    assert [image.key for image in changed.images if image.sha256 != digests[image.key]] == [
        f"images-{first.name.removesuffix('.nii.gz')}"
    ]


def test_what_the_user_says_of_modality_and_weight_goes_first(images: Path, tmp_path: Path):
    write(images / "ct_of_a_frame.nii.gz", noise(3, 4, 20, 20))
    told = index(tmp_path / "corpus", images)
    assert {image.modality for image in told.index.images} == {"unknown", "CT"}
    said = index(tmp_path / "corpus", images, choices=Choices(modality="MRI", weights={"images": 0.5}))
    assert {image.modality for image in said.index.images} == {"MRI"}
    assert sorted({image.weight for image in said.index.images}) == pytest.approx([0.5 * 5 / 9, 0.5])
    own = Choices(modality="MRI", modalities={"images": "MRI/T1"})
    assert {image.modality for image in index(tmp_path / "corpus", images, choices=own).index.images} == {"MRI/T1"}


def entry(key: str, weight: float = 1.0, modality: str = "CT") -> CorpusImage:
    return CorpusImage(
        key=key,
        source=key,
        dataset=key[0],
        modality=modality,
        shape=(1, 1, 1),
        spacing_mm=(1, 1, 1),
        num_channels=1,
        weight=weight,
    )


def test_one_image_of_each_dataset_and_modality_is_held_out_if_there_are_two():
    entries = [entry(f"{dataset}{number}") for dataset in "abc" for number in range(6)]
    entries += [entry("a9", modality="MRI"), entry("d0")]
    chosen = {image.key for image in hold_out(entries, 0) if image.is_held_out}
    assert sorted(key[0] for key in chosen) == ["a", "b", "c"]  # of a9 and d0 there is one only
    assert {image.key for image in hold_out(entries[::-1], 0) if image.is_held_out} == chosen
    alone = {image.key for image in hold_out(entries[:6], 0) if image.is_held_out}
    assert alone == {key for key in chosen if key[0] == "a"}  # whatever else there is
    assert len({tuple(image.is_held_out for image in hold_out(entries, seed)) for seed in range(20)}) > 5


def test_the_held_out_image_is_drawn_by_weight():
    entries = [entry("a0", 0.001), entry("a1", 1.0), entry("a2", 0.001)]
    assert sum(hold_out(entries, seed)[1].is_held_out for seed in range(50)) > 45


def test_folders_without_images_and_datasets_of_one_name_are_refused(images: Path, tmp_path: Path):
    with pytest.raises(InputError, match="nowhere: folder not found"):
        find_sources([("nowhere", tmp_path / "nowhere")], Choices())
    for place in ("one", "two"):
        shutil.copytree(HIPPOCAMPUS / "imagesTs", tmp_path / place / "Dataset001_A/imagesTr")
    with pytest.raises(InputError, match="two datasets would be called Dataset001_A; rename one folder"):
        find_sources([("one", tmp_path / "one"), ("two", tmp_path / "two")], Choices())


def test_a_file_is_taken_once_and_names_that_differ_in_ending_or_case_are_told_apart(images: Path, tmp_path: Path):
    write(images / "A.nrrd", noise(4, 20, 20))
    write(images / "a.mha", noise(4, 20, 20))
    (images / "link.nii.gz").symlink_to(images / "hippocampus_011_0000.nii.gz")
    (images / "again").symlink_to(images)
    sources, _, found = find_sources([("images", images), ("inner", images)], Choices())
    keys = [source.key.casefold() for source in sources]
    assert len(keys) == len(set(keys)) == 5
    assert found.passed_over == {"that were found before, under another name": 1}
