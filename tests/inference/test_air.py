"""Windows beside a body are predicted once: on real scans, with air around them, this changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_testdata_file
from random_models import DEMO, engine_of, member_of, plan_of

from spadunet.image import Image, read_image
from spadunet.inference.predict import predict_image
from spadunet.inference.sliding import Runner
from spadunet.plan import IntensityRule

CT = IntensityRule(kind="window", low=-160, high=240)
MR = IntensityRule(kind="percentiles", low=0.5, high=99.5)


def slice_of_ct() -> Image:
    """The face in a real slice of a head with air around it, which pydicom brings along, (1, 1, 256, 512)."""
    path = get_testdata_file("J2K_pixelrep_mismatch.dcm")
    image = read_image([Path(str(path))])
    return Image(array=image.array[:, :, :256], affine=image.affine)


def heart_in_mr() -> Image:
    """Three slices of a real chest, (1, 3, 256, 256)."""
    image = read_image([DEMO / "Dataset101_SunnybrookLV/imagesTr/SC-HF-NI-36_ph00_0000.nii.gz"])
    return Image(array=image.array[:, 3:6], affine=image.affine)


@pytest.mark.parametrize(("read", "rule"), [(slice_of_ct, CT), (heart_in_mr, MR)], ids=["CT", "MR"])
def test_windows_in_air_are_skipped_and_the_label_map_stays_the_same(read, rule, monkeypatch: pytest.MonkeyPatch):
    plan = plan_of().model_copy(
        update={"intensity": (rule,), "patch_sizes_voxels": dict.fromkeys(range(7), (1, 32, 32))}
    )
    engine, image, counts = engine_of(member_of(0, plan)), read(), []
    run = Runner.run

    def count(self: Runner, crops):
        counts[-1] += len(crops)
        return run(self, crops)

    monkeypatch.setattr(Runner, "run", count)
    counts.append(0)
    found = predict_image(image, engine).array
    monkeypatch.setattr(Runner, "keep", lambda self, crop, logits: None)
    counts.append(0)
    expected = predict_image(image, engine).array
    assert np.array_equal(found, expected)
    assert len(np.unique(found)) > 2
    print("windows with the rule and without:", counts)
    assert counts[0] < 0.98 * counts[1]
