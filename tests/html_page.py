"""Reads a page as strictly as a browser is lenient: nesting, names, and what it would load from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "input", "link"}


class PageReader(HTMLParser):
    """Collects what is on a page, and everything that is wrong with it."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.problems: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.images: list[str] = []
        self.tables: list[list[list[str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            text = value or ""
            if name in ("src", "href", "xlink:href", "data", "action") and not text.startswith(("data:image/", "#")):
                self.problems.append(f"<{tag} {name}={text[:80]}>")
            if name == "id":
                self.ids.append(text)
            if name.startswith("on"):
                self.problems.append(f"<{tag} {name}>")
            if "url(" in text and "url(#" not in text:
                self.problems.append(f"<{tag} {name}={text[:80]}>")
        if tag in ("link", "iframe", "object", "embed", "base", "form"):
            self.problems.append(f"<{tag}>")
        if tag == "img":
            self.images.append(dict(attrs).get("src") or "")
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.stack or self.stack.pop() != tag:
            self.problems.append(f"</{tag}> closes another")

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
        if self.stack and self.stack[-1] in ("style", "script"):
            if re.search(r"@import|https?:|url\(|fetch|XMLHttp|import\(", data):
                self.problems.append(f"loads: {data[:80]}")
        elif data.strip():
            self.words.append(data.strip())

    def table_with(self, *header: str) -> list[list[str]]:
        """Rows of the first table whose first row begins so, without that row."""
        return next(table[1:] for table in self.tables if tuple(table[0][: len(header)]) == header)

    def facts(self) -> dict[str, str]:
        """Rows of two words in all tables."""
        return {row[0]: row[1] for table in self.tables for row in table if len(row) == 2}


def read_page(text: str) -> PageReader:
    """A page that is sound and needs nothing from elsewhere; fails where it is not."""
    reader = PageReader()
    reader.feed(text)
    reader.close()
    assert text.startswith("<!doctype html>")
    assert reader.problems == []
    assert reader.stack == []
    assert len(set(reader.ids)) == len(reader.ids)
    assert "http://" not in text and "https://" not in text
    return reader
