"""Real cases whose findings are read off their label maps: some have both, some either."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

ANTERIOR, POSTERIOR = 1, 2
COLUMNS = ("anterior_larger", "large")


def write_findings(folder: Path, *, without_map: int = 2, without_row: int = 1) -> dict[str, tuple[int, int]]:
    """Give a hippocampus dataset a labels.csv; the findings of each case, also of those that get no row.

    A case has the finding `anterior_larger` if the anterior half has more voxels than the posterior, `large` if both
    together have more than the median case. The last cases lose their label map, the first get no row, and every fourth
    row does not tell of `large`.
    """
    paths = sorted((folder / "labelsTr").glob("*.nii.gz"))
    maps = {path.name.removesuffix(".nii.gz"): sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in paths}
    median = np.median([(it > 0).sum() for it in maps.values()])
    found = {
        name: (int((it == ANTERIOR).sum() > (it == POSTERIOR).sum()), int((it > 0).sum() > median))
        for name, it in maps.items()
    }
    rows = [
        f"{name},{anterior},{'' if number % 4 == 3 else large}"
        for number, (name, (anterior, large)) in enumerate(found.items())
        if number >= without_row
    ]
    (folder / "labels.csv").write_text("\n".join([f"image,{','.join(COLUMNS)}", *rows]) + "\n", encoding="utf-8")
    for path in paths[len(paths) - without_map :]:
        path.unlink()
    return found
