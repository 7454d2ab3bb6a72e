"""Pieces of a page that needs no other file: it opens offline, reads on a phone, and follows dark and light.

Functions take text and give `Html`, in which that text is escaped: what is not `Html` cannot get onto a page unescaped.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import NewType

Html = NewType("Html", str)

COLOURS = ("#e69f00", "#3d9be9", "#d55e00", "#00a37a", "#cc79a7", "#8a7bd8", "#a6a600", "#7f7f7f", "#b07040", "#20b2c0")
"""Of classes and datasets by number, over and over; after Okabe and Ito 2008, made to stand out on black and white."""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""What a browser may load: nothing but what is written in the page."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --pale: #66666c; --ground: #fff; --card: #f4f4f6; --line: #d9d9de;
  --good: #16794c; --bad: #b3261e }
@media (prefers-color-scheme: dark) { :root { --ink: #ececf0; --pale: #a2a2aa; --ground: #131316; --card: #1e1e23;
  --line: #38383f; --good: #5fd39c; --bad: #ff8a80 } }
* { box-sizing: border-box }
body { font: 16px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--ground); margin: 0 auto;
  max-width: 76rem; padding: 1rem; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; margin: .5rem 0 } h2 { font-size: 1.2rem; margin: 2rem 0 .6rem }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem }
p { margin: .4rem 0 } .pale { color: var(--pale); font-size: .9rem } .good { color: var(--good) }
.bad { color: var(--bad) } .state { font-weight: 600 }
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)) }
.tiles { display: grid; gap: .6rem; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); margin: 1rem 0 }
.tiles div { background: var(--card); border-radius: .6rem; padding: .6rem .8rem }
.tiles b { display: block; font-size: 1.3rem; font-variant-numeric: tabular-nums }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
td, th { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); overflow-wrap: normal }
th:first-child, td:first-child { text-align: left; padding-left: 0; overflow-wrap: anywhere; min-width: 6rem }
table.words td, table.words th { text-align: left; vertical-align: top; overflow-wrap: anywhere }
table.words td:first-child { min-width: 7rem }
figure { margin: 0; background: var(--card); border-radius: .6rem; padding: .7rem } figure.low { margin: 1rem 0 }
figcaption { font-size: .9rem; color: var(--pale); margin-top: .3rem } figcaption b { color: var(--ink) }
img, svg { max-width: 100%; height: auto; display: block } svg text { font-family: inherit }
.planes { display: flex; flex-wrap: wrap; gap: .5rem } .planes img { background: #000; border-radius: .3rem }
.planes svg { width: 100% } .low img { max-height: 15rem; width: auto }
.grid > * { min-width: 0 } .chip { display: inline-block; margin-right: .9rem; max-width: 100% }
.chip i { display: inline-block; width: .75em; height: .75em;
  border-radius: .2em; margin-right: .3em }
.pane { max-width: 100%; min-width: 0 } .pane input { width: 100%; margin: .3rem 0 }
.view { position: relative; overflow: hidden; background: #000; border-radius: .3rem; margin: 0 auto; max-width: 100%;
  cursor: crosshair } .planes .view * { position: absolute; border-radius: 0; background: none }
.planes .view canvas, .planes .view svg { left: 0; top: 0; width: 100%; height: 100%; max-width: none }
.view i { color: #ffd54a; font: 600 .8rem/1 system-ui, sans-serif; text-shadow: 0 0 3px #000, 0 0 3px #000 }
.view .left { left: .3rem; top: calc(50% - .4rem) } .view .right { right: .3rem; top: calc(50% - .4rem) }
.view .top { top: .3rem; left: 0; right: 0; text-align: center }
.view .bottom { bottom: .3rem; left: 0; right: 0; text-align: center }
.low .view i { font-size: .65rem }
.low .pane img { image-rendering: pixelated; max-height: none; background: none; width: 100%; height: 100% }
.low .planes:has(.pane) { flex-wrap: nowrap } .chip input[type="range"] { width: 6rem; vertical-align: middle }
@media (min-width: 56rem) { .slices .planes { flex-wrap: nowrap } }
.bar { display: flex; gap: .5rem; align-items: center; max-width: 26rem; font-size: .9rem; margin: .5rem 0 }
.bar i { flex: 1; height: .8rem; border-radius: .2rem }
.row { font-size: .85rem; margin: .5rem 0 0 } .dots { width: 100%; overflow: visible }
.dots text { fill: var(--pale); font-size: .75rem } .dots a:focus circle, .dots a:hover circle { r: 6px }
.case > summary { padding: .45rem .2rem; border-top: 1px solid var(--line) } .case { margin: 0 }
.case > summary span { margin-left: .8rem; font-variant-numeric: tabular-nums }
.tools { display: flex; flex-wrap: wrap; gap: .5rem 1.2rem; margin: .6rem 0 } .tools label { max-width: 100% }
select { font: inherit; max-width: 100% } label.chip { cursor: pointer }
details { margin: .6rem 0 } summary { cursor: pointer } pre { overflow-x: auto; font-size: .8rem }
"""


