"""What adaptivity costs: SPAD-ViT against the same blocks as a plain vision transformer, in one run.

    python benchmarks/vit_layers.py --preset tiny
    python benchmarks/vit_layers.py --preset base --device cuda -o base.png

The plain one knows one degree of anisotropy and one size: `nn.Conv3d` as patch embedding with the kernel fixed,
positions and angles computed once; it has the same weights and gives the same tokens. Both run forward and backward in
turns, the rounds interleaved, and the ratio is the median over rounds; once more with the plain patch embedding as a
matrix product, which is how the adaptive one is computed. "masked": 55 % of the patches replaced by a mask token, as in
masked image modelling; "whole": as in fine-tuning.

Prints images/s of SPAD-ViT, its time over the plain one's, achieved FLOP/s (with --peak-tflops the share of that peak,
the model-FLOP utilisation) and peak memory on a GPU; draws time against the number of tokens.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from spadunet.network.build import VIT_PRESETS, build_vit
from spadunet.network.rope import rotation_of
from spadunet.network.spad_conv import convolve_patches
from spadunet.network.vit import SpadViT, resize_positions

CROPS = {da: (max(80 >> da, 1) if da < 5 else 1, 160, 160) for da in range(6)}  # of masked image modelling
MASKED_SHARE = 0.55


class PlainViT(nn.Module):
    """The blocks of a SPAD-ViT at one degree of anisotropy and one grid; shares its weights where it can."""

    def __init__(self, vit: SpadViT, da: int, size: tuple[int, int, int]):
        super().__init__()
        weight, stride = vit.patch_embed.adapted_kernel(da)
        kernel = (stride, *weight.shape[3:])
        self.patch_embed: nn.Module = nn.Conv3d(3, vit.width, kernel, stride=kernel)
        with torch.no_grad():
            self.patch_embed.weight.copy_(weight)
            self.patch_embed.bias.copy_(vit.patch_embed.bias)
        depth, height, width = (-(-a // b) for a, b in zip(size, kernel, strict=True))
        positions = resize_positions(vit.pos_embed, (depth, height, width)).flatten(2).transpose(1, 2)  # (1, L, C)
        self.positions = nn.Parameter(positions.detach().clone())
        self.cls_token, self.blocks, self.norm = vit.cls_token, vit.blocks, vit.norm
        self.rotation = rotation_of((depth, height, width), vit.head_dim, torch.float32, positions.device)

    def forward(self, x: Tensor, masked: Tensor | None = None, mask_token: Tensor | None = None) -> Tensor:
        """As the SPAD-ViT's."""
        tokens = self.patch_embed(x).flatten(2).transpose(1, 2)
        if masked is not None and mask_token is not None:
            tokens = torch.where(masked[..., None], mask_token.to(tokens.dtype), tokens)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens + self.positions], dim=1)
        for block in self.blocks:
            tokens = block(tokens, self.rotation)
        return self.norm(tokens)


