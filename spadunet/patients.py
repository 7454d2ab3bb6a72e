"""Which cases show one patient: dataset.json says it, or their names do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

BIDS_SUBJECT = re.compile(r"^(?P<patient>sub-[A-Za-z0-9]+)")
REPEAT_WORDS = "ph|phase|frame|time|tp|visit|ses|session|run|echo|sl|slice|z"
"""Between a patient's name and a number, as in SC-N-02_ph07 and anna_visit2. ED and ES need no number."""
VAGUE_WORDS = "scan|s"
"""These may number scans of one patient or the patients of one study, as in 3T_scan_07."""
MIN_VAGUE_PATIENTS = 5
"""Fewer names before a vague word than this are studies or scanners, rather than patients."""


def patients_of(cases: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    """Patient by case.

    `known` is believed. Else BIDS subjects, then what stands before a word for a repeated image, if that gives
    several patients or a name with a number; a case whose name tells nothing is a patient of its own.

    Args:
        cases: names of all cases of a dataset.
        known: patient by case (or by what is left of its name), as dataset.json's `patients`.
    """
    for words, fewest in ((f"{REPEAT_WORDS}|{VAGUE_WORDS}", MIN_VAGUE_PATIENTS), (REPEAT_WORDS, 2)):
        patients = {case: patient_of(case, known, words) for case in cases}
        names = set(patients.values())
        is_one = words == REPEAT_WORDS and any(name in known.values() or re.search(r"\d", name) for name in names)
        if len(names) >= fewest or is_one:
            return patients
    return {case: known.get(case, case) for case in cases}


def patient_of(case: str, known: Mapping[str, str], words: str) -> str:
    """Patient of one case, if these words tell images of one patient apart."""
    if case in known:
        return known[case]
    subject = BIDS_SUBJECT.match(case)
    if subject:
        return subject["patient"]
    repeat = re.match(rf"^(?P<patient>.+?)[_-](?:(?:{words})[_-]?\d+(?:[_-]\d+)?|ED|ES)$", case, re.IGNORECASE)
    return patient_of(repeat["patient"], known, words) if repeat else case
