"""The dry run of `spadunet_predict`."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, OutputError
from ..measure import Amount, Needs
from .dry_run import (
    begin,
    bytes_of,
    finish,
    pairing_table,
    read_headers,
    show,
    show_needs,
    size_text,
    state_of,
    unknown,
)
from .options import find_mirror_axes

if TYPE_CHECKING:
    import torch

    from ..dataset import RawCase
    from ..inference.channels import ChannelOrder
    from ..inference.sources import Source
    from ..preprocessing.estimate import HeaderCase

LABEL_BYTES_PER_VOXEL = 0.05
"""Of compressed label maps: left ventricle 0.003, hippocampus 0.014, 41 structures in a CT with 3 mm voxels 0.052."""

PACKED_PROBABILITIES = 0.6
"""Of their bytes in memory, those of a file: 0.58 of 30 images cut around the hippocampus; air around a body packs."""


def show_prediction(
    cases: list[RawCase],
    sources: Sequence[Source],
    options: argparse.Namespace,
    *,
    device: torch.device,
    precision: torch.dtype,
    label_maps: dict[str, Path],
    kept: Collection[str],
    order: ChannelOrder,
) -> int:
    """Print which images would be predicted, by which model, and what that needs.

    Args:
        sources: the models.
        label_maps: where that of each case goes.
        kept: cases whose label maps stay.
        order: of the images' channels.

    Raises:
        InputError: with what the headers show to be wrong.
    """
    from ..evaluation.label_names import LABELS_JSON
    from ..inference.quality_table import QUALITY_CSV, REVIEW_FOLDER, review_path

    begin("spadunet_predict")
    headers, problems = read_headers(cases, len(order.names))
    paths = [path for case in cases for path in case.paths]
    show(
        "reads",
        [
            f"{options.input}: {len(cases)} images, {len(paths)} files, {size_text(bytes_of(paths))}",
            *(f"{it.folder}: task {it.task}, {size_text(bytes_of(files_of(it)))}" for it in sources),
        ],
    )
    there = {name for name, path in label_maps.items() if path.exists() or review_path(path).exists()}
    num_new = len(cases) - len(there)
    kind = {"nifti": "NIfTI", "input": "in the images' format", "dicom-seg": "DICOM SEG"}[options.format]
    num_replaced = len(there) - len(kept)
    state = [f"{num_new} new", *([f"{num_replaced} replaced"] if num_replaced or not kept else [])]
    written = [f"label maps, {kind}: {', '.join([*state, *([f'{len(kept)} kept'] if kept else [])])}"]
    if options.saves_probabilities:
        written.append(f"probabilities, <case>.npz beside each: {len(cases) - len(kept)} made")
    written += [state_of(options.output / name) for name in (LABELS_JSON, QUALITY_CSV, "spadunet_predict.json")]
    if options.reject_below is not None:
        written.append(f"{REVIEW_FOLDER}/: of these, label maps with mean expected Dice below {options.reject_below:g}")
    show(f"writes into {options.output}", [*written, state_of(options.output / "spadunet_predict.log", "added to")])
    show("pairs", pairing_table(cases, headers, order.names, options.input, label=None))
    todo = [header for name, header in headers.items() if name not in kept]
    try:
        needs = estimate(todo, sources, options, order, device, precision)
    except (InputError, OutputError) as error:
        needs = unknown(f"the trial failed: {str(error).splitlines()[0]}")
    show_needs(needs, options.output)
    return finish(problems)


def files_of(source: Source) -> list[Path]:
    """What is read of a model."""
    return [source.folder / "backbone.safetensors", source.folder / "tasks" / source.task]


def estimate(
    found: list[HeaderCase],
    sources: Sequence[Source],
    options: argparse.Namespace,
    order: ChannelOrder,
    device: torch.device,
    precision: torch.dtype,
) -> Needs:
    """One window through the network and the rest of the way on a few voxels, scaled by what the headers announce.

    Of an ensemble, the first model stands for all.
    """
    from ..inference.budget import PROBABILITY_BYTES
    from ..inference.estimate import num_windows, prepare_and_restore, try_model
    from ..inference.predict import plan_at
    from ..inference.subset import labels_of
    from ..measure import measure_apart
    from ..preprocessing.estimate import Stage, samples_of, try_stages

    if not found:
        nothing = Amount(value=0.0, basis="there is nothing to do")
        return Needs(time=nothing, memory=nothing, disk=nothing)
    model, task = sources[0].folder, sources[0].task
    plan = plan_at(sources[0].plan, options.spacing)
    num_views = len(sources) * 2 ** len(find_mirror_axes(options.mirror))
    grids = [header.target_grid(plan) for header in found]
    counts = Counter[int]()
    for shape, da in grids:
        counts[da] += num_views * num_windows(shape, plan.patch_sizes_voxels[da], options.overlap)
    windows = measure_apart(try_model, model, task, sorted(counts), device, precision)
    with samples_of([header.without_label() for header in found]) as samples:
        stage = Stage(run=partial(prepare_and_restore, plan=plan, order=order), plan=plan)
        rest = try_stages({"rest": stage}, samples)
    work = [header.work(plan) for header in found]
    network_seconds = sum(count * windows.result[da].seconds for da, count in counts.items())
    network_bytes = max(cost.peak_bytes for cost in windows.result.values())
    rest_bytes = max(work) * rest.rates["rest"].bytes_per_voxel
    num_values = len(plan.channel_names) + plan.labels.num_outputs + 1  # image, logits, weights of the windows
    device_bytes = max(cost.device_bytes for cost in windows.result.values())
    on_device = device_bytes + 4 * num_values * max(shape[0] * shape[1] * shape[2] for shape, _ in grids)
    num_all = sum(counts.values())
    num_outputs = labels_of(plan.labels, options.roi_subset or ()).num_outputs if options.saves_probabilities else 0
    share_bytes = [PROBABILITY_BYTES * num_outputs * header.num_voxels for header in found]
    more_memory = f"; twice the probabilities of {num_outputs} classes or regions" if num_outputs else ""
    more_disk = f"; and about {PACKED_PROBABILITIES:.0%} of the probabilities' bytes in memory" if num_outputs else ""
    return Needs(
        time=Amount(
            value=windows.start_seconds + network_seconds + rest.seconds("rest", sum(work), 1),
            basis=f"{num_all} windows of {network_seconds / num_all:.2g} s, by a trial here; the rest by {rest.basis}",
        ),
        memory=Amount(
            value=network_bytes + rest_bytes + 2 * max(share_bytes),
            basis=f"a window here, and {rest.basis} scaled by those of the largest image{more_memory}",
        ),
        disk=Amount(
            value=LABEL_BYTES_PER_VOXEL * sum(header.num_voxels for header in found)
            + PACKED_PROBABILITIES * sum(share_bytes),
            basis=f"at most {LABEL_BYTES_PER_VOXEL} bytes a voxel; real label maps took 0.003 to 0.05 when compressed"
            + more_disk,
        ),
        device_memory=Amount(value=on_device, basis="a window here, and the largest image with its logits")
        if device_bytes
        else None,
    )
