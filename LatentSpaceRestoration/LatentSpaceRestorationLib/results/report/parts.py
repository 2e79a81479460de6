"""Parts of pages that tell of one scan: rows of panes, regions, warnings, the score in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ...errors import is_distrusted
from .. import picture
from ..record import DetectionRecord, Flagged, finite
from ..regions import NO_PERCENTILE, score_in_words
from .page import number, text
from .tables import Cell, Column, table

#: Shown as they are in a row of panes: each takes this share of its width, the next begins there.
_PANE, _STEP = 300.0 / 1224.0, 308.0 / 1224.0
STYLE = """
.row { max-width: 1224px; } .strip { width: 100%; aspect-ratio: 1224 / 300;
  background-size: 100% 100%; border-radius: 4px; }
.heads { display: grid; grid-template-columns: repeat(4, 1fr); text-align: center;
  color: var(--dim); font-size: 13px; }
.scale { width: 304px; height: 36px; background-size: 100% 100%; border-radius: 4px; }
"""
HOW_TO_READ = (
    "The patient’s right is on the left (R), the front on top (sagittal: on the left). "
    "The map is clear where it is cold; the outline encloses what is above the threshold. The "
    "restoration is the scan with what is unusual replaced by what the model, from what it has "
    "learned, would expect there: nothing that was measured. Elsewhere it is the scan itself."
)


def read_picture(file: Path) -> list[Image.Image]:
    """The three planes of a result's picture, and the scale; none if it cannot be read."""
    try:
        with Image.open(file) as image:
            return picture.rows(image.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError):
        return []


def heads() -> str:
    """What the panes of the rows below are."""
    return (
        '<div class="heads" aria-hidden="true">'
        + "".join(f"<span>{text(title)}</span>" for title in picture.COLUMNS)
        + "</div>"
    )


def strip(label: str, said: str) -> str:
    """A row of panes.

    Args:
        label: class of the picture.
        said: of it, to those who do not see it.
    """
    return f'<div class="strip {label}" role="img" aria-label="{text(said)}"></div>'


def pane(label: str, which: int, size: int) -> str:
    """One pane of a row, as a small square of some pixels."""
    width = size / _PANE
    style = (
        f"width: {size}px; height: {size}px; background-size: {width:.0f}px {size}px; "
        f"background-position: {-which * _STEP * width:.1f}px 0"
    )
    return f'<div class="pane {label}" style="{style}"></div>'


def verdict(record: DetectionRecord) -> str:
    """The score and how it compares with healthy scans, as HTML."""
    if record.sample_score is None:
        return "<p>No score is known.</p>"
    words = f": {text(NO_PERCENTILE)}" if is_distrusted(record.warnings) else ""
    if record.p_value is not None:
        compared = score_in_words(record.p_value, record.healthy_scans, record.healthy_sites)
        words = f": {text(compared)}"
    flagged = ""
    if record.flagged_ml is not None:
        flagged = f" {record.flagged_ml:.1f} ml are flagged"
        if record.brain_ml:
            share = 100.0 * record.flagged_ml / record.brain_ml
            flagged += f", {share:.2g}% of the brain"
            healthy = finite(record.threshold_percentile)
            if healthy is not None:
                flagged += f" (of a healthy one, {100.0 - healthy:.2g}%)"
        flagged += "."
    return f"<p><b>Score {number(record.sample_score)}</b>{words}.{flagged}</p>"


def warnings(lines: Sequence[str]) -> str:
    """A box of warnings; nothing if there are none."""
    items = "".join(f"<li>⚠ {text(line)}</li>" for line in lines)
    return f'<ul class="warnings">{items}</ul>' if items else ""


def regions(found: Sequence[Flagged] | None, most: int | None = None) -> str:
    """A table of flagged regions.

    Args:
        found: None if they are not known.
        most: lists no more than so many, and says how many it left out.
    """
    if found is None:
        return '<p class="dim">Its regions were not written down.</p>'
    if not found:
        return '<p class="dim">No region of at least 0.2 ml is flagged.</p>'
    columns = [
        Column("Region"),
        Column("Place", words=True),
        Column("RAS mm", words=True, sorts=False),
        Column("Volume, ml", highest_first=True),
        Column("Peak", highest_first=True),
        Column("Mean", highest_first=True),
    ]
    rows = [
        [
            Cell(str(n), n),
            Cell(text(region.place), region.place),
            Cell(text(region.position())),
            Cell(number(region.volume_ml, ".1f"), region.volume_ml),
            Cell(number(region.peak), region.peak),
            Cell(number(region.mean), region.mean),
        ]
        for n, region in enumerate(found[:most], start=1)
    ]
    left_out = len(found) - len(rows)
    more = f'<p class="dim">And {left_out} more.</p>' if left_out else ""
    return table(columns, rows, sorted_by=0) + more
