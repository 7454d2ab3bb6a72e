"""nnU-Net's side of the export in benchmarks/predict.py, run by the interpreter that has nnU-Net.

Takes plans.json, dataset.json, a file of logits (float16, as it adds them up), how many slices, rows and columns the
image has, and where the label map goes. Prints the seconds of its own export from logits in memory, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

THREADS = 2


def main() -> None:
    """Read, export, write."""
    plans_file, dataset_file, logits_file, depth, height, width, result = sys.argv[1:]
    plans, description = (json.loads(Path(name).read_text()) for name in (plans_file, dataset_file))
    plans = PlansManager(plans)
    configuration, labels = plans.get_configuration("3d_fullres"), plans.get_label_manager(description)
    logits = torch.from_numpy(np.load(logits_file))
    shape = [int(depth), int(height), int(width)]
    sizes = zip(configuration.spacing, logits.shape[1:], shape, strict=True)
    properties = {
        "spacing": [spacing * size / new for spacing, size, new in sizes],
        "shape_after_cropping_and_before_resampling": shape,
        "shape_before_cropping": shape,
        "bbox_used_for_cropping": [[0, size] for size in shape],
    }
    start = time.perf_counter()
    label_map = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, plans, configuration, labels, properties, num_threads_torch=THREADS
    )
    seconds = time.perf_counter() - start
    np.save(result, label_map)
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
