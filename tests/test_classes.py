import pytest
from pydantic import ValidationError

from spadunet.classes import ClassSet


def test_a_label_is_one_number_or_one_a_finding():
    classes = ClassSet(kind="multi-class", names=("liver", "kidney", "heart"))
    findings = ClassSet(kind="multi-label", names=("effusion", "nodule"))

    assert (classes.num_outputs, classes.num_labels, classes.is_exclusive) == (3, 1, True)
    assert (findings.num_outputs, findings.num_labels, findings.is_exclusive) == (2, 2, False)
    assert ClassSet.from_json(findings.to_json()) == findings


@pytest.mark.parametrize(
    ("kind", "names", "expected"),
    [
        ("multi-class", ("a",), "at least 2 names, not 1"),
        ("binary", ("a", "b", "c"), "exactly 2 names, not 3"),
        ("multi-label", (), "at least 1 names, not 0"),
        ("ordinal", ("a", "b", "a"), "names must be different"),
    ],
)
def test_a_set_that_cannot_be_is_refused(kind, names, expected):
    with pytest.raises(ValidationError, match=expected):
        ClassSet(kind=kind, names=names)
