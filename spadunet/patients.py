"""Which cases show one patient: dataset.json says it, or their names do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

BIDS_SUBJECT = re.compile(r"^(?P<patient>sub-[A-Za-z0-9]+)")
CLEAR_WORD = r"[_-](?:(?:ph|phase|frame|time|tp|visit|ses|session|run|echo|sl|slice|z)[_-]?\d+(?:[_-]\d+)?|ED|ES)$"
"""Tells images of one patient apart, as in SC-N-02_ph07, anna_visit2 and patient001_ED."""
VAGUE_WORD = r"[_-](?:scan|s)[_-]?\d+$"
"""May do so, as in P1_scan2, or number the patients of one study, as in ct_scan_012."""
MIN_NAMES = 2
"""A single name before all such words is that of the study."""
MIN_VAGUE_NAMES = 5
"""So many different names before a vague word are patients, even if they hold no number."""


def patients_of(cases: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    """Patient by case.

    `known` is believed, then BIDS subjects, then what stands before a word for a repeated image, if several names
    do; a case whose name tells nothing is a patient of its own.

    Args:
        cases: names of all cases of a dataset.
        known: patient by case, or by what is left of its name without such words, as dataset.json's `patients`.
    """
    patients: dict[str, str] = {}
    clear: dict[str, str] = {}
    vague: dict[str, str] = {}
    for case in cases:
        names = shorter_names(case)
        subject = BIDS_SUBJECT.match(case)
        of_known = [known[name] for name in names if name in known]
        if of_known:
            patients[case] = of_known[0]
        elif subject:
            patients[case] = subject["patient"]
        elif any(re.search(CLEAR_WORD, name, re.IGNORECASE) for name in names):
            clear[case] = names[-1]
        elif len(names) > 1:
            vague[case] = names[-1]
    if len(set(clear.values())) >= MIN_NAMES:
        patients |= clear
    different = set(vague.values())
    are_numbered = all(re.search(r"\d", re.split("[_-]", name)[-1]) for name in different)
    if len(different) >= (MIN_NAMES if are_numbered else MIN_VAGUE_NAMES):
        patients |= vague
    return {case: patients.get(case, case) for case in cases}


def shorter_names(case: str) -> list[str]:
    """The name, and what is left of it as one word for a repeated image after the other is taken off."""
    names = [case]
    while True:
        left = re.sub(f"(?:{CLEAR_WORD})|(?:{VAGUE_WORD})", "", names[-1], flags=re.IGNORECASE)
        if left in ("", names[-1]):
            return names
        names.append(left)
