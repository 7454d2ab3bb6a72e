"""How far apart the rotary angles of different positions lie, for several bases of the depth: the paper's Figure 5.

    python benchmarks/rope_intervals.py
    python benchmarks/rope_intervals.py --grid 5 10 --bases 100 2333 -o intervals.png

For each pair of channels i: the smallest distance, modulo 2π, between the angles of any two positions of a grid of
slices × columns (Luo et al. 2024, appendix A.3). Prints it and draws it, with the mean ratio to that of one slice.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import matplotlib
import torch
from torch import Tensor

from spadunet.network.rope import DEPTH_BASE, PLANE_BASE, depth_frequencies, plane_frequencies

HEAD_DIM = 64
BASES = (10.0, 100.0, 1000.0, DEPTH_BASE, 5000.0, PLANE_BASE)
FIGURE = Path(__file__).resolve().parents[1] / "docs" / "rope_intervals.png"


def smallest_intervals(num_slices: int, num_columns: int, base: float) -> Tensor:
    """Radians by i, (E/4,): the least distance on the circle between two of the grid's angles."""
    columns = torch.arange(num_columns)[:, None] * plane_frequencies(HEAD_DIM, torch.double)
    slices = torch.arange(num_slices)[:, None] * depth_frequencies(HEAD_DIM, torch.double, base=base)
    angles = (slices[:, None] + columns).flatten(0, 1).remainder(2 * math.pi)
    ordered = angles.sort(dim=0).values
    return torch.cat([ordered, ordered[:1] + 2 * math.pi]).diff(dim=0).amin(dim=0)


def draw(in_plane: Tensor, intervals: dict[float, Tensor], path: Path) -> None:
    """One line a base, and the 2D embedding's."""
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.semilogy(in_plane, "k--", label="one slice (2D)")
    for base, values in intervals.items():
        axes.semilogy(values, marker=".", linewidth=2.5 if base == DEPTH_BASE else 1, label=f"$b_z$ = {base:g}")
    axes.set(xlabel="i", ylabel="smallest interval between angles (rad)", xticks=range(0, HEAD_DIM // 4, 3))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Print the numbers and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=int, nargs=2, default=(8, 16), metavar=("SLICES", "COLUMNS"))
    parser.add_argument("--bases", type=float, nargs="+", default=BASES, help="bases of the depth's frequencies, b_z")
    parser.add_argument("-o", "--output", type=Path, default=FIGURE, help="the PNG")
    options = parser.parse_args()
    num_slices, num_columns = options.grid
    in_plane = smallest_intervals(1, num_columns, DEPTH_BASE)
    intervals = {base: smallest_intervals(num_slices, num_columns, base) for base in options.bases}
    print(f"smallest interval between the angles of {num_slices} × {num_columns} positions, in rad")
    print("  i  one slice" + "".join(f"{f'{base:g}':>10}" for base in intervals))
    for i, in_2d in enumerate(in_plane.tolist()):
        print(f"{i:3}  {in_2d:9.2e}" + "".join(f"{values[i]:10.1e}" for values in intervals.values()))
    means = [(in_plane / values).mean().item() for values in intervals.values()]
    print("mean of 2D / 3D" + "".join(f"{mean:>10.2f}" for mean in means).removeprefix(" "))
    draw(in_plane, intervals, options.output)
    print(f"drawn: {options.output}")


if __name__ == "__main__":
    main()
