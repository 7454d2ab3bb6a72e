"""Images of one patient are told by their names, and patients of one study are not taken for one."""

from __future__ import annotations

import pytest

from spadunet.patients import patients_of


@pytest.mark.parametrize(
    "groups",
    [
        {"SC-HF-I-01": ["SC-HF-I-01_ph08", "SC-HF-I-01_ph19"], "SC-N-02": ["SC-N-02_ph00"]},
        {"SC-N-02": ["SC-N-02_ph00_03", "SC-N-02_ph00_04"], "SC-N-03": ["SC-N-03_ph00_03"]},
        {"patient001": ["patient001_frame12", "patient001_ED", "patient001_slice07"], "patient002": ["patient002_ES"]},
        {"sub-01": ["sub-01_ses-2", "sub-01_ses-2_T1w"], "sub-010": ["sub-010_T1w"]},
        {"anna": ["anna_visit1", "anna_visit2"], "bob": ["bob_visit1"]},
        {"P1": ["P1_scan1", "P1_scan2"], "P2": ["P2_scan1"]},
        {"SC-N-02": ["SC-N-02_ph09_s03", "SC-N-02_ph00_s03"], "SC-N-03": ["SC-N-03_ph00_s03"]},
        {"anna": ["anna_visit1", "anna_visit2"], "bob": ["bob_visit1"], "case0": ["case0"], "s_1": ["s_1"]},
        {"P1": ["P1_visit1_ph0", "P1_visit2_ph0"], "P2": ["P2_visit1_ph0"]},
        {name: [f"{name}_scan1", f"{name}_scan2"] for name in ("ann", "bob", "cid", "dan", "eve")},
    ],
)
def test_images_of_one_patient_are_told_by_their_names(groups: dict[str, list[str]]):
    expected = {case: patient for patient, cases in groups.items() for case in cases}
    assert patients_of(list(expected), {}) == expected


@pytest.mark.parametrize(
    "cases",
    [
        ["hippocampus_003", "hippocampus_004"],
        ["liver_1", "liver_2"],
        ["phantom_1", "phantom_2"],
        ["ph08", "ph09"],
        ["scan_01", "scan_02"],
        ["ct_scan_012", "ct_scan_013"],
        ["LiTS2017_scan_01", "LiTS2017_scan_02"],
        ["totalseg_v2_s0011", "totalseg_v2_s0012"],
        ["totalseg_s0011", "totalseg_s0012", "case0", "case1", "case2", "case3"],
        ["T2_slice_000", "T2_slice_001"],
        ["study_phase1", "study_phase2", "x"],
        ["study_phase1", "study_phase2"],
        [],
    ],
)
def test_a_case_whose_name_tells_nothing_is_a_patient_of_its_own(cases: list[str]):
    assert patients_of(cases, {}) == {case: case for case in cases}


def test_what_is_known_is_believed():
    known = {"liver_01": "anna", "liver_02": "anna", "bob": "robert", "sub-07": "carl"}
    cases = ["liver_01", "liver_02", "liver_03", "bob_visit1", "bob_s03", "sub-07_ses-1", "eve_visit1"]
    expected = ["anna", "anna", "liver_03", "robert", "robert", "carl", "eve_visit1"]
    assert list(patients_of(cases, known).values()) == expected
