"""Images that nibabel does not read: NRRD, MetaImage and DICOM series, through SimpleITK."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError
from .volume import Volume

ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd")


def is_itk(path: Path) -> bool:
    """Whether a path is one that this module reads: a folder, or a file with such an ending."""
    return os.path.isdir(path) or path.name.lower().endswith(ENDINGS)


def read_itk(path: Path, name: str) -> Volume:
    """Read a NRRD or MetaImage file, or the longest DICOM series of a folder.

    Args:
        path: file or folder.
        name: of the volume.

    Returns:
        (I, J, K) float32 voxels; nothing is checked of them.

    Raises:
        InputError: naming the file, if SimpleITK is missing, it cannot be read, holds no series or
            not one real number a voxel, or slices of the series are missing.
    """
    try:
        import SimpleITK
    except ImportError as error:
        raise InputError(
            f"{path}: NRRD and DICOM are read by SimpleITK, which is not installed; install the "
            "package SimpleITK, or convert the scan to NIfTI"
        ) from error
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        image = _read_series(SimpleITK, path) if path.is_dir() else SimpleITK.ReadImage(str(path))
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
    array = SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0)
    # ITK's axes are the patient's left, back and head; ours right, front and head.
    flip = np.diag([-1.0, -1.0, 1.0])
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine[:3, :3] = flip @ direction @ np.diag(image.GetSpacing())
    affine[:3, 3] = flip @ np.array(image.GetOrigin())
    return Volume(np.ascontiguousarray(array, dtype=np.float32), affine, name)


def _read_series(itk: Any, folder: Path) -> Any:
    reader = itk.ImageSeriesReader()
    names = reader.GetGDCMSeriesIDs(str(folder))
    if not names:
        raise InputError(
            f"{folder}: is a folder without a DICOM series; give an image file, or such a folder"
        )
    series = [reader.GetGDCMSeriesFileNames(str(folder), name) for name in names]
    reader.SetFileNames(max(series, key=len))
    image = reader.Execute()
    if image.HasMetaDataKey("ITK_non_uniform_sampling_deviation"):
        raise InputError(
            f"{folder}: the slices of the series are not evenly spaced, or some are missing; "
            "export it again"
        )
    return image
