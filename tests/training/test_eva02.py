"""Published EVA-02 files, by path."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from spadunet.errors import InputError
from spadunet.network.eva02 import eva02_shapes, from_eva02
from spadunet.network.vit import SpadViT
from spadunet.training.eva02 import read_eva02


def make_vit() -> SpadViT:
    return SpadViT(width=8, depth=1, num_heads=1, hidden_width=8)


def test_a_published_file_fills_a_network(tmp_path: Path):
    torch.manual_seed(0)
    vit = make_vit()
    file = {name: torch.randn(shape) / math.sqrt(shape[-1]) for name, shape in eva02_shapes(vit).items()}
    torch.save({"module": file | {"lm_head.weight": torch.zeros(4, 8)}}, tmp_path / "eva02.pt")
    tensors = read_eva02(tmp_path / "eva02.pt", vit)
    vit.load_state_dict(tensors)
    assert all(torch.equal(value, tensors[name]) for name, value in from_eva02(file, vit).items())


def test_a_file_of_something_else_is_named_with_the_tensor(tmp_path: Path):
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "resnet.pth")
    with pytest.raises(InputError, match=r"resnet\.pth: lacks cls_token; give an EVA-02 Base or Large as pre-trained"):
        read_eva02(tmp_path / "resnet.pth", make_vit())
