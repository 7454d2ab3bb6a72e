"""Preprocessing side by side with nnU-Net 2.8.1, in one run.

    python -m venv .peers && .peers/bin/pip install nnunetv2==2.8.1
    python benchmarks/preprocess.py --peer .peers/bin --hippocampus spadunet_data/raw/Dataset004_Hippocampus

Both plan and preprocess the same raw folders with the same number of processes: (a) Hippocampus; (b) four volumes of
512×512×120 int16 with 13 labels, from 2.5×0.8×0.8 mm to 3×0.75×0.75 mm; (c), ours alone, one of 512×512×800. The
volumes of (b) and (c) are drawn: a body with 13 organs, in noise as strong as that of CT. Prints time and peak memory
of the whole tree of processes as ratios, disk, patch reads, and where our time goes within one case.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import blosc2
import numpy as np
import psutil

from spadunet.cli.stages import read_plan
from spadunet.dataset import load_dataset
from spadunet.demo import __file__ as demo_file
from spadunet.formats import write_array
from spadunet.image import read_image, read_label_map
from spadunet.preprocessing.converters.folder import new_dataset, write_description
from spadunet.preprocessing.preprocess import orient_and_crop, preprocess
from spadunet.preprocessing.resample import LINEAR, resample_classes, spline_orders
from spadunet.preprocessing.store import IMAGE_DTYPE, sample_foreground
from spadunet.preprocessing.store import write_array as store_array

EMBEDDED = Path(demo_file).parent / "data/Dataset004_Hippocampus"
SPACING_MM, TARGET_MM = (2.5, 0.8, 0.8), ("3", "0.75", "0.75")
NUM_LABELS = 13
PATCH, NUM_READS = (64, 128, 128), 40
SECONDS_BETWEEN_LOOKS = 0.05


@dataclass(frozen=True, kw_only=True)
class Run:
    """One command: wall time, and the most memory that its processes held together (shared pages counted once)."""

    seconds: float
    peak_gb: float


def run(command: list[str], environment: dict[str, str]) -> Run:
    """Run a command; its output is shown only if it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    peak = 0

    def look() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, memory_of_tree(process.pid))
            time.sleep(SECONDS_BETWEEN_LOOKS)

    watcher = threading.Thread(target=look)
    watcher.start()
    output, _ = process.communicate()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}\n{output}")
    return Run(seconds=time.perf_counter() - start, peak_gb=peak / 1e9)


def memory_of_tree(pid: int) -> int:
    """Proportional set size of a process and all below it, in bytes."""
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    total = 0
    for member in tree:
        try:
            total += member.memory_full_info().pss
        except (psutil.Error, OSError):
            continue  # it has ended
    return total


