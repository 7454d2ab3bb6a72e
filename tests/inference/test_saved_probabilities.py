"""`--save-probabilities`: what each kind of answer holds, and files that are whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bright_network import engine_of as bright_engine
from bright_network import image_with_box
from bright_network import plan_of as bright_plan
from random_models import CLASSES, REGIONS, engine_of, member_of, plan_of

from spadunet.dataset import RawCase
from spadunet.errors import InputError, OutputError
from spadunet.formats import write_array
from spadunet.image import Image, read_label_map, write_label_map
from spadunet.inference.budget import Budget
from spadunet.inference.pipeline import predict_cases
from spadunet.inference.predict import Engine, segment, views_of
from spadunet.inference.saved_probabilities import KEY, probabilities_path, write_probabilities
from spadunet.inference.stages import StageTimes
from spadunet.labels import LabelSet
from spadunet.postprocessing import Rule

SPACED = (2.0, 1.4, 0.9)


def scan() -> Image:
    """Noise in air, so that it is cropped, stored from the head downwards."""
    array = np.zeros((1, 12, 20, 18), np.float32)
    array[0, 2:, 3:18, 2:] = np.random.default_rng(0).normal(100, 20, (10, 15, 16))
    return Image(array=array, affine=np.eye(4)[[2, 1, 0, 3]] @ np.diag([-1.5, 1.0, 1.2, 1.0]))


ENGINES = {
    "classes": lambda plan: engine_of(member_of(0, plan)),
    "models": lambda plan: engine_of(member_of(0, plan), member_of(1, plan)),
    "mirror": lambda plan: engine_of(member_of(0, plan), mirror=("anterior-posterior",)),
    "subset": lambda plan: engine_of(member_of(0, plan), chosen=("b", "d")),
}


def answer_of(engine: Engine):
    return segment(views_of("a", scan(), keeping(engine)), keeping(engine), StageTimes())


def keeping(engine: Engine) -> Engine:
    return replace(engine, keeps_probabilities=True)


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("spacing", ["native", SPACED])
def test_the_largest_is_the_label_maps_class_whatever_was_asked_for(kind: str, spacing):
    engine = ENGINES[kind](plan_of(CLASSES, depth=8, spacing=spacing))
    answer = answer_of(engine)
    labels: LabelSet = engine.labels
    assert answer.probabilities.shape == (labels.num_outputs, *scan().shape)
    np.testing.assert_array_equal(labels.to_ids(answer.probabilities.argmax(axis=0)), answer.label_map.array)
    np.testing.assert_allclose(answer.probabilities.astype(np.float64).sum(axis=0), 1, atol=5e-4)
    plain = segment(views_of("a", scan(), engine), engine, StageTimes())
    assert plain.probabilities is None
    np.testing.assert_array_equal(plain.label_map.array, answer.label_map.array)


def test_regions_are_apart():
    answer = answer_of(engine_of(member_of(0, plan_of(REGIONS, depth=8, spacing=SPACED))))
    whole, core = answer.probabilities > 0.5
    np.testing.assert_array_equal(np.where(core, 2, np.where(whole, 1, 0)), answer.label_map.array)


def test_what_memory_does_not_hold_fails_its_case_in_one_line():
    engine = replace(engine_of(member_of(0, plan_of(depth=8))), budget=Budget(host_bytes=30_000))
    with pytest.raises(
        InputError, match=r"^a: probabilities of 5 classes or regions of 12×20×18 voxels take 4\.32e-05 "
    ):
        answer_of(engine)


def case_of(folder: Path) -> RawCase:
    """A bright box in air, in a file."""
    image, _ = image_with_box((6, 10, 10), np.eye(4)[[2, 1, 0, 3]])
    path = folder / "a.b_0000.nii.gz"
    write_array(path, image.array[0], image.affine)
    return RawCase(name="a.b", image_paths=(path,), label_path=None)


def test_a_file_lies_beside_each_label_map_and_holds_what_was_before_post_processing(tmp_path: Path):
    rule = Rule(structure="organ", action="remove small", min_mm3=1e6, num_cases=5, dice=(0, 1), hd95_mm=(1, 0))
    engine = keeping(replace(bright_engine(bright_plan("native")), rules=(rule,)))
    place = lambda name, path, label_map, answer: path.parent / "review" / path.name  # noqa: E731
    (outcome,) = predict_cases([case_of(tmp_path)], engine, tmp_path / "out", place=place)
    assert outcome.result == tmp_path / "out/review/a.b.nii.gz", outcome.problem
    assert not read_label_map(outcome.result).array.any()
    with np.load(tmp_path / "out/review/a.b.npz", allow_pickle=False) as file:
        assert file.files == [KEY]
        assert file[KEY].dtype == np.float16
        assert file[KEY].shape == (2, 6, 10, 10)
        assert (file[KEY].argmax(axis=0)[1:4, 2:7, 2:7] == 1).all()


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, full_disk):
    with pytest.raises(OutputError, match=r"a\.npz: cannot be written: no space is left on the device"):
        write_probabilities(tmp_path / "a.npz", np.zeros((2, 3, 4, 5), np.float16))
    assert not list(tmp_path.iterdir())


def test_a_label_map_that_is_there_has_its_probabilities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written = []

    def note(path: Path, label_map, **more) -> None:
        written.append(probabilities_path(path, "a.b").is_file())
        write_label_map(path, label_map, **more)

    monkeypatch.setattr("spadunet.inference.pipeline.write_label_map", note)
    list(predict_cases([case_of(tmp_path)], keeping(bright_engine(bright_plan("native"))), tmp_path / "out"))
    assert written == [True]
