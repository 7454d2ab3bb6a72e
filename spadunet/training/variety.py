"""What patches meet beside rotation, scaling and intensities: missing contrasts, other spacings, mirrors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..labels import LabelSet
from ..plan import Plan
from ..preprocessing.mirror import tell_unoriented
from ..preprocessing.store import StoredCase
from ..sides import PatientAxis
from .patch_recipes import USUAL
from .recipes import CHANNEL_DROPOUT, NATIVE_SHARE


@dataclass(frozen=True, kw_only=True)
class Variety:
    """Of one dataset's patches; by default none."""

    channel_dropout: float = 0
    """Probability that a patch lacks some of its contrasts; never all of them."""
    slice_merging: float = 0
    """Probability that the slices of a batch are merged, several into one."""
    spacing_jitter: float = 0
    """Probability that the pixels of a batch get another size."""
    mirror: tuple[PatientAxis, ...] = ()
    """Axes across which every other patch is mirrored, as far as the labels allow it."""
    patches: str = USUAL
    """How they are drawn and augmented: a name in PATCH_RECIPES."""

    def describe(self, labels: LabelSet, cases: Iterable[StoredCase] = ()) -> str:
        """In words, for the log; says which labels change places in mirrors, and which mirrors their names forbid."""
        parts = [
            f"{share:.0%} {what}"
            for share, what in (
                (self.channel_dropout, "lack a contrast"),
                (self.slice_merging, "have merged slices"),
                (self.spacing_jitter, "have pixels of another size"),
            )
            if share
        ]
        if self.patches != USUAL:
            parts.append(f"drawn and augmented as {self.patches}")
        parts += [labels.tell_mirror(axis) for axis in self.mirror]
        if self.mirror:
            parts += filter(None, [tell_unoriented((case.header.geometry for case in cases), labels)])
        return "; ".join(parts) or "spacing and contrasts as they are, not mirrored"


@dataclass(frozen=True, kw_only=True)
class VarietyOptions:
    """What the user said; None where the plan decides."""

    channel_dropout: float = CHANNEL_DROPOUT
    slice_merging: float | None = None
    spacing_jitter: float | None = None
    mirror: tuple[PatientAxis, ...] = ()
    patches: str = USUAL

    def for_plan(self, plan: Plan, *, is_colour: bool = False) -> Variety:
        """A native plan meets any spacing in prediction, so in training too; with a fixed one it would be time lost.

        Args:
            is_colour: the channels are colours, of which none is ever missing.
        """
        share = NATIVE_SHARE if plan.is_native else 0.0
        return Variety(
            channel_dropout=self.channel_dropout if len(plan.channel_names) > 1 and not is_colour else 0.0,
            slice_merging=share if self.slice_merging is None else self.slice_merging,
            spacing_jitter=share if self.spacing_jitter is None else self.spacing_jitter,
            mirror=self.mirror,
            patches=self.patches,
        )
