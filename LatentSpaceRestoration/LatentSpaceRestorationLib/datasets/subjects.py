"""A scan with what is known of it, and tables of such."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, OutputError
from ..io.files import read_text, reason, written_whole

#: What stands where a table has no value, as BIDS writes it.
NOTHING = "n/a"
FILES = ("t1w", "brainmask", "lesion", "tissue")
#: ``unseen-site`` is of scanners that nothing is trained or calibrated on: to choose by.
SPLITS = ("train", "calibrate", "tune", "test", "unseen-site")
_COLUMNS = ("subject", "session", "split", *FILES, "site")
TABLES = {".tsv": "\t", ".csv": ","}


@dataclass(frozen=True)
class Subject:
    """One scan.

    Attributes:
        name: the scan's; no other has it.
        split: one of ``SPLITS``; empty where the source states none.
        scan: file, or folder of a DICOM series.
        mask: brain, on the scan's grid; None if there is none.
        lesion: ground truth, on the scan's grid; None if there is none.
        person: whose scan it is, where people have several; empty if that is ``name``.
        site: where it was made, as the source names it; empty if it does not.
        tissue: map of up to eight tissues, from 1, on the scan's grid; None if there is none.
        series: SeriesInstanceUID of the one that is meant in a folder of several DICOM series;
            empty does not say.
    """

    name: str
    split: str
    scan: Path
    mask: Path | None
    lesion: Path | None = None
    person: str = ""
    site: str = ""
    tissue: Path | None = None
    series: str = ""

    @property
    def owner(self) -> str:
        """Whose scan it is."""
        return self.person or self.name


def of_split(subjects: Iterable[Subject], split: str) -> Iterator[Subject]:
    """The scans of one set, in the order of the source."""
    return (subject for subject in subjects if subject.split == split)


def read_table(table: Path, strict: bool = True) -> list[Subject]:
    """Read a table of subjects; see :func:`read_subjects`."""
    rows = _rows(table)
    subjects: list[Subject] = []
    for number, row in rows:
        name, split, scan = (row.get(key) or "" for key in ("subject", "split", "t1w"))
        if not (name and scan and (split or not strict or "split" not in row)):
            raise InputError(f"{table}: line {number} lacks its subject, split or t1w; fill it in")
        if split and split not in SPLITS:
            raise InputError(f"{table}: subject {name} has split {split!r}; use one of {SPLITS}")
        files = [table.parent / row[key] if row.get(key) else None for key in FILES]
        for file in files:
            if strict and file is not None and not file.exists():
                raise InputError(f"{table}: {file} of subject {name} does not exist")
        image, mask, lesion, tissue = files
        assert image is not None
        beside = image.with_name(image.name.replace("_T1w.", "_tissue."))
        if tissue is None and beside != image and beside.is_file():
            tissue = beside
        session = row.get("session") or ""
        own = f"{name}_{session}" if session else name
        person, site = name if session else "", row.get("site") or ""
        series = row.get("series") or ""
        subjects.append(Subject(own, split, image, mask, lesion, person, site, tissue, series))
    if not subjects:
        raise InputError(f"{table}: names no subjects; give it a row for each scan")
    return subjects


def _rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    delimiter = TABLES.get(table.suffix.lower(), "\t")
    try:
        text = read_text(table)
        if "\0" in text:
            raise InputError(f"{table}: is not a table; give a tab-separated text file")
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        columns = set(reader.fieldnames or ())
        rows = [{k: "" if v == NOTHING else v for k, v in row.items()} for row in reader]
    except OSError as error:
        raise InputError(
            f"{table}: cannot be read ({error.strerror}); give a folder of scans or a subjects "
            "table"
        ) from error
    except csv.Error as error:
        raise InputError(f"{table}: is not a table; give a tab-separated text file") from error
    missing = {"subject", "t1w"} - columns
    if missing:
        raise InputError(
            f"{table}: lacks the column(s) {', '.join(sorted(missing))}; "
            "give a tab-separated table with columns subject, split, t1w and brainmask"
        )
    # Programs leave rows of empty cells behind.
    return [(n, row) for n, row in enumerate(rows, start=2) if any(row.values())]


def write_table(file: Path, subjects: Iterable[Subject]) -> None:
    """Write subjects as a table that :func:`read_subjects` reads, with absolute file names.

    Raises:
        OutputError: it cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(_COLUMNS)
    for s in subjects:
        session = s.name.removeprefix(s.owner).lstrip("_") if s.person else ""
        paths = (s.scan, s.mask, s.lesion, s.tissue)
        files = [str(path.absolute()) if path else "" for path in paths]
        writer.writerow([s.owner, session, s.split, *files, s.site])
    remedy = "choose a folder that can be written"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{file}: cannot be written ({reason(error)}); {remedy}") from error
    with written_whole(file, remedy) as beside:
        beside.write_text(text.getvalue(), encoding="utf-8")
