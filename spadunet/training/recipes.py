"""What a backbone is trained with unless the user says otherwise."""

from __future__ import annotations

from dataclasses import dataclass

PRESETS = ("tiny", "small", "base", "large")
CHANNEL_DROPOUT = 0.2
"""Share of patches of several channels that lack some."""
NATIVE_SHARE = 0.3
"""Of batches with merged slices, and of those with jittered spacing, where images keep their own spacing."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Of AdamW."""

    learning_rates: tuple[float, float, float, float]
    """At its peak, by preset."""
    weight_decay: float
    spares_vectors: bool
    """Weight decay leaves out norms, biases, tokens and positions."""

    def learning_rate(self, preset: str) -> float:
        """At its peak.

        Raises:
            ValueError: if there is no such preset.
        """
        return self.learning_rates[PRESETS.index(preset)]


RECIPES = {
    "spad_unet": Recipe(learning_rates=(3e-3, 3e-3, 3e-3, 3e-3), weight_decay=0.01, spares_vectors=False),
    "spad_vit": Recipe(learning_rates=(3e-3, 1e-3, 1e-4, 1e-4), weight_decay=0.05, spares_vectors=True),
}
"""SPAD-ViT's are SPAD-Nets' own for `base` and `large`.

A small transformer bears more, and from scratch needs it: after 40 steps of `tiny` on Hippocampus the loss is 1.05 with
0.003 and 1.34 with 0.001.
"""
