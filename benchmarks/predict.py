"""Prediction side by side with nnU-Net 2.8.1, in one run: time and peak memory as ratios.

    python -m venv .peers && .peers/bin/pip install nnunetv2==2.8.1
    python benchmarks/predict.py --peer .peers/bin --hippocampus spadunet_data/raw/Dataset004_Hippocampus

(a) the test cases of Hippocampus end to end, from the commands' start to the last label map; (b) one drawn CT volume of
512×512×400 voxels with three classes, which both bring to 3 mm; (c) export alone: logits of 256×256×160 voxels to a
label map of 512×512×320. Neither mirrors; windows overlap by half in both. Models are trained for two steps: what they
have learned does not change what they cost. The logits of (c) are those of a network that is sure of a CT with many
organs (--labels), with noise. If nnU-Net fails in (c), as for lack of memory, it gets fewer classes (--peer-classes),
and so do we.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from nnunet_peer import Peer
from preprocess import Run, draw_volume, run
from rows import link_raw
from scipy import ndimage

from spadunet.case import Geometry
from spadunet.dataset import find_test_cases, load_dataset
from spadunet.formats import write_array
from spadunet.image import read_label_map
from spadunet.labels import LabelSet
from spadunet.memory import available_bytes
from spadunet.preprocessing.converters.folder import new_dataset, write_description
from spadunet.preprocessing.restore import Restorer

CASES_MM, TARGET_MM = (1.0, 0.8, 0.8), ("3", "3", "3")
SHAPE_B = (400, 512, 512)
LOGITS_C, SHAPE_C = (160, 256, 256), (320, 512, 512)
NUM_STEPS, SLAB = 2, 16
NAME_B = "Dataset901_Drawn"


def tell(title: str, mine: Run, theirs: Run | None) -> None:
    """Print a pair of runs, and what is between them."""
    print(f"{title}\n  spadunet  {mine.seconds:7.1f} s  {mine.peak_gb:5.2f} GB")
    if theirs is not None:
        print(f"  nnU-Net   {theirs.seconds:7.1f} s  {theirs.peak_gb:5.2f} GB")
        print(
            f"  → {theirs.seconds / mine.seconds:.1f} times as fast, {mine.peak_gb / theirs.peak_gb:.2f} of its memory",
            flush=True,
        )


def end_to_end(title: str, raw: Path, data: Path, options: argparse.Namespace, *spacing: str) -> None:
    """Plan, preprocess and train a little, untimed; then predict the test cases by both, timed."""
    link = link_raw(raw, data)
    dataset, model = load_dataset(link), data / f"model_{raw.name}"
    command = Path(sys.executable).parent
    own = {"SPADUNET_DATA": str(data)}
    plan = ["--spacing", *spacing] if spacing else []
    run([str(command / "spadunet_plan_and_preprocess"), "-d", str(link), "-np", "2", *plan], own)
    train = [
        "-d",
        raw.name,
        "-f",
        "all",
        "--preset",
        options.preset,
        "--max-steps",
        str(NUM_STEPS),
        "--num-workers",
        "0",
    ]
    run([str(command / "spadunet_train"), *train, "-o", str(model)], own)
    images, predictions = link / "imagesTs", data / f"ours_{raw.name}"
    words = [str(command / "spadunet_predict"), "-i", str(images), "-o", str(predictions), "-m", str(model)]
    mine = run([*words, "-device", "cpu"], own)
    theirs = None
    if options.peer is not None:
        peer = Peer(commands=options.peer, data=data, device="cpu")
        folder = data / f"nnunet_{raw.name}"
        folder.mkdir(exist_ok=True)
        peer.preprocess(dataset, *spacing)
        peer.train(dataset, "all", str(NUM_STEPS), 0, folder, splits=None)
        words = peer.predict_words(dataset, "all", images, folder, "--disable_tta", "-step_size", "0.5")
        theirs = run([str(word) for word in words], peer.environment(folder / "nnunet_results"))
        require_same_cases(predictions, folder / "predictions")
    tell(f"{title} ({len(find_test_cases(dataset))} cases)", mine, theirs)


def require_same_cases(mine: Path, theirs: Path) -> None:
    """Both have predicted all."""
    names = [{path.name for path in folder.glob("*.nii.gz")} for folder in (mine, theirs)]
    if not names[0] or names[0] != names[1]:
        raise SystemExit(f"{mine} and {theirs} hold other cases")


def draw_large(folder: Path) -> Path:
    """A raw dataset of one large volume, to be trained on and to be predicted."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *CASES_MM, 1
    with new_dataset(folder):
        image, labels = draw_volume(SHAPE_B, 0)
        labels = np.where(labels > 3, 0, labels).astype(np.uint8)
        for number in range(5):  # of which nnU-Net makes its folds; all three classes are in these slices
            write_array(folder / f"imagesTr/case_{number}_0000.nii.gz", image[140 : 220 + number], affine)
            write_array(folder / f"labelsTr/case_{number}.nii.gz", labels[140 : 220 + number], affine)
        write_array(folder / "imagesTs/large_0000.nii.gz", image, affine)
        write_description(folder, channel_names=["CT"], labels=["background", "a", "b", "c"], about={"numTraining": 5})
    return folder


