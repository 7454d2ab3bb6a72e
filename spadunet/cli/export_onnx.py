"""spadunet_export_onnx: a static network for one degree of anisotropy."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from ..spacing import MAX_DA
from .run import make_parser, run_command

EXAMPLES = """\
  spadunet_export_onnx -m results/Dataset007_Liver/spad_unet_base/fold_0 -o liver.onnx
  spadunet_export_onnx -m joint_model -d Heart --da 3 -o heart_da3.onnx
"""

log = logging.getLogger("spadunet")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser(
        "Write the network of one task as ONNX: plain convolutions, as they are for images of one degree of\n"
        "anisotropy. It runs in onnxruntime, without spadunet, and tells how images must be prepared (extra: onnx).",
        EXAMPLES,
    )
    parser.add_argument("-m", "--model", type=Path, required=True, metavar="MODEL", help="model folder")
    parser.add_argument("-d", "--dataset", help="the model's task (name, number or path), if it has several")
    parser.add_argument(
        "--da",
        type=int,
        choices=range(MAX_DA + 1),
        help="degree of anisotropy: floor(log2(spacing of slices / spacing of pixels)) (default: the plan's)",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="new file, NAME.onnx")
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options))


def execute(options: argparse.Namespace) -> int:
    """Load the model, write the network, say what it is."""
    from ..errors import InputError
    from ..files import require_writable
    from ..model import load_model
    from ..models import choose_task
    from ..sharing.onnx_network import export_onnx, require_onnx

    if options.output.suffix != ".onnx":
        raise InputError(f"-o {options.output}: an ONNX file ends with .onnx; name it {options.output.stem}.onnx")
    if options.output.exists():
        raise InputError(f"-o {options.output}: is there already; remove it or give another name")
    require_onnx()
    task = choose_task(options.model, options.dataset)
    require_writable(options.output.parent)
    model = load_model(options.model)
    plan = model.tasks[task].plan
    da = plan.degree_of_anisotropy if options.da is None else options.da
    if not plan.is_native and da != plan.degree_of_anisotropy:
        log.warning(
            "--da %d: the plan brings images to a spacing of degree %d; the network is for images at their own spacing",
            *(da, plan.degree_of_anisotropy),
        )
    patch = "×".join(map(str, plan.patch_sizes_voxels[da]))
    log.info("task %s at a degree of anisotropy of %d, patch %s", task, da, patch)
    differs = export_onnx(model, task, da, options.output)
    size = options.output.stat().st_size / 1e6
    log.info("%s: %.1f MB; onnxruntime's logits differ from torch's by at most %.1g", options.output, size, differs)
    return 0
