"""Pieces of a page: escaped, self-contained, sound."""

from __future__ import annotations

import base64

from html_page import read_page

from spadunet.page import (
    COLOURS,
    block,
    details,
    figure,
    grid,
    heading,
    inline_image,
    legend,
    number,
    page,
    paragraph,
    table,
    text,
    tiles,
)

HOSTILE = "<script>alert('x')</script> & \"co\" </td> 肝"
PNG = b"\x89PNG\r\n\x1a\n..."


def test_every_piece_escapes_what_it_is_given_and_the_page_is_sound():
    parts = [
        heading(HOSTILE),
        paragraph(HOSTILE, "pale"),
        tiles({HOSTILE: HOSTILE}),
        table([HOSTILE], [[HOSTILE]]),
        legend({HOSTILE: HOSTILE}),
        legend([HOSTILE]),
        grid([block([figure([inline_image(PNG, HOSTILE)], text(HOSTILE))])]),
        details(HOSTILE, text(HOSTILE)),
    ]
    written = page(HOSTILE, parts)
    assert "<script>" not in written
    reader = read_page(written)
    # Twice as title, then by piece; the first legend says name and value in one.
    assert reader.words.count(HOSTILE) == 2 + 1 + 1 + 2 + 2 + 0 + 1 + 1 + 2
    assert f"{HOSTILE} {HOSTILE}" in reader.words
    assert reader.tables == [[[HOSTILE], [HOSTILE]]]


def test_a_page_forbids_itself_to_load_anything_and_follows_dark_and_light():
    written = page("Title", [])
    assert "default-src 'none'; img-src data:" in written
    assert "color-scheme: light dark" in written and "prefers-color-scheme: dark" in written
    assert "width=device-width" in written
    assert "refresh" not in written
    assert '<meta http-equiv="refresh" content="60">' in page("Title", [], refresh_seconds=60)


def test_an_image_lies_within_the_page():
    assert base64.b64encode(PNG).decode() in inline_image(PNG, "a case")
    assert "data:image/png;" in inline_image(PNG, "")
    assert "data:image/jpeg;" in inline_image(b"\xff\xd8", "")


def test_colours_go_round_and_a_missing_number_is_a_dash():
    chips = legend([f"class {place}" for place in range(len(COLOURS) + 1)])
    assert chips.count(COLOURS[0]) == 2 and chips.count(COLOURS[1]) == 1
    assert (number(None), number(0.12345), number(0.12345, 4)) == ("–", "0.123", "0.1235")
