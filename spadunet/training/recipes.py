"""What a backbone is trained with unless the user says otherwise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Of AdamW."""

    learning_rate: float
    """At its peak."""
    weight_decay: float
    spares_vectors: bool
    """Weight decay leaves out norms, biases, tokens and positions."""


RECIPES = {
    "spad_unet": Recipe(learning_rate=3e-3, weight_decay=0.01, spares_vectors=False),
    "spad_vit": Recipe(learning_rate=1e-3, weight_decay=0.05, spares_vectors=True),
}
