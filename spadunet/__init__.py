"""Medical images segmented and classified by spatially adaptive networks: one set of weights for every spacing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .inference.classifier import StudyClassifier
    from .inference.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["Predictor", "StudyClassifier", "__version__"]


def __getattr__(name: str) -> Any:
    """The classes for users, loaded with all their libraries when first asked for: `import spadunet` stays light."""
    if name == "Predictor":
        from .inference.predictor import Predictor

        return Predictor
    if name == "StudyClassifier":
        from .inference.classifier import StudyClassifier

        return StudyClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
