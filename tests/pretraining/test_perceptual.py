"""LPIPS in the layouts that exist, against a forward written here; structural dissimilarity; slices by sample."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from spadunet.errors import InputError
from spadunet.pretraining.perceptual import (
    choose_slices,
    load_lpips,
    structural_dissimilarity,
    take_slices,
)
from spadunet.tensors import write_tensors

# torchvision's vgg16().features: numbers of its convolutions with outputs and inputs; pooling at 4, 9, 16, 23.
CONVOLUTIONS = {
    0: (64, 3),
    2: (64, 64),
    5: (128, 64),
    7: (128, 128),
    10: (256, 128),
    12: (256, 256),
    14: (256, 256),
    17: (512, 256),
    19: (512, 512),
    21: (512, 512),
    24: (512, 512),
    26: (512, 512),
    28: (512, 512),
}
POOLINGS = (4, 9, 16, 23)
SLICE_ENDS = (4, 9, 16, 23, 30)  # of lpips' five slices of it


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """As torchvision names them, with LPIPS' linear layers."""
    generator = torch.Generator().manual_seed(0)
    state = {"classifier.0.weight": torch.zeros(3, 3)}
    for number, (outputs, inputs) in CONVOLUTIONS.items():
        scale = (2 / (9 * inputs)) ** 0.5
        state[f"features.{number}.weight"] = torch.randn((outputs, inputs, 3, 3), generator=generator) * scale
        state[f"features.{number}.bias"] = torch.randn(outputs, generator=generator) * 0.1
    for number, width in enumerate((64, 128, 256, 512, 512)):
        state[f"lin{number}.model.1.weight"] = torch.rand((1, width, 1, 1), generator=generator)
    return state


def is_linear(name: str) -> bool:
    return name.startswith("lin")


