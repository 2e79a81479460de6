"""Which scans a model is trained, calibrated and tuned on: a table with one row per subject."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

SPLITS = ("train", "calibrate", "tune", "test")


@dataclass(frozen=True)
class Subject:
    """One scan: its name, the split it belongs to, its T1 and, if there is one, its brain mask."""

    name: str
    split: str
    scan: Path
    mask: Path | None


def read_subjects(table: Path) -> list[Subject]:
    """Read a tab-separated table with columns ``subject``, ``split``, ``t1w``, ``brainmask``.

    File names are relative to the table; an empty ``brainmask`` means that there is none.

    Raises:
        InputError: no such table, a missing column or file, an unknown split, or a subject that
            stands in two rows (a subject in two splits would make every figure a lie).
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, delimiter="\t")
            columns, rows = set(reader.fieldnames or ()), list(reader)
    except OSError as error:
        raise InputError(
            f"{table}: cannot be read ({error.strerror}); give a subjects table"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: is not a table; give a tab-separated text file") from error
    missing = {"subject", "split", "t1w"} - columns
    if missing:
        raise InputError(
            f"{table}: lacks the column(s) {', '.join(sorted(missing))}; "
            "give a tab-separated table with columns subject, split, t1w and brainmask"
        )
    subjects: dict[str, Subject] = {}
    for number, row in enumerate(rows, start=2):
        name, split = row["subject"], row["split"]
        if not (name and split and row["t1w"]):
            raise InputError(f"{table}: line {number} lacks its subject, split or t1w; fill it in")
        if name in subjects:
            raise InputError(f"{table}: subject {name} stands in two rows; keep one")
        if split not in SPLITS:
            raise InputError(f"{table}: subject {name} has split {split!r}; use one of {SPLITS}")
        scan = table.parent / row["t1w"]
        mask = table.parent / row["brainmask"] if row.get("brainmask") else None
        for file in (scan, mask):
            if file is not None and not file.is_file():
                raise InputError(f"{table}: {file} of subject {name} does not exist")
        subjects[name] = Subject(name, split, scan, mask)
    return list(subjects.values())


def of_split(subjects: list[Subject], split: str) -> Iterator[Subject]:
    """The subjects of one split, in the order of the table."""
    return (subject for subject in subjects if subject.split == split)
