"""Folders of scans: BIDS, the MOOD challenge's layout, images and DICOM series."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import InputError
from ..io.dicom_slices import is_dicom
from ..io.files import read_text
from ..io.images import ENDINGS, scan_name
from .subjects import NOTHING, SPLITS, Subject

#: Endings of images; the second file of a pair is not one of them.
_IMAGES = tuple(ending for ending in ENDINGS if not ending.startswith(".img"))
#: A T1-weighted scan of a BIDS data set; phases and other parts of complex numbers are none.
_T1W = re.compile(r"(?!.*_part-(phase|real|imag)_)[^.].*_T1w\.nii(\.gz)?", re.IGNORECASE)
#: What is written after a scan's name in the name of its mask.
_MASK = re.compile(r"(?P<scan>.+?)[-_.](brain[-_]?)?mask", re.IGNORECASE)
_LESION = re.compile(r"(?P<scan>.+?)[-_.](lesions?([-_]?mask)?|label|seg)", re.IGNORECASE)


def read_folder(
    folder: Path, strict: bool = True, report: Callable[[str], None] | None = None
) -> list[Subject]:
    """The scans of a folder, whatever its layout.

    Args:
        folder: of the scans.
        strict, report: as of :func:`read.read_subjects`.

    Raises:
        InputError: there is nothing that looks like a scan.
    """
    if (folder / "dataset_description.json").is_file():
        subjects = _bids(folder, strict, report or (lambda _: None))
        wanted = "sub-*/anat/*_T1w.nii.gz, as of a BIDS data set"
    elif (folder / "toy").is_dir() and (folder / "toy_label").is_dir():
        subjects = _mood(folder)
        wanted = "images beside or in toy, as in the MOOD challenge"
    else:
        subjects = _plain(folder)
        wanted = f"images ({', '.join(_IMAGES)}) or DICOM series"
    if not subjects:
        raise InputError(f"{folder}: no scans found; it should hold {wanted}")
    return subjects


def _bids(folder: Path, strict: bool, report: Callable[[str], None]) -> list[Subject]:
    """T1-weighted scans of a BIDS data set; a person is a ``sub-`` label, whatever the sessions."""
    splits = _participants(folder / "participants.tsv", strict, report)
    derived = [file for file in _walk(folder / "derivatives") if _is_image(file)]
    subjects = []
    for pattern in ("sub-*/anat", "sub-*/ses-*/anat"):
        for scan in _t1w(sorted(folder.glob(pattern)), report):
            person = scan.relative_to(folder).parts[0]
            name = scan_name(scan).removesuffix("_T1w")
            subjects.append(
                Subject(
                    name,
                    splits.get(person, ""),
                    scan,
                    _derivative(derived, name, "_desc-brain_mask"),
                    _derivative(derived, name, "_label-lesion_mask"),
                    person,
                )
            )
    return sorted(subjects, key=lambda subject: subject.name)


def _t1w(folders: Sequence[Path], report: Callable[[str], None]) -> Iterator[Path]:
    """T1-weighted scans, each once: what was left over beside them is not one."""
    for folder in folders:
        found: dict[str, Path] = {}
        # The compressed file comes behind the other of its name, and takes its place.
        for file in sorted(_walk(folder), key=lambda p: p.name):
            if _T1W.fullmatch(file.name):
                if scan_name(file) in found:
                    report(f"{file}: is there as .nii and .nii.gz; the compressed one is taken")
                found[scan_name(file)] = file
        yield from found.values()


def _participants(table: Path, strict: bool, report: Callable[[str], None]) -> dict[str, str]:
    """Sets by person, if the participants' table has a column of them.

    A column ``split`` may mean something else: one without a set that is known is left alone, and
    so is any where no sets are asked for.
    """
    if not table.is_file():
        return {}
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(table), newline=""), delimiter="\t"))
    except (OSError, csv.Error) as error:
        report(f"{table}: cannot be read ({error}), and is left alone")
        return {}

    def cell(row: dict[str, str], column: str) -> str:
        value = row.get(column) or ""
        return "" if value == NOTHING else value

    named = {cell(row, "participant_id"): cell(row, "split") for row in rows}
    values = set(named.values()) - {""}
    wrong = values - set(SPLITS)
    if wrong and (not strict or wrong == values):
        report(f"{table}: its column split has {min(wrong)!r}, no set that is known; left alone")
        return {}
    if wrong:
        raise InputError(f"{table}: has split {min(wrong)!r}; use one of {SPLITS}")
    return named


def _derivative(files: list[Path], name: str, suffix: str) -> Path | None:
    """A mask in the scan's own space: one that names another space is not."""
    for file in files:
        own = scan_name(file)
        if own.startswith(f"{name}_") and own.endswith(suffix) and "_space-" not in own:
            return file
    return None


def _mood(folder: Path) -> list[Subject]:
    """Healthy scans without a set, and the toy cases, with their labels, as a test set."""
    labels = {scan_name(file): file for file in _walk(folder / "toy_label") if _is_image(file)}
    healthy = [
        subject
        for subject in _plain(folder)
        if not {"toy", "toy_label"} & set(subject.scan.relative_to(folder).parts)
    ]
    # Their folder, brain_train or so, is not a person.
    healthy = [replace(s, name=scan_name(s.scan), person="") for s in healthy]
    toys = [
        Subject(f"toy/{scan_name(file)}", "test", file, None, labels.get(scan_name(file)))
        for file in _walk(folder / "toy")
        if _is_image(file)
    ]
    return healthy + toys


def _plain(folder: Path) -> list[Subject]:
    """Images and DICOM series, at any depth.

    What lies in a folder of its own is one person's; beside each other, each image is a person.
    Files that are named after a scan and end in ``mask`` or ``lesion`` belong to it.
    """
    images = [file for file in _walk(folder) if _is_image(file)]
    series = sorted({file.parent for file in _walk(folder) if _is_slice(file)})
    masks, lesions = (_companions(images, pattern) for pattern in (_MASK, _LESION))
    scans = [file for file in images if not _is_companion(file)] + series
    owner = {scan: _owner(scan, folder) for scan in scans}
    several = Counter(owner.values())
    subjects = []
    for scan in scans:
        path = scan.relative_to(folder)
        own = "_".join([*path.parts[:-1], scan_name(scan)]) if path.parts else folder.name
        person = owner[scan]
        alone = several[person] == 1
        subjects.append(
            Subject(
                person if alone else own,
                "",
                scan,
                masks.get(scan.parent / scan_name(scan)),
                lesions.get(scan.parent / scan_name(scan)),
                "" if alone else person,
            )
        )
    return sorted(subjects, key=lambda subject: subject.name)


def _owner(scan: Path, folder: Path) -> str:
    path = scan.relative_to(folder)
    if not path.parts:
        return folder.name
    return path.parts[0] if len(path.parts) > 1 else scan_name(scan)


def _companions(images: list[Path], pattern: re.Pattern[str]) -> dict[Path, Path]:
    """Masks by their scan's path without its ending."""
    found = {}
    for file in images:
        match = pattern.fullmatch(scan_name(file))
        if match:
            found[file.parent / match["scan"]] = file
    return found


def _is_companion(file: Path) -> bool:
    return any(pattern.fullmatch(scan_name(file)) for pattern in (_MASK, _LESION))


def _walk(folder: Path) -> Iterator[Path]:
    """Files at any depth, in order, but for hidden ones."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


def _is_image(file: Path) -> bool:
    return file.name.lower().endswith(_IMAGES)


def _is_slice(file: Path) -> bool:
    return not _is_image(file) and file.name != "DICOMDIR" and is_dicom(file)
