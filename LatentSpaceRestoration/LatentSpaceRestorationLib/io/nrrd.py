"""NRRD and MetaImage files, through SimpleITK, and what their headers leave unsaid."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SIDE_UNKNOWN, InputError
from ..volume import Volume
from .simple_itk import simple_itk

NRRD, META_IMAGE = (".nrrd", ".nhdr"), (".mha", ".mhd")
ENDINGS = (*NRRD, *META_IMAGE)
#: No header is longer, in bytes.
_LONGEST_HEADER = 2**16

#: ITK's axes are the patient's left, back and head; ours right, front and head.
TO_RAS = np.diag([-1.0, -1.0, 1.0])


def read_nrrd(path: Path, name: str) -> Volume:
    """Read a NRRD or MetaImage file.

    Args:
        path: of the file; of one with a header apart, the header.
        name: of the volume.

    Returns:
        (I, J, K) float32 voxels; nothing is checked of them.

    Raises:
        InputError: naming the file, if SimpleITK is missing, it cannot be read, does not say how
            far voxels are apart, or has not one real number a voxel.
    """
    itk = simple_itk(path)
    said = header(path)
    data_files(path)  # refuses a header whose voxels are not there
    reader = itk.ImageFileReader()
    # By the ending in small letters: ITK knows no others.
    reader.SetImageIO("MetaImageIO" if path.name.lower().endswith(META_IMAGE) else "NrrdImageIO")
    reader.SetFileName(os.fspath(path))
    try:
        image = reader.Execute()
    except (RuntimeError, MemoryError) as error:
        raise InputError(
            f"{path}: is damaged, or not an image that can be read; copy or export it again"
        ) from error
    return to_volume(path, image, name, _unsaid(path, said))


def to_volume(path: Path, image: Any, name: str, notes: tuple[str, ...] = ()) -> Volume:
    """An image of SimpleITK as a volume.

    Raises:
        InputError: naming the file, if it is not a volume of one real number a voxel.
    """
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if image.GetDimension() != 3:
        raise InputError(f"{path}: has {image.GetDimension()} axes; give one 3-D volume")
    if image.GetNumberOfComponentsPerPixel() != 1 or "complex" in image.GetPixelIDTypeAsString():
        raise InputError(f"{path}: gives several numbers a voxel; give one real value a voxel")
    array = simple_itk(path).GetArrayFromImage(image).transpose(2, 1, 0)
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine[:3, :3] = TO_RAS @ direction @ np.diag(image.GetSpacing())
    affine[:3, 3] = TO_RAS @ np.array(image.GetOrigin())
    return Volume(np.ascontiguousarray(array, dtype=np.float32), affine, name, notes)


def header(path: Path) -> dict[str, str]:
    """What the header of a NRRD or MetaImage file says, by its fields in small letters."""
    try:
        with path.open("rb") as stream:
            text = stream.read(_LONGEST_HEADER)
    except OSError:
        return {}
    if path.name.lower().endswith(NRRD):
        text, mark = text.split(b"\n\n")[0].split(b"\r\n\r\n")[0], rb":=?"
    else:
        # The last field is that of the data.
        found = re.search(rb"ElementDataFile\s*=[^\n]*", text)
        text, mark = text[: found.end()] if found else text, b"="
    lines = [re.split(mark, line, maxsplit=1) for line in text.splitlines()]
    return {
        line[0].decode("latin-1").strip().lower(): line[1].decode("utf-8", "replace").strip()
        for line in lines
        if len(line) == 2
    }


def data_files(path: Path) -> list[Path]:
    """The files beside a header that have its voxels; none of one that has them itself.

    Raises:
        InputError: naming a file that is not there.
    """
    said = header(path)
    named = said.get("data file") or said.get("datafile") or said.get("elementdatafile") or ""
    if not named or named.upper() == "LOCAL":
        return []
    if named.upper().startswith("LIST") or "%" in named:
        return sorted(p for p in path.parent.iterdir() if p.is_file() and p != path)
    file = path.parent / named
    if not file.is_file():
        raise InputError(f"{path}: its voxels are in {named}, which is not there; copy both")
    return [file]


def _unsaid(path: Path, said: dict[str, str]) -> tuple[str, ...]:
    """Notes on where voxels lie, if the header does not say.

    Raises:
        InputError: it does not say how far they are apart.
    """
    if path.name.lower().endswith(NRRD):
        has_spacing = "space directions" in said or "spacings" in said
        has_directions = "space directions" in said and ("space" in said)
    else:
        has_spacing = any(field in said for field in ("elementspacing", "elementsize"))
        has_directions = any(f in said for f in ("transformmatrix", "rotation", "orientation"))
    if not has_spacing or "nan" in said.get("spacings", "").lower():
        raise InputError(
            f"{path}: the header does not say how far voxels are apart; mend it, or export the "
            "scan again"
        )
    if has_directions:
        return ()
    return (SIDE_UNKNOWN,)
