"""The page of one scan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...io.files import printable
from ..files import PICTURE, Extra, FileResult
from ..record import DetectionRecord
from . import charts, parts, tables
from .page import NOTICE, Strips, name, number, page, text, webp

REPORT = "anomaly.html"


def scan_report() -> Extra:
    """The page as a further file of a result."""
    return Extra((REPORT,), lambda scan, series: _write)


def _write(result: FileResult, files: Mapping[str, Path]) -> None:
    content = scan_page(printable(result.scan.name), result.figures, files[PICTURE])
    files[REPORT].write_text(content, encoding="utf-8", errors="backslashreplace")


def scan_page(title: str, figures: Mapping[str, Any], picture: Path) -> str:
    """A page about one scan.

    Args:
        title: the scan's file name.
        figures: content of its JSON file.
        picture: its PNG file.

    Returns:
        HTML that needs no other file.
    """
    record = DetectionRecord.from_json(figures)
    strips = Strips()
    body = [
        f"<h1>{name(title)}</h1>",
        f'<p class="warning">{NOTICE} Unusual is not ill: rare anatomy, movement and an uncommon '
        "scanner are unusual as well.</p>",
        parts.verdict(record),
        parts.warnings(record.warnings),
        _planes(parts.read_picture(picture), strips),
        "<h2>Score among healthy scans</h2>",
        _score(record, title),
        "<h2>Flagged regions</h2>",
        parts.regions(record.regions),
        '<p class="dim">Regions of flagged voxels that touch, the highest peak first, at least '
        "0.2 ml. Places are rough: side, front to back and height within the brain.</p>",
        _slices(record),
        "<h2>How it was made</h2><table>",
        *(
            f'<tr><td class="words dim">{text(key)}</td><td class="words">{text(value)}</td></tr>'
            for key, value in record.settings.items()
        ),
        "</table>",
    ]
    style = tables.STYLE + charts.STYLE + parts.STYLE + strips.style
    return page(title, "\n".join(body), style, tables.SCRIPT)


def _planes(rows: list[Any], strips: Strips) -> str:
    if not rows:
        return ""
    names = ("Axial", "Coronal", "Sagittal")
    shown = [
        parts.strip(
            strips.add(webp(row, row.width)),
            f"{plane} plane through the most anomalous place: scan, anomaly map, what is above "
            "the threshold, restoration",
        )
        for plane, row in zip(names, rows, strict=False)
    ]
    scale = strips.add(webp(rows[-1], rows[-1].width))
    return (
        f'<h2>Most anomalous place</h2><figure class="row">{parts.heads()}'
        + '<div style="height: 6px"></div>'.join(shown)
        + f'<figcaption>{parts.HOW_TO_READ}</figcaption><div class="pane scale {scale}" role="img" '
        'aria-label="colours of the map"></div></figure>'
    )


def _score(record: DetectionRecord, title: str) -> str:
    if record.sample_score is None:
        return '<p class="dim">No score is known.</p>'
    mark = charts.Mark(record.sample_score, f"{title}: {number(record.sample_score)}")
    return charts.distribution(record.healthy_scores, [mark], "this scan")


def _slices(record: DetectionRecord) -> str:
    if len(record.slice_scores) < 2:
        return ""
    positions = [s.position_mm for s in record.slice_scores]
    scores = [s.score for s in record.slice_scores]
    # In the other modes slices are scored in other units than the map.
    threshold = record.threshold if record.mode == "default" else None
    return "<h2>Scores by slice</h2>" + charts.profile(positions, scores, threshold)