def draw_volume(shape: tuple[int, int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A body in air with 13 ellipsoids, in HU as int16, and their labels as uint8; slice by slice."""
    generator = np.random.default_rng(seed)
    depth, height, width = shape
    centres = generator.uniform(0.3, 0.7, (NUM_LABELS, 3)) * shape
    radii = generator.uniform(0.03, 0.12, (NUM_LABELS, 3)) * shape
    rows, columns = np.ogrid[:height, :width]
    is_body = ((rows / height - 0.5) / 0.35) ** 2 + ((columns / width - 0.5) / 0.45) ** 2 < 1
    image, labels = np.empty(shape, np.int16), np.zeros(shape, np.uint8)
    for number in range(depth):
        plane = np.where(is_body, 40.0, -1000.0)
        for label, (centre, radius) in enumerate(zip(centres, radii, strict=True), start=1):
            depths, heights, widths = (
                ((place - middle) / reach) ** 2
                for place, middle, reach in zip((number, rows, columns), centre, radius, strict=True)
            )
            distance = depths + heights + widths
            plane[distance < 1] = 60 + 10 * label
            labels[number][distance < 1] = label
        image[number] = np.rint(plane + generator.normal(0, 15, plane.shape))
    return image, labels


def draw_dataset(folder: Path, num_slices: int, num_cases: int) -> None:
    """A raw dataset of drawn CT volumes."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *SPACING_MM, 1
    with new_dataset(folder):
        for number in range(num_cases):
            image, labels = draw_volume((num_slices, 512, 512), number)
            write_array(folder / f"imagesTr/case_{number}_0000.nii.gz", image, affine)
            write_array(folder / f"labelsTr/case_{number}.nii.gz", labels, affine)
        names = ["background", *(f"organ {number}" for number in range(1, NUM_LABELS + 1))]
        write_description(folder, channel_names=["CT"], labels=names, about={"numTraining": num_cases})


def ours(data: Path, dataset: str, num_processes: int, *spacing: str) -> Run:
    """Check, fingerprint, plan and preprocess."""
    command = [str(Path(sys.executable).parent / "spadunet_plan_and_preprocess"), "-d", dataset]
    command += ["-np", str(num_processes), *(["--spacing", *spacing] if spacing else [])]
    return run(command, {"SPADUNET_DATA": str(data)})


def nnunet(peer: Path, data: Path, number: str, num_processes: int, *spacing: str) -> Run:
    """Fingerprint, plan and preprocess for its full resolution; it checks nothing."""
    command = [str(peer / "nnUNetv2_plan_and_preprocess"), "-d", number, "-c", "3d_fullres"]
    command += ["-np", str(num_processes), "-npfp", str(num_processes)]
    command += ["-overwrite_target_spacing", *spacing] if spacing else []
    folders = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "nnunet", "nnUNet_results": "nnunet_results"}
    return run(command, {name: str(data / folder) for name, folder in folders.items()})


def compare(data: Path, dataset: str, peer: Path | None, num_processes: int, *spacing: str) -> None:
    """Print both runs, or ours alone, and the disk they take."""
    mine = ours(data, dataset, num_processes, *spacing)
    disk = disk_mb(data / "preprocessed" / dataset)
    print(f"  spadunet  {mine.seconds:6.1f} s  {mine.peak_gb:5.2f} GB  {disk:7.1f} MB")
    if peer is not None:
        theirs = nnunet(peer, data, dataset[7:10].lstrip("0"), num_processes, *spacing)
        disk = disk_mb(data / "nnunet" / dataset)
        print(f"  nnU-Net   {theirs.seconds:6.1f} s  {theirs.peak_gb:5.2f} GB  {disk:7.1f} MB")
        print(
            f"  → {theirs.seconds / mine.seconds:.1f} times as fast, {mine.peak_gb / theirs.peak_gb:.2f} of its memory"
        )


def disk_mb(folder: Path) -> float:
    """What a folder holds."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


@contextmanager
def timed(title: str) -> Iterator[None]:
    """Print how long a block took."""
    start = time.perf_counter()
    yield
    print(f"  {title:34} {time.perf_counter() - start:6.2f} s")


def stages(data: Path, dataset: str) -> None:
    """Where our time goes in one case, in one process."""
    raw = load_dataset(data / "raw" / dataset)
    plan = read_plan(data / "preprocessed" / dataset, raw)
    case = raw.cases[0]
    with timed("read image and labels"):
        image, label_map = read_image(case.image_paths), read_label_map(case.label_path)
    with timed("orient and crop"):
        oriented = orient_and_crop(image)
    with timed("normalise and resample the image"):
        made = preprocess(case.name, image, None, plan, dtype=IMAGE_DTYPE)
    with timed("resample the labels"):
        classes = oriented.follow(plan.labels.to_classes(label_map.array))
        orders = spline_orders(oriented.spacing_mm, made.geometry.spacing_mm, LINEAR)
        classes = resample_classes(classes, made.geometry.shape, orders)
    with timed("sample foreground voxels"):
        sample_foreground(classes)
    with tempfile.TemporaryDirectory() as folder, timed("store both"):
        store_array(Path(folder) / "image.b2nd", made.image)
        store_array(Path(folder) / "classes.b2nd", classes)


def read_times(data: Path, dataset: str) -> None:
    """Print how long random patches take to read from our file and from nnU-Net's."""
    mine = sorted((data / "preprocessed" / dataset / "cases").glob("*[0-9].b2nd"))
    theirs = sorted(path for path in (data / "nnunet" / dataset).rglob("*.b2nd") if "_seg" not in path.name)
    seconds = {}
    for name, paths in (("spadunet", mine), ("nnU-Net", theirs)):
        generator = np.random.default_rng(0)
        start = time.perf_counter()
        for _ in range(NUM_READS):
            array = blosc2.open(str(paths[generator.integers(len(paths))]), mode="r")
            corner = [generator.integers(max(n - s, 0) + 1) for n, s in zip(array.shape[1:], PATCH, strict=True)]
            np.asarray(array[(slice(None), *(slice(c, c + s) for c, s in zip(corner, PATCH, strict=True)))], np.float32)
        seconds[name] = (time.perf_counter() - start) / NUM_READS
        print(f"  {name:9} {1000 * seconds[name]:6.1f} ms a patch of {'×'.join(map(str, PATCH))}")
    print(f"  → {seconds['nnU-Net'] / seconds['spadunet']:.1f} times as fast")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hippocampus", type=Path, default=EMBEDDED, help="raw folder (default: the embedded part)")
    parser.add_argument("--peer", type=Path, metavar="BIN", help="folder with nnU-Net's commands (default: ours alone)")
    parser.add_argument("-np", "--num-processes", type=int, default=2)
    parser.add_argument("--parts", nargs="+", choices="abc", default=list("abc"))
    parser.add_argument("--work", type=Path, help="folder to work in (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        data = options.work or Path(temporary)
        (data / "raw").mkdir(parents=True, exist_ok=True)
        for folder in ("preprocessed", "nnunet"):
            shutil.rmtree(data / folder, ignore_errors=True)
        parts: dict[str, Callable[[], None]] = {
            "a": lambda: part_a(data, options),
            "b": lambda: part_b(data, options),
            "c": lambda: part_c(data),
        }
        for part in options.parts:
            parts[part]()


def part_a(data: Path, options: argparse.Namespace) -> None:
    """Many small images."""
    name = "Dataset004_Hippocampus"
    if not (data / "raw" / name).exists():
        (data / "raw" / name).symlink_to(options.hippocampus.resolve())
    print(f"(a) Hippocampus, {options.num_processes} processes")
    compare(data, name, options.peer, options.num_processes)


def part_b(data: Path, options: argparse.Namespace) -> None:
    """Four CT volumes."""
    name = "Dataset902_DrawnCT"
    if not (data / "raw" / name).exists():
        draw_dataset(data / "raw" / name, 120, 4)
    print(f"(b) four CT volumes of 512×512×120, {options.num_processes} processes")
    compare(data, name, options.peer, options.num_processes, *TARGET_MM)
    print("    one case of ours:")
    stages(data, name)
    if options.peer:
        print("    patch reads:")
        read_times(data, name)


def part_c(data: Path) -> None:
    """One long CT volume."""
    name = "Dataset903_LongCT"
    if not (data / "raw" / name).exists():
        draw_dataset(data / "raw" / name, 800, 1)
    print("(c) one CT volume of 512×512×800, one process")
    compare(data, name, None, 1, *TARGET_MM)


if __name__ == "__main__":
    main()
