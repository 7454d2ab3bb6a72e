"""Spatially adaptive convolutions: dense operators whose depth reach follows the image's spacing.

Letters: B batch, C channels, D/H/W depth, height, width.

Every layer knows its *level* n, the number of in-plane halvings on its finer side, and is told the
degree of anisotropy `da` of the batch. Depth halvings are *pending* while da > n: the slices are still too far
apart to be mixed. A pending layer pools its kernel's depth taps by summation and strides less in depth, or not at
all; otherwise it is an ordinary 3D convolution (Luo et al. 2024, "Building Universal Foundation Models for Medical
Image Analysis with Spatially Adaptive Networks", section 4).
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

MIN_PATCH_KERNEL = 8
"""From this kernel size on a convolution with stride = kernel runs as a matrix product over patches.

For the patch embedding, 16, that takes between a twelfth (bfloat16) and the same (float32) of oneDNN's time in
training; for kernels of 2 and 4 it takes more (torch 2.13.0, Xeon with AMX).
"""


def num_pending(da: int, level: int) -> int:
    """Depth halvings that a layer at `level` still has to leave out."""
    return max(da - level, 0)


def depth_taps_and_stride(kernel: int, stride: int, pending: int) -> tuple[int, int]:
    """Depth kernel size and depth stride that remain when `pending` halvings are left out.

    Kernel = stride = 2^k becomes 2^max(k - pending, 0) in depth; kernel 3 becomes 1 with stride 1.
    """
    if pending == 0:
        return kernel, stride
    if kernel == stride:
        reduced = max(stride >> pending, 1)
        return reduced, reduced
    return 1, 1


def pool_depth_taps(weight: Tensor, num_taps: int) -> Tensor:
    """Sum contiguous groups of depth taps: (O, I, kD, kH, kW) to (O, I, num_taps, kH, kW).

    Summation keeps a depth-constant input's output, so an adapted kernel sees what the dense one would see
    on slices repeated to isotropic spacing.
    """
    if weight.shape[2] == num_taps:
        return weight
    return weight.unflatten(2, (num_taps, -1)).sum(3)  # (O, I, num_taps, kH, kW)


def fold_slices(x: Tensor) -> Tensor:
    """(B, C, D, H, W) to (B*D, C, H, W): slices become a batch of 2D images."""
    return x.transpose(1, 2).flatten(0, 1)


def unfold_slices(x: Tensor, batch_size: int) -> Tensor:
    """Inverse of `fold_slices`: (B*D, C, H, W) to (B, C, D, H, W)."""
    return x.unflatten(0, (batch_size, -1)).transpose(1, 2)


def pad_to_multiple(x: Tensor, multiples: tuple[int, int, int]) -> Tensor:
    """Zero-pad (B, C, D, H, W) at the far end so that each size is a multiple; nothing is copied if it is."""
    padding: list[int] = []
    for size, multiple in zip(reversed(x.shape[2:]), reversed(multiples), strict=True):
        padding += [0, -size % multiple]
    return functional.pad(x, padding) if any(padding) else x


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, depth_stride: int) -> Tensor:
    """Apply an adapted kernel; one without depth reach runs as a 2D convolution over the slices, a patch embedding's
    as a matrix product.

    The 2D convolution is faster where training runs on a CPU, in bfloat16 and channels-last (`benchmarks/layers.py`),
    and not in float32 with channels first.
    """
    padding = 1 if weight.shape[-1] == 3 else 0
    if weight.shape[-1] == stride > 1:
        x = pad_to_multiple(x, (depth_stride, stride, stride))
        if stride >= MIN_PATCH_KERNEL:
            return convolve_patches(x, weight, bias)
    if weight.shape[2] == 1 and depth_stride == 1:
        y = functional.conv2d(fold_slices(x), weight.squeeze(2), bias, stride, padding)
        return unfold_slices(y, x.shape[0])  # (B, O, D, H', W')
    depth_padding = 1 if weight.shape[2] == 3 else 0
    if depth_padding and depth_stride == 1 and x.shape[2] == 2 and x.device.type == "cpu" and torch.is_grad_enabled():
        # oneDNN's weight gradient is of memory never written here: bfloat16, AVX-512 without AMX (3.12, torch 2.13.0).
        x, depth_padding = functional.pad(x, (0, 0, 0, 0, 1, 1)), 0
    return functional.conv3d(x, weight, bias, (depth_stride, stride, stride), (depth_padding, padding, padding))


def convolve_patches(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolution whose stride is its kernel (kD, k, k), for sizes that are whole multiples of it."""
    for axis, size in zip((4, 3, 2), reversed(weight.shape[2:]), strict=True):
        x = x.unflatten(axis, (-1, size))
    patches = x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)  # (B, D', H', W', I*kD*k*k)
    return functional.linear(patches, weight.flatten(1), bias).movedim(-1, 1)  # (B, O, D', H', W')


