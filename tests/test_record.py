"""Checked JSON documents: there and back, and one line for what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from spadunet.errors import InputError
from spadunet.record import FormatVersion, Record, read_record, write_record


class Inner(Record):
    side_mm: float


class Example(Record):
    format_version: FormatVersion = 1
    name: str
    inner: tuple[Inner, ...] = ()


EXAMPLE = Example(name="Herz é", inner=(Inner(side_mm=1 / 3), Inner(side_mm=1.25)))


def test_a_document_comes_back_equal_to_the_last_digit(tmp_path: Path):
    assert Example.from_json(EXAMPLE.to_json()) == EXAMPLE
    write_record(tmp_path / "sub" / "e.json", EXAMPLE)
    assert read_record(tmp_path / "sub" / "e.json", Example, remedy="") == EXAMPLE


def test_a_record_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        EXAMPLE.name = "other"


def test_equal_content_has_equal_digests_and_other_content_another():
    same = Example.from_json(EXAMPLE.to_json())
    other = EXAMPLE.model_copy(update={"name": "b"})
    assert EXAMPLE.digest() == same.digest() != other.digest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"name": "a", "layers": 3}', "field 'layers': extra inputs are not permitted"),
        ('{"name": "a", "inner": [{"side": 3}]}', "field 'inner.0.side_mm': field required"),
        ("{}", "field 'name': field required"),
        ('{"name": 3}', "field 'name': Input should be a valid string (found 3)"),
        ('{"name": "a", "format_version": 0}', "field 'format_version': Input should be 1 (found 0)"),
        (
            '{"title": "a", "format_version": 2}',
            "format version 2 is newer than 1, the newest known here; update spadunet",
        ),
        ("[]", "Input should be an object"),
        ("", "Invalid JSON: EOF while parsing a value at line 1 column 0"),
        ('{"name":\n "a",}', "Invalid JSON: trailing comma at line 2 column 6"),
    ],
)
def test_what_is_wrong_is_one_line_with_file_and_field(text: str, message: str):
    with pytest.raises(InputError) as caught:
        Example.from_json(text, source="e.json")
    assert str(caught.value) == f"e.json: {message}"


def test_a_file_that_is_not_there_or_no_text_names_the_remedy(tmp_path: Path):
    path = tmp_path / "e.json"
    with pytest.raises(InputError) as caught:
        read_record(path, Example, remedy="run spadunet_plan")
    assert str(caught.value) == f"{path}: not found; run spadunet_plan"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"e\.json: cannot be read as text \(.*\); run spadunet_plan$"):
        read_record(path, Example, remedy="run spadunet_plan")
    with pytest.raises(InputError, match=r": cannot be read as text \(.*directory.*\); run spadunet_plan$"):
        read_record(tmp_path, Example, remedy="run spadunet_plan")
