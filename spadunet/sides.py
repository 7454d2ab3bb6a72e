"""Sides told by names: which structure is the mirror image of which, and across which axes none may be mirrored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, get_args

PatientAxis = Literal["left-right", "anterior-posterior", "superior-inferior"]
PATIENT_AXES: tuple[PatientAxis, ...] = get_args(PatientAxis)
"""In the order of an affine's rows."""

LEFT = frozenset(
    [
        "left",
        "l",
        "lt",
        "lft",
        "lh",
        "links",
        "linke",
        "linker",
        "linkes",
        "linken",
        "gauche",
        "sinister",
        "sinistra",
        "sinistrum",
    ]
)
RIGHT = frozenset(
    [
        "right",
        "r",
        "rt",
        "rgt",
        "rh",
        "rechts",
        "rechte",
        "rechter",
        "rechtes",
        "rechten",
        "droit",
        "droite",
        "dexter",
        "dextra",
        "dextrum",
    ]
)
STEMS = frozenset(["kid", "kidney", "ad", "adr", "adrenal", "ag", "lung", "eye", "hip", "hippocampus", "femur"])
"""After a letter for the side: `lkid`, `rad`."""
LONE_RIGHT = frozenset({"rml"})
"""Of the right side alone: the right lung's middle lobe."""
ENDS: dict[PatientAxis, frozenset[str]] = {
    "anterior-posterior": frozenset(["anterior", "posterior", "ant", "post", "ventral", "dorsal", "front", "back"]),
    "superior-inferior": frozenset(
        ["superior", "inferior", "sup", "inf", "upper", "lower", "cranial", "caudal", "top", "bottom"]
    ),
}
CAVA = frozenset({"vena", "cava"})
"""A vein named after its end of the body."""
HEART = frozenset(
    [
        "heart",
        "cardiac",
        "atrium",
        "atrial",
        "ventricle",
        "ventricular",
        "myocardium",
        "myocardial",
        "coronary",
        "lv",
        "rv",
        "la",
        "ra",
    ]
)
"""Left and right chambers are no mirror images: a mirrored left ventricle still has the thick wall."""
BRAIN = frozenset(["lateral", "lat", "cerebral", "brain"])
"""Ventricles that are."""


def words_of(name: str) -> tuple[str, ...]:
    """`Kidney_L`, `leftKidney`, `lkidney` and `L. kidney` in words, lower case."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    words = [word.casefold() for word in re.split(r"[\W_]+", parted) if word]
    is_short = [word[0] in "lr" and word[1:] in STEMS for word in words]
    parts = [(word[0], word[1:]) if short else (word,) for word, short in zip(words, is_short, strict=True)]
    return tuple(part for pair in parts for part in pair)


def tells_end(name: str, axis: PatientAxis) -> bool:
    """True if a name says front or back, or upper or lower."""
    return not ENDS.get(axis, frozenset()).isdisjoint(words_of(name))


def tell_ends(names: Sequence[str], axis: PatientAxis) -> bool:
    """True if a name says which end of an axis a structure is.

    A lone vena cava does not: in the mirror there is still only one, and it is that one.
    """
    told = [name for name in names if tells_end(name, axis)]
    return len(told) > 1 or any(not set(words_of(name)) >= CAVA for name in told)


def side_partners(names: Sequence[str]) -> dict[str, str] | None:
    """The name of the mirror image across left and right of each structure whose name tells a side.

    A side is a word of its own (`left`, `L`, `lt`, `links` …), or the first letter of a short form whose counterpart is
    there too (`lkid` and `rkid`); `liver` and `Leber` tell none. What names both sides tells none.

    Returns:
        None if a name tells a side and its counterpart is not there, is there twice, or is no mirror image (chambers
        of the heart): then mirroring would make wrong labels.
    """
    sides: dict[tuple[str, ...], dict[str, str]] = {}
    plain: dict[tuple[str, ...], str] = {}
    for name in names:
        words = words_of(name)
        is_left, is_right = (not side.isdisjoint(words) for side in (LEFT, RIGHT | LONE_RIGHT))
        if is_left == is_right:
            plain[words] = name
            continue
        rest = tuple(sorted(word for word in words if word not in LEFT | RIGHT))
        if sides.setdefault(rest, {}).setdefault("left" if is_left else "right", name) != name:
            return None
    pairs: list[tuple[str, str]] = []
    for rest, members in sides.items():
        if len(members) < 2 or is_of_heart(rest):
            return None
        pairs.append((members["left"], members["right"]))
    for words, name in plain.items():
        for place, word in enumerate(words):
            counterpart = plain.get((*words[:place], f"r{word[1:]}", *words[place + 1 :]))
            if len(word) > 1 and word[0] == "l" and counterpart is not None:
                if is_of_heart(words):
                    return None
                pairs.append((name, counterpart))
    return dict(pairs) | {right: left for left, right in pairs}


def is_of_heart(words: Sequence[str]) -> bool:
    """True for a name of the heart's, whose sides differ."""
    return not HEART.isdisjoint(words) and BRAIN.isdisjoint(words)
