"""Published EVA-02 files, by path."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from eva02_file import random_file

from spadunet.errors import InputError
from spadunet.network.eva02 import from_eva02
from spadunet.network.vit import SpadViT
from spadunet.training.eva02 import read_eva02, read_mask_token


def make_vit() -> SpadViT:
    return SpadViT(width=8, depth=1, num_heads=1, hidden_width=8)


def test_a_file_of_exactly_the_published_layout_fills_a_network(tmp_path: Path):
    """Rope tables for every block, the mask token and the head too, all under `module`."""
    vit, file = make_vit(), random_file(8, 1, 8)
    assert {"rope.freqs_cos", "blocks.0.attn.rope.freqs_sin", "mask_token", "lm_head.weight"} <= file.keys()
    torch.save({"module": file}, tmp_path / "eva02.pt")
    tensors = read_eva02(tmp_path / "eva02.pt", vit)
    vit.load_state_dict(tensors)
    assert all(torch.equal(value, tensors[name]) for name, value in from_eva02(file, vit).items())
    assert torch.equal(vit.blocks[0].attn.q_proj.weight, file["blocks.0.attn.q_proj.weight"])
    assert torch.equal(vit.blocks[0].mlp.w3.bias, file["blocks.0.mlp.w3.bias"])
    assert torch.equal(vit.cls_token, file["cls_token"] + file["pos_embed"][:, :1])
    assert torch.equal(read_mask_token(tmp_path / "eva02.pt")["mask_token"], file["mask_token"].flatten())


def test_a_file_of_something_else_is_named_with_the_tensor(tmp_path: Path):
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "resnet.pth")
    with pytest.raises(InputError, match=r"resnet\.pth: lacks cls_token; give an EVA-02 Base or Large as pre-trained"):
        read_eva02(tmp_path / "resnet.pth", make_vit())
