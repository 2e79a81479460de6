"""The headers of a DICOM series, for results that refer to it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError, LSRError
from .dicom_series import affine_at, chosen

if TYPE_CHECKING:
    from pydicom import Dataset

#: What results in DICOM refer to, or lie by.
_NEEDED = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"),
    *("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("Rows", "Columns"),
)
#: What every header should have, if only without a value; series without names often lack it.
_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("StudyID", "AccessionNumber", "ReferringPhysicianName"),
)

#: What PatientSex may be; archives have other words as well, which say that it is not known.
_SEXES = ("M", "F", "O", "")
#: Signs that older archives have in dates and times, and what is left of one without.
_FORMS = {
    "StudyDate": (".-/ ", r"(\d{8})?"),
    "PatientBirthDate": (".-/ ", r"(\d{8})?"),
    "StudyTime": (":", r"(\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?)?"),
}


def check_extra() -> None:
    """Make sure that DICOM can be written.

    Raises:
        LSRError: naming what is missing.
    """
    try:
        import highdicom  # noqa: F401
        import SimpleITK  # noqa: F401
    except ModuleNotFoundError as error:
        raise LSRError(
            f"{error.name} is missing; install latent-space-restoration[dicom]"
        ) from error


def read_headers(folder: Path, series: str = "") -> list[Dataset]:
    """The headers of the series that :func:`io.read_volume` reads, in the order of its slices.

    Raises:
        InputError: naming the folder, if it is none, or a header lacks what results refer to.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    if not folder.is_dir():
        raise InputError(
            f"{folder}: results in DICOM need a DICOM series; give its folder, or leave out --dicom"
        )
    try:
        headers: list[Dataset] = [
            dcmread(one.file, stop_before_pixels=True) for one in chosen(folder, series)[0]
        ]
    except (OSError, InvalidDicomError) as error:
        raise InputError(
            f"{folder}: a header of the series cannot be read; copy or export it again"
        ) from error
    for header in headers:
        _as_unicode(header)
        _mend_values(header)
        for keyword in _EMPTY:
            if keyword not in header:
                setattr(header, keyword, "")
        for keyword in _NEEDED:
            if header.get(keyword) in (None, ""):
                raise InputError(
                    f"{folder}: the series does not state its {keyword}, which results in DICOM "
                    "refer to; leave out --dicom"
                )
    return headers


def _as_unicode(header: Dataset) -> None:
    """Texts as UTF-8, whatever they were in: character sets that are mixed, or not stated."""
    try:
        header.decode()
    except (LookupError, UnicodeError):
        return
    header.SpecificCharacterSet = "ISO_IR 192"


def _mend_values(header: Dataset) -> None:
    """Values as the standard has them; of those that mean nothing there, none."""
    if str(header.get("PatientSex") or "") not in _SEXES:
        header.PatientSex = ""
    for keyword, (dropped, form) in _FORMS.items():
        text = str(header.get(keyword) or "")
        value = text.translate({ord(sign): None for sign in dropped})
        if (text and value != text) or not re.fullmatch(form, value):
            setattr(header, keyword, value if re.fullmatch(form, value) else "")


def affine_of(headers: Sequence[Dataset]) -> np.ndarray:
    """Where the series says that its voxels lie.

    Args:
        headers: of its slices, in order; at least two.

    Returns:
        (4, 4) index (column, row, slice) -> RAS in mm.
    """
    first, last = (np.array(h.ImagePositionPatient, float) for h in (headers[0], headers[-1]))
    across, down = np.array(headers[0].ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = (float(mm) for mm in headers[0].PixelSpacing)
    step = (last - first) / (len(headers) - 1)
    return affine_at(first, step, across * between_columns, down * between_rows)
