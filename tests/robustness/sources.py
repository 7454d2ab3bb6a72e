"""Sound files to damage, of every format, each in a place and at an angle of its own."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from dicom_files import write_series, write_slice

from spadunet.dataset import load_dataset
from spadunet.evaluation.label_names import LABELS_JSON
from spadunet.labels import LabelSet
from spadunet.model import Model, save_model
from spadunet.network.build import build_backbone, build_task
from spadunet.plan import IntensityRule, Plan
from spadunet.plans.extract import extract_fingerprint
from spadunet.plans.planner import make_plan as make_plan_of
from spadunet.preprocessing.converters.chaos import SLICES_JSON, CaseSlices, ChaosSlices
from spadunet.preprocessing.integrity import read_checked
from spadunet.preprocessing.preprocess import orient_and_crop
from spadunet.preprocessing.run import preprocess_dataset
from spadunet.record import write_record
from spadunet.task import Task
from spadunet.training.splits import SPLITS_JSON, make_splits

SHAPE = (5, 8, 6)
"""Array order."""
SPACING_MM = (0.9, 1.3, 2.5)
ORIGIN_MM = (-31.5, 12.25, 40.0)
TILTED = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
MIRRORED = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
LABELS = LabelSet(names=("background", "organ"), ids=(0, 1))


def volume(kind: str = "i2", seed: int = 0) -> np.ndarray:
    """Noise of a type, of shape SHAPE."""
    return np.random.default_rng(seed).integers(1, 100, SHAPE).astype(kind)


def image_of(array: np.ndarray, direction: tuple[float, ...] = TILTED) -> sitk.Image:
    """An array in a place of its own."""
    image = sitk.GetImageFromArray(array)
    axes = image.GetDimension()
    image.SetSpacing((*SPACING_MM, 1.0)[:axes])
    image.SetOrigin((*ORIGIN_MM, 0.0)[:axes])
    matrix = np.eye(axes)
    matrix[: min(axes, 3), : min(axes, 3)] = np.reshape(direction, (3, 3))[: min(axes, 3), : min(axes, 3)]
    image.SetDirection(matrix.ravel().tolist())
    return image


def write_images(folder: Path) -> None:
    """Volumes and pictures, a file each."""
    folder.mkdir()
    sitk.WriteImage(image_of(volume()), str(folder / "tilted.nii"))
    sitk.WriteImage(image_of(volume("f4"), MIRRORED), str(folder / "mirrored.nii.gz"))
    sitk.WriteImage(image_of(volume("u1")[0]), str(folder / "flat.nii"))
    sitk.WriteImage(sitk.JoinSeries([image_of(volume("u2"))]), str(folder / "lone_4d.nii"))
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_lps()
    for name, kind in (("sform.nii", nibabel.Nifti1Image), ("sform.nii.gz", nibabel.Nifti1Image)):
        nibabel.save(kind(volume("f4").T, ras), folder / name)
    for name, codes in (("both_2.nii", (2, 1)), ("qform_2.nii", (1, 0))):
        image = nibabel.Nifti2Image(volume().T, ras)
        image.set_qform(ras, codes[0])
        image.set_sform(ras if codes[1] else None, codes[1])
        nibabel.save(image, folder / name)
    for name in ("tilted.nrrd", "raw.nrrd", "tilted.mha", "raw.mha"):
        sitk.WriteImage(image_of(volume()), str(folder / name), useCompression=not name.startswith("raw"))
    grey, colour = volume("u1")[0], np.stack([volume("u1", seed)[0] for seed in range(3)], -1)
    for name in ("grey.png", "grey.bmp", "grey.tif", "grey.jpg"):
        sitk.WriteImage(sitk.GetImageFromArray(grey), str(folder / name))
    for name in ("colour.png", "colour.tif", "colour.jpg"):
        sitk.WriteImage(sitk.GetImageFromArray(colour, isVector=True), str(folder / name))
    sitk.WriteImage(sitk.GetImageFromArray(volume("u1")), str(folder / "deep.tif"))
    (folder / "deep.json").write_text(json.dumps({"spacing": [2.5, 1.3, 0.9]}))


def affine_lps() -> np.ndarray:
    """Affine (4, 4) from (x, y, z) indices of `image_of`'s tilted volumes."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(TILTED, (3, 3)) * SPACING_MM
    affine[:3, 3] = ORIGIN_MM
    return affine


