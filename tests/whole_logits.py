"""A sweep's slabs put together again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spadunet.inference.sliding import Network, sweep_axis, sweep_logits
from spadunet.spacing import Shape


def predict_logits(network: Network, image: Tensor, da: int, patch_size_voxels: Shape, **options: Any) -> Tensor:
    """All slabs of `sweep_logits` together: (K, D, H, W) float32."""
    depth, height, width = image.shape[1:]
    axis = sweep_axis((depth, height, width), patch_size_voxels)
    slabs = [slab.logits.float().clone() for slab in sweep_logits(network, image, da, patch_size_voxels, **options)]
    return torch.cat(slabs, dim=axis + 1)
