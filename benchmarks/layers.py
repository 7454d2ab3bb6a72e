"""Layers on the hot path against PyTorch's own, in one run: time of forward and backward as a ratio.

    python benchmarks/layers.py

Prints how many times faster ours is: GroupNorm in channels-last (the norm of every block on a CPU), and a convolution
whose depth taps are pooled, run as 2D over the slices, against the same kernel through conv3d.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from spadunet.network.norm import GroupNorm
from spadunet.network.spad_conv import SpadConv, pool_depth_taps

REPEATS = 15
PENDING_LAYERS = ((16, 128), (32, 64), (32, 128), (64, 64))
"""Channels and sides of the two finest levels, which are pending at DA 2, of the presets tiny and base."""


def seconds(step: Callable[[], Tensor]) -> float:
    """Median time of a forward and backward pass."""
    times = []
    for _ in range(REPEATS + 2):
        start = time.perf_counter()
        output = step()
        output.backward(torch.ones_like(output))
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def group_norm(dtype: torch.dtype) -> float:
    """torch's time over ours, 4×16×40×56×40 in channels-last."""
    x = torch.randn(4, 16, 40, 56, 40, dtype=dtype).contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    ours, theirs = GroupNorm(8, 16), nn.GroupNorm(8, 16)
    return seconds(lambda: theirs(x)) / seconds(lambda: ours(x))


def folded_convolution(width: int, side: int, dtype: torch.dtype, layout: torch.memory_format) -> float:
    """conv3d's time over ours, 2×width×10×side×side at DA 2."""
    x = torch.randn(2, width, 10, side, side, dtype=dtype).contiguous(memory_format=layout).requires_grad_()
    layer = SpadConv(width, width, kernel=3, stride=1, level=0).to(dtype)

    def through_conv3d() -> Tensor:
        return functional.conv3d(x, pool_depth_taps(layer.weight, 1), layer.bias, 1, (0, 1, 1))

    return seconds(through_conv3d) / seconds(lambda: layer(x, 2))


def main() -> None:
    """Print the ratios."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; times faster than torch's own layer")
    print(f"GroupNorm, channels-last, float32   {group_norm(torch.float32):.1f}")
    print(f"GroupNorm, channels-last, bfloat16  {group_norm(torch.bfloat16):.1f}")
    for layout, name in ((torch.channels_last_3d, "channels-last"), (torch.contiguous_format, "channels-first")):
        for dtype in (torch.float32, torch.bfloat16):
            for width, side in PENDING_LAYERS:
                ratio = folded_convolution(width, side, dtype, layout)
                kind = f"{name}, {str(dtype).removeprefix('torch.')}, {width} channels, {side}x{side}"
                print(f"pooled 1x3x3 convolution, {kind}  {ratio:.1f}", flush=True)


if __name__ == "__main__":
    main()