def as_lpips(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The whole state of lpips.LPIPS(net="vgg"): five slices, each linear layer under two names, the scaling."""
    state = {"scaling_layer.shift": torch.zeros(1, 3, 1, 1), "scaling_layer.scale": torch.ones(1, 3, 1, 1)}
    for name, value in weights.items():
        if is_linear(name):
            state |= {name: value, name.replace("lin", "lins.", 1): value}
        elif name.startswith("features."):
            number = int(name.split(".")[1])
            slice_ = 1 + next(i for i, end in enumerate(SLICE_ENDS) if number < end)
            state[name.replace("features", f"net.slice{slice_}")] = value
    return state


def expected_distance(weights: dict[str, Tensor], a: Tensor, b: Tensor) -> Tensor:
    """LPIPS on VGG-16 (Zhang et al. 2018), in float64."""
    shift = torch.tensor([-0.030, -0.088, -0.188], dtype=torch.float64).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450], dtype=torch.float64).view(1, 3, 1, 1)
    a, b = (a.double() - shift) / scale, (b.double() - shift) / scale
    total, tap = torch.zeros((), dtype=torch.float64), 0
    for number in range(31):
        if number in POOLINGS or number == 30:
            unit = [x / x.square().sum(1, keepdim=True).sqrt() for x in (a, b)]
            total = (
                total
                + functional.conv2d((unit[0] - unit[1]).square(), weights[f"lin{tap}.model.1.weight"].double()).mean()
            )
            tap += 1
            a, b = (functional.max_pool2d(x, 2) for x in (a, b))
        elif number in CONVOLUTIONS:
            weight, bias = (weights[f"features.{number}.{kind}"].double() for kind in ("weight", "bias"))
            a, b = (functional.conv2d(x, weight, bias, padding=1) for x in (a, b))
        else:
            a, b = a.relu(), b.relu()
    return total


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.rand((2, 3, 32, 32), generator=generator) * 2 - 1 for _ in range(2))


@pytest.mark.parametrize(
    "layout",
    [
        "two files",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("one file", "lpips", "monai", "safetensors")),
    ],
)
def test_every_layout_gives_the_published_distance(layout, weights, pair, tmp_path):
    path, second = tmp_path / "weights.pth", tmp_path / "vgg.pth"
    paths = [path]
    if layout == "two files":
        torch.save({name: value for name, value in weights.items() if not is_linear(name)}, path)
        torch.save({name: value for name, value in weights.items() if is_linear(name)}, second)
        paths = [path, second]
    elif layout == "one file":
        torch.save({"state_dict": weights}, path)
    elif layout == "lpips":
        torch.save(as_lpips(weights), path)
    elif layout == "monai":
        torch.save({f"perceptual_function.{name}": value for name, value in as_lpips(weights).items()}, path)
    else:
        paths = [tmp_path / "weights.safetensors"]
        write_tensors(paths[0], weights)
    network = load_lpips(paths)
    a, b = pair
    expected = float(expected_distance(weights, a, b))
    assert expected > 0.1
    assert float(network(a, b)) == pytest.approx(expected, rel=1e-3)  # published shift and scale have three digits
    assert float(network(a, a)) == 0
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.slow
def test_gradient_reaches_the_image_and_stays_finite_on_a_constant_one(weights, tmp_path):
    torch.save(weights, tmp_path / "weights.pth")
    network = load_lpips([tmp_path / "weights.pth"])
    image = torch.full((1, 3, 16, 16), -1.0, requires_grad=True)
    network(image, torch.zeros(1, 3, 16, 16)).backward()
    assert image.grad.isfinite().all()
    assert image.grad.abs().sum() > 0


def refusal(*paths: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_lpips(paths)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.slow
def test_what_is_missing_is_named_with_where_to_get_it(weights, tmp_path):
    path = tmp_path / "weights.pth"
    assert refusal(path).startswith(f"--perceptual-weights {path}: weights not found; ")
    torch.save({name: value for name, value in weights.items() if not is_linear(name)}, path)
    assert "lacks linear.0, one of LPIPS' linear layers lin0 to lin4; give its vgg.pth" in refusal(path)
    torch.save({name: value for name, value in weights.items() if is_linear(name)}, path)
    assert "lacks features.0.weight, one of VGG-16's convolutions; give torchvision's vgg16" in refusal(path)
    torch.save(weights | {"features.5.weight": torch.zeros(192, 64, 5, 5)}, path)
    assert "features.5.weight has shape (192, 64, 5, 5), not (128, 64, 3, 3)" in refusal(path)


def test_a_file_with_code_in_it_is_refused_and_not_run(tmp_path):
    class Dangerous:
        def __reduce__(self):
            return Path.touch, (tmp_path / "was_run",)

    torch.save({"features.0.weight": Dangerous()}, tmp_path / "weights.pth")
    assert "cannot be read as weights" in refusal(tmp_path / "weights.pth")
    assert not (tmp_path / "was_run").exists()
    (tmp_path / "weights.pth").write_text("no weights")
    assert "cannot be read as weights" in refusal(tmp_path / "weights.pth")


# --- Without weights


def checkerboard(contrast: float, size: int = 64) -> Tensor:
    """(1, 3, size, size) of fields of four pixels."""
    field = (torch.arange(size) // 4) % 2
    return ((field[:, None] ^ field) * 2.0 - 1).expand(1, 3, -1, -1) * contrast


def test_the_same_image_has_no_dissimilarity_and_an_inverted_one_the_most():
    image = checkerboard(0.5)
    assert float(structural_dissimilarity(image, image)) == pytest.approx(0, abs=1e-6)
    assert float(structural_dissimilarity(-image, image)) > 1


def test_a_lost_texture_counts_the_same_in_a_faint_region():
    """Where L1 sees a fifth of the error, the dissimilarity is nearly as large: a texture is lost all the same."""
    blank = torch.zeros(1, 3, 64, 64)
    strong, faint = (float(structural_dissimilarity(blank, checkerboard(c))) for c in (1.0, 0.2))
    assert faint > 0.9 * strong


def test_one_window_by_hand():
    """8×8 pixels, left half 0 and right half 1 (in [0, 1]), against their mean: means alike, no covariance."""
    image = torch.cat([torch.full((1, 1, 8, 4), -1.0), torch.full((1, 1, 8, 4), 1.0)], dim=3)
    expected = 1 - 0.03**2 / (0.25 + 0.03**2)  # variances 0.25 and 0
    assert float(structural_dissimilarity(image, torch.zeros(1, 1, 8, 8))) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (16, 40)])
def test_any_size_has_a_finite_dissimilarity_with_finite_gradients(size):
    image = torch.zeros(1, 3, *size, requires_grad=True)
    structural_dissimilarity(image, torch.full((1, 3, *size), 0.5)).backward()
    assert image.grad.isfinite().all()


# --- Slices


def test_slices_are_drawn_by_sample_whatever_the_rank():
    together = choose_slices(64, 0, [5, 6, 7, 8])
    apart = torch.cat([choose_slices(64, 0, [5, 6]), choose_slices(64, 0, [7, 8])])
    assert torch.equal(together, apart)
    assert together.shape == (4, 24)
    assert (together.diff() > 0).all()
    assert int(together.min()) >= 0
    assert int(together.max()) < 64
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together, choose_slices(64, 1, [5, 6, 7, 8]))


def test_all_slices_of_a_thin_volume_are_taken_in_order():
    x = torch.arange(2 * 3 * 2).view(2, 1, 3, 2, 1).float()
    slices = choose_slices(3, 0, [0, 1])
    assert slices.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert torch.equal(take_slices(x, slices), x.movedim(2, 1).flatten(0, 1))
    assert take_slices(x, torch.tensor([[2], [0]])).flatten(1).tolist() == [[4, 5], [6, 7]]
