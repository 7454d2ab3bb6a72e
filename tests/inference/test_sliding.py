"""A network over a volume: every voxel once, whatever the windows."""

from __future__ import annotations

import errno
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor
from whole_logits import predict_logits

from spadunet.errors import OutputError
from spadunet.inference.sliding import sweep_axis, sweep_logits
from spadunet.inference.storage import Storage, Sums


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


# --- plane by plane


class Neighbours:
    """Three outputs that look at what surrounds a voxel, so that a window's rim is not as its middle."""

    def __init__(self):
        self.weight = torch.randn(3, 1, 3, 3, 3, generator=torch.Generator().manual_seed(1))
        self.num_windows = 0

    def __call__(self, x: Tensor, da: int) -> Tensor:
        self.num_windows += len(x)
        return torch.nn.functional.conv3d(x, self.weight, padding=1)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("overlap", [0.25, 0.5, 0.75])
@pytest.mark.parametrize(
    ("shape", "patch"),
    [((21, 12, 9), (6, 8, 8)), ((5, 30, 9), (8, 8, 8)), ((5, 9, 33), (4, 8, 8)), ((3, 3, 3), (4, 8, 8))],
)
def test_logits_are_those_of_monais_sliding_window(shape, patch, overlap, batch_size):
    image, network = random_image(*shape), Neighbours()
    expected = sliding_window_inference(
        image[None], patch, 1, lambda x: network(x, 0), overlap, mode="gaussian", sigma_scale=0.125, cval=-1
    )
    logits = predict_logits(network, image, 0, patch, overlap=overlap, batch_size=batch_size)
    torch.testing.assert_close(logits, expected[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("shape", "axis"), [((40, 9, 9), 0), ((5, 40, 9), 1), ((5, 9, 40), 2), ((8, 8, 8), 0)])
def test_slabs_follow_each_other_along_the_axis_where_the_least_is_held(shape, axis):
    image, network, patch = random_image(*shape), Neighbours(), (8, 8, 8)
    assert sweep_axis(shape, patch) == axis
    slabs = [
        (slab.planes, slab.logits.clone(), len(slab.logits.untyped_storage()))
        for slab in sweep_logits(network, image, 0, patch)
    ]
    assert [planes.start for planes, *_ in slabs] == [0, *(planes.stop for planes, *_ in slabs[:-1])]
    assert slabs[-1][0].stop == shape[axis]
    whole = torch.cat([logits for _, logits, _ in slabs], dim=axis + 1)
    torch.testing.assert_close(whole, predict_logits(network, image, 0, patch))
    sides = [max(size, 8) for size in shape]
    sides[axis] = 8
    assert all(held == 4 * 3 * math.prod(sides) for *_, held in slabs)  # float32 of three outputs


@pytest.mark.parametrize(
    ("storage", "tolerance"),
    [
        (Storage(place="device"), 1e-6),
        (Storage(place="host", dtype=torch.float16), 0.02),
        (Storage(place="disk"), 1e-6),
        (Storage(place="disk", dtype=torch.float16), 0.02),
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(40, 9, 9), (5, 9, 40)])
def test_logits_are_the_same_wherever_they_are_added_up(storage: Storage, tolerance: float, shape, tmp_path: Path):
    image, network = random_image(*shape), Neighbours()
    expected = predict_logits(network, image, 0, (4, 8, 8), overlap=0.75)
    found = predict_logits(network, image, 0, (4, 8, 8), overlap=0.75, storage=replace(storage, folder=tmp_path))
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    assert not list(tmp_path.iterdir())  # the file has no name


def test_windows_in_which_nothing_is_to_be_seen_are_predicted_once():
    image = torch.full((1, 8, 40, 40), -1.0)
    image[:, :, 28:, 28:] = random_image(8, 12, 12)
    network, whole = Neighbours(), Neighbours()
    logits = predict_logits(network, image, 0, (8, 8, 8))
    assert network.num_windows == 3 * 3 + 1  # of 9 x 9 at 0, 4 … 32, those from 24 on see something
    expected = sliding_window_inference(
        image[None], (8, 8, 8), 1, lambda x: whole(x, 0), 0.5, mode="gaussian", sigma_scale=0.125
    )
    torch.testing.assert_close(logits, expected[0], rtol=1e-5, atol=1e-5)


def test_windows_of_another_single_value_are_not_taken_for_dark_ones():
    image = torch.full((1, 8, 8, 24), -1.0)
    image[..., 12:] = 0.5
    network = Neighbours()
    logits = predict_logits(network, image, 0, (8, 8, 8), overlap=0)
    assert network.num_windows == 3
    torch.testing.assert_close(logits[..., 16:], Neighbours()(image[None, ..., 16:], 0)[0])


@pytest.mark.parametrize("has_fallocate", [True, False])
def test_a_full_disk_is_told_before_logits_are_added_up(
    has_fallocate: bool, tmp_path: Path, limited_files, monkeypatch: pytest.MonkeyPatch
):
    if not has_fallocate:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    on_disk = Storage(place="disk", folder=tmp_path)
    expected = rf"{tmp_path}: cannot hold the logits of a volume, 1.049 MB: .*larger.*or give a larger --memory-gb"
    with limited_files(1 << 19), pytest.raises(OutputError, match=expected):
        Sums((4, 64, 64, 16), on_disk, torch.device("cpu"))
    assert not list(tmp_path.iterdir())
    sums = Sums((4, 64, 64, 20), on_disk, torch.device("cpu"))
    assert not sums.logits.any()


def test_a_file_system_that_reserves_nothing_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def unknown(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unknown, raising=False)
    written = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: written.append(write(file, data)) or written[-1])
    assert not Sums((3, 64, 64, 64), Storage(place="disk", folder=tmp_path), torch.device("cpu")).logits.any()
    assert sum(written) == 3 * 64**3 * 4
