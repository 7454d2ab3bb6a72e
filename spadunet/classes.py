"""What whole cases are told apart by: classes of which one is right, or findings that are each there or not."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from .record import FormatVersion, Record

ClassKind = Literal["multi-class", "binary", "ordinal", "multi-label"]
"""MedMNIST's four (Yang et al. 2023). Ordinal classes are learned and scored as multi-class ones, as it does."""

UNKNOWN = -1
"""In the place of a label that nobody gave."""


class ClassSet(Record):
    """Names of classes or findings, in the order of a network's outputs.

    The label of a case is one number, that of its class; of a multi-label set it is one number a finding, 0 or 1.
    `UNKNOWN` stands for what is not known.
    """

    format_version: FormatVersion = 1
    kind: ClassKind
    names: tuple[str, ...]
    """Of a binary set the negative class comes first; ordinal classes come in their order."""

    @model_validator(mode="after")
    def check(self) -> ClassSet:
        """At least one finding or two classes, two where binary, none named twice."""
        if len(set(self.names)) < len(self.names) or "" in self.names:
            raise ValueError(f"names must be different, and none empty: {', '.join(self.names)}")
        least = 1 if self.kind == "multi-label" else 2
        if len(self.names) < least or (self.kind == "binary" and len(self.names) > 2):
            wanted = "exactly 2" if self.kind == "binary" else f"at least {least}"
            raise ValueError(f"a {self.kind} set has {wanted} names, not {len(self.names)}")
        return self

    @property
    def is_exclusive(self) -> bool:
        """One class is right for a case; else any number of findings."""
        return self.kind != "multi-label"

    @property
    def num_outputs(self) -> int:
        """Of a network: one a class or finding."""
        return len(self.names)

    @property
    def num_labels(self) -> int:
        """Numbers that a case's label has."""
        return 1 if self.is_exclusive else len(self.names)