def write_dicom(folder: Path) -> None:
    """A series of five slices, and a file that stands alone."""
    names = [f"{number}.dcm" for number in range(len(volume()))]
    write_series(folder, volume("i2"), names=names, first_mm=ORIGIN_MM, step_mm=(0, 0, 2.5), pixel_mm=(1.3, 0.9))


def make_plan() -> Plan:
    """A plan for one channel and one organ."""
    return Plan(
        dataset_name="Dataset001_Tiny",
        channel_names=("MRI",),
        intensity=(IntensityRule(kind="percentiles", low=0.5, high=99.5),),
        target_spacing_mm=(2.5, 1.3, 0.9),
        degree_of_anisotropy=1,
        patch_sizes_voxels={da: (4, 8, 8) if da < 6 else (1, 8, 8) for da in range(7)},
        labels=LABELS,
        memory_gb=0.01,
        fingerprint_digest="0" * 16,
    )


def write_model(folder: Path) -> None:
    """An untrained model of the smallest preset."""
    import torch

    torch.manual_seed(0)
    task = Task(plan=make_plan(), state=build_task(1, LABELS.num_outputs, "spad_unet", "tiny").state_dict())
    state = build_backbone("spad_unet", "tiny").state_dict()
    tasks = {"Dataset001_Tiny": task}
    save_model(folder, Model(backbone="spad_unet", preset="tiny", backbone_state=state, tasks=tasks, provenance={}))


def write_dataset(folder: Path, num_cases: int = 4) -> None:
    """A raw dataset of small volumes, the label a cube."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "organ": 1},
        "file_ending": ".nii.gz",
        "patients": {"case0": "anna"},
        "numTraining": num_cases,
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=1))
    for number in range(num_cases):
        labels = np.zeros(SHAPE, np.uint8)
        labels[1:4, 2:6, 1:4] = 1
        sitk.WriteImage(image_of(volume("i2", number)), str(folder / f"imagesTr/case{number}_0000.nii.gz"))
        sitk.WriteImage(image_of(labels), str(folder / f"labelsTr/case{number}.nii.gz"))


def write_region_description(folder: Path) -> None:
    """dataset.json with regions, an ignore label, and channels that may be missing."""
    description = {
        "channel_names": {"0": "T1", "1": "T2"},
        "optional_channels": ["T2"],
        "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
        "regions_class_order": [1, 2],
        "file_ending": ".nrrd",
    }
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(description, indent=1))


def write_slices(folder: Path) -> None:
    """What the conversion of CHAOS leaves beside its cases."""
    case = CaseSlices(
        folder="MR/1/T1DUAL",
        is_test=True,
        stems=tuple(f"IMG-{number}" for number in range(SHAPE[0])),
        shape=SHAPE,
        affine=tuple(map(tuple, affine_lps().tolist())),
    )
    folder.mkdir()
    write_record(folder / SLICES_JSON, ChaosSlices(cases={"mr_1": case}))
    sitk.WriteImage(image_of(np.ones(SHAPE, np.uint8)), str(folder / "mr_1.nii.gz"))


def write_all(folder: Path) -> None:
    """Everything, each kind in a folder of its own."""
    write_images(folder / "images")
    write_dicom(folder / "series")
    shutil.make_archive(str(folder / "series"), "zip", folder / "series")
    write_slice(
        folder / "lone.dcm",
        volume("i2")[0],
        {"0008|0060": "MR", "0020|000e": "1.2.3", "0020|0032": "1\\2\\3", "0020|0037": "1\\0\\0\\0\\1\\0"},
        (1.3, 0.9),
    )
    write_model(folder / "model")
    write_dataset(folder / "dataset")
    write_region_description(folder / "regions")
    write_slices(folder / "chaos")
    write_record(folder / LABELS_JSON, LABELS)
    write_stored(folder / "dataset", folder / "stored")


def write_stored(raw: Path, folder: Path) -> None:
    """What planning, preprocessing and training leave of a dataset."""
    dataset = load_dataset(raw)
    read = partial(read_checked, labels=dataset.labels, num_channels=1)
    found = extract_fingerprint(dataset, read=read, orient=orient_and_crop)
    plan = make_plan_of(found, dataset.channel_names, dataset.labels, memory_gb=0.1)
    preprocess_dataset(dataset, plan, folder)
    write_record(folder / "fingerprint.json", found)
    write_record(folder / "plan.json", plan)
    (folder / SPLITS_JSON).write_text(json.dumps(make_splits(dataset)))
