"""A network over a volume: every voxel once, whatever the windows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spadunet.inference.sliding import predict_logits


class Pointwise:
    """Two classes from each voxel alone; remembers what it saw."""

    def __init__(self):
        self.windows: list[Tensor] = []
        self.degrees: set[int] = set()

    def __call__(self, x: Tensor, da: int) -> Tensor:
        self.windows += list(x.clone())
        self.degrees.add(da)
        return torch.cat([x[:, :1] * 2 + 1, -x[:, :1]], dim=1)  # (B, 2, d, h, w)


def random_image(*shape: int) -> Tensor:
    """In [-1, 1]."""
    return torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize(("shape", "patch"), [((7, 10, 12), (4, 4, 8)), ((1, 9, 9), (1, 4, 4)), ((8, 8, 8), (8, 8, 8))])
def test_a_pointwise_network_gives_what_it_gives_the_whole_image_at_once(shape, patch, overlap):
    image, network = random_image(*shape), Pointwise()
    logits = predict_logits(network, image, 3, patch, overlap=overlap)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, Pointwise()(image[None], 3)[0], atol=1e-5)
    assert network.degrees == {3}
    assert {window.shape[1:] for window in network.windows} == {torch.Size(patch)}


def test_windows_overlap_by_half():
    network = Pointwise()
    predict_logits(network, random_image(1, 4, 12), 0, (1, 4, 4), overlap=0.5)
    assert len(network.windows) == 5  # they start at 0, 2, 4, 6, 8


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 9), (4, 3, 4), (1, 20, 20)])
def test_an_image_smaller_than_the_patch_is_seen_whole_and_surrounded_by_the_darkest_value(shape):
    image, network, patch = random_image(*shape), Pointwise(), (4, 4, 8)
    logits = predict_logits(network, image, 0, patch)
    assert torch.allclose(logits, Pointwise()(image[None], 0)[0], atol=1e-5)
    assert {window.shape[1:] for window in network.windows} == {torch.Size(patch)}
    if shape == (1, 1, 1):
        window = network.windows[0]
        assert (window == -1).sum() == window.numel() - 1
        assert image.item() in window


@pytest.mark.parametrize("shape", [(2, 3, 9), (8, 8, 16)], ids=["padded", "larger than the patch"])
def test_a_missing_channel_is_zero_in_every_window_padding_included(shape):
    image = random_image(*shape).repeat(3, 1, 1, 1)
    image[[0, 2]] = 0
    before, network = image.clone(), Pointwise()
    predict_logits(network, image, 0, (4, 4, 8), missing_channels=(0, 2))
    assert torch.equal(image, before)
    assert all(not window[[0, 2]].any() for window in network.windows)
    assert any((window[1] == -1).any() for window in network.windows) == (shape == (2, 3, 9))


def test_the_middle_of_a_window_counts_more_than_its_rim():
    # Two windows of 4 that overlap by 2; the first says 0, the second 1: the nearer one wins, symmetrically.
    answers = iter([0.0, 1.0])

    def number_of_window(x: Tensor, da: int) -> Tensor:
        return torch.full_like(x[:, :1], next(answers))

    logits = predict_logits(number_of_window, random_image(1, 1, 6), 0, (1, 1, 4), overlap=0.5)[0, 0, 0]
    assert logits[:2].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert logits[4:].tolist() == pytest.approx([1, 1], abs=1e-6)
    assert 0 < logits[2] < 0.5 < logits[3] < 1
    assert logits[2] + logits[3] == pytest.approx(1)


def test_bfloat16_runs_under_autocast_and_returns_single_precision():
    weight = torch.ones(2, 1)
    seen = []

    def network(x: Tensor, da: int) -> Tensor:
        y = torch.nn.functional.linear(x.movedim(1, -1), weight).movedim(-1, 1)
        seen.append(y.dtype)
        return y

    logits = predict_logits(network, random_image(2, 4, 4), 0, (2, 4, 4), precision=torch.bfloat16)
    assert seen == [torch.bfloat16]
    assert logits.dtype == torch.float32


def test_no_gradients_are_kept():
    assert not predict_logits(Pointwise(), random_image(2, 4, 4).requires_grad_(), 0, (2, 4, 4)).requires_grad
