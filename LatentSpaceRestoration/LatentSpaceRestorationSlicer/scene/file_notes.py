"""What the file of a volume leaves unsaid, which the node that was read from it no longer shows.

ITK, by which Slicer reads, fills in what a header lacks: a spacing of 0 becomes 1 mm, and a head
without orientation lies as is usual. Headers are looked at here as they are (nifti1.h, nifti2.h;
FreeSurfer's mgh format), without nibabel, which Slicer does not have.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from LatentSpaceRestorationLib.errors import SIDE_UNKNOWN
from slicer import vtkMRMLVolumeNode
from slicer.i18n import tr as _

_FIELDS = ["size", "pixdim", "qform_code", "sform_code", "magic"]
#: What is looked at of a header, by its size: that of NIfTI-1 (and Analyze), and of NIfTI-2.
_HEADERS = {
    348: np.dtype(
        {
            "names": _FIELDS,
            "formats": ["i4", "(8,)f4", "i2", "i2", "S4"],
            "offsets": [0, 76, 252, 254, 344],
            "itemsize": 348,
        }
    ),
    540: np.dtype(
        {
            "names": _FIELDS,
            "formats": ["i4", "(8,)f8", "i4", "i4", "S8"],
            "offsets": [0, 104, 344, 348, 4],
            "itemsize": 540,
        }
    ),
}
#: Where an MGH file says that its geometry is good.
_MGH_GOOD = slice(28, 30)
_GZIP = b"\x1f\x8b"


def notesOfFile(volume: vtkMRMLVolumeNode) -> tuple[str, ...]:
    """Lines on what a volume's file does not say; none if it was not read from one, or it is gone.

    Args:
        volume: of any kind; NIfTI, Analyze and MGH are looked at.
    """
    storage = volume.GetStorageNode()
    file = Path((storage and storage.GetFullNameFromFileName()) or "")
    name = file.name.lower()
    try:
        if name.endswith((".nii", ".nii.gz", ".hdr", ".img", ".img.gz")):
            return _ofNifti(_start(_header(file)))
        if name.endswith((".mgh", ".mgz")):
            isGood = int.from_bytes(_start(file)[_MGH_GOOD], "big") == 1
            return () if isGood else (SIDE_UNKNOWN,)
    except (OSError, EOFError, ValueError):
        pass
    return ()


def _ofNifti(start: bytes) -> tuple[str, ...]:
    for size, fields in _HEADERS.items():
        for order in (fields, fields.newbyteorder()):
            if len(start) < size:
                continue
            header = np.frombuffer(start[:size], order)[0]
            if header["size"] != size:
                continue
            isNifti = header["magic"][:2] in (b"n+", b"ni")
            if not isNifti or (header["qform_code"] <= 0 and header["sform_code"] <= 0):
                return (*_ofSpacing(header["pixdim"][1:4]), SIDE_UNKNOWN)
            return () if header["sform_code"] > 0 else _ofSpacing(header["pixdim"][1:4])
    return ()


def _ofSpacing(spacing: np.ndarray) -> tuple[str, ...]:
    if np.isfinite(spacing).all() and spacing.all():
        return ()
    return (
        _(
            "The spacing in the file's header is {spacing} mm, and Slicer made another of it: state"
            " the right one in module Volumes, or mend the file."
        ).format(spacing=" x ".join(f"{mm:g}" for mm in spacing)),
    )


def _header(file: Path) -> Path:
    """The file that has the header: of a pair, the other half."""
    for ending in (".img", ".img.gz"):
        if file.name.lower().endswith(ending):
            return file.with_name(file.name[: -len(ending)] + ending.replace("img", "hdr"))
    return file


def _start(file: Path) -> bytes:
    with file.open("rb") as stream:
        isZipped = stream.read(2) == _GZIP
    with gzip.open(file) if isZipped else file.open("rb") as stream:
        return stream.read(max(_HEADERS))
