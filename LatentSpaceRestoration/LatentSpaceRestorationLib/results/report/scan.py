"""The page of one scan: to be scrolled through, with all figures, in one file without network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ...calibration.quantiles import Quantiles
from ...detection import Detection
from ...errors import InputError, is_distrusted
from ...io.dicom_series import chosen, identity_of
from ...io.files import content_hash, digest_of_file, printable, written_whole
from ...io.images import files_of
from ...volume import Volume
from .. import picture
from ..files import PICTURE, Extra, FileResult, Writer
from ..record import DetectionRecord, Flagged, finite
from ..regions import NO_PERCENTILE, percent, score_in_words
from . import charts, tables
from .page import NOTICE, Strips, name, number, page, text, webp
from .tables import Cell, Column, table
from .viewer import viewer

REPORT = "anomaly.html"
_STYLE = """
.row { max-width: 1224px; } .strip { width: 100%; aspect-ratio: 1224 / 300;
  background-size: 100% 100%; border-radius: 4px; }
.heads { display: grid; grid-template-columns: repeat(4, 1fr); text-align: center;
  color: var(--dim); font-size: 13px; }
.made td { overflow-wrap: anywhere; }
.scale { width: 304px; height: 36px; background-size: 100% 100%; border-radius: 4px; }
"""
_HOW_TO_READ = (
    "The patient’s right is on the left (R), the front on top (sagittal: on the left). "
    "The map is clear where it is cold; the outline encloses what is above the threshold. The "
    "restoration is the scan with what is unusual replaced by what the model, from what it has "
    "learned, would expect there: nothing that was measured."
)


def scan_report(identified: bool = False) -> Extra:
    """The page as a further file of a result.

    Args:
        identified: tell where the scan lies as well, and of a DICOM series whose it is, and when it
            was made, as its headers say.
    """

    def prepare(scan: Path, series: str) -> Writer:
        facts = {**(_identity(scan, series) if identified else {}), **_digest(scan, series)}
        return lambda result, files: _write(result, files, facts)

    return Extra((REPORT,), prepare)


def _digest(scan: Path, series: str) -> dict[str, str]:
    try:
        if scan.is_dir():  # of other series, and of what else lies there, nothing is read
            files = [Path(name) for name in sorted({s.file for s in chosen(scan, series)[0]})]
        else:
            files = files_of(scan)
        if len(files) == 1:
            return {"SHA-256 of the scan": digest_of_file(files[0])}
        return {f"SHA-256 of the scan’s {len(files)} files’ SHA-256": content_hash(files)}
    except (OSError, InputError):  # reading the scan will say what is wrong
        return {}


def _identity(scan: Path, series: str) -> dict[str, str]:
    """Where a scan lies, and whose it is."""
    whose = identity_of(scan, series) if scan.is_dir() else {}
    return {"file": printable(scan.absolute()), **whose}


def _write(result: FileResult, files: Mapping[str, Path], facts: Mapping[str, str]) -> None:
    with Image.open(files[PICTURE]) as still:
        content = scan_page(
            result.files[REPORT].name.removesuffix(f"_{REPORT}"),
            result.volume,
            result.detection,
            result.record,
            result.healthy,
            still.convert("RGB"),
            facts,
        )
    files[REPORT].write_text(content, encoding="utf-8", errors="backslashreplace")


def write_page(
    target: Path,
    title: str,
    volume: Volume,
    detection: Detection,
    record: DetectionRecord,
    healthy: Quantiles,
) -> Path:
    """Write the page of a scan that is no file; the arguments are those of :func:`scan_page`.

    Raises:
        OutputError: it cannot be written; what was there is left.
    """
    still = picture.draw(volume, detection, title)
    digest = hashlib.sha256(volume.array.tobytes()).hexdigest()
    facts = {"SHA-256 of the scan’s voxels": digest}
    content = scan_page(title, volume, detection, record, healthy, still, facts)
    with written_whole(target, "choose another folder") as beside:
        beside.write_text(content, encoding="utf-8", errors="backslashreplace")
    return target


def scan_page(
    title: str,
    volume: Volume,
    detection: Detection,
    record: DetectionRecord,
    healthy: Quantiles,
    still: Image.Image,
    facts: Mapping[str, str],
) -> str:
    """A page about one scan.

    Args:
        title: what the scan is called.
        volume: the scan.
        detection: its result, on the same grid.
        record: the figures, with regions.
        healthy: what the map is in healthy brain voxels, made in the same way.
        still: picture of the result, from :func:`picture.draw`, for browsers that draw no volumes,
            and for paper.
        facts: more of how the result was made, by what it is called.

    Returns:
        HTML that needs no other file.
    """
    strips = Strips()
    shown = viewer(volume, detection, healthy)
    body = [
        f"<h1>{name(title)}</h1>",
        f'<p class="warning">{NOTICE} Unusual is not ill: rare anatomy, movement and an uncommon '
        "scanner are unusual as well.</p>",
        _verdict(record),
        _warnings(record.warnings),
        shown.html,
        _planes(picture.rows(still), strips),
        f'<p class="dim">{_how_to_read(volume, detection)}</p>',
        _slices(record),
        "<h2>Flagged regions</h2>",
        _regions(record),
        "<h2>Score among healthy scans</h2>",
        _score(record, title),
        '<h2>How it was made</h2><table class="made">',
        *(
            f'<tr><td class="words dim">{text(key)}</td><td class="words">{text(value)}</td></tr>'
            for key, value in {**record.settings, **facts}.items()
        ),
        "</table>",
    ]
    style = tables.STYLE + charts.STYLE + _STYLE + shown.style + strips.style
    return page(printable(title), "\n".join(body), style, (*shown.scripts, tables.SCRIPT))


def _how_to_read(volume: Volume, detection: Detection) -> str:
    brain = detection.brain_mask > 0
    # Some methods draw the whole brain anew.
    keeps = (detection.restoration[brain] == volume.array[brain].astype(np.float32)).any()
    return _HOW_TO_READ + (" Elsewhere it is the scan itself." if keeps else "")


def _above(record: DetectionRecord) -> str:
    cut = finite(record.threshold_percentile)
    return " flagged" if cut is None else f" above healthy percentile {cut:g}"


def _of_regions(record: DetectionRecord) -> str:
    return (
        f"Regions of voxels{_above(record)} that touch, the highest peak first, at least 0.2 ml. "
        "Places are rough: side, front to back and height within the brain."
    )


def _planes(rows: Sequence[Image.Image], strips: Strips) -> str:
    if not rows:
        return ""
    names = ("Axial", "Coronal", "Sagittal")
    shown = [
        f'<div class="strip {strips.add(webp(row, row.width))}" role="img" aria-label="{plane} '
        "plane through the most anomalous place: scan, anomaly map, what is above the threshold, "
        'restoration"></div>'
        for plane, row in zip(names, rows, strict=False)
    ]
    scale = strips.add(webp(rows[-1], rows[-1].width))
    heads = "".join(f"<span>{text(title)}</span>" for title in picture.COLUMNS)
    return (
        '<figure class="row still"><figcaption>Most anomalous place</figcaption>'
        f'<div class="heads" aria-hidden="true">{heads}</div>'
        + '<div style="height: 6px"></div>'.join(shown)
        + f'<div class="pane scale {scale}" role="img" aria-label="colours of the map"></div>'
        "</figure>"
    )


def _verdict(record: DetectionRecord) -> str:
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
            flagged += f", {percent(share)} of the brain"
            healthy = finite(record.threshold_percentile)
            if healthy is not None:
                flagged += f" (of a healthy one, {percent(100.0 - healthy)})"
        flagged += "."
    return f"<p><b>Score {number(record.sample_score)}</b>{words}.{flagged}</p>"


def _warnings(lines: Sequence[str]) -> str:
    """A box of warnings; nothing if there are none."""
    items = "".join(f"<li>⚠ {text(line)}</li>" for line in lines)
    return f'<ul class="warnings">{items}</ul>' if items else ""


def _regions(record: DetectionRecord) -> str:
    """A table of flagged regions, from which the viewer is moved."""
    found = record.regions
    if is_distrusted(record.warnings):
        return '<p class="dim">Nothing is flagged, since the map is not to be trusted.</p>'
    if found is None:
        return '<p class="dim">Its regions were not written down.</p>'
    if not found:
        return f'<p class="dim">No region of at least 0.2 ml is{_above(record)}.</p>'
    columns = [
        Column("Region"),
        Column("Place", words=True),
        Column("RAS mm", words=True, sorts=False),
        Column("Volume, ml", highest_first=True),
        Column("Peak", highest_first=True),
        Column("Mean", highest_first=True),
        Column("Flagged for", words=True),
    ]
    rows = [
        [
            Cell(str(n), n),
            Cell(text(region.place), region.place),
            Cell(_link_to(region)),
            Cell(number(region.volume_ml, ".1f"), region.volume_ml),
            Cell(number(region.peak), region.peak),
            Cell(number(region.mean), region.mean),
            Cell(text(region.evidence.words), region.evidence.words),
        ]
        for n, region in enumerate(found, start=1)
    ]
    shown = table(columns, rows, sorted_by=0, identity="regions")
    return f'{shown}<p class="dim">{_of_regions(record)}</p>'


def _link_to(region: Flagged) -> str:
    """The position of a region's peak; the viewer makes a link of it."""
    where = text(region.position())
    if not region.position_mm:
        return where
    mm = " ".join(f"{x:g}" for x in region.position_mm)
    return f'<button type="button" class="goto" data-mm="{mm}" disabled>{where}</button>'


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
