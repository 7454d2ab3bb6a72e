"""What a surface metric means: tools that give it the same name differ by tens of per cent.

A definition says which voxels make a border, how the two directions are put together, and what a percentile is. The
metrics' names are `assd`, `masd`, `asd`, `hd`, `hd95` (any percentile, as `hd99.5`) and `nsd_2` (any tolerance, as
`nsd_0.5`), each with its unit: `hd95_mm`, `nsd_2mm`, `assd_voxels`, `nsd_2voxels`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..metrics import Metric, metric_of


@dataclass(frozen=True, kw_only=True)
class Definition:
    """How one tool defines surface metrics; DEFINITIONS holds all."""

    name: str
    tool: str
    """Whose values these are."""
    lacks: tuple[str, ...] = ()
    """What the tool has not got of assd, masd, asd, hd, hd95, percentile (any other) and nsd. These follow its borders
    and ways to pool."""
    is_area_weighted: bool = False
    """Measure from surface elements, each counting by its area, instead of from border voxels, each counting one."""
    image_edge_is_border: bool = True
    """A mask's voxels at the image's edge are border voxels: beyond the image counts as outside the mask."""
    pools_percentiles: bool = False
    """A percentile is that of both directions pooled, instead of the larger of the two directions' percentiles."""

    precision: str = ""
    """Where it is not the tool's own; NSD compares in the tool's in any case (`surface.nsd`)."""
    rounds_ranks: bool = False
    """Ranks of percentiles are in single precision: among 100 000 voxels, the 95th percentile lies off by up to
    0.004 of the step to the next distance."""

    def describe(self, metric: str) -> str:
        """One sentence: what this surface metric means here.

        Raises:
            InputError: if there is no metric of this name.
            ValueError: if it is no surface metric.
        """
        parsed = metric_of(metric)
        if not parsed.surface:
            raise ValueError(f"{metric} is no surface metric")
        text = f"{self._rule(parsed)}; {self._border()}; "
        kind: str = parsed.surface
        if parsed.surface == "hd" and parsed.number != 100:
            kind = "hd95" if parsed.number == 95 else "percentile"
        if kind in self.lacks:
            title = metric.split("_")[0].upper()
            return text + f"{self.tool} has no {title}, this follows its borders"
        if self.precision and parsed.surface != "nsd":
            return text + f"as {self.tool} in {self.precision} precision"
        return text + f"as {self.tool}"

    def _rule(self, metric: Metric) -> str:
        """How distances become the metric."""
        parts = "surface elements" if self.is_area_weighted else "border voxels"
        distances = f"distance in {metric.length_unit} from the {parts} of each mask to the nearest of the other"
        weight = ", weighted by area" if self.is_area_weighted else ""
        number = f"{metric.number:g}" if metric.number is not None else ""
        if metric.surface == "assd":
            return f"mean {distances}{weight}, both directions pooled"
        if metric.surface == "masd":
            return f"mean of the two directions' mean {distances}{weight}"
        if metric.surface == "asd":
            start = f"distance in {metric.length_unit} from the {parts} of the prediction"
            return f"mean {start} to the nearest of the reference{weight}"
        if metric.surface == "nsd":
            share = f"share of both masks' {'surface area' if self.is_area_weighted else parts}"
            rounded = "" if self.is_area_weighted else ", compared in single precision"
            return f"{share} at most {number} {metric.length_unit} from the other's{rounded}"
        if metric.number == 100:
            return f"largest {distances} (100th percentile)"
        if self.is_area_weighted:
            return (
                f"{distances}: the smallest within which {number} % of the area lies, the larger of the two directions"
            )
        both = "of both directions pooled" if self.pools_percentiles else "the larger of the two directions"
        return f"percentile {number}, interpolated linearly, of the {distances}, {both}"

    def _border(self) -> str:
        """Where a mask's border runs."""
        if self.is_area_weighted:
            return (
                "surface elements lie at the voxels' corners, with the area of marching cubes; "
                "beyond the image counts as outside the mask; those of an image of one slice are pieces of contour"
            )
        beyond = "outside" if self.image_edge_is_border else "inside"
        return (
            f"border voxels have a face neighbour outside the mask, and beyond the image counts as {beyond}; "
            "neighbours in an image of one slice lie in its plane"
        )


DEFINITIONS = {
    definition.name: definition
    for definition in (
        Definition(name="default", tool="MONAI 1.6", lacks=("masd",), precision="double"),
        Definition(name="monai", tool="MONAI 1.6", lacks=("masd",), rounds_ranks=True),
        Definition(name="medpy", tool="MedPy 0.5", lacks=("masd", "percentile", "nsd"), pools_percentiles=True),
        Definition(
            name="chaos",
            tool="the CHAOS challenge's evaluation",
            lacks=("masd", "asd", "hd95", "percentile", "nsd"),
            image_edge_is_border=False,
            pools_percentiles=True,
        ),
        Definition(
            name="surface-distance",
            tool="surface-distance 0.1",
            lacks=("assd", "masd"),
            is_area_weighted=True,
        ),
    )
}
"""By name, as `--definition` takes it. CHAOS calls HD the maximum symmetric surface distance (MSSD)."""

DEFAULT = DEFINITIONS["default"]
