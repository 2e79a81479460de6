"""The page of a cohort: a table that leads to each scan's page, and scores among healthy ones."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from ...datasets.subjects import NOTHING
from ...errors import InputError
from ...io.files import reason, written_whole
from ...io.images import scan_name
from .. import picture
from ..files import FIGURES, PICTURE
from ..record import DetectionRecord, finite
from . import charts, tables
from .page import NOTICE, Strips, name, number, page, text, webp
from .scan import REPORT
from .tables import Cell, Column

SCORES, PAGE = "scores.tsv", "report.html"
#: Scans that are shown with a small picture, the most unusual ones.
MOST_PICTURES = 2000
_HIGH = 0.05
#: Columns of the table that are figures of the same name.
_SETTINGS = (
    *("percentile", "seconds", "flagged_ml", "model", "mode", "method", "restorations", "seed"),
    *("threshold_percentile", "device", "version"),
)
#: Pixels of a small picture.
_SMALL = 72
_HOW_TO_READ = (
    "Each picture is the axial plane through the most anomalous place, with the map over the scan. "
    "A scan’s name leads to its page, in which it is scrolled through."
)
_STYLE = """
.small { width: 72px; height: 72px; background-size: 100% 100%; border-radius: 4px; }
tbody tr { scroll-margin-top: 8px; } tbody tr:target { background: var(--raised); }
.filters { display: flex; flex-wrap: wrap; gap: 6px 20px; margin: 12px 0 0; align-items: center; }
.filters input, .filters select { font: inherit; color: inherit; background: var(--raised);
  border: 1px solid var(--line); border-radius: 4px; padding: 3px 8px; }
.filters input[type=number] { width: 6em; }
summary { cursor: pointer; } details[open] { max-width: 28em; white-space: normal; }
"""


@dataclass(frozen=True)
class _Scan:
    """A row of the table.

    Attributes:
        identity, file, site: its columns.
        record: what its JSON file says, or else the row.
        failure: why there is no result; empty if there is one.
        files: results by what follows the scan's name, as far as they are there.
    """

    identity: str
    file: str
    site: str
    record: DetectionRecord
    failure: str
    files: dict[str, Path]


def write_cohort_report(run_folder: str | Path) -> Path:
    """Write ``report.html`` into the folder of a run.

    It has the scans in order of their scores, with what is known of each, their scores among those
    of healthy scans, and the scans that failed. It needs no other file; links lead to the pages of
    the scans beside it.

    Args:
        run_folder: with ``scores.tsv``, columns by name: ``id``, ``file``, ``score``,
            ``percentile``, ``p``, ``warnings`` (separated by ``|``), ``status``, ``reason``,
            ``seconds``, ``site``, ``model``, ``version``, and ``result``, the JSON file of what
            ``lsr detect`` writes, or its folder, relative to this one. Columns and files that are
            missing are not told of.

    Returns:
        the page.

    Raises:
        InputError: the table cannot be read.
        OutputError: the page cannot be written.
    """
    folder = Path(run_folder)
    content = _page(folder, [_scan(folder, row) for row in _rows(folder / SCORES)])
    target = folder / PAGE
    with written_whole(target, "make room") as beside:
        beside.write_text(content, encoding="utf-8", errors="backslashreplace")
    return target


def _rows(table: Path) -> list[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    except OSError as error:
        raise InputError(
            f"{table}: cannot be read ({reason(error)}); give the folder of a run"
        ) from error
    except csv.Error as error:
        raise InputError(f"{table}: is not a table ({error}); run the cohort again") from error
    return [
        {k: v for k, v in row.items() if k and isinstance(v, str) and v != NOTHING} for row in rows
    ]


def _scan(folder: Path, row: Mapping[str, str]) -> _Scan:
    file = row.get("file", "")
    identity = row.get("id", "") or scan_name(file)
    where = row.get("result") or row.get("results") or ""
    files = _files(folder / where, (scan_name(file), identity)) if where else {}
    told: dict[str, Any] = {key: row[key] for key in _SETTINGS if key in row}
    told |= {
        "sample_score": row.get("score"),
        "p_value": row.get("p") or row.get("p_value"),
        "warnings": [line for part in row.get("warnings", "").split("|") if (line := part.strip())],
    }
    failed = finite(row.get("score")) is None
    content = None if failed else _figures(files)
    if content is not None:
        # Lists are whole in the file alone; where both tell a figure, the table counts.
        told = content | {k: v for k, v in told.items() if v and k != "warnings"}
    why = row.get("reason") or row.get("status") or "no score"
    record = DetectionRecord.from_json(told)
    return _Scan(identity, file, row.get("site", ""), record, why if failed else "", files)


def _figures(files: Mapping[str, Path]) -> dict[str, Any] | None:
    try:
        content = json.loads(files[FIGURES].read_text(encoding="utf-8"))
    except (KeyError, OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _files(result: Path, names: Sequence[str]) -> dict[str, Path]:
    """The files of a scan's results: beside its JSON file, or in a folder, named after the scan."""
    found: dict[str, Path] = {}
    if result.name.endswith(f"_{FIGURES}"):
        result, names = result.parent, [result.name.removesuffix(f"_{FIGURES}")]
    for ending in (FIGURES, PICTURE, REPORT):
        named = [result / f"{scan}_{ending}" for scan in names]
        there = [file for file in named if file.is_file()] or sorted(result.glob(f"*_{ending}"))
        if there and (there[0] in named or len(there) == 1):
            found[ending] = there[0]
    return found


