"""Which scans a cohort has: files, globs, folders, BIDS data sets, DICOM folders and tables."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..datasets.read import read_subjects
from ..datasets.subjects import Subject
from ..errors import InputError
from ..io.dicom_slices import series_in
from ..io.images import ENDINGS, files_beside, scan_name
from .names import ResultPlace, places, tell_apart

_TABLES = (".tsv", ".csv", ".txt")


@dataclass(frozen=True)
class CohortScan:
    """One scan of a cohort.

    Attributes:
        name: no other has it.
        file: image, or folder of a DICOM series; absolute.
        series: UID of the folder's series, where it has several.
        mask: brain mask on the scan's grid, absolute; None finds the brain.
        place: of its results.
        site: where it was made, as a table says; empty if it does not.
    """

    name: str
    file: Path
    series: str = ""
    mask: Path | None = None
    place: ResultPlace = ResultPlace("", "")
    site: str = ""


def find_scans(
    inputs: Sequence[str | Path], *, leave_out: Path, with_masks: bool = False
) -> list[CohortScan]:
    """The scans that are meant, each once, with names and places for their results.

    Args:
        inputs: image files, which need not exist; tables of subjects; folders of images or DICOM
            series, BIDS data sets (see ``datasets.read_subjects``); globs of these. Each DICOM
            series of a folder is a scan.
        leave_out: folder whose files are no scans: the results.
        with_masks: take brain masks that lie beside scans or in a data set's derivatives. Those
            that a table names are taken anyway.

    Raises:
        InputError: an input is nothing of these, or there is no scan in all of them.
    """
    found: dict[tuple[str, str], CohortScan] = {}
    leave_out = leave_out.absolute()
    for given in inputs:
        for scan in _scans_of(str(given), with_masks):
            if not scan.file.is_relative_to(leave_out):
                found.setdefault((os.path.realpath(scan.file), scan.series), scan)
    if not found:
        raise InputError(
            f"{', '.join(map(str, inputs))}: no scans there; give images, a folder of them, a BIDS "
            "data set, a DICOM folder or a table"
        )
    scans = list(found.values())
    names = tell_apart([(scan.name, scan.file) for scan in scans])
    where = places([(name, scan.file) for name, scan in zip(names, scans, strict=True)])
    return [
        replace(scan, name=name, place=place)
        for name, scan, place in zip(names, scans, where, strict=True)
    ]


def _scans_of(given: str, with_masks: bool) -> Iterator[CohortScan]:
    path = Path(os.path.abspath(Path(given).expanduser()))
    if not os.path.lexists(path) and glob.has_magic(given):
        matches = sorted(glob.glob(str(path), recursive=True))
        if not matches:
            raise InputError(f"{given}: nothing fits this pattern; check it")
        # What belongs to an image that fits as well is none itself.
        with_others = {
            os.path.realpath(file)
            for match in matches
            if not match.lower().endswith((".img", ".img.gz"))
            for file in _beside(match)
        }
        for match in matches:
            if os.path.realpath(match) not in with_others:
                yield from _scans_at(Path(match), given, with_masks)
    else:
        yield from _scans_at(path, given, with_masks)


def _beside(match: str) -> list[Path]:
    try:
        return files_beside(match) if os.path.isfile(match) else []
    except InputError:  # reading the image will say so
        return []


def _scans_at(path: Path, given: str, with_masks: bool) -> Iterator[CohortScan]:
    is_table = path.name.lower().endswith(_TABLES)
    if path.is_dir() or (is_table and path.is_file()):
        for subject in read_subjects(path, strict=False):
            yield from _scans_of_subject(subject, with_masks or is_table)
    elif path.exists() or path.name.lower().endswith(ENDINGS):
        # One that is missing is a row that says so: it is an image among others.
        yield CohortScan(scan_name(path), path)
    else:
        raise InputError(f"{given}: there is no such file or folder; check the path")


def _scans_of_subject(subject: Subject, with_mask: bool) -> Iterator[CohortScan]:
    mask = subject.mask.absolute() if subject.mask and with_mask else None
    scan = CohortScan(
        subject.name, subject.scan.absolute(), subject.series, mask, site=subject.site
    )
    if subject.series:
        yield scan
        return
    series = series_in(scan.file) if scan.file.is_dir() else []
    if len(series) < 2:
        yield scan
        return
    alike = Counter(one.number for one in series)
    for count, one in enumerate(series, 1):
        number = one.number if one.number and alike[one.number] == 1 else f"n{count}"
        yield replace(scan, name=f"{scan.name}_series-{number}", series=one.uid)