def draw_logits(path: Path, labels: np.ndarray, num_classes: int) -> None:
    """Logits (K, D, H, W) float16 of a network that is sure of the labels: log of their smoothed shares, and noise."""
    generator = np.random.default_rng(0)
    zoom = [new / size for new, size in zip(LOGITS_C, labels.shape, strict=True)]
    large = ndimage.zoom(labels, zoom, order=0)
    logits = np.lib.format.open_memmap(path, "w+", np.float16, (num_classes, *LOGITS_C))
    for number in range(num_classes):
        share = ndimage.gaussian_filter((large == number).astype(np.float32), 1.5)
        noise = generator.normal(0, 0.3, LOGITS_C).astype(np.float32)
        logits[number] = np.log(share + 1e-4) + noise
    logits.flush()


def slabs_of(path: Path) -> Iterator[np.ndarray]:
    """A file of logits, some slices at a time, as a sliding window gives them away."""
    for first in range(0, LOGITS_C[0], SLAB):
        logits = np.load(path, mmap_mode="r")  # opened anew: what was read before is let go of
        yield np.array(logits[:, first : first + SLAB], np.float32)


def export_ours(path: Path, num_classes: int, result: Path) -> None:
    """Our export, in a process of its own."""
    affine = np.diag([*(1.5 * size / new for size, new in zip(LOGITS_C, SHAPE_C, strict=True)), 1.0])
    geometry = Geometry(
        stored_shape=SHAPE_C,
        stored_affine=affine.tolist(),
        axes=(0, 1, 2),
        flips=(False, False, False),
        crop=tuple((0, size) for size in SHAPE_C),
        shape=LOGITS_C,
        spacing_mm=(1.5, 1.5, 1.5),
    )
    names = ("background", *(f"organ {number}" for number in range(1, num_classes)))
    restorer = Restorer(geometry, LabelSet(names=names, ids=tuple(range(num_classes))))
    for logits in slabs_of(path):
        restorer.add(logits)
    np.save(result, restorer.label_map().array)


def export(data: Path, options: argparse.Namespace) -> None:
    """(c): both from the same logits, reading included."""
    labels = read_label_map(options.labels).array
    for num_classes in dict.fromkeys((options.classes, options.peer_classes)):
        path, results = data / f"logits_{num_classes}.npy", [data / "mine.npy", data / "theirs.npy"]
        draw_logits(path, labels, num_classes)
        words = [sys.executable, __file__, "--export", str(path), str(num_classes), str(results[0])]
        mine = run(words, {})
        title = f"(c) export alone, {num_classes} classes"
        if options.peer is None:
            tell(title, mine, None)
            return
        words = [*limited(), options.peer / "python", Path(__file__).with_name("export_nnunet.py")]
        words += [*write_plans(data, num_classes), path, *SHAPE_C, results[1]]
        try:
            theirs = run([str(word) for word in words], {"nnUNet_n_proc_DA": "1"})
        except SystemExit as error:
            path.unlink()
            tell(title, mine, None)
            print(f"  nnU-Net   failed: {str(error).strip().splitlines()[-1] or 'killed'}", flush=True)
            continue
        tell(title, mine, theirs)
        mine_array, theirs_array = (np.load(result) for result in results)
        print(f"  voxels with the same label: {np.mean(mine_array == theirs_array):.4%}")
        return


def limited() -> list[object]:
    """Words before a command that may then take what is free and no more: it fails, and nothing else is pushed out."""
    return ["sh", "-c", f'ulimit -v {available_bytes() // 1024} && exec "$@"', "sh"]


def write_plans(data: Path, num_classes: int) -> tuple[Path, Path]:
    """Plans of nnU-Net as its planner writes them, at 1.5 mm, and a dataset.json with so many classes."""
    (plans_file,) = (data / "nnunet").glob("*004*/nnUNetPlans.json")
    plans = json.loads(plans_file.read_text())
    plans["configurations"]["3d_fullres"]["spacing"] = [1.5, 1.5, 1.5]
    names = {"background": 0} | {f"organ {number}": number for number in range(1, num_classes)}
    description = {"channel_names": {"0": "CT"}, "labels": names, "numTraining": 5, "file_ending": ".nii.gz"}
    paths = data / "plans.json", data / "dataset.json"
    for path, content in zip(paths, (plans, description), strict=True):
        path.write_text(json.dumps(content))
    return paths


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, metavar="BIN", help="folder with nnU-Net's commands and its python")
    parser.add_argument("--hippocampus", type=Path, required=True, help="raw Hippocampus dataset")
    parser.add_argument("--labels", type=Path, help="label map with many organs, for (c)")
    parser.add_argument("--parts", nargs="+", choices=("a", "b", "c"), default=["a", "b", "c"])
    parser.add_argument("--preset", default="tiny", help="of our network (default: tiny)")
    parser.add_argument("--classes", type=int, default=117)
    parser.add_argument("--peer-classes", type=int, default=20)
    options = parser.parse_args()
    if options.peer is not None:
        options.peer = options.peer.absolute()
    with tempfile.TemporaryDirectory() as name:
        data = Path(name)
        if "a" in options.parts:
            end_to_end("(a) Hippocampus", options.hippocampus, data, options)
        if "b" in options.parts:
            raw = draw_large(data / "drawn" / NAME_B)
            end_to_end("(b) 512×512×400, 3 classes, at 3 mm", raw, data, options, *TARGET_MM)
        if "c" in options.parts:
            if options.peer is not None and "a" not in options.parts:
                link = data / "raw" / options.hippocampus.name
                link.parent.mkdir()
                link.symlink_to(options.hippocampus.resolve())
                Peer(commands=options.peer, data=data, device="cpu").preprocess(load_dataset(link))
            export(data, options)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--export"]:
        export_ours(Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
