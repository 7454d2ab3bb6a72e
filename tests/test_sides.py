"""Sides told by names, and what labels become in a mirror."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from pydantic import ValidationError

from spadunet.description import DatasetDescription
from spadunet.labels import LabelSet, Region
from spadunet.preprocessing.converters.btcv import LABELS as BTCV
from spadunet.preprocessing.converters.chaos import MODALITIES
from spadunet.sides import sides_of, tells_end

SPELLINGS = [
    ("left kidney", "right kidney"),
    ("Left Kidney", "Right Kidney"),
    ("kidney_left", "kidney_right"),
    ("kidney-left", "kidney-right"),
    ("Kidney L", "Kidney R"),
    ("L. adrenal gland", "R. adrenal gland"),
    ("adrenal gland (L)", "adrenal gland (R)"),
    ("adrenal_gland_left", "adrenal_gland_right"),
    ("KidneyLeft", "KidneyRight"),
    ("leftKidney", "rightKidney"),
    ("LKidney", "RKidney"),
    ("LKid", "RKid"),
    ("lkidney", "rkidney"),
    ("lkid", "rkid"),
    ("lad", "rad"),
    ("LAG", "RAG"),
    ("Lt kidney", "Rt kidney"),
    ("lt_kidney", "rt_kidney"),
    ("LEFT_KIDNEY", "RIGHT_KIDNEY"),
    ("linke Niere", "rechte Niere"),
    ("Niere links", "Niere rechts"),
    ("rein gauche", "rein droit"),
    ("Left-Lateral-Ventricle", "Right-Lateral-Ventricle"),
    ("ctx-lh-cuneus", "ctx-rh-cuneus"),
    ("LLL", "RLL"),
    ("LK", "RK"),
    ("leftkidney", "rightkidney"),
    ("LEFTKIDNEY", "RIGHTKIDNEY"),
    ("kidneyleft", "kidneyright"),
    ("kidneyl", "kidneyr"),
    ("kidney_sin", "kidney_dex"),
    ("kidney sx", "kidney dx"),
    ("rene sinistro", "rene destro"),
    ("riñón izquierdo", "riñón derecho"),
    ("rin\u0303o\u0301n izq", "rin\u0303o\u0301n der"),
    ("rim esquerdo", "rim direito"),
    ("glande gauche", "glande droite"),
    ("Niere li.", "Niere re."),
    ("Linksniere", "Rechtsniere"),
    ("linkernier", "rechternier"),
    ("bright left", "bright right"),
]


def side_partners(names: Sequence[str]) -> dict[str, str] | None:
    """The name of the mirror image of each structure, None where there is a problem."""
    sides = sides_of(names)
    return None if sides.problem else dict(sides.pairs) | {right: left for left, right in sides.pairs}


def labels_of(*names: str, **more: object) -> LabelSet:
    """Structures with the ids 1, 2, 3, …"""
    return LabelSet(names=("background", *names), ids=tuple(range(len(names) + 1)), **more)


def region(name: str, *ids: int) -> Region:
    return Region(name=name, ids=ids, painted_id=ids[0])


@pytest.mark.parametrize(("left", "right"), SPELLINGS)
def test_pairs_are_recognised_however_they_are_spelt(left: str, right: str):
    assert side_partners(["liver", right, "spleen", left]) == {left: right, right: left}


def test_kidneys_and_adrenals_of_the_releases_pair():
    assert side_partners(BTCV) == {
        "right kidney": "left kidney",
        "left kidney": "right kidney",
        "right adrenal gland": "left adrenal gland",
        "left adrenal gland": "right adrenal gland",
    }
    chaos = LabelSet(names=MODALITIES["mr"].labels, ids=tuple(range(5)))
    assert chaos.mirrored("left-right").classes == (0, 1, 3, 2, 4)  # liver 1, right kidney 2, left kidney 3, spleen 4


@pytest.mark.parametrize(
    "names",
    [
        ("Leber", "Milz"),
        ("liver", "lung", "rectum", "larynx", "radius", "rib"),
        ("LV_endocardium",),
        ("vertebrae_L1", "vertebrae_L5", "Rippe"),
        ("kidneys, left and right",),
        ("label 1", "label 2"),
        ("Anterior", "Posterior"),
        ("bright", "blight", "cleft", "sinus", "rechtwinklig"),
        ("dextrose", "sincipital", "linked cyst", "leftover"),
    ],
)
def test_other_names_tell_no_side(names: tuple[str, ...]):
    assert side_partners(names) == {}


def test_a_structure_pairs_with_its_own_kind_only():
    lobes = ["lung_upper_lobe_left", "lung_upper_lobe_right", "lung_lower_lobe_left", "lung_lower_lobe_right"]
    found = side_partners(lobes)
    assert found is not None
    assert found["lung_upper_lobe_left"] == "lung_upper_lobe_right"
    assert found["lung_lower_lobe_right"] == "lung_lower_lobe_left"
    assert side_partners([*lobes, "lung_middle_lobe_right"]) is None


@pytest.mark.parametrize(
    "names",
    [
        ("left kidney", "liver"),
        ("rkid", "liver"),
        ("left kidney", "kidney left", "right kidney"),
        ("left kidney", "right lung"),
        ("LUL", "LLL", "RUL", "RML", "RLL"),
        ("left ventricle", "right ventricle"),
        ("heart_atrium_left", "heart_atrium_right"),
        ("LV", "RV"),
        ("LVC", "RVC", "MYO"),
        ("leftventricle", "rightventricle"),
        ("lventricle", "rventricle"),
        ("liver lobe left", "liver lobe right"),
        ("leftkidney", "liver"),
        ("kidneyr", "liver"),
        ("kidney dx", "liver"),
        ("cyst izq", "cyst der"),
        ("riñón izquierdo", "riñón"),
    ],
)
def test_a_side_without_a_mirror_image_turns_the_axis_off(names: tuple[str, ...]):
    assert side_partners(names) is None
    labels = labels_of(*names)
    assert labels.mirrored("left-right") is None
    assert labels.mirrored("superior-inferior").classes == tuple(range(len(names) + 1))


def test_ends_that_are_named_turn_their_axis_off():
    hippocampus = labels_of("Anterior", "Posterior")
    assert hippocampus.mirrored("anterior-posterior") is None
    assert hippocampus.mirrored("left-right").classes == (0, 1, 2)
    assert hippocampus.mirrored("superior-inferior").classes == (0, 1, 2)
    lobes = labels_of("upper lobe", "lower lobe")
    assert lobes.mirrored("superior-inferior") is None
    assert lobes.mirrored("anterior-posterior") is not None
    assert not tells_end("frontier", "anterior-posterior")
    both = labels_of("inferior vena cava", "superior vena cava")
    assert both.mirrored("superior-inferior") is None
    assert labels_of("inferior vena cava", "liver").mirrored("superior-inferior").classes == (0, 1, 2)
    assert labels_of("inferior vena cava", "upper lobe").mirrored("superior-inferior") is None


def test_ignored_voxels_stay_ignored():
    labels = labels_of("left kidney", "right kidney", ignore_id=9)
    mirrored = labels.mirrored("left-right")
    assert mirrored.classes == (0, 2, 1, 3)
    assert mirrored.outputs == (0, 2, 1)


def test_regions_change_places_as_their_ids_do():
    # Kidneys 1 and 3 with tumours 2 and 4; only kidney and tumour have names, as dataset.json has them.
    named = (region("left kidney", 1, 2), region("left tumour", 2), region("right kidney", 3, 4))
    labels = labels_of("a", "b", "c", "d", regions=(*named, region("right tumour", 4)))
    mirrored = labels.mirrored("left-right")
    assert mirrored.classes == (0, 3, 4, 1, 2)
    assert mirrored.outputs == (2, 3, 0, 1)
    targets = labels.targets()
    np.testing.assert_array_equal(targets[list(mirrored.classes)], targets[:, list(mirrored.outputs)])


def test_regions_without_a_side_follow_or_turn_the_axis_off():
    sides = (region("left kidney", 1), region("right kidney", 2))
    together = labels_of("a", "b", regions=(Region(name="kidneys", ids=(1, 2), painted_id=1), *sides[1:]))
    assert together.mirrored("left-right") is None  # the right one has no partner
    both = labels_of("a", "b", "c", "d", regions=(region("x", 3, 4, 1), region("y", 4, 3, 2), *sides))
    assert both.mirrored("left-right").outputs == (1, 0, 3, 2)  # x and y follow their ids
    odd = labels_of("a", "b", "c", regions=(region("x", 3, 1), *sides))
    assert odd.mirrored("left-right") is None
    uneven = labels_of("a", "b", "c", regions=(region("left kidney", 1, 3), region("right kidney", 2)))
    assert uneven.mirrored("left-right") is None


def test_dataset_json_overrides_what_names_tell():
    labels = {"background": 0, "ventricle left": 1, "ventricle right": 2, "A": 3, "B": 4}
    channels = {"0": "MRI"}
    told = DatasetDescription(channel_names=channels, labels=labels, mirror_pairs=[("A", "B")])
    assert told.label_set().mirrored("left-right").classes == (0, 1, 2, 4, 3)
    assert DatasetDescription(channel_names=channels, labels=labels).label_set().mirrored("left-right") is None
    none = DatasetDescription(channel_names=channels, labels=labels, mirror_pairs=[]).label_set()
    assert none.mirrored("left-right").classes == (0, 1, 2, 3, 4)
    assert LabelSet.from_json(none.to_json()) == none


@pytest.mark.parametrize("pairs", [(("A", "C"),), (("A", "A"),), (("A", "B"), ("B", "A"))])
def test_pairs_of_unknown_or_repeated_names_are_refused(pairs: object):
    with pytest.raises(ValidationError, match="mirror_pairs needs names among"):
        labels_of("A", "B", mirror_pairs=pairs)


def test_labels_without_the_key_are_written_as_before():
    assert "mirror_pairs" not in labels_of("A", "B").to_json()


def test_what_changes_places_or_why_nothing_does_is_told():
    told = labels_of("leftkidney", "rightkidney", "upper lobe").tell_mirror
    assert told("left-right") == "mirrored across left-right, where these change places: leftkidney and rightkidney"
    assert told("superior-inferior") == "not mirrored across superior-inferior: labels name its ends"
    assert told("anterior-posterior") == "mirrored across anterior-posterior"
    assert labels_of("a").tell_mirror("left-right") == "mirrored across left-right (no label names a side)"
    alone = labels_of("left kidney").tell_mirror("left-right")
    assert alone == "not mirrored across left-right: left kidney has no counterpart"
