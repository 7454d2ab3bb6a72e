"""The one structure for every dataset against a plain U-Net made for isotropic patches, in one run.

    python benchmarks/plain_unet.py
    python benchmarks/plain_unet.py -d spadunet_data/raw/Dataset004_Hippocampus --steps 870

Both train on the same augmented batches of fold 0's training cases with the same loss, optimiser and schedule, and
predict the test cases. Prints mean Dice of each, and how many times longer a step of the plain one takes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from spadunet.cli import demo, plan_and_preprocess
from spadunet.cli.stages import read_plan
from spadunet.dataset import Dataset, find_images, load_dataset
from spadunet.evaluation.evaluate import evaluate_case
from spadunet.evaluation.pairs import label_files
from spadunet.evaluation.scoring import gather_scores
from spadunet.image import read_image, read_label_map
from spadunet.inference.predict import Engine, predict_image
from spadunet.network.blocks import LEAKY_SLOPE, NUM_GROUPS, PointwiseConv
from spadunet.network.build import build_backbone, build_task
from spadunet.network.heads import SegmentationNetwork
from spadunet.plan import Plan
from spadunet.training.loop import MAX_GRADIENT_NORM
from spadunet.training.loss import deep_loss
from spadunet.training.patches import BatchStream, TrainingTask, choose_batch_size
from spadunet.training.prepare import TrainingDataset, open_planned_case
from spadunet.training.schedule import learning_rate
from spadunet.training.splits import choose_cases

EMBEDDED = Path(demo.__file__).parents[1] / "demo" / "data" / demo.DATASETS[0]
WIDTHS = (16, 32, 64, 128)
PEAK_RATE, WEIGHT_DECAY = 3e-3, 0.01


def double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3×3×3 convolutions, each with GroupNorm and LeakyReLU."""
    layers: list[nn.Module] = []
    for width in (in_channels, out_channels):
        layers += [
            nn.Conv3d(width, out_channels, 3, padding=1, bias=False),
            nn.GroupNorm(NUM_GROUPS, out_channels),
            nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
        ]
    return nn.Sequential(*layers)


class PlainUNet(nn.Module):
    """Four levels, max-pooling; (B, C, D, H, W) to (B, K, D, H, W)."""

    def __init__(self, num_channels: int, num_outputs: int):
        super().__init__()
        pairs = list(zip(WIDTHS[:-1], WIDTHS[1:], strict=True))
        self.encoder = nn.ModuleList([double_conv(num_channels, WIDTHS[0]), *(double_conv(a, b) for a, b in pairs)])
        self.ups = nn.ModuleList(nn.ConvTranspose3d(b, a, 2, 2) for a, b in pairs)
        self.decoder = nn.ModuleList(double_conv(2 * a, a) for a, _ in pairs)
        self.head = PointwiseConv(WIDTHS[0], num_outputs)

    def forward(self, x: Tensor, da: int) -> Tensor:
        """`da` is ignored."""
        skips: list[Tensor] = []
        for number, block in enumerate(self.encoder):
            x = block(functional.max_pool3d(x, 2, ceil_mode=True) if number else x)
            skips.append(x)
        for level in reversed(range(len(self.ups))):
            depth, height, width = skips[level].shape[2:]
            x = self.ups[level](x)[:, :, :depth, :height, :width]
            x = self.decoder[level](torch.cat([x, skips[level]], dim=1))
        return self.head(x)


def train(networks: Sequence[nn.Module], task: TrainingTask, num_steps: int) -> list[float]:
    """Train in place, in turns on the same batches; median seconds of a step of each, without waiting for batches."""
    optimisers = [
        torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=WEIGHT_DECAY, fused=True)
        for network in networks
    ]
    seconds: list[list[float]] = [[] for _ in networks]
    stream = torch.utils.data.DataLoader(
        BatchStream([task], 0), batch_size=None, sampler=range(num_steps), num_workers=1
    )
    for step, batch in enumerate(tqdm(stream, total=num_steps)):
        for network, optimiser, times in zip(networks, optimisers, seconds, strict=True):
            start = time.perf_counter()
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step / num_steps, PEAK_RATE)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = network(batch.image, batch.da)
            optimiser.zero_grad(set_to_none=True)
            deep_loss([logits], batch.classes, task.plan.labels).backward()
            nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM)
            optimiser.step()
            times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds]


def mean_dice(network: nn.Module, dataset: Dataset, plan: Plan) -> float | None:
    """Over the test cases and their classes, where either mask has voxels."""
    engine = Engine(network=network.eval(), plan=plan, device=torch.device("cpu"), precision=torch.bfloat16)
    images = find_images(dataset.folder / "imagesTs", dataset.file_ending, len(plan.channel_names))
    references = label_files(dataset.folder / "labelsTs")
    cases = [
        evaluate_case(name, predict_image(read_image(images[name]), engine), read_label_map(path), plan.labels)
        for name, path in references.items()
    ]
    return gather_scores(cases).mean("dice")


def main() -> None:
    """Preprocess, train both, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", "--dataset", type=Path, default=EMBEDDED, help="a raw dataset of degree of anisotropy 0")
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    dataset = load_dataset(options.dataset)
    with tempfile.TemporaryDirectory() as data:
        arguments = ("-d", str(options.dataset), "--data", data, "-np", "1")
        if code := demo.do(plan_and_preprocess.main, "spadunet_plan_and_preprocess", *arguments):
            raise SystemExit(code)
        folder = Path(data) / "preprocessed" / dataset.name
        plan = read_plan(folder, dataset)
        member = TrainingDataset(dataset=dataset, plan=plan, folder=folder)
        names, _ = choose_cases(dataset, folder, "0")
        cases = tuple(open_planned_case(member, name) for name in names)
        task = TrainingTask(name=dataset.name, plan=plan, cases=cases, batch_size=None)
        num_channels, num_outputs = len(plan.channel_names), plan.labels.num_outputs
        torch.manual_seed(0)
        ours = SegmentationNetwork(
            build_backbone("spad_unet", "tiny"), build_task(num_channels, num_outputs, "spad_unet", "tiny")
        )
        plain = PlainUNet(num_channels, num_outputs)
        ours_seconds, plain_seconds = train((ours, plain), task, options.steps)
        batch_size = choose_batch_size(plan, plan.degree_of_anisotropy)
        print(f"mean test Dice after {options.steps} steps of {batch_size} patches")
        print(f"  SPAD U-Net tiny  {mean_dice(ours, dataset, plan):.3f}")
        print(f"  plain U-Net      {mean_dice(plain, dataset, plan):.3f}")
        print(f"a step of the plain one takes {plain_seconds / ours_seconds:.2f} times as long")


if __name__ == "__main__":
    main()
