"""What adaptivity costs in both stages of pre-training: our networks against plain ones of the same shape, in one run.

    python benchmarks/adaptivity.py --preset tiny
    python benchmarks/adaptivity.py --preset base --device cuda --peak-tflops 989 -o base.png

Each network knows one degree of anisotropy and one size, and gives what the adaptive one gives: "torch" is built of
`nn.Conv3d` and `nn.ConvTranspose3d`; "frozen" computes the same kernels in the way ours does, so that what is left is
the adapting itself. In the ViT both also have positions and angles computed once. All run forward and backward in
turns, and each ratio is the median over rounds of our time to theirs, with its quartiles. "tokenizer": reconstruction
of the crops of the first stage; "masked": the ViT with 55 % of the patches hidden, on those of the second; "whole":
with none hidden. Losses of other networks, optimisers and data are left out: they are the same for all
(benchmarks/pretrain.py times whole steps).

Prints images/s of ours, the ratios, achieved FLOP/s (with --peak-tflops the share of that peak, the model-FLOP
utilisation), on a GPU the memory that a step takes above the weights, and whether adapting costs at most 3 %; draws
time against the number of tokens.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from spadunet.network.build import VIT_PRESETS, build_tokenizer, build_vit
from spadunet.network.rope import rotation_of
from spadunet.network.spad_conv import SpadConv, SpadConvTranspose, to_static
from spadunet.network.tokenizer import SpadTokenizer
from spadunet.network.vit import SpadViT, resize_positions
from spadunet.spacing import Shape

DEGREES = range(6)
MASKED_SHARE = 0.55
MAX_DIFFERENCE = 1e-3
"""Between outputs of networks of the same weights, over the largest value, in float32."""
GOAL = 1.03
"""The most that adapting may cost."""

Step = Callable[[], None]


def crop_size(stage: str, da: int) -> Shape:
    """The paper's, of a stage."""
    depth, side = (64, 128) if stage == "tokenizer" else (80, 160)
    return (depth >> da if da < 5 else 1), side, side


class PlainConv(nn.Module):
    """torch's own convolution with the kernel that a SPAD convolution has at one degree of anisotropy."""

    def __init__(self, layer: SpadConv | SpadConvTranspose, da: int):
        super().__init__()
        weight, depth_stride = layer.adapted_kernel(da)
        stride = (depth_stride, layer.stride, layer.stride)
        size = (weight.shape[2], weight.shape[3], weight.shape[4])
        padding = (int(size[0] == 3), int(size[1] == 3), int(size[2] == 3))
        if isinstance(layer, SpadConvTranspose):
            self.conv: nn.Module = nn.ConvTranspose3d(weight.shape[0], weight.shape[1], size, stride, padding)
        else:
            self.conv = nn.Conv3d(weight.shape[1], weight.shape[0], size, stride, padding)
        with torch.no_grad():
            self.conv.weight.copy_(weight)
            self.conv.bias.copy_(layer.bias)

    def forward(self, x: Tensor, _da: int) -> Tensor:
        """As the layer, where its stride divides the size."""
        return self.conv(x)


def with_torch_layers(network: nn.Module, da: int) -> nn.Module:
    """A copy of a network with torch's own layer for each SPAD convolution."""
    plain = copy.deepcopy(network)
    for module in list(plain.modules()):
        for name, child in module.named_children():
            if isinstance(child, SpadConv | SpadConvTranspose):
                setattr(module, name, PlainConv(child, da))
    return plain


