"""What all tests share: one thread, no GPU tests without a GPU, and tiny datasets cut from the demo's real cases."""

from __future__ import annotations

import contextlib
import errno
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

import spadunet

DEMO = Path(spadunet.__file__).parent / "demo/data"

Run = Callable[..., int]
CopyDemo = Callable[..., Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests run side by side, one a core."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def run() -> Run:
    """Call a command's main() with any arguments and give its exit code."""

    def call(main: Callable[[list[str]], None], *arguments: object) -> int:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        return int(caught.value.code or 0)

    return call


@pytest.fixture(scope="session")
def copy_demo() -> CopyDemo:
    """Write a raw dataset from the first training cases of an embedded one.

    `size` (x, y, z) cuts a box of at most this size around the middle of the labels; `as_slices` writes every slice
    that has labels as an image of its own, up to `num_cases`.
    """

    def copy(
        name: str, folder: Path, *, num_cases: int, size: tuple[int, int, int] | None = None, as_slices: bool = False
    ) -> Path:
        (folder / "imagesTr").mkdir(parents=True)
        (folder / "labelsTr").mkdir()
        shutil.copy(DEMO / name / "dataset.json", folder)
        written = 0
        for path in sorted((DEMO / name / "labelsTr").glob("*.nii.gz")):
            case = path.name.removesuffix(".nii.gz")
            image = sitk.ReadImage(str(DEMO / name / "imagesTr" / f"{case}_0000.nii.gz"))
            labels = sitk.ReadImage(str(path))
            for part, cut_image, cut_labels in parts(image, labels, size, as_slices=as_slices):
                if written < num_cases:
                    sitk.WriteImage(cut_image, str(folder / "imagesTr" / f"{case}{part}_0000.nii.gz"))
                    sitk.WriteImage(cut_labels, str(folder / "labelsTr" / f"{case}{part}.nii.gz"))
                    written += 1
        assert written == num_cases
        return folder

    return copy


def parts(
    image: sitk.Image, labels: sitk.Image, size: tuple[int, int, int] | None, *, as_slices: bool
) -> Iterator[tuple[str, sitk.Image, sitk.Image]]:
    """The box around the labels, or each labelled slice of it: suffix of the name, image, labels."""
    if size is not None:
        occupied = np.argwhere(sitk.GetArrayFromImage(labels))[:, ::-1]
        middle = (occupied.min(0) + occupied.max(0)) // 2
        whole = np.array(labels.GetSize())
        box = np.minimum(size, whole)
        first = np.clip(middle - box // 2, 0, whole - box)
        image, labels = (sitk.RegionOfInterest(it, box.tolist(), first.tolist()) for it in (image, labels))
    if not as_slices:
        yield "", image, labels
        return
    for number in np.flatnonzero(sitk.GetArrayFromImage(labels).any(axis=(1, 2))).tolist():
        yield f"_s{number:02}", image[:, :, number : number + 1], labels[:, :, number : number + 1]


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file gets its final name: the disk is full."""

    def replace(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("spadunet.files.os.replace", replace)


@pytest.fixture(scope="session")
def limited_files() -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """Let no file grow beyond some bytes, so that real libraries really fail in the midst of writing."""

    @contextlib.contextmanager
    def limit(max_bytes: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit
