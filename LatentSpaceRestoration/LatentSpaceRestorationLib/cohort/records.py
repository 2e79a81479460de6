"""What was found in each scan, one small file a scan, so that a run that was broken off goes on.

A record is written by whoever did the scan, after its results, whole or not at all. It is believed
only if it was made of the same bytes with the same settings, model and program.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, OutputError
from ..io.files import digest_of_file, reason
from ..io.images import files_of
from ..results.files import named_files
from .scores import DONE, ScoreRow, write_text

if TYPE_CHECKING:
    from .inputs import CohortScan

#: Hidden, so that no BIDS tool takes it for data.
_FOLDER = ".cohort"


def key_of(scan: CohortScan, made_with: str) -> str:
    """A digest of a scan's bytes, its brain mask's, and how it is looked at.

    Args:
        scan: an image, its second file (``.img``, ``.raw``) included; or a DICOM series.
        made_with: from :func:`options.digest_of`.

    Raises:
        InputError: a file cannot be read; in one line.
    """
    digest = hashlib.sha256(made_with.encode())
    try:
        for file in files_of(scan.file, scan.series):
            digest.update(digest_of_file(file).encode())
        for file in [] if scan.mask is None else files_of(scan.mask):
            digest.update(digest_of_file(file).encode())
        digest.update(b"" if scan.mask else b"-")
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: there is no such file; check the path") from error
    except OSError as error:
        raise InputError(f"{scan.file}: cannot be read ({reason(error)})") from error
    return digest.hexdigest()


def save(folder: Path, scan: CohortScan, row: ScoreRow, key: str = "") -> None:
    """Keep a row.

    Args:
        folder: of the run.
        key: of what was done; empty for a scan that failed, which is tried again.

    Raises:
        OutputError: it cannot be written.
    """
    file = _file(folder, scan)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{file.parent}: cannot be made ({reason(error)}); choose another folder"
        ) from error
    write_text(file, json.dumps({"key": key, "row": asdict(row)}) + "\n")


def is_recorded(folder: Path, scan: CohortScan) -> bool:
    """Whether anything is known of a scan: only then its bytes need to be looked at."""
    return _file(folder, scan).is_file()


def load(folder: Path, scan: CohortScan) -> tuple[str, ScoreRow] | None:
    """The key and the row of a scan; None if there is none, or none that can be read."""
    return _read(_file(folder, scan))


def done(folder: Path, scan: CohortScan, key: str) -> ScoreRow | None:
    """The row of a scan that was done with this key and whose results are all there."""
    known = load(folder, scan)
    if known is None or known[0] != key or known[1].status != DONE:
        return None
    results = named_files(scan.place.stem, folder / scan.place.folder).values()
    return known[1] if all(file.is_file() for file in results) else None


def all_rows(folder: Path) -> Iterator[tuple[str, ScoreRow]]:
    """The stem and the row of every scan that is known in a run's folder, by stem."""
    for file in sorted((folder / _FOLDER).glob("*.json")):
        known = _read(file)
        if known is not None:
            yield file.stem, known[1]


def _read(file: Path) -> tuple[str, ScoreRow] | None:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        return str(record["key"]), ScoreRow.from_json(record["row"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _file(folder: Path, scan: CohortScan) -> Path:
    return folder / _FOLDER / f"{scan.place.stem}.json"