class PatchProduct(nn.Module):
    """The plain patch embedding as the matrix product that the adaptive one is: what of the ratio is the kernel's."""

    def __init__(self, conv: nn.Conv3d):
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.Conv3d` with stride = kernel."""
        return convolve_patches(x, self.weight, self.bias)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison."""

    stage: str
    da: int
    num_tokens: int
    seconds: float
    """Of one forward and backward pass of the SPAD-ViT."""
    ratio: float
    """Its time over that of the plain one."""
    product_ratio: float
    """Its time over that of the plain one with the patch embedding as a matrix product."""
    flops: int
    memory_bytes: tuple[int, int]


def train_step(network: Callable[[], Tensor], module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Forward and backward."""
    module.zero_grad(set_to_none=True)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        loss = network().square().mean()
    loss.backward()


def seconds_of(step: Callable[[], None], device: torch.device) -> float:
    """One run of a step."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def peak_memory(step: Callable[[], None], device: torch.device) -> int:
    """Bytes on the GPU at most; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    step()
    return torch.cuda.max_memory_allocated(device)


def compare(vit: SpadViT, da: int, stage: str, options: argparse.Namespace) -> Row:
    """Time both in turns."""
    device, dtype = torch.device(options.device), {"bf16": torch.bfloat16, "float32": torch.float32}[options.precision]
    x = torch.rand(options.batch_size, 3, *CROPS[da], device=device) * 2 - 1
    plain, product = (PlainViT(vit, da, CROPS[da]).to(device) for _ in range(2))
    product.patch_embed = PatchProduct(product.patch_embed)
    num_tokens = plain.positions.shape[1]
    masks: tuple[Tensor, ...] = ()
    if stage == "masked":
        masks = (
            torch.rand(options.batch_size, num_tokens, device=device) < MASKED_SHARE,
            torch.zeros(vit.width, device=device, requires_grad=True),
        )
    with torch.no_grad():
        assert torch.allclose(plain(x, *masks), vit(x, da, *masks), atol=1e-2)
    steps = [
        lambda: train_step(lambda: vit(x, da, *masks), vit, device, dtype),
        lambda: train_step(lambda: plain(x, *masks), plain, device, dtype),
        lambda: train_step(lambda: product(x, *masks), product, device, dtype),
    ]
    with FlopCounterMode(display=False) as counter:
        steps[1]()
    for step in steps:
        step()
    rounds = []
    for number in range(options.rounds):
        order = (0, 1, 2) if number % 2 else (2, 1, 0)
        times = {which: seconds_of(steps[which], device) for which in order}
        rounds.append([times[which] for which in range(3)])
    return Row(
        stage=stage,
        da=da,
        num_tokens=num_tokens,
        seconds=statistics.median(ours for ours, _, _ in rounds),
        ratio=statistics.median(ours / theirs for ours, theirs, _ in rounds),
        product_ratio=statistics.median(ours / theirs for ours, _, theirs in rounds),
        flops=counter.get_total_flops(),
        memory_bytes=(peak_memory(steps[0], device), peak_memory(steps[1], device)),
    )


def time_by_tokens(vit: SpadViT, options: argparse.Namespace) -> list[tuple[int, float]]:
    """Tokens of one image, and seconds of a training step of SPAD-ViT, for growing images at DA 2."""
    device, dtype = torch.device(options.device), {"bf16": torch.bfloat16, "float32": torch.float32}[options.precision]
    points = []
    for side in options.sides:
        x = torch.rand(1, 3, 20, side, side, device=device) * 2 - 1
        num_tokens = vit.embed(x, 2)[0, 0].numel()

        def step(x: Tensor = x) -> None:
            train_step(lambda: vit(x, 2), vit, device, dtype)

        step()
        points.append((num_tokens, statistics.median(seconds_of(step, device) for _ in range(options.rounds))))
    return points


def draw(points: list[tuple[int, float]], title: str, path: Path) -> None:
    """Time against tokens, with a straight line through the smallest for comparison."""
    matplotlib.use("agg")
    from matplotlib import pyplot

    tokens, seconds = zip(*points, strict=True)
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    axes.loglog(tokens, [1000 * value for value in seconds], "o-", label="measured")
    linear = [1000 * seconds[0] / tokens[0] * value for value in tokens]
    axes.loglog(tokens, linear, "k--", linewidth=1, label="in proportion to the tokens")
    axes.set(xlabel="tokens of an image", ylabel="ms for forward and backward", title=title)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Print the table, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=VIT_PRESETS, default="tiny")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("bf16", "float32"), default="bf16")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--degrees", type=int, nargs="+", default=(0, 2, 5), choices=CROPS, metavar="DA")
    parser.add_argument(
        "--sides", type=int, nargs="+", default=(64, 96, 160, 224, 320), help="for the figure, in pixels"
    )
    parser.add_argument("--peak-tflops", type=float, help="of the device in this precision, for the utilisation")
    parser.add_argument("-o", "--output", type=Path, default=Path("vit_tokens.png"), help="the PNG")
    options = parser.parse_args()
    torch.manual_seed(0)
    vit = build_vit(options.preset).to(options.device)
    title = f"SPAD-ViT {options.preset}, {options.device}, {options.precision}"
    print(f"{title}, batch of {options.batch_size}; torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("stage   DA  tokens  images/s  time/plain  time/plain with product  TFLOP/s  utilisation  GB ours/plain")
    for stage in ("masked", "whole"):
        for da in options.degrees:
            row = compare(vit, da, stage, options)
            tflops = row.flops / row.seconds / 1e12
            share = f"{100 * tflops / options.peak_tflops:.0f} %" if options.peak_tflops else "-"
            memory = " / ".join(f"{value / 1e9:.2f}" for value in row.memory_bytes) if any(row.memory_bytes) else "-"
            print(
                f"{row.stage:7} {row.da:2} {row.num_tokens:7} {options.batch_size / row.seconds:9.2f} "
                f"{row.ratio:11.3f} {row.product_ratio:24.3f} {tflops:8.3f} {share:>12} {memory:>14}",
                flush=True,
            )
    points = time_by_tokens(vit, options)
    for num_tokens, seconds in points:
        print(f"{num_tokens:6} tokens  {1000 * seconds:8.1f} ms")
    draw(points, title, options.output)
    print(f"drawn: {options.output}")


if __name__ == "__main__":
    main()
