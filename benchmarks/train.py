"""Training steps side by side with nnU-Net 2.8.1, in one run: samples a second as the ratio of interleaved rounds.

    python -m venv .peers && .peers/bin/pip install torch==2.13.0 nnunetv2==2.8.1  # the torch that we have
    python benchmarks/train.py --peer .peers/bin --rounds 5

Both plan and preprocess the same drawn volumes of 64³ voxels, and so train on two patches of 64³: nnU-Net with the
network, loss and optimiser that its planner and trainer choose, in their arithmetic (float32 on a processor, float16
autocast on a GPU), ours with the SPAD U-Net of SIZE, which has as many multiply-adds within 10 %, in bfloat16 where
the hardware multiplies it, and in float32. Each runs in a process of its own, which rests while another has its turn;
the first round is left out. Three things are timed: `step`, whole training steps on one batch; `train`, the same with
batches that one worker process reads and augments; `load`, these batches alone, made in the process itself. Beside the
ratio by the clock stands that of processor time, which other programs on the machine hardly change; it means something
with --threads 1 only, since threads that wait for each other spend it too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from spadunet.cli.stages import read_plan
from spadunet.dataset import load_dataset
from spadunet.formats import write_array
from spadunet.network.build import UNetSize
from spadunet.network.device import choose_precision
from spadunet.network.heads import SegmentationNetwork, SegmentationTask
from spadunet.network.unet import SpadUNet
from spadunet.preprocessing.converters.folder import new_dataset, write_description
from spadunet.training.loop import JointNetwork, RunOptions, load_batches, train_step
from spadunet.training.optimiser import make_optimiser
from spadunet.training.patches import BatchStream, TrainingTask
from spadunet.training.prepare import TrainingDataset, open_planned_case
from spadunet.training.recipes import RECIPES
from spadunet.training.splits import choose_cases

DATASET, SIDE, NUM_CASES, BATCH_SIZE = "Dataset900_Drawn", 64, 12, 2
SIZE = UNetSize(widths=(16, 64, 192, 256, 320, 320), num_blocks=(0, 1, 2, 2, 2, 2))
"""As the presets, with the multiply-adds where the network is deep."""
MOST_UNEQUAL = 0.1
NUM_STEPS = {"step": 1, "load": 4, "train": 1}
"""A round; loading is too quick to time once."""


def draw_dataset(folder: Path) -> None:
    """Noise with two bright balls in each volume, 1 mm apart in all directions."""
    generator = np.random.default_rng(0)
    places = np.indices((SIDE,) * 3)
    with new_dataset(folder):
        for number in range(NUM_CASES):
            image, labels = generator.uniform(1, 100, (SIDE,) * 3), np.zeros((SIDE,) * 3, np.uint8)
            for label in (1, 2):
                centre = generator.uniform(20, SIDE - 20, 3)[:, None, None, None]
                is_ball = ((places - centre) ** 2).sum(0) < 12**2
                image[is_ball] += 100 * label
                labels[is_ball] = label
            write_array(folder / f"imagesTr/case_{number}_0000.nii.gz", image.astype(np.int16), np.eye(4))
            write_array(folder / f"labelsTr/case_{number}.nii.gz", labels, np.eye(4))
        names = ("background", "small", "large")
        write_description(folder, channel_names=["MRI"], labels=names, about={"numTraining": NUM_CASES})


def serve(data: Path, precision: torch.dtype, device: torch.device) -> None:
    """Our side: answer each line of the standard input by one of JSON."""
    dataset = load_dataset(data / "raw" / DATASET)
    folder = data / "preprocessed" / DATASET
    member = TrainingDataset(dataset=dataset, plan=read_plan(folder, dataset), folder=folder)
    names, _ = choose_cases(dataset, folder, "all")
    task = TrainingTask(
        name=DATASET,
        plan=member.plan,
        cases=tuple(open_planned_case(member, name) for name in names),
        batch_size=BATCH_SIZE,
    )
    head = SegmentationTask(1, member.plan.labels.num_outputs, SIZE.widths[: SIZE.num_heads])
    network = JointNetwork(SpadUNet(SIZE.widths, SIZE.num_blocks), [head]).to(device).train()
    recipe = RECIPES["spad_unet"]
    options = RunOptions(
        max_steps=None,
        max_minutes=None,
        seed=0,
        device=device,
        precision=precision,
        num_workers=1,
        checkpoint_minutes=1e9,
        learning_rate=recipe.learning_rate("base"),
        weight_decay=recipe.weight_decay,
    )
    optimiser = make_optimiser(network, options.learning_rate, options.weight_decay, spares_vectors=False)
    stream = BatchStream([task], 0)
    batch = stream[0].finish(device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        SegmentationNetwork(network.backbone, head).deep_logits(batch.image, batch.da)
    facts = {
        "versions": f"spadunet, torch {torch.__version__}, {precision}",
        "network": f"SpadUNet {SIZE}",
        "gmacs": counter.get_total_flops() / 2e9,
        "shape": list(batch.image.shape),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(facts), flush=True)
    loader, num_loaded = load_batches(stream, 1, options), 0
    next(loader)
    for line in sys.stdin:
        what, number = line.split()
        start, start_cpu = time.perf_counter(), time.process_time()
        for _ in range(int(number)):
            if what == "load":
                num_loaded += 1
                stream[num_loaded]
            else:
                train_step(network, 0, batch if what == "step" else next(loader), task, optimiser, options)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        answer = {
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time() - start_cpu,
            "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        }
        print(json.dumps(answer), flush=True)
    loader.close()


class Side:
    """A process that trains when it is told to."""

    def __init__(self, command: list[str], environment: dict[str, str]):
        self.process = subprocess.Popen(
            command,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.facts = self.answer()

    def answer(self) -> dict:
        """The next line that it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args}: exit code {self.process.wait()}")
        return json.loads(line)

    def ask(self, what: str) -> dict:
        """Seconds of a round, and the most memory that the process has held."""
        assert self.process.stdin is not None
        print(what, NUM_STEPS[what], file=self.process.stdin, flush=True)
        return self.answer()

    def end(self) -> None:
        """Let it end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def do(command: list[str], environment: dict[str, str]) -> None:
    """Run a command; its output is shown only if it fails."""
    done = subprocess.run(
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}")


def prepare(data: Path, peer: Path) -> dict[str, str]:
    """Draw the volumes; both plan and preprocess them. nnU-Net's environment."""
    draw_dataset(data / "raw" / DATASET)
    script = "import sys; from spadunet.cli.plan_and_preprocess import main; main(sys.argv[1:])"
    do([sys.executable, "-c", script, "-d", DATASET, "--data", str(data), "-np", "1"], {})
    folders = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "nnunet", "nnUNet_results": "nnunet_results"}
    environment = {name: str(data / folder) for name, folder in folders.items()}
    script = (
        "from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry as m; m()"
    )
    command = [str(peer / "python"), "-c", script, "-d", DATASET[7:10], "-c", "3d_fullres", "-np", "1", "-npfp", "1"]
    do(command, environment)
    return environment


