"""Which scans there are, of whom, and which of them a model is trained, calibrated and tuned on.

Sets are made of persons, never of scans or slices: one person in two sets would make every figure
a lie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..errors import InputError
from .layouts import read_folder
from .splits import Splits, share_out
from .subjects import Subject, read_table


def read_subjects(
    *sources: Path,
    splits: Splits | None = None,
    report: Callable[[str], None] | None = None,
    strict: bool = True,
) -> list[Subject]:
    """Read which scans there are.

    Args:
        sources: each a table, with a row a scan and the columns ``subject``, ``t1w`` and, as there
            are, ``split``, ``session``, ``site``, ``brainmask``, ``tissue`` and ``lesion`` (files
            relative to the table; ``.csv`` with commas, otherwise tabs), or with the tissues of
            ``x_T1w.nii.gz`` in ``x_tissue.nii.gz`` beside it; a BIDS data set; a folder in the
            layout of the MOOD challenge (``toy`` and ``toy_label`` beside the healthy scans); a
            folder of images or of DICOM series. Of several, the scans of one that names no sites
            are of one site, which is called as its folder.
        splits: how to share out the persons if the source does not; None leaves their split empty.
        report: takes a line of text, on a draw that was made.
        strict: whether a table is refused that names a missing file, or leaves a split empty.

    Raises:
        InputError: in one line: nothing there, not one of these layouts, a missing file, or a
            person in two sets.
        OutputError: the draw cannot be kept.
    """
    subjects = [s for source in sources for s in _read(Path(source), strict, report)]
    if len(sources) > 1:
        subjects = [s if s.site else replace(s, site=s.scan.parent.name) for s in subjects]
    named = " and ".join(str(source) for source in sources)
    if splits is not None and any(not subject.split for subject in subjects):
        subjects = share_out(named, subjects, splits, report or (lambda _: None))
    _check(named, subjects)
    return subjects


def _read(source: Path, strict: bool, report: Callable[[str], None] | None) -> list[Subject]:
    if source.is_dir():
        return read_folder(source, strict, report)
    return read_table(source, strict)


def _check(source: str, subjects: list[Subject]) -> None:
    """One set a person, one scan a name."""
    splits: dict[str, str] = {}
    names: set[str] = set()
    for subject in subjects:
        before = splits.setdefault(subject.owner, subject.split)
        if before != subject.split:
            raise InputError(
                f"{source}: subject {subject.owner} is in two sets, {before} and {subject.split}; "
                "a person belongs to one"
            )
        if subject.name in names:
            raise InputError(
                f"{source}: subject {subject.name} stands in two rows; keep one, or tell them "
                "apart in a column session"
            )
        names.add(subject.name)
