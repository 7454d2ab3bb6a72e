"""Sides told by names: which structure is the mirror image of which, and across which axes none may be mirrored."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

PatientAxis = Literal["left-right", "anterior-posterior", "superior-inferior"]
PATIENT_AXES: tuple[PatientAxis, ...] = get_args(PatientAxis)
"""In the order of an affine's rows."""

# Latin, English, German, French, Italian, Spanish, Portuguese, Dutch; some are told with the endings of their genders.
LEFT_WORDS = (
    *("left", "links", "linke", "linker", "linkes", "linken", "gauche", "gauches"),
    *("sinister", "sinistra", "sinistrum", "sinistro", "izquierdo", "izquierda", "esquerdo", "esquerda"),
)
RIGHT_WORDS = (
    *("right", "rechts", "rechte", "rechter", "rechtes", "rechten", "droit", "droite", "droits", "droites"),
    *("dexter", "dextra", "dextrum", "destro", "destra", "derecho", "derecha", "direito", "direita"),
)
LEFT = frozenset([*LEFT_WORDS, "l", "lt", "lft", "lh", "sin", "sx"])
RIGHT = frozenset([*RIGHT_WORDS, "r", "rt", "rgt", "rh", "dex", "dx"])
GLUED = re.compile("|".join(sorted(LEFT_WORDS + RIGHT_WORDS, key=len, reverse=True)))
"""These tell a side within a word too: `leftkidney`, `Linksniere`."""
NO_SIDE = re.compile("(?:b|f|w|up|out|copy)right.*|cleft.*|leftover.*|.*linked|.*destroy.*|adroit.*")
"""Words with such letters in them that tell none."""
LETTERS = (("li", "re"), ("izq", "der"), ("esq", "dir"), ("g", "d"))
"""Short forms that may mean something else."""
STEMS = frozenset(
    [
        *("k", "kid", "kidney", "ad", "adr", "adrenal", "ag", "lung", "ll", "ul", "eye", "hip", "hippocampus"),
        *("femur", "tibia", "humerus", "scapula", "clavicle", "breast", "ovary", "parotid", "amygdala", "thalamus"),
        *("niere", "lunge", "auge", "rein", "poumon", "rene", "polmone", "riñón", "pulmón", "rim", "nier", "long"),
    ]
)
"""Of structures that come in pairs, after a letter for the side (`lkid`, `rad`) or, the longer ones, before it."""
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
UNEVEN = (
    *("heart", "cardi", "atri", "auric", "ventric", "ventrik", "ventríc", "myocard", "coronar", "herz", "vorhof"),
    *(
        "coeur",
        "cœur",
        "cuore",
        "coraz",
        "oreillette",
        "aurícul",
        "liver",
        "hepat",
        "leber",
        "foie",
        "fegato",
        "hígado",
    ),
)
"""Begin names of the heart's and the liver's, whose left and right parts are no mirror images: a mirrored left
ventricle still has the thick wall."""
CHAMBERS = frozenset(["lv", "rv", "la", "ra"])
BRAIN = ("lat", "cerebr", "brain", "hirn")
"""Begin names of ventricles that are."""


@dataclass(frozen=True, kw_only=True)
class Sides:
    """What names tell of left and right."""

    pairs: tuple[tuple[str, str], ...] = ()
    """Names of mirror images, left and right."""
    problem: str = ""
    """Why nothing can be mirrored across left and right, if so."""


def words_of(name: str) -> tuple[str, ...]:
    """`Kidney_L`, `leftKidney`, `leftkidney`, `lkidney` and `L. kidney` in words, lower case."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", unicodedata.normalize("NFC", name))
    found: list[str] = []
    for word in (word.casefold() for word in re.split(r"[\W_]+", parted) if word):
        if word[0] in "lr" and word[1:] in STEMS:
            found += [word[0], word[1:]]
        elif word[-1] in "lr" and len(word) > 3 and word[:-1] in STEMS and word not in STEMS:
            found += [word[:-1], word[-1]]
        elif NO_SIDE.fullmatch(word):
            found.append(word)
        else:
            found += [part for part in re.split(f"({GLUED.pattern})", word) if part]
    return tuple(found)


def tells_end(name: str, axis: PatientAxis) -> bool:
    """True if a name says front or back, or upper or lower."""
    return not ENDS.get(axis, frozenset()).isdisjoint(words_of(name))


def tell_ends(names: Sequence[str], axis: PatientAxis) -> bool:
    """True if a name says which end of an axis a structure is.

    A lone vena cava does not: in the mirror there is still only one, and it is that one.
    """
    told = [name for name in names if tells_end(name, axis)]
    return len(told) > 1 or any(not set(words_of(name)) >= CAVA for name in told)


def sides_of(names: Sequence[str]) -> Sides:
    """The structures that are mirror images of each other across left and right, as far as their names tell a side.

    A side is a word of its own (`left`, `L`, `lt`, `links`, `dx` …) or within one (`leftkidney`), or a letter before or
    after a known structure (`lkid`, `kidneyr`); `liver` and `Leber` tell none. What names both sides tells none.
    Nothing can be mirrored, since labels would become wrong, where a name tells a side and its counterpart is missing,
    is there twice, or is no mirror image (chambers of the heart, lobes of the liver), or where two names differ as if
    by a side (`LVC`, `RVC`) but are of no structure that is known to come in pairs.
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
        first = sides.setdefault(rest, {}).setdefault("left" if is_left else "right", name)
        if first != name:
            return Sides(problem=f"{first} and {name} tell the same side")
    pairs: list[tuple[str, str]] = []
    for rest, members in sides.items():
        if len(members) < 2:
            return Sides(problem=f"{next(iter(members.values()))} has no counterpart")
        if is_uneven(rest):
            return Sides(problem=f"{members['left']} and {members['right']} are no mirror images")
        pairs.append((members["left"], members["right"]))
    for words, name in plain.items():
        for place, word in enumerate(words):
            for swapped in on_the_right(word):
                other = plain.get((*words[:place], swapped, *words[place + 1 :]))
                if other is None:
                    continue
                if is_uneven(words) or STEMS.isdisjoint(words):
                    return Sides(problem=f"{name} and {other} may be two sides, or not")
                pairs.append((name, other))
    return Sides(pairs=tuple(pairs))


def on_the_right(word: str) -> Iterator[str]:
    """What a word would be on the other side, if its short form or its first or last letter meant left."""
    yield from (right for left, right in LETTERS if word == left)
    if len(word) > 1 and word[0] == "l":
        yield f"r{word[1:]}"
    if len(word) > 1 and word[-1] == "l":
        yield f"{word[:-1]}r"


def is_uneven(words: Sequence[str]) -> bool:
    """True for a name of the heart's or the liver's, whose sides differ."""
    is_so = any(word.startswith(UNEVEN) or word in CHAMBERS for word in words)
    return is_so and not any(word.startswith(BRAIN) for word in words)
