"""The frame of a page that is one file: what it looks like, and what it may do.

Whatever a page shows may be hostile, file names above all. Every string goes through :func:`text`,
and the page forbids the browser to load anything, and to run any script but its own.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
from collections.abc import Sequence
from html import escape

from PIL import Image

NOTICE = "Research use, not for diagnosis."
#: What HTML has no place for.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #171b22; --dim: #5a6372; --line: #d8dde5;
  --raised: #f3f5f8; --link: #0b57d0; --mark: #c8420b; --healthy: #5a7390; --warn: #7a4a00;
  --warn-paper: #fff3d9; --warn-line: #e5b95c; }
@media (prefers-color-scheme: dark) { :root { --paper: #0e1016; --ink: #e8ebf0; --dim: #a5adba;
  --line: #2c323d; --raised: #181c24; --link: #8fb8ff; --mark: #ff8a4c; --healthy: #8ba4c4;
  --warn: #ffc457; --warn-paper: #2a2213; --warn-line: #6d5520; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px; max-width: 1320px; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 36px 0 6px; }
h3 { font-size: 16px; margin: 0 0 4px; font-weight: 600; }
p { margin: 2px 0 10px; max-width: 75em; } .dim, figcaption, th { color: var(--dim); }
.warning { color: var(--warn); } a { color: var(--link); }
ul.warnings { list-style: none; margin: 10px 0; padding: 8px 14px; color: var(--warn);
  background: var(--warn-paper); border: 1px solid var(--warn-line); border-radius: 6px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 10px 0; }
td, th { padding: 4px 14px 4px 0; text-align: right; font-weight: normal; vertical-align: middle; }
td.words, th.words { text-align: left; } tbody tr { border-top: 1px solid var(--line); }
figure { margin: 0 0 10px; } figcaption { font-size: 13px; } svg text { fill: var(--dim); }
svg { display: block; max-width: 100%; height: auto; font: 13px system-ui, sans-serif; }
svg text { paint-order: stroke; stroke: var(--paper); stroke-width: 4px; }
.strip, .pane { background-repeat: no-repeat; background-color: #000;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
@media print { body { padding: 0; max-width: none; font-size: 12px; }
  .screen { display: none !important; }
  figure, tr, .case { break-inside: avoid; } h2, h3 { break-after: avoid; }
  thead { display: table-row-group; }
  a { color: inherit; text-decoration: none; } }
"""


def text(value: object) -> str:
    """A string as it may stand in the page or in a quoted attribute."""
    return escape(_UNPRINTABLE.sub("\ufffd", str(value)))


def name(value: object) -> str:
    """A name that somebody gave: letters in it that turn the direction of writing stay in it."""
    return f"<bdi>{text(value)}</bdi>"


def number(value: float | None, form: str = "") -> str:
    """A number, with three digits unless a format is given, or a dash where there is none."""
    if value is None:
        return "–"
    decimals = 2 if value == 0.0 else min(max(0, 2 - math.floor(math.log10(abs(value)))), 6)
    return f"{value:{form or f'.{decimals}f'}}"


def page(title: str, body: str, style: str = "", scripts: Sequence[str] = ()) -> str:
    """A whole page.

    Args:
        title: of the window; any string.
        body: HTML.
        style: CSS after that of all pages.
        scripts: the only ones that the browser will run, in their order.
    """
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests) or "'none'"
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )
    return "\n".join(
        [
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{text(title)}</title>",
            f"<style>{_STYLE}{style}</style></head><body>",
            body,
            *(f"<script>{script}</script>" for script in scripts),
            "</body></html>\n",
        ]
    )


class Strips:
    """Pictures of panes side by side, each taken into the page once, as a style.

    Attributes:
        style: CSS of all that were added.
    """

    def __init__(self) -> None:
        self.style = ""
        self._count = 0

    def add(self, data: bytes, kind: str = "webp") -> str:
        """Take a picture in; the name of its class."""
        label = f"s{self._count}"
        self._count += 1
        url = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
        self.style += f".{label} {{ background-image: url({url}); }}\n"
        return label


def webp(image: Image.Image, width: int) -> bytes:
    """An image, made smaller to a width in pixels."""
    height = max(1, round(image.height * width / image.width))
    written = io.BytesIO()
    image.resize((width, height), Image.Resampling.LANCZOS).save(
        written, "WEBP", quality=84, method=4
    )
    return written.getvalue()
