"""Contrasts: absent ones contribute nothing, and their order does not matter."""

from __future__ import annotations

import pytest
import torch

from spadunet.network.build import build_backbone, build_classification_task, build_task
from spadunet.network.heads import SegmentationNetwork, SegmentationTask

BACKBONES = ["spad_unet", "spad_vit"]


def network_of(backbone: str, num_channels: int) -> SegmentationNetwork:
    """With a channel map that has learned something of its own for each channel, and a bias."""
    torch.manual_seed(0)
    network = SegmentationNetwork(build_backbone(backbone, "tiny"), build_task(num_channels, 3, backbone, "tiny"))
    with torch.no_grad():
        network.task.channel_map.weight += 0.5 * torch.randn_like(network.task.channel_map.weight)
        network.task.channel_map.bias += 0.1 * torch.randn(3)
    return network.eval()


def image_of(num_channels: int, *missing: int) -> torch.Tensor:
    """Two patches of noise, without some channels."""
    x = torch.rand(2, num_channels, 4, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    x[:, list(missing)] = 0
    return x


@torch.no_grad()
@pytest.mark.parametrize("backbone", BACKBONES)
def test_an_image_that_lacks_contrasts_gives_what_a_task_without_them_would(backbone: str):
    network = network_of(backbone, 3)
    for there in ((1,), (0, 2)):
        alone = SegmentationNetwork(network.backbone, build_task(len(there), 3, backbone, "tiny")).eval()
        alone.task.heads.load_state_dict(network.task.heads.state_dict())
        alone.task.channel_map.bias.copy_(network.task.channel_map.bias)
        alone.task.channel_map.weight.copy_(network.task.channel_map.weight[:, list(there)] * 3 / len(there))
        x = image_of(3, *({0, 1, 2} - set(there)))
        assert torch.allclose(network(x, 1), alone(x[:, list(there)], 1), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_grey_image_gives_the_same_through_one_contrast_of_three_as_through_all(backbone: str):
    torch.manual_seed(0)
    network = SegmentationNetwork(build_backbone(backbone, "tiny"), build_task(3, 2, backbone, "tiny")).eval()
    grey = image_of(1)
    alone = torch.cat([torch.zeros_like(grey), grey, torch.zeros_like(grey)], dim=1)
    assert torch.allclose(network(alone, 0), network(grey.expand(-1, 3, -1, -1, -1), 0), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_order_of_contrasts_does_not_matter(backbone: str):
    network = network_of(backbone, 5)
    x, order = image_of(5, 2), [3, 1, 4, 0, 2]
    logits = network(x, 0)
    network.task.channel_map.weight.copy_(network.task.channel_map.weight[:, order])
    assert torch.allclose(network(x[:, order], 0), logits, atol=1e-5)


def test_each_image_of_a_batch_lacks_what_it_lacks():
    task = SegmentationTask(2, 2, [4])
    x = torch.ones(3, 2, 1, 1, 1)
    x[1, 0] = x[2] = 0
    assert task.enter(x).flatten(1).tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0]]


def test_the_weights_of_an_absent_contrast_learn_nothing_from_it():
    network = network_of("spad_unet", 2)
    network(image_of(2, 1), 0).square().sum().backward()
    gradient = network.task.channel_map.weight.grad
    assert gradient is not None
    assert not gradient[:, 1].any()
    assert gradient[:, 0].all()


def test_colours_enter_as_they_are_and_contrasts_as_their_mean():
    x = image_of(3)
    for is_colour, expected in ((True, x), (False, x.mean(1, keepdim=True).expand_as(x))):
        for task in (
            build_task(3, 2, "spad_unet", "tiny", is_colour=is_colour),
            build_classification_task(3, 2, "spad_vit", "tiny", is_colour=is_colour),
        ):
            assert torch.allclose(task.enter(x), expected, atol=1e-6)
