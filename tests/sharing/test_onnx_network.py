"""ONNX files: onnxruntime gives what torch gives, and the file alone tells how to use it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from small_model import PATCHES, TASKS, make_adapted_model, make_model, shrink_presets

import spadunet
from spadunet.errors import InputError, OutputError
from spadunet.image import read_image
from spadunet.inference.predict import build_network
from spadunet.labels import LabelSet, Region
from spadunet.model import Model
from spadunet.preprocessing.preprocess import preprocess
from spadunet.sharing import onnx_network
from spadunet.sharing.onnx_network import OnnxNotes, export_onnx
from spadunet.task import AdapterRecord

DEMO = Path(spadunet.__file__).parent / "demo/data"
HEART = DEMO / "Dataset101_SunnybrookLV/imagesTs/SC-HYP-08_ph00_0000.nii.gz"
HIPPOCAMPUS = DEMO / "Dataset004_Hippocampus/imagesTs/hippocampus_014_0000.nii.gz"
TASK = TASKS[0]


def run(path: Path, image: np.ndarray) -> np.ndarray:
    """Logits by onnxruntime alone."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


def expected(model: Model, da: int, image: np.ndarray) -> np.ndarray:
    """Logits by torch."""
    with torch.no_grad():
        return build_network(model, TASK)(torch.from_numpy(image), da).numpy()