class PlainViT(nn.Module):
    """A ViT at one degree of anisotropy and one grid, whose positions and angles are computed once."""

    def __init__(self, vit: SpadViT, patch_embed: nn.Module, da: int, size: Shape):
        super().__init__()
        self.da, self.patch_embed = da, patch_embed
        with torch.no_grad():
            depth, height, width = patch_embed(torch.zeros(1, 3, *size, device=vit.cls_token.device), da).shape[2:]
        positions = resize_positions(vit.pos_embed, (depth, height, width)).flatten(2).transpose(1, 2)  # (1, L, C)
        self.positions = nn.Parameter(positions.detach().clone())
        self.cls_token, self.blocks, self.norm = (copy.deepcopy(part) for part in (vit.cls_token, vit.blocks, vit.norm))
        self.rotation = rotation_of((depth, height, width), vit.head_dim, torch.float32, positions.device)

    def forward(self, x: Tensor, _da: int, masked: Tensor | None = None, mask_token: Tensor | None = None) -> Tensor:
        """As the SPAD-ViT's."""
        tokens = self.patch_embed(x, self.da).flatten(2).transpose(1, 2)
        if masked is not None and mask_token is not None:
            tokens = torch.where(masked[..., None], mask_token.to(tokens.dtype), tokens)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens + self.positions], dim=1)
        for block in self.blocks:
            tokens = block(tokens, self.rotation)
        return self.norm(tokens)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison."""

    stage: str
    da: int
    num_tokens: int
    seconds: float
    """Of one forward and backward pass of the adaptive network."""
    ratios: dict[str, tuple[float, float, float]]
    """Its time over that of each plain one: lower quartile, median, upper quartile."""
    flops: int
    memory_bytes: dict[str, int]


def make_networks(stage: str, da: int, adaptive: SpadViT | SpadTokenizer) -> dict[str, nn.Module]:
    """Ours and the plain ones, by name; each has weights of its own, of the same values."""
    with_torch, frozen = with_torch_layers(adaptive, da), to_static(adaptive, da).network
    if isinstance(adaptive, SpadViT):
        size = crop_size(stage, da)
        with_torch, frozen = (
            PlainViT(adaptive, copy.deepcopy(network.patch_embed), da, size) for network in (with_torch, frozen)
        )
    return {"ours": adaptive, "torch": with_torch, "frozen": frozen}


def compare(stage: str, da: int, adaptive: SpadViT | SpadTokenizer, options: argparse.Namespace) -> Row:
    """Time all in turns."""
    device, dtype = torch.device(options.device), {"bf16": torch.bfloat16, "float32": torch.float32}[options.precision]
    x = torch.rand(options.batch_size, 3, *crop_size(stage, da), device=device) * 2 - 1
    networks = make_networks(stage, da, adaptive)
    num_tokens = (adaptive.embed(x, da) if isinstance(adaptive, SpadViT) else adaptive.encode(x, da))[0, 0].numel()
    masks: tuple[Tensor, ...] = ()
    if stage == "masked":
        masks = (
            torch.rand(options.batch_size, num_tokens, device=device) < MASKED_SHARE,
            torch.zeros(adaptive.norm.weight.numel(), device=device, requires_grad=True),
        )

    def output_of(network: nn.Module) -> Tensor:
        output = network(x, da, *masks)
        return output[0] if stage == "tokenizer" else output

    with torch.no_grad():
        outputs = {name: output_of(network) for name, network in networks.items()}
    for name, output in outputs.items():
        difference = ((output - outputs["ours"]).abs().max() / output.abs().max()).item()
        if not difference < MAX_DIFFERENCE:
            raise SystemExit(f"{stage}, degree of anisotropy {da}: {name} computes something else, by {difference:.2g}")
    target = torch.randn_like(outputs["ours"])

    def step_of(network: nn.Module) -> Step:
        def step() -> None:
            network.zero_grad(set_to_none=True)
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                loss = functional.mse_loss(output_of(network).float(), target)
            loss.backward()

        return step

    steps = {name: step_of(network) for name, network in networks.items()}
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # others' attention is not counted
        steps["torch"]()
    for step in [*steps.values(), *steps.values()]:
        step()
    rounds = []
    for number in range(options.rounds):
        names = list(steps)[number % 3 :] + list(steps)[: number % 3]
        rounds.append({name: seconds_of(steps[name], device) for name in names})
    return Row(
        stage=stage,
        da=da,
        num_tokens=num_tokens,
        seconds=statistics.median(times["ours"] for times in rounds),
        ratios={name: quartiles([times["ours"] / times[name] for times in rounds]) for name in ("torch", "frozen")},
        flops=counter.get_total_flops(),
        memory_bytes={name: peak_memory(steps[name], network, device) for name, network in networks.items()},
    )


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    lower, middle, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower, middle, upper


def seconds_of(step: Step, device: torch.device) -> float:
    """One run of a step."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def peak_memory(step: Step, network: nn.Module, device: torch.device) -> int:
    """Bytes that a step takes at most on the GPU, gradients included, above what was there; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    network.zero_grad(set_to_none=True)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    peak = torch.cuda.max_memory_allocated(device) - before
    network.zero_grad(set_to_none=True)
    return peak


def time_by_tokens(vit: SpadViT, options: argparse.Namespace) -> list[tuple[int, float]]:
    """Tokens of one image, and seconds of a training step of SPAD-ViT, for growing images at DA 2."""
    device, dtype = torch.device(options.device), {"bf16": torch.bfloat16, "float32": torch.float32}[options.precision]
    points = []
    for side in options.sides:
        x = torch.rand(1, 3, 20, side, side, device=device) * 2 - 1
        num_tokens = vit.embed(x, 2)[0, 0].numel()

        def step(x: Tensor = x) -> None:
            vit.zero_grad(set_to_none=True)
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                loss = vit(x, 2).float().square().mean()
            loss.backward()

        step()
        points.append((num_tokens, statistics.median(seconds_of(step, device) for _ in range(options.rounds))))
    return points


def draw(points: list[tuple[int, float]], title: str, path: Path) -> None:
    """Time against tokens, with a straight line through the smallest for comparison."""
    matplotlib.use("agg")
    from matplotlib import pyplot

    tokens, seconds = zip(*points, strict=True)
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    axes.loglog(tokens, [value / seconds[0] for value in seconds], "o-", label="measured")
    axes.loglog(tokens, [value / tokens[0] for value in tokens], "k--", linewidth=1, label="in proportion")
    axes.set(xlabel="tokens of an image", ylabel=f"time over that of {tokens[0]} tokens", title=title)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Print the table, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=VIT_PRESETS, default="tiny", help="large: the tokenizer is that of base")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("bf16", "float32"), default="bf16")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15, help="two or more (default: 15)")
    parser.add_argument("--stages", nargs="+", default=("tokenizer", "masked", "whole"))
    parser.add_argument("--degrees", type=int, nargs="+", default=(0, 2, 5), choices=DEGREES, metavar="DA")
    parser.add_argument(
        "--sides", type=int, nargs="+", default=(64, 96, 160, 224, 320), help="for the figure, in pixels"
    )
    parser.add_argument("--peak-tflops", type=float, help="of the device in this precision, for the utilisation")
    parser.add_argument("-o", "--output", type=Path, default=Path("tokens.png"), help="the PNG")
    options = parser.parse_args()
    torch.manual_seed(0)
    vit = build_vit(options.preset).to(options.device)
    tokenizer = build_tokenizer("base" if options.preset == "large" else options.preset).to(options.device)
    title = f"SPAD-ViT {options.preset}, {options.device}, {options.precision}"
    print(f"{title}, batch of {options.batch_size}; torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("stage      DA  tokens  images/s  time over torch's    time over frozen     TFLOP/s  utilisation  GB of each")
    costs: dict[str, list[float]] = {"torch": [], "frozen": []}
    for stage in options.stages:
        for da in options.degrees:
            row = compare(stage, da, tokenizer if stage == "tokenizer" else vit, options)
            tflops = row.flops / row.seconds / 1e12
            share = f"{100 * tflops / options.peak_tflops:.0f} %" if options.peak_tflops else "-"
            memory = " / ".join(f"{value / 1e9:.2f}" for value in row.memory_bytes.values() if value) or "-"
            ratios = "  ".join(f"{mid:.3f} ({low:.3f}–{up:.3f})" for low, mid, up in row.ratios.values())
            print(
                f"{row.stage:10} {row.da:1} {row.num_tokens:7} {options.batch_size / row.seconds:9.2f}  "
                f"{ratios} {tflops:8.3f} {share:>12}  {memory}",
                flush=True,
            )
            for name, (_, middle, _) in row.ratios.items():
                costs[name].append(middle)
    for name, ratios in costs.items():
        held = sum(ratio <= GOAL for ratio in ratios)
        middle = statistics.median(ratios)
        print(f"at most 3 % over {name}: {held} of {len(ratios)} lines; median of all {middle:.3f}")
    points = time_by_tokens(vit, options)
    for num_tokens, seconds in points:
        print(f"{num_tokens:6} tokens  {1000 * seconds:8.1f} ms")
    draw(points, title, options.output)
    print(f"drawn: {options.output}")


if __name__ == "__main__":
    main()
