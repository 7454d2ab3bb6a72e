"""Channels in prediction: by name where names are known, whatever their order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from spadunet.channels import match_names, pick_channels
from spadunet.errors import InputError
from spadunet.image import Image
from spadunet.inference.cases import find_cases
from spadunet.inference.channels import dropped_contrasts, order_of
from spadunet.labels import LabelSet
from spadunet.plan import IntensityRule, Plan
from spadunet.training.variety import VarietyOptions

RULE = IntensityRule(kind="percentiles", low=0.5, high=99.5)


def plan_of(*channels: str, optional: tuple[str, ...] = ()) -> Plan:
    return Plan(
        dataset_name="A",
        channel_names=channels,
        optional_channels=optional,
        intensity=(RULE,) * len(channels),
        target_spacing_mm="native",
        degree_of_anisotropy=0,
        patch_sizes_voxels=dict.fromkeys(range(7), (4, 4, 4)),
        labels=LabelSet(names=("background", "a"), ids=(0, 1)),
        memory_gb=1,
        fingerprint_digest="",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The images of a dataset."""
    (tmp_path / "imagesTs").mkdir()
    return tmp_path / "imagesTs"


def describe(folder: Path, *channels: str) -> None:
    """Write dataset.json beside the images."""
    content = {"channel_names": dict(enumerate(channels)), "labels": {"background": 0, "a": 1}}
    (folder.parent / "dataset.json").write_text(json.dumps(content))


def test_names_match_whatever_their_order_and_capitals_and_each_once():
    assert match_names(("T1", "T2", "FLAIR"), ("flair", "T2 ", "DWI")) == (None, 1, 0)
    assert match_names(("MRI", "MRI", "MRI"), ("MRI", "CT", "MRI")) == (0, 2, None)
    assert match_names(("T1_Gd", "b-value 50"), ("B value_50", "t1-gd")) == (1, 0)
    assert match_names(("T1Gd",), ("T1",)) == (None,)


def test_channels_are_picked_and_what_is_not_there_is_zero():
    array = np.arange(1, 4, dtype=np.float32)[:, None, None, None] * np.ones((3, 1, 2, 2), np.float32)
    picked = pick_channels(Image(array=array, affine=np.eye(4)), (2, None, 0))
    assert picked.array[:, 0, 0, 0].tolist() == [3, 0, 1]
    assert picked.missing_channels == (1,)
    array[2] = 0
    without = Image(array=array, affine=np.eye(4), missing_channels=(2,))
    assert pick_channels(without, (2, 1)).missing_channels == (0,)
    with pytest.raises(InputError, match="none of the channels that the model knows"):
        pick_channels(without, (2,))


def test_without_names_channels_go_by_their_order(folder: Path):
    order = order_of(plan_of("T1", "T2", optional=("T2",)), folder)
    assert (order.names, order.numbers, order.optional) == (("T1", "T2"), (0, 1), (1,))


def test_names_of_dataset_json_decide(folder: Path):
    describe(folder, "T2", "FLAIR", "T1")
    order = order_of(plan_of("T1", "T2"), folder)
    assert (order.numbers, order.optional) == ((2, 0), (1,))  # nobody needs FLAIR
    order = order_of(plan_of("T1", "DWI", optional=("DWI",)), folder)
    assert (order.numbers, order.optional) == ((2, None), (0, 1))


def test_names_of_the_user_go_before_those_of_dataset_json(folder: Path):
    describe(folder, "T2", "T1")
    assert order_of(plan_of("T1", "T2"), folder, ["T1", "T2"]).numbers == (0, 1)


def test_other_names_altogether_go_by_their_order_and_half_of_them_are_refused(folder: Path):
    describe(folder, "a", "b")
    assert order_of(plan_of("T1", "T2"), folder).numbers == (0, 1)
    describe(folder, "T1", "b")
    with pytest.raises(InputError, match=r"dataset\.json names T1, b, without T2, which the model needs; .*--channels"):
        order_of(plan_of("T1", "T2"), folder)
    with pytest.raises(InputError, match="--channels names a, b, without T1, T2"):
        order_of(plan_of("T1", "T2"), folder, ["a", "b"])


def test_names_of_some_channels_are_enough_where_training_dropped_contrasts(folder: Path):
    plan = plan_of("T1", "T2", "FLAIR")
    order = order_of(plan, folder, ["FLAIR", "t1"], may_lack=True)
    assert (order.names, order.numbers, order.optional) == (("FLAIR", "t1"), (1, None, 0), ())
    message = "^--channels names T1, without T2, FLAIR, which the model needs: no patch .*; give images of all its"
    with pytest.raises(InputError, match=message):
        order_of(plan, folder, ["T1"])
    for names in (["T1", "DWI"], ["DWI"]):  # a name that the model does not know is rather a slip
        with pytest.raises(InputError, match="name the channels of files .* T1, T2, FLAIR, or only those that are"):
            order_of(plan, folder, names, may_lack=True)
    describe(folder, "T1", "T2")  # the user has not said that FLAIR is not there
    with pytest.raises(InputError, match="without FLAIR, which the model needs; .*, or only those that are there"):
        order_of(plan, folder, may_lack=True)


def test_what_a_run_tells_of_itself_says_whether_contrasts_were_dropped():
    def dropped(plan: Plan, **options: float) -> bool:
        return dropped_contrasts(plan, {"variety": str(VarietyOptions(**options))})

    several = plan_of("T1", "T2")
    assert dropped(several)
    assert dropped(several, channel_dropout=1e-05)
    assert not dropped(several, channel_dropout=0)
    assert not dropped(plan_of("T1"))
    assert not dropped(plan_of("red", "green", "blue"))
    assert not dropped_contrasts(several, {})


def test_a_missing_file_of_a_needed_channel_is_told_with_the_remedy(folder: Path):
    (folder / "a_0000.nii.gz").touch()
    with pytest.raises(
        InputError, match=r"wrong channel count: .*; a model that can do without .* by --channels which"
    ):
        find_cases(folder, 2)
    (folder / "a_0001.nii.gz").touch()
    (folder / "a_0002.nii.gz").touch()
    with pytest.raises(InputError, match=r"remove the extra files$"):
        find_cases(folder, 2)


def test_a_dataset_json_that_cannot_be_read_is_told_and_passed_over(folder: Path, caplog: pytest.LogCaptureFixture):
    (folder.parent / "dataset.json").write_text("{")
    assert order_of(plan_of("T1", "T2"), folder).numbers == (0, 1)
    assert "passed over" in caplog.text
