"""The same anatomy on either side of the boundary between two degrees of anisotropy: by how much Dice changes.

    python benchmarks/da_boundary.py MODEL -d DATASET [--boundary 2] [--cases 20]

The slices of each test image (of imagesTs with labelsTs, else the training images) are averaged to slices 0.95 and 1.05
times the boundary, in pixels: for 2, s_slice / s_plane is 1.9, where every kernel of the network is three-dimensional,
and 2.1, where those of the finest level are not. Both are predicted at their own spacing, brought back slice by slice
to the image's own grid and scored there. The default boundary is the first one above the image's own spacing.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from thicker import Thicker

from spadunet.dataset import Dataset, find_test_cases, load_dataset
from spadunet.evaluation.evaluate import evaluate_case
from spadunet.evaluation.scoring import gather_scores
from spadunet.image import Image, read_image, read_label_map
from spadunet.inference.predict import Engine, build_network, predict_image
from spadunet.model import load_model
from spadunet.models import choose_task
from spadunet.network.device import choose_device, choose_precision
from spadunet.orient import choose_axes
from spadunet.scores import Scores
from spadunet.spacing import degree_of_anisotropy

SIDES = (0.95, 1.05)
"""Slice spacing over the boundary's."""


def thicker(image: Image, side: float, boundary: float | None) -> Thicker:
    """To a side of a boundary; None is the first above the image's own spacing.

    Raises:
        ValueError: if the slices are thicker than that already.
    """
    (axis, *plane), _ = choose_axes(image.shape, image.affine)
    ratio = image.spacing_mm[axis] / min(image.spacing_mm[other] for other in plane)
    if boundary is None:
        boundary = 2.0 ** max(math.ceil(math.log2(ratio / SIDES[0])), 1)
    factor = side * boundary / ratio
    if factor < 1:
        raise ValueError(f"slices are {ratio:.2f} pixels apart already, beyond {side * boundary:.2f}")
    return Thicker(axis=axis, factor=factor, num_old=image.shape[axis])


def boundary_scores(engine: Engine, dataset: Dataset, num_cases: int, boundary: float | None) -> list[Scores]:
    """Scores of both sides, finer slices first.

    Raises:
        ValueError: as `thicker`.
    """
    cases = [case for case in find_test_cases(dataset) if case.label_path] or list(dataset.cases)
    scores = []
    for side in SIDES:
        found = []
        for case in cases[:num_cases]:
            assert case.label_path is not None
            image = read_image(case.image_paths, num_channels=len(dataset.channel_names))
            change = thicker(image, side, boundary)
            predicted = change.back(predict_image(change.image(image), engine), image.affine)
            found.append(evaluate_case(case.name, predicted, read_label_map(case.label_path), dataset.labels))
        scores.append(gather_scores(found))
    return scores


def degrees(dataset: Dataset, boundary: float | None) -> list[int]:
    """Degree of anisotropy of the first training image on both sides."""
    image = read_image(dataset.cases[0].image_paths, num_channels=len(dataset.channel_names))
    found = []
    for side in SIDES:
        change = thicker(image, side, boundary)
        depth, *plane = (image.spacing_mm[axis] for axis in choose_axes(image.shape, image.affine)[0])
        found.append(degree_of_anisotropy((depth * change.factor, plane[0], plane[1])))
    return found


def main() -> None:
    """Print Dice on both sides and the change."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("-d", "--dataset", type=Path, required=True, help="its raw folder")
    parser.add_argument("--boundary", type=float, help="a power of 2 (default: the first above each image's spacing)")
    parser.add_argument("--cases", type=int, default=20, help="at most (default: 20)")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    dataset = load_dataset(options.dataset)
    model = load_model(options.model)
    task = choose_task(options.model, dataset.name)
    device = choose_device(options.device)
    engine = Engine(
        network=build_network(model, task).to(device),
        plan=model.tasks[task].plan,
        device=device,
        precision=choose_precision("auto", device),
        spacing="native",
    )
    below, above = boundary_scores(engine, dataset, options.cases, options.boundary)
    first, second = degrees(dataset, options.boundary)
    print(f"{len(below.cases)} cases of {dataset.name}, model {options.model}")
    print(f"{'Dice':<24}DA {first:<6}DA {second:<6}change")
    rows = {name: (row.dice, above.summary()[name].dice) for name, row in below.summary().items()}
    for name, (a, b) in (rows | {"mean": (below.mean("dice"), above.mean("dice"))}).items():
        print(f"{name:<24}" + ("not defined" if a is None or b is None else f"{a:<9.4f}{b:<9.4f}{b - a:+.4f}"))


if __name__ == "__main__":
    main()