def _page(folder: Path, scans: Sequence[_Scan]) -> str:
    done = [scan for scan in scans if not scan.failure]
    done.sort(key=lambda scan: -(scan.record.sample_score or 0.0))
    failed = [scan for scan in scans if scan.failure]
    strips = Strips()
    title = f"Anomalies in {folder.resolve().name}"
    doubted = sum(bool(scan.record.warnings) for scan in done)
    body = [
        f"<h1>Anomalies in {name(folder.resolve().name)}</h1>",
        f'<p class="warning">{NOTICE} Unusual is not ill: rare anatomy, movement and an uncommon '
        "scanner are unusual as well.</p>",
        f"<p>{len(scans)} scans: {len(done)} analysed, {doubted} of them with warnings; "
        + (
            f'<a href="#failed">{len(failed)} could not be used</a>.</p>'
            if failed
            else "none failed.</p>"
        ),
        _high(done),
        _distributions(done),
    ]
    if done:
        body += ["<h2>Ranking</h2>", _ranking(folder, done, strips)]
        body.append(f'<p class="dim">{_HOW_TO_READ}</p>')
    if failed:
        body += ['<h2 id="failed">Could not be used</h2>', _failures(failed)]
    style = tables.STYLE + charts.STYLE + _STYLE + strips.style
    return page(title, "\n".join(body), style, [tables.SCRIPT])


def _high(scans: Sequence[_Scan]) -> str:
    """How many scans score high, beside how many would if all were healthy."""
    known = [scan.record.p_value for scan in scans if scan.record.p_value is not None]
    if not known:
        return ""
    high = sum(p <= _HIGH for p in known)
    return (
        f"<p>{high} of {len(known)} have p at most {_HIGH:g}; if all were healthy, and scanned "
        f"as the model’s healthy scans were, about {_HIGH * len(known):.2g} would.</p>"
    )


def _distributions(scans: Sequence[_Scan]) -> str:
    """Scores beside those of healthy scans, of each model apart: they are in other units."""
    groups: dict[tuple[object, ...], list[tuple[int, _Scan]]] = {}
    for rank, scan in enumerate(scans, start=1):
        kinds = (scan.record.settings.get(key, "") for key in ("model", "mode", "method"))
        key = (*kinds, scan.record.healthy_scores)
        groups.setdefault(key, []).append((rank, scan))
    lines = []
    for (model, mode, _, healthy), members in groups.items():
        assert isinstance(healthy, tuple)
        marks = [
            charts.Mark(
                scan.record.sample_score or 0.0,
                f"{scan.identity}: {number(scan.record.sample_score)}",
                f"scan-{rank}",
            )
            for rank, scan in members
        ]
        of = f", model {model}" + (f" in mode {mode}" if mode else "") if len(groups) > 1 else ""
        lines.append(charts.distribution(healthy, marks, f"{len(marks)} scans{of}"))
    return "<h2>Scores</h2>" + "\n".join(lines) if lines else ""


