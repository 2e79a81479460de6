"""Images that nibabel does not read: NRRD, MetaImage and DICOM series, through SimpleITK."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..volume import Volume

ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd")
#: Where the letters DICM stand in a DICOM file.
_DICOM_AT = 128
#: Distances of slices may differ by this share of them; a missing one makes it a whole.
_UNEVEN = 0.05


def is_itk(path: Path) -> bool:
    """Whether a path is one that this module reads: a folder, or a file with such an ending."""
    return os.path.isdir(path) or path.name.lower().endswith(ENDINGS)


def is_dicom(file: Path) -> bool:
    """Whether a file says that it is DICOM, which one of a series is that this module reads."""
    try:
        with file.open("rb") as stream:
            stream.seek(_DICOM_AT)
            return stream.read(4) == b"DICM"
    except OSError:
        return False


def read_itk(path: Path, name: str, series: str = "") -> Volume:
    """Read a NRRD or MetaImage file, or a DICOM series of a folder.

    Args:
        path: file or folder.
        name: of the volume.
        series: UID of the folder's series; empty takes the longest.

    Returns:
        (I, J, K) float32 voxels; nothing is checked of them.

    Raises:
        InputError: naming the file, if SimpleITK is missing, it cannot be read, holds no series or
            not one real number a voxel, or slices of the series are missing.
    """
    itk = _itk(path)
    try:
        image = _read_series(itk, path, series) if path.is_dir() else itk.ReadImage(str(path))
    except (RuntimeError, MemoryError) as error:
        raise InputError(
            f"{path}: is damaged, or not an image that can be read; copy or export it again"
        ) from error
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if image.GetDimension() != 3:
        raise InputError(f"{path}: has {image.GetDimension()} axes; give one 3-D volume")
    if image.GetNumberOfComponentsPerPixel() != 1 or "complex" in image.GetPixelIDTypeAsString():
        raise InputError(f"{path}: gives several numbers a voxel; give one real value a voxel")
    array = itk.GetArrayFromImage(image).transpose(2, 1, 0)
    # ITK's axes are the patient's left, back and head; ours right, front and head.
    flip = np.diag([-1.0, -1.0, 1.0])
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine[:3, :3] = flip @ direction @ np.diag(image.GetSpacing())
    affine[:3, 3] = flip @ np.array(image.GetOrigin())
    return Volume(np.ascontiguousarray(array, dtype=np.float32), affine, name)


@dataclass(frozen=True)
class Series:
    """A DICOM series of a folder.

    Attributes:
        uid: its SeriesInstanceUID.
        number: its SeriesNumber; empty if it has none.
        files: in the order of the slices.
    """

    uid: str
    number: str
    files: tuple[str, ...]


def series_in(folder: Path) -> list[Series]:
    """The DICOM series whose files lie in a folder, by number; those of folders in it do not count.

    Raises:
        InputError: SimpleITK is missing.
    """
    itk = _itk(folder)
    reader = itk.ImageSeriesReader()
    found = []
    for uid in reader.GetGDCMSeriesIDs(str(folder)):
        files = tuple(reader.GetGDCMSeriesFileNames(str(folder), uid))
        found.append(Series(uid, _series_number(itk, files[0]), files))
    return sorted(found, key=lambda one: (len(one.number), one.number, one.uid))


def _series_number(itk: Any, file: str) -> str:
    reader = itk.ImageFileReader()
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
        return str(reader.GetMetaData("0020|0011")).strip()
    except RuntimeError:
        return ""


def _itk(path: Path) -> Any:
    """SimpleITK, silenced."""
    try:
        import SimpleITK
    except ImportError as error:
        raise InputError(
            f"{path}: NRRD and DICOM are read by SimpleITK, which is not installed; install the "
            "package SimpleITK, or convert the scan to NIfTI"
        ) from error
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    return SimpleITK


def series_files(folder: Path, wanted: str = "") -> tuple[str, ...]:
    """The files of a DICOM series of a folder, in the order of the slices.

    Args:
        folder: that they lie in.
        wanted: UID of the series; empty takes the longest.

    Raises:
        InputError: there is none, or SimpleITK is missing.
    """
    series = [one for one in series_in(folder) if wanted in ("", one.uid)]
    if not series:
        what = f"the DICOM series {wanted}" if wanted else "a DICOM series"
        raise InputError(
            f"{folder}: is a folder without {what}; give an image file, or a folder of a series"
        )
    return max(series, key=lambda one: len(one.files)).files


def _read_series(itk: Any, folder: Path, wanted: str) -> Any:
    reader = itk.ImageSeriesReader()
    reader.SetFileNames(series_files(folder, wanted))
    reader.MetaDataDictionaryArrayUpdateOn()
    image = reader.Execute()
    if image.HasMetaDataKey("ITK_non_uniform_sampling_deviation") and not _even(reader):
        raise InputError(
            f"{folder}: the slices of the series are not evenly spaced, or some are missing; "
            "export it again"
        )
    return image


def _even(reader: Any) -> bool:
    """Whether the slices that were read are as far apart as each other, but for rounding.

    ITK reports the least difference, and positions in headers are rounded.
    """
    count = len(reader.GetFileNames())
    try:
        positions = [reader.GetMetaData(k, "0020|0032").split("\\") for k in range(count)]
        gaps = np.linalg.norm(np.diff(np.array(positions, float), axis=0), axis=1)
    except (RuntimeError, ValueError):
        return False
    return bool(np.abs(gaps - gaps.mean()).max() <= _UNEVEN * gaps.mean())