def text(value: object) -> Html:
    """Any text as it is to be read."""
    return Html(html.escape(str(value)))


def page(title: str, parts: Iterable[Html], *, refresh_seconds: int | None = None) -> str:
    """A whole page, with its title as a heading.

    Args:
        refresh_seconds: the browser shows the file anew this often.
    """
    refresh = "" if refresh_seconds is None else f'<meta http-equiv="refresh" content="{refresh_seconds}">'
    head = (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">{refresh}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style></head>\n<body>"
    )
    return "\n".join([head, f"<h1>{text(title)}</h1>", *parts, "</body>\n</html>\n"])


def heading(words: str, level: int = 2) -> Html:
    """A heading below the title."""
    return Html(f"<h{level}>{text(words)}</h{level}>")


def paragraph(words: str, kind: str = "") -> Html:
    """A paragraph.

    Args:
        kind: how it is set, by names of STYLE: pale, good, bad, state.
    """
    return Html(f'<p class="{text(kind)}">{text(words)}</p>')


def tiles(values: Mapping[str, str]) -> Html:
    """The few numbers that matter most, by what they are called."""
    inner = "".join(f"<div><b>{text(value)}</b>{text(name)}</div>" for name, value in values.items())
    return Html(f'<div class="tiles">{inner}</div>')


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, is_words: bool = False) -> Html:
    """A table with names to the left and numbers to the right, or words.

    Args:
        header: of the columns; empty for none.
    """
    top = "<tr>" + "".join(f"<th>{text(cell)}</th>" for cell in header) + "</tr>" if header else ""
    body = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    kind = ' class="words"' if is_words else ""
    return Html(f'<div class="scroll"><table{kind}>{top}{body}</table></div>')


def legend(names: Mapping[str, str] | Sequence[str]) -> Html:
    """Names beside their colours, the n-th in the n-th of COLOURS.

    Args:
        names: with a value to each, or without.
    """
    values = names if isinstance(names, Mapping) else dict.fromkeys(names, "")
    chips = []
    for place, (name, value) in enumerate(values.items()):
        dot = f'<i style="background:{COLOURS[place % len(COLOURS)]}"></i>'
        chips.append(f'<span class="chip">{dot}{text(f"{name} {value}".strip())}</span>')
    return Html(" ".join(chips))


def figure(pictures: Iterable[Html], caption: Html, *, is_low: bool = False) -> Html:
    """Pictures side by side, as far as there is room, with what is to be said of them.

    Args:
        pictures: of `inline_image`, or SVG.
        is_low: images are no higher than some lines, so that several have room.
    """
    kind = ' class="low"' if is_low else ""
    inner = "".join(pictures)
    return Html(f'<figure{kind}><div class="planes">{inner}</div><figcaption>{caption}</figcaption></figure>')


def inline_image(picture: bytes, alt: str) -> Html:
    """A PNG or JPEG within the page."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return Html(f'<img alt="{text(alt)}" src="data:image/{kind};base64,{base64.b64encode(picture).decode()}">')


def details(summary: str, inner: Html) -> Html:
    """What is shown when asked for."""
    return Html(f"<details><summary>{text(summary)}</summary>{inner}</details>")


def block(parts: Iterable[Html]) -> Html:
    """What stays together."""
    return Html(f"<div>{''.join(parts)}</div>")


def grid(parts: Iterable[Html]) -> Html:
    """Side by side where there is room, below each other on a phone."""
    return Html(f'<div class="grid">{"".join(parts)}</div>')


def number(value: float | None, places: int = 3) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{places}f}"