def main() -> None:
    """Prepare, take turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="folder of the interpreter that has nnU-Net")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = torch.device(options.device)
    if options.serve:
        serve(Path(options.serve[0]), getattr(torch, options.serve[1]), device)
        return
    if options.peer is None:
        parser.error("--peer is missing")
    here = Path(__file__)
    with tempfile.TemporaryDirectory() as name:
        data = Path(name)
        theirs = prepare(data, options.peer)
        threads = {"OMP_NUM_THREADS": str(options.threads)}
        peer = [str(options.peer / "python"), str(here.with_name("train_nnunet.py")), DATASET, options.device]
        sides = {"nnU-Net": Side(peer, theirs | threads)}
        for precision in dict.fromkeys((choose_precision("auto", device), torch.float32)):
            word = str(precision).removeprefix("torch.")
            command = [sys.executable, str(here), "--serve", str(data), word, "--device", options.device]
            sides[f"spadunet {word}"] = Side(command, threads)
        for title, side in sides.items():
            print(f"{title}: {side.facts}")
        gmacs, shape = sides["nnU-Net"].facts["gmacs"], sides["nnU-Net"].facts["shape"]
        for side in sides.values():
            if abs(side.facts["gmacs"] / gmacs - 1) > MOST_UNEQUAL or side.facts["shape"] != shape:
                raise SystemExit(f"not the same work: {gmacs:.1f} and {side.facts['gmacs']:.1f} GMAC, or the batch")
        for what, num_steps in NUM_STEPS.items():
            rounds = [{title: side.ask(what) for title, side in sides.items()} for _ in range(options.rounds + 1)][1:]
            for title in sides:
                seconds = [answer[title]["seconds"] for answer in rounds]
                rate = num_steps * BATCH_SIZE / statistics.median(seconds)
                by_clock, by_processor = (
                    statistics.median(answer["nnU-Net"][key] / answer[title][key] for answer in rounds)
                    for key in ("seconds", "cpu_seconds")
                )
                peak_gb = rounds[-1][title]["peak_gb"]
                print(
                    f"{what:6} {title:20} {rate:7.2f} samples/s  {by_clock:5.2f} times nnU-Net's "
                    f"({by_processor:.2f} by processor time)  peak {peak_gb:.1f} GB",
                    flush=True,
                )
        for side in sides.values():
            side.end()


if __name__ == "__main__":
    main()
