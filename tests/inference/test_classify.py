"""Studies to probabilities: batches of any layout give what each study gives alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from medmnist_file import members_of, write_medmnist

from spadunet.classes import ClassSet
from spadunet.errors import InputError
from spadunet.inference.classify import as_input, build_classifier, classify, probabilities_of, resize
from spadunet.inference.studies import studies_of_medmnist
from spadunet.medmnist import open_medmnist
from spadunet.model import Model
from spadunet.network.adapters import Adapter
from spadunet.network.build import build_backbone, build_classification_task
from spadunet.plans.plan_classes import plan_medmnist
from spadunet.preprocessing.views import View
from spadunet.task import ADAPTER_PREFIX, AdapterRecord, Classifier


def model_of(plan, adapter: AdapterRecord | None = None) -> Model:
    """Random weights."""
    torch.manual_seed(0)
    backbone = build_backbone("spad_unet", "tiny")
    task = build_classification_task(len(plan.channel_names), plan.classes.num_outputs, "spad_unet", "tiny")
    state = task.state_dict()
    if adapter is not None:
        change = Adapter(backbone, rank=adapter.rank, num_experts=adapter.num_experts, has_decoder=False)
        tensors = {key: torch.randn_like(value) / 10 for key, value in change.state_dict().items()}
        state |= {ADAPTER_PREFIX + key: value for key, value in tensors.items()}
    classifier = Classifier(plan=plan, pooling="mean", state=state, adapter=adapter)
    return Model(
        backbone="spad_unet",
        preset="tiny",
        backbone_state=backbone.state_dict(),
        tasks={},
        provenance={},
        classifiers={"cubes": classifier},
    )


@pytest.fixture
def medmnist(tmp_path: Path):
    """Four test cubes."""
    return open_medmnist(write_medmnist(tmp_path / "cubes.npz", members_of((8, 8, 8))))


def test_a_batch_gives_what_each_study_gives_alone(medmnist):
    plan = plan_medmnist(medmnist, side_voxels=16)
    network = build_classifier(model_of(plan), "cubes")
    studies = studies_of_medmnist(medmnist, "test", plan)

    together = list(classify(network, studies, plan, precision=torch.float32, batch_size=3))
    alone = list(classify(network, studies, plan, precision=torch.float32, batch_size=1))

    assert [numbers for numbers, _ in together] == [(0, 1, 2), (3,)]
    assert [numbers for numbers, _ in alone] == [(0,), (1,), (2,), (3,)]
    of_batches, of_studies = (torch.cat([logits for _, logits in answers]) for answers in (together, alone))
    assert torch.allclose(of_batches, of_studies, atol=1e-5)
    assert of_batches.std(0).min() > 1e-4  # studies differ


def test_studies_that_differ_in_size_go_in_batches_of_their_own(medmnist):
    plan = plan_medmnist(medmnist).model_copy(update={"input_size_voxels": None})
    network = build_classifier(model_of(plan), "cubes")

    class Mixed:
        names = ("a", "b", "c", "d")

        def __len__(self) -> int:
            return 4

        def __getitem__(self, number: int) -> tuple[View, ...]:
            views = [View(name="v", array=np.zeros((1, 4, 4, 4), np.float32), da=0, geometry=None)] * 2
            return tuple(views[: 1 + (number == 2)])

    answers = list(classify(network, Mixed(), plan, precision=torch.float32))
    assert [numbers for numbers, _ in answers] == [(0, 1), (2,), (3,)]


def test_an_adapter_is_part_of_the_network(medmnist):
    plan = plan_medmnist(medmnist, side_voxels=16)
    studies = studies_of_medmnist(medmnist, "test", plan)
    x = as_input([studies[0]], plan, torch.device("cpu"))
    logits = [
        build_classifier(model_of(plan, adapter), "cubes")(x)
        for adapter in (None, AdapterRecord(rank=2), AdapterRecord(rank=2, num_experts=3))
    ]
    assert not torch.allclose(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2])


def test_an_adapter_that_does_not_fit_is_refused(medmnist):
    plan = plan_medmnist(medmnist, side_voxels=16)
    model = model_of(plan, AdapterRecord(rank=2))
    wrong = Classifier(plan=plan, pooling="mean", state=model.classifiers["cubes"].state, adapter=AdapterRecord(rank=3))
    model.classifiers["cubes"] = wrong
    with pytest.raises(InputError, match="task cubes: weights do not fit"):
        build_classifier(model, "cubes")


def test_pictures_are_interpolated_bicubically_and_volumes_trilinearly(tmp_path: Path):
    for shape, mode in (((6, 6), "bicubic"), ((6, 6, 6), "trilinear")):
        found = open_medmnist(write_medmnist(tmp_path / f"{mode}.npz", members_of(shape)))
        plan = plan_medmnist(found, side_voxels=12)
        x = torch.rand(2, 1, *((1, 6, 6) if mode == "bicubic" else (6, 6, 6))) * 2 - 1
        y = resize(x, plan)
        assert tuple(y.shape[2:]) == plan.input_size_voxels
        flat = x[:, :, 0] if mode == "bicubic" else x
        expected = torch.nn.functional.interpolate(flat, scale_factor=2, mode=mode).clamp(-1, 1)
        assert torch.allclose(y.view_as(expected), expected, atol=1e-6)


def test_values_that_are_not_finite_name_the_study(medmnist):
    plan = plan_medmnist(medmnist, side_voxels=16)
    network = build_classifier(model_of(plan), "cubes")
    with torch.no_grad():
        network.task.head.bias[0] = torch.nan
    with pytest.raises(InputError, match="test_00000: the network gives values that are not finite"):
        list(classify(network, studies_of_medmnist(medmnist, "test", plan), plan, precision=torch.float32))


def test_probabilities_of_classes_sum_to_one_and_findings_stand_alone():
    logits = torch.tensor([[2.0, 2.0], [0.0, -1.0]])
    classes = ClassSet(kind="binary", names=("no", "yes"))
    findings = ClassSet(kind="multi-label", names=("a", "b"))
    assert np.allclose(probabilities_of(logits, classes).sum(1), 1)
    assert np.allclose(probabilities_of(logits, findings), 1 / (1 + np.exp(-logits.numpy())))
