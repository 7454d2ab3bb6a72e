"""Names of the metrics, and what kind of number each is."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .errors import InputError

Kind = Literal["overlap", "points", "distance", "volume difference", "signed difference", "volume"]
"""Overlap: from 0 to 1, the more the better. Points: from 0 to 100, the more the better.
Distance and volume difference: from 0, the less the better.
Volume: a size, of which neither more nor less is better. Signed difference: below 0, too; its mean tells a bias, and
that neither more nor less of it is better, for errors of both signs cancel."""

DEFAULT_METRICS = ("dice", "assd_mm", "hd_mm", "hd95_mm")
"""The 95th percentile costs next to nothing once the distances are there."""

CHAOS_METRICS = ("dice", "ravd_percent", "assd_mm", "hd_mm", "chaos_score")
"""What the CHAOS challenge measures: the four metrics that its points are of, and these."""

BTCV_METRICS = ("dice", "assd_mm", "hd_mm", "assd_voxels", "hd_voxels")
"""What the paper measures on BTCV, whose distances it gives in voxels, and the same in mm."""

LengthUnit = Literal["mm", "voxel"]
UNITS: dict[LengthUnit, str] = {"mm": "mm", "voxel": "voxels"}
"""How `--unit` calls a unit of length, and how the metrics' names end."""

LESION_METRICS = frozenset({"lesion_f1", "panoptic_quality"})
SURFACE = re.compile(r"(?P<base>assd|masd|asd|hd(?P<percentile>\d+(\.\d+)?)?)(_(?P<unit>mm|voxels))?")
MEANS: dict[str, Literal["assd", "masd", "asd"]] = {"assd": "assd", "masd": "masd", "asd": "asd"}
NSD = re.compile(r"nsd_(?P<tolerance>\d+(\.\d+)?)(?P<unit>mm|voxels)?")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric by its name, as in `--metrics` and all files."""

    name: str
    title: str
    """For tables, with the unit."""
    kind: Kind
    unit: Literal["", "mm", "voxels", "%", "ml"] = ""
    """Of its values."""
    needs_reference: bool = False
    """Not defined where the reference is empty, whatever was predicted: it cannot tell a false alarm."""
    surface: Literal["", "assd", "masd", "asd", "hd", "nsd"] = ""
    """Which measure between the borders of two masks it is, as a `Definition` says; none of others."""
    number: float | None = None
    """Percentile of HD, tolerance of NSD."""

    @property
    def length_unit(self) -> Literal["", "mm", "voxels"]:
        """The unit that a surface metric measures in; none of others."""
        if not self.surface:
            return ""
        return "voxels" if self.name.endswith("voxels") else "mm"

    @property
    def is_higher_better(self) -> bool | None:
        """None of a volume and of a signed difference."""
        return None if self.kind in ("volume", "signed difference") else self.kind in ("overlap", "points")

    @property
    def best(self) -> float:
        """Of a metric that has a better and a worse."""
        return {"overlap": 1.0, "points": 100.0}.get(self.kind, 0.0)

    @property
    def places(self) -> int:
        """Decimal places in tables."""
        return 4 if self.kind == "overlap" else 2


FIXED = {
    metric.name: metric
    for metric in (
        Metric(name="dice", title="Dice", kind="overlap"),
        Metric(name="iou", title="IoU", kind="overlap"),
        Metric(name="sensitivity", title="sensitivity", kind="overlap", needs_reference=True),
        Metric(name="precision", title="precision", kind="overlap"),
        Metric(name="cldice", title="clDice", kind="overlap"),
        Metric(name="lesion_f1", title="lesion F1", kind="overlap"),
        Metric(name="panoptic_quality", title="panoptic quality", kind="overlap"),
        Metric(name="chaos_score", title="CHAOS score", kind="points"),
        Metric(name="ravd_percent", title="RAVD %", kind="volume difference", unit="%", needs_reference=True),
        Metric(name="rvd_percent", title="RVD %", kind="signed difference", unit="%", needs_reference=True),
        Metric(name="volume_ml", title="volume ml", kind="volume", unit="ml"),
        Metric(name="reference_volume_ml", title="reference ml", kind="volume", unit="ml"),
    )
}
KNOWN = (
    f"{', '.join(FIXED)}, and with _mm or _voxels: assd, masd, asd, hd, hd95 (or any percentile), "
    "nsd_2mm (or any tolerance, in mm or voxels)"
)


@functools.lru_cache(maxsize=1024)
def metric_of(name: str) -> Metric:
    """The metric of a full name, such as `dice`, `hd95_mm` or `nsd_1.5voxels`.

    Raises:
        InputError: if there is none of this name.
    """
    metric = find_metric(name)
    if metric is None:
        raise InputError(f"'{name}' is no metric; known are {KNOWN}")
    return metric


def find_metric(name: str) -> Metric | None:
    """As `metric_of`, but None where there is none."""
    if name in FIXED:
        return FIXED[name]
    if (found := SURFACE.fullmatch(name)) and found["unit"] and 0 < float(found["percentile"] or 100) <= 100:
        unit: Literal["mm", "voxels"] = "mm" if found["unit"] == "mm" else "voxels"
        title = f"{found['base'].upper()} {unit}"
        surface: Literal["assd", "masd", "asd", "hd"] = MEANS.get(found["base"], "hd")
        number = float(found["percentile"] or 100) if surface == "hd" else None
        return Metric(name=name, title=title, kind="distance", unit=unit, surface=surface, number=number)
    if (found := NSD.fullmatch(name)) and found["unit"]:
        title, tolerance = f"NSD {found['tolerance']} {found['unit']}", float(found["tolerance"])
        return Metric(name=name, title=title, kind="overlap", surface="nsd", number=tolerance)
    return None


def complete_names(words: Iterable[str], unit: LengthUnit) -> tuple[str, ...]:
    """Full names, each once: `hd95` becomes `hd95_mm` or `hd95_voxels`, `nsd_2.0` becomes `nsd_2mm`, `hd100` HD.

    Raises:
        InputError: if there is no metric of a name; tells all such names.
    """
    names = dict.fromkeys(full_name(word, unit) for word in words)
    wrong = [f"'{name}'" for name in names if find_metric(name) is None]
    if wrong:
        what = "is no metric" if len(wrong) == 1 else "are no metrics"
        raise InputError(f"{', '.join(wrong)} {what}; known are {KNOWN}")
    return tuple(names)


def full_name(word: str, unit: LengthUnit) -> str:
    """The one name of a surface metric, with its unit and its number as short as can be; any other word as it is."""
    if found := SURFACE.fullmatch(word):
        base, number = found["base"], found["percentile"]
        if number is not None:
            base = "hd" if float(number) == 100 else f"hd{shortest(number)}"
        return f"{base}_{found['unit'] or UNITS[unit]}"
    if found := NSD.fullmatch(word):
        return f"nsd_{shortest(found['tolerance'])}{found['unit'] or UNITS[unit]}"
    return word


def shortest(number: str) -> str:
    """Without zeros that say nothing: `02.50` becomes `2.5`."""
    whole, _, decimals = number.partition(".")
    decimals = decimals.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{decimals}" if decimals else "")