def convolve_transposed(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, depth_stride: int) -> Tensor:
    """Apply an adapted transposed kernel (I, O, kD, kH, kW): sizes grow by exactly `stride` and `depth_stride`."""
    padding = 1 if weight.shape[-1] == 3 else 0
    if weight.shape[2] == 1 and depth_stride == 1:
        y = functional.conv_transpose2d(
            fold_slices(x), weight.squeeze(2), bias, stride, padding, output_padding=padding
        )
        return unfold_slices(y, x.shape[0])  # (B, O, D, H', W')
    depth_padding = 1 if weight.shape[2] == 3 else 0
    return functional.conv_transpose3d(
        x,
        weight,
        bias,
        (depth_stride, stride, stride),
        (depth_padding, padding, padding),
        output_padding=(depth_padding, padding, padding),
    )


class SpadConv(nn.Module):
    """Downsampling (kernel 2^k = stride, or kernel 3 stride 2) and kernel-3 stride-1 SPAD convolutions.

    Any size of at least one voxel is accepted: where a stride does not divide a size, zeros are added
    at the far end.

    Raises:
        ValueError: if kernel and stride are none of these pairs.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int, stride: int, level: int, bias: bool = True):
        super().__init__()
        if (kernel, stride) not in ((3, 1), (3, 2)) and not (kernel == stride and is_power_of_two(stride)):
            raise ValueError(
                f"kernel {kernel} with stride {stride} has no spatially adaptive form; "
                "use kernel = stride = 2^k, or kernel 3 with stride 1 or 2"
            )
        self.stride, self.level = stride, level
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        fan_in = in_channels * kernel**3
        reset_parameters(self.weight, self.bias, fan_in)

    def forward(self, x: Tensor, da: int) -> Tensor:
        """(B, I, D, H, W) to (B, O, D', H', W'), each size divided by its stride and rounded up."""
        return self.convolve(x, da, self.weight, self.bias)

    def convolve(self, x: Tensor, da: int, weight: Tensor, bias: Tensor | None) -> Tensor:
        """As `forward`, with another weight (O, I, k, k, k) of the same kernel."""
        weight, depth_stride = self.adapt_kernel(weight, da)
        return convolve(x, weight, bias, self.stride, depth_stride)

    def adapted_kernel(self, da: int) -> tuple[Tensor, int]:
        """Kernel (O, I, kD', k, k) and depth stride for this degree of anisotropy."""
        return self.adapt_kernel(self.weight, da)

    def adapt_kernel(self, weight: Tensor, da: int) -> tuple[Tensor, int]:
        """`adapted_kernel` of another weight."""
        kernel = weight.shape[-1]
        taps, depth_stride = depth_taps_and_stride(kernel, self.stride, num_pending(da, self.level))
        return pool_depth_taps(weight, taps), depth_stride


class SpadConvTranspose(nn.Module):
    """Upsampling SPAD convolution: kernel = stride = 2^k, or kernel 3 with stride 2.

    `level` is that of the output. The pooled taps are scaled by (reduced stride / full stride), since each output
    voxel of the full operator sees only that share of them: the mean is kept.

    Raises:
        ValueError: if kernel and stride are none of these pairs.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int, stride: int, level: int):
        super().__init__()
        if (kernel, stride) != (3, 2) and not (kernel == stride and is_power_of_two(stride)):
            raise ValueError(
                f"transposed kernel {kernel} with stride {stride} has no spatially adaptive form; "
                "use kernel = stride = 2^k, or kernel 3 with stride 2"
            )
        self.stride, self.level = stride, level
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, kernel, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(out_channels))
        fan_in = in_channels if kernel == stride else in_channels * kernel**3 // stride**3
        reset_parameters(self.weight, self.bias, fan_in)

    def forward(self, x: Tensor, da: int) -> Tensor:
        """(B, I, D, H, W) to (B, O, D', H', W'), each size multiplied by its stride."""
        return self.convolve(x, da, self.weight, self.bias)

    def convolve(self, x: Tensor, da: int, weight: Tensor, bias: Tensor | None) -> Tensor:
        """As `forward`, with another weight (I, O, k, k, k) of the same kernel."""
        weight, depth_stride = self.adapt_kernel(weight, da)
        return convolve_transposed(x, weight, bias, self.stride, depth_stride)

    def adapted_kernel(self, da: int) -> tuple[Tensor, int]:
        """Kernel (I, O, kD', k, k) and depth stride for this degree of anisotropy."""
        return self.adapt_kernel(self.weight, da)

    def adapt_kernel(self, weight: Tensor, da: int) -> tuple[Tensor, int]:
        """`adapted_kernel` of another weight."""
        kernel = weight.shape[-1]
        taps, depth_stride = depth_taps_and_stride(kernel, self.stride, num_pending(da, self.level))
        weight = pool_depth_taps(weight, taps)
        if depth_stride != self.stride:
            weight = weight * (depth_stride / self.stride)
        return weight, depth_stride


class StaticConv(nn.Module):
    """A SPAD convolution frozen at one degree of anisotropy: a plain kernel, ready for export.

    It takes and ignores `da`, so that it stands wherever the adaptive layer stood.
    """

    def __init__(self, layer: SpadConv | SpadConvTranspose, da: int):
        super().__init__()
        weight, self.depth_stride = layer.adapted_kernel(da)
        self.is_transposed = isinstance(layer, SpadConvTranspose)
        self.stride = layer.stride
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())

    def forward(self, x: Tensor, da: int) -> Tensor:
        """As the layer it was made from."""
        apply = convolve_transposed if self.is_transposed else convolve
        return apply(x, self.weight, self.bias, self.stride, self.depth_stride)


class StaticNetwork(nn.Module):
    """A network frozen at one degree of anisotropy: `forward(x)` alone, plain convolutions only."""

    def __init__(self, network: nn.Module, da: int):
        super().__init__()
        self.network, self.da = network, da

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """As `network(x, da)`."""
        return self.network(x, self.da)


def to_static(network: nn.Module, da: int) -> StaticNetwork:
    """Copy a SPAD network with each adaptive layer replaced by the plain convolution that it is at `da`."""
    static = StaticNetwork(copy.deepcopy(network), da)
    for module in list(static.modules()):
        for name, child in module.named_children():
            if isinstance(child, SpadConv | SpadConvTranspose):
                setattr(module, name, StaticConv(child, da))
    return static


def is_power_of_two(number: int) -> bool:
    """True for 1, 2, 4, 8, …"""
    return number > 0 and number & (number - 1) == 0


def reset_parameters(weight: Tensor, bias: Tensor | None, fan_in: int) -> None:
    """PyTorch's default initialisation of convolutions: uniform within 1 / sqrt(fan in)."""
    bound = 1 / math.sqrt(fan_in)
    nn.init.uniform_(weight, -bound, bound)
    if bias is not None:
        nn.init.uniform_(bias, -bound, bound)