def _ranking(folder: Path, scans: Sequence[_Scan], strips: Strips) -> str:
    with_sites = any(scan.site for scan in scans)
    columns = [
        Column("Rank"),
        Column("Map", words=True, sorts=False),
        Column("Scan", words=True),
        *([Column("Site", words=True, filters=tables.CHOICE)] if with_sites else []),
        Column("Score", highest_first=True, filters=tables.LEAST),
        Column("Percentile", highest_first=True, filters=tables.LEAST),
        Column("p"),
        Column("Flagged, ml", highest_first=True, filters=tables.LEAST),
        Column("Regions", highest_first=True),
        Column("Notes", words=True, highest_first=True, filters=tables.ANY),
        Column("Seconds", highest_first=True),
    ]
    rows = []
    for rank, scan in enumerate(scans, start=1):
        record = scan.record
        count = None if record.regions is None else len(record.regions)
        rows.append(
            [
                Cell(str(rank), rank),
                Cell(_small(scan, strips) if rank <= MOST_PICTURES else ""),
                Cell(_linked(folder, scan), scan.identity),
                *([Cell(name(scan.site), scan.site)] if with_sites else []),
                Cell(number(record.sample_score), record.sample_score),
                Cell(number(record.percentile, ".0f"), record.percentile),
                Cell(number(record.p_value, ".2g"), record.p_value),
                Cell(number(record.flagged_ml, ".1f"), record.flagged_ml),
                Cell(number(count, "d"), count),
                Cell(_notes(record.warnings), len(record.warnings) or None),
                Cell(number(record.total_seconds, ".0f"), record.total_seconds),
            ]
        )
    identities = [f"scan-{rank}" for rank in range(1, len(rows) + 1)]
    shown = tables.table(columns, rows, sorted_by=0, identity="ranking", rows_named=identities)
    return tables.filters(columns, rows, "ranking") + shown


def _small(scan: _Scan, strips: Strips) -> str:
    """The axial plane through the most anomalous place, with the map; empty without a picture."""
    try:
        with Image.open(scan.files[PICTURE]) as drawn:
            rows = picture.rows(drawn.convert("RGB"))
    except (KeyError, OSError, ValueError, Image.DecompressionBombError):
        return ""
    if not rows:
        return ""
    heat = picture.pane(rows[0], "Anomaly map")
    return f'<div class="pane small {strips.add(webp(heat, 2 * _SMALL))}"></div>'


def _linked(folder: Path, scan: _Scan) -> str:
    """The scan's name, leading to its page, or else to its picture."""
    for ending in (REPORT, PICTURE):
        if ending in scan.files:
            return f'<a href="{_link(folder, scan.files[ending])}">{name(scan.identity)}</a>'
    return name(scan.identity)


def _notes(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    said = "<br>".join(text(line) for line in warnings)
    return f'<details class="warning"><summary>⚠ {len(warnings)}</summary>{said}</details>'


def _link(folder: Path, file: Path) -> str:
    """A link to a file beside the page, whatever its name."""
    relative = Path(os.path.relpath(file, folder)).as_posix()
    return "./" + quote(os.fsencode(relative), safe="/")


def _failures(scans: Sequence[_Scan]) -> str:
    columns = [Column("Scan", words=True), Column("Reason", words=True)]
    rows = []
    for scan in scans:
        # Folders are called as people are: the table of scores has them, the page goes elsewhere.
        above = os.path.dirname(scan.file)
        why = scan.failure.replace(f"{above}{os.sep}", "") if above else scan.failure
        rows.append([Cell(name(scan.identity), scan.identity), Cell(text(why), why)])
    return tables.table(columns, rows)
