"""Which scans there are, of whom, and which of them a model is trained, calibrated and tuned on.

Sets are made of persons, never of scans or slices: one person in two sets would make every figure
a lie.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError, OutputError
from ..io.images import reason, written_whole

#: ``unseen-site`` is of scanners that nothing is trained or calibrated on: to choose by.
SPLITS = ("train", "calibrate", "tune", "test", "unseen-site")
#: What stands where a table has no value, as BIDS writes it.
NOTHING = "n/a"
_FILES = ("t1w", "brainmask", "lesion", "tissue")
_COLUMNS = ("subject", "session", "split", *_FILES, "site")
_TABLES = {".tsv": "\t", ".csv": ","}
#: Fewer calibration scans than this are refused by ``lsr calibrate``.
_FEWEST_CALIBRATE = 5


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
    """

    name: str
    split: str
    scan: Path
    mask: Path | None
    lesion: Path | None = None
    person: str = ""
    site: str = ""
    tissue: Path | None = None

    @property
    def owner(self) -> str:
        """Whose scan it is."""
        return self.person or self.name


@dataclass(frozen=True)
class Splits:
    """How persons are shared out where the source does not say.

    At least five go to ``calibrate`` (at most half of all) and one to ``tune``; ``train`` gets what
    is left.

    Attributes:
        calibrate, tune: shares of all persons.
        seed: of the draw.
        file: table of subjects in which a draw is kept: whoever stands in it stays where they are.
    """

    calibrate: float = 0.2
    tune: float = 0.1
    seed: int = 0
    file: Path | None = None


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
    subjects = [subject for source in sources for subject in _read(Path(source), strict)]
    if len(sources) > 1:
        subjects = [s if s.site else replace(s, site=s.scan.parent.name) for s in subjects]
    named = " and ".join(str(source) for source in sources)
    if splits is not None and any(not subject.split for subject in subjects):
        subjects = _share_out(named, subjects, splits, report or (lambda _: None))
    _check(named, subjects)
    return subjects


def _read(source: Path, strict: bool) -> list[Subject]:
    from . import layouts

    return layouts.read_folder(source) if source.is_dir() else read_table(source, strict)


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
        files = [table.parent / row[key] if row.get(key) else None for key in _FILES]
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
        subjects.append(Subject(own, split, image, mask, lesion, person, site, tissue))
    if not subjects:
        raise InputError(f"{table}: names no subjects; give it a row for each scan")
    return subjects


def _rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    delimiter = _TABLES.get(table.suffix.lower(), "\t")
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, delimiter=delimiter)
            columns = set(reader.fieldnames or ())
            rows = [{k: "" if v == NOTHING else v for k, v in row.items()} for row in reader]
    except OSError as error:
        raise InputError(
            f"{table}: cannot be read ({error.strerror}); give a folder of scans or a subjects "
            "table"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: is not a table; give a tab-separated text file") from error
    missing = {"subject", "t1w"} - columns
    if missing:
        raise InputError(
            f"{table}: lacks the column(s) {', '.join(sorted(missing))}; "
            "give a tab-separated table with columns subject, split, t1w and brainmask"
        )
    return list(enumerate(rows, start=2))


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


def _share_out(
    source: str, subjects: list[Subject], splits: Splits, report: Callable[[str], None]
) -> list[Subject]:
    """Give each person without a set one, and keep the draw."""
    given = {s.owner: s.split for s in subjects if s.split}
    if splits.file is not None and splits.file.is_file():
        given = {s.owner: s.split for s in read_table(splits.file)} | given
    people = {s.owner for s in subjects}
    chosen = draw({p: given.get(p, "") for p in people}, splits)
    if chosen is None:
        raise InputError(
            f"{source}: {len(people)} persons are too few to train, tune and calibrate on; give at "
            "least 3, better 100"
        )
    shared = [replace(s, split=chosen[s.owner]) for s in subjects]
    if splits.file is not None:
        write_table(splits.file, shared)
    if all(given.get(person) for person in people):
        return shared
    counts = Counter(chosen.values())
    words = ", ".join(f"{counts[name]} {name}" for name in SPLITS if counts[name])
    kept = f"; they stay as they are in {splits.file}" if splits.file is not None else ""
    report(f"the sets were drawn by person with seed {splits.seed}: {words}{kept}")
    return shared


def draw(given: Mapping[str, str], splits: Splits) -> dict[str, str] | None:
    """Sets for persons.

    Args:
        given: the set of each person, empty where there is none yet.
        splits: shares and seed.

    Returns:
        the set of each person; None if nobody is left to train on.
    """
    number = sum(split in ("", "train", "calibrate", "tune") for split in given.values())
    wanted = {
        "calibrate": max(min(_FEWEST_CALIBRATE, number // 2), round(splits.calibrate * number)),
        "tune": max(1, round(splits.tune * number)),
    }
    counts = Counter(given.values())
    # By hash: who is where does not depend on who else is there, as far as numbers allow.
    order = sorted(given, key=lambda p: hashlib.sha256(f"{splits.seed}:{p}".encode()).digest())
    chosen = dict(given)
    for person in order:
        if not chosen[person]:
            lacking = [name for name, count in wanted.items() if counts[name] < count]
            chosen[person] = lacking[0] if lacking else "train"
            counts[chosen[person]] += 1
    return chosen if counts["train"] else None


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