def real_patches(model: Model, da: int) -> np.ndarray:
    """The middle of a real image, prepared as the plan says, and its mirror image; both channels hold the image."""
    plan = model.tasks[TASK].plan
    one = plan.model_copy(
        update={"channel_names": ("MRI",), "intensity": plan.intensity[:1], "target_spacing_mm": "native"}
    )
    image = preprocess("case", read_image([HIPPOCAMPUS if da < 2 else HEART]), None, one).image[0]  # (D, H, W)
    patch = plan.patch_sizes_voxels[da]
    first = [(size - wanted) // 2 for size, wanted in zip(image.shape, patch, strict=True)]
    assert min(first) >= 0
    crop = image[tuple(slice(start, start + size) for start, size in zip(first, patch, strict=True))]
    assert crop.std() > 0.1  # something is to be seen
    return np.stack([np.stack([one, one]) for one in (crop, crop[:, ::-1])])  # (2, 2, d, h, w)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Model:
    """A U-Net of two levels, always the same."""
    shrink_presets(monkeypatch)
    return make_model()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """At a degree of anisotropy of 2. Exporting takes torch some ten seconds, whatever the network."""
    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    with pytest.MonkeyPatch.context() as monkeypatch:
        shrink_presets(monkeypatch)
        export_onnx(make_model(), TASK, 2, path)
    return path


@pytest.mark.slow
def test_the_network_is_static_but_for_the_batch_and_gives_torchs_logits(small: Model, exported: Path):
    program = onnx.load(exported)
    onnx.checker.check_model(program, full_check=True)
    sizes = [
        [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (*program.graph.input, *program.graph.output)
    ]
    assert sizes == [["batch", 2, *PATCHES[2]], ["batch", 3, *PATCHES[2]]]
    assert [value.name for value in (*program.graph.input, *program.graph.output)] == ["image", "logits"]
    image = real_patches(small, 2)
    image[1, 1] = 0  # a channel that is missing
    for batch in (image[:1], image[1:], image, np.concatenate([image, image])):
        logits = expected(small, 2, batch)
        assert logits.std() > 0.01
        np.testing.assert_allclose(run(exported, batch), logits, atol=1e-4)


@pytest.mark.slow
def test_kernels_are_those_of_the_degree_of_anisotropy(small: Model, exported: Path):
    image = real_patches(small, 2)[:1]
    logits = run(exported, image)
    assert np.abs(logits - expected(small, 2, image)).max() < 1e-4 < np.abs(logits - expected(small, 0, image)).max()
    kernels = {len(it.dims) for it in onnx.load(exported).graph.initializer if len(it.dims) > 3}
    assert kernels == {4}  # all of them flat at this degree: two levels, both pending


@pytest.mark.slow
def test_the_file_tells_how_images_are_prepared_and_what_outputs_mean(small: Model, exported: Path):
    (told,) = onnx.load(exported).metadata_props
    notes = OnnxNotes.from_json(told.value)
    plan = small.tasks[TASK].plan
    assert told.key == "spadunet"
    assert (notes.task, notes.degree_of_anisotropy, notes.patch_size_voxels) == (TASK, 2, PATCHES[2])
    assert (notes.channel_names, notes.intensity, notes.labels) == (plan.channel_names, plan.intensity, plan.labels)
    assert (notes.target_spacing_mm, notes.activation) == ((8.0, 1.25, 1.25), "softmax")
    assert len(json.loads(told.value)["how_to"]) > 3


def test_regions_are_told_to_need_a_sigmoid(small: Model):
    regions = (Region(name="all", ids=(1, 2), painted_id=1), Region(name="core", ids=(2,), painted_id=2))
    labels = LabelSet(names=("background", "a", "b"), ids=(0, 1, 2), regions=regions)
    plan = small.tasks[TASK].plan.model_copy(update={"labels": labels})
    assert onnx_network.notes_of(small, TASK, plan, 0).activation == "sigmoid"


@pytest.mark.slow
def test_the_file_tells_nothing_of_the_machine(exported: Path):
    content = exported.read_bytes()
    for secret in (b"site-packages", b".py", b"Traceback", str(Path.home()).encode() + b"/", b"forward"):
        assert secret not in content


@pytest.mark.slow
def test_the_example_in_the_docs_runs(exported: Path, tmp_path: Path):
    text = (Path(__file__).parents[2] / "docs/sharing.md").read_text(encoding="utf-8")
    example = text.split("```python\n")[1].split("```")[0]
    shutil.copy(exported, tmp_path / "liver.onnx")
    code = f"{example}\nprint(label_map.shape, set(label_map.ravel().tolist()) <= {{0, 1, 4}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.strip() == f"{PATCHES[2]} True", done.stderr


@pytest.mark.slow
def test_the_file_runs_without_torch_and_spadunet(exported: Path):
    code = f"""
import sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession({str(exported)!r}, providers=["CPUExecutionProvider"])
print(session.run(None, {{"image": np.zeros((1, 2, *{PATCHES[2]}), np.float32)}})[0].shape)
assert not {{"torch", "spadunet", "onnx"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str((1, 3, *PATCHES[2])), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("da", [0, 1, 3])
@pytest.mark.parametrize("backbone", ["spad_unet", "spad_vit"])
def test_onnxruntime_equals_torch_on_real_images(backbone: str, da: int, tmp_path: Path):
    model = make_model(backbone=backbone)
    plan = model.tasks[TASK].plan
    patches = plan.patch_sizes_voxels | {0: (24, 40, 32), 1: (20, 40, 32), 3: (6, 72, 56)}
    task = type(model.tasks[TASK])(
        plan=plan.model_copy(update={"patch_sizes_voxels": patches}), state=model.tasks[TASK].state
    )
    model = type(model)(**{**vars(model), "tasks": {TASK: task}})
    differs = export_onnx(model, TASK, da, tmp_path / "real.onnx")
    assert differs < 1e-4
    image = real_patches(model, da)
    logits = expected(model, da, image)
    assert logits.std() > 0.01
    np.testing.assert_allclose(run(tmp_path / "real.onnx", image), logits, atol=1e-4)


@pytest.mark.slow
def test_other_logits_than_torchs_leave_no_file(small: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    honest = onnx_network.static_network

    def spoilt(network, da, patch):
        static = honest(network, da, patch)
        with torch.no_grad():
            static.network.task.heads[0].bias += 0.01
        return static

    monkeypatch.setattr(onnx_network, "static_network", spoilt)
    with pytest.raises(OutputError, match=r"x\.onnx: not written, since onnxruntime's logits differ .* by 0\.01"):
        export_onnx(small, TASK, 2, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_weights_too_large_for_one_file_are_told(small: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(onnx_network, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match="weights of more than 1e-06 GB do not fit into an ONNX file"):
        export_onnx(small, TASK, 2, tmp_path / "x.onnx")


def test_a_missing_extra_is_told_with_the_remedy(small: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from importlib import util

    honest = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "onnxscript" else honest(name))
    with pytest.raises(InputError, match=r"needs onnxscript: pip install 'spadunet\[onnx\]'"):
        export_onnx(small, TASK, 2, tmp_path / "x.onnx")


@pytest.mark.slow
def test_a_lora_task_is_exported_with_its_adapter_in_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shrink_presets(monkeypatch)
    model = make_adapted_model(AdapterRecord(rank=2))
    image = np.random.default_rng(0).uniform(-1, 1, (1, 2, *PATCHES[2])).astype(np.float32)
    export_onnx(model, TASKS[1], 2, tmp_path / "lora.onnx")
    with torch.no_grad():
        adapted = build_network(model, TASKS[1])(torch.from_numpy(image), 2).numpy()
    assert np.abs(run(tmp_path / "lora.onnx", image) - adapted).max() < 1e-4
    frozen = replace(model, tasks={TASKS[1]: make_model().tasks[TASKS[1]]})
    with torch.no_grad():
        assert np.abs(build_network(frozen, TASKS[1])(torch.from_numpy(image), 2).numpy() - adapted).max() > 1e-2


def test_a_task_of_several_experts_is_not_exported_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shrink_presets(monkeypatch)
    with pytest.raises(InputError, match="has an adapter of 3 experts, which its router weighs anew for each image"):
        export_onnx(make_adapted_model(AdapterRecord(rank=2, num_experts=3)), TASKS[1], 2, tmp_path / "experts.onnx")
    assert not list(tmp_path.iterdir())
