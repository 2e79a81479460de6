"""Headers of the DICOM files of a folder, by series: what of them a scan is read by.

SimpleITK reads them, and the pixels; :mod:`dicom_series` makes a volume of them.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .simple_itk import simple_itk

#: Where the letters DICM stand in a DICOM file.
_DICOM_AT = 128
_TAGS = {
    "position": "0020|0032",
    "orientation": "0020|0037",
    "spacing": "0028|0030",
}
#: What tells whose an image is. What the study was is no word that must not be repeated.
_STUDY = "study"
_IDENTITY = {
    "patient": "0010|0010",
    "patient ID": "0010|0020",
    "born": "0010|0030",
    _STUDY: "0008|1030",
    "study date": "0008|0020",
    "accession number": "0008|0050",
}
#: By what the numbers of an image are made of its bits: bits allocated and stored, the highest one,
#: signedness, photometric interpretation, intercept and slope.
_NUMBERS = (
    *("0028|0100", "0028|0101", "0028|0102", "0028|0103", "0028|0004"),
    *("0028|1052", "0028|1053"),
)
#: SimpleITK's name of what reads DICOM: without it, each file is offered to all readers.
READER = "GDCMImageIO"


@dataclass(frozen=True)
class Slice:
    """The header of one file.

    Attributes:
        file: its path.
        series: the SeriesInstanceUID.
        number: the SeriesNumber; empty if it has none.
        uid: its SOPInstanceUID.
        shape: rows and columns.
        frames: how many images it has.
        position: (3,) LPS mm of the first pixel; None if it does not say.
        orientation: (6,) cosines along a row and down a column; None if it does not say.
        spacing: (2,) mm between rows, and between columns; None if it does not say.
        echo: which of several echoes; empty if it does not say.
        kind: of its ImageType, in capital letters.
        description: of the series.
        numbers: what makes numbers of its bits, as it stands there.
    """

    file: str
    series: str
    number: str
    uid: str
    shape: tuple[int, int]
    frames: int
    position: np.ndarray | None
    orientation: np.ndarray | None
    spacing: np.ndarray | None
    echo: str
    kind: str
    description: str
    numbers: tuple[str, ...]


@dataclass(frozen=True)
class Series:
    """A DICOM series of a folder.

    Attributes:
        uid: its SeriesInstanceUID.
        slices: the headers of its files, by their names.
    """

    uid: str
    slices: tuple[Slice, ...]

    @property
    def number(self) -> str:
        """Its SeriesNumber; empty if it has none."""
        return self.slices[0].number

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of its files."""
        return tuple(one.file for one in self.slices)


def is_dicom(file: Path) -> bool:
    """Whether a file says that it is DICOM, which one of a series is that this module reads."""
    try:
        with file.open("rb") as stream:
            stream.seek(_DICOM_AT)
            return stream.read(4) == b"DICM"
    except OSError:
        return False


def series_in(folder: Path) -> list[Series]:
    """The DICOM series whose files lie in a folder, by number; those of folders in it do not count.

    Raises:
        InputError: SimpleITK is missing.
    """
    return readable_series(folder)[0]


def readable_series(folder: Path) -> tuple[list[Series], int]:
    """The series, and how many DICOM files hold no image that can be read."""
    itk = simple_itk(folder)
    by_uid: dict[str, list[Slice]] = {}
    unreadable = 0
    files = sorted(entry for entry in folder.iterdir() if entry.is_file())
    with ThreadPoolExecutor() as pool:
        headers = list(pool.map(partial(_header, itk), map(os.fspath, files)))
    for file, header in zip(files, headers, strict=True):
        if header is not None:
            one = _slice(os.fspath(file), header)
            by_uid.setdefault(one.series, []).append(one)
        elif is_dicom(file) and file.name.upper() != "DICOMDIR":
            unreadable += 1
    found = [Series(uid, tuple(those)) for uid, those in by_uid.items()]
    return sorted(found, key=lambda one: (len(one.number), one.number, one.uid)), unreadable


def identity_in(file: str) -> dict[str, str]:
    """Whose image a file is, and when it was made: texts by what they are called, none empty."""
    header = _header(simple_itk(Path(file)), file)
    return {} if header is None else _identity(header)


def _slice(file: str, header: Any) -> Slice:
    """What is used of the header of a file."""
    size = (_whole(_tag(header, "0028|0010")), _whole(_tag(header, "0028|0011")))
    found = {name: _numbers(_tag(header, tag)) for name, tag in _TAGS.items()}
    orientation = found["orientation"]
    if orientation is not None and (len(orientation) != 6 or not orientation.any()):
        orientation = None
    position, spacing = found["position"], found["spacing"]
    return Slice(
        file,
        _tag(header, "0020|000e"),
        _tag(header, "0020|0011"),
        _tag(header, "0008|0018"),
        size,
        max(_whole(_tag(header, "0028|0008")), 1),
        position if position is not None and len(position) == 3 else None,
        orientation,
        spacing if spacing is not None and len(spacing) == 2 and (spacing > 0).all() else None,
        _tag(header, "0018|0086") or _tag(header, "0018|0081"),
        _tag(header, "0008|0008").upper(),
        _description(header),
        tuple(_tag(header, tag) for tag in _NUMBERS),
    )


def _identity(header: Any) -> dict[str, str]:
    texts = {name: _tag(header, tag) for name, tag in _IDENTITY.items()}
    return {name: text for name, text in texts.items() if text}


def _description(header: Any) -> str:
    """What the series is called; nothing if that tells of the patient, since notes repeat it."""
    text = _tag(header, "0008|103e")
    own = [told for name, told in _identity(header).items() if name != _STUDY]
    told = " ".join(own).replace("^", " ").split()
    return "" if any(len(w) > 1 and w.casefold() in text.casefold() for w in told) else text


def _header(itk: Any, file: str) -> Any:
    """The reader that has read it; None where the file is no image of DICOM that can be read."""
    reader = itk.ImageFileReader()
    reader.SetImageIO(READER)
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    return reader


def _tag(header: Any, tag: str) -> str:
    """The text of a tag; empty where there is none."""
    if not header.HasMetaDataKey(tag):
        return ""
    text = str(header.GetMetaData(tag)).encode("utf-8", "replace").decode("utf-8", "replace")
    return " ".join(text.replace("\0", " ").split())


def _numbers(text: str) -> np.ndarray | None:
    try:
        numbers = np.array([float(part) for part in text.split("\\")])
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def _whole(text: str) -> int:
    return int(text) if text.isdigit() else 0
