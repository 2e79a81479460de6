"""SimpleITK, by which NRRD, MetaImage and DICOM are read, and its images as volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..volume import Volume

#: ITK's axes are the patient's left, back and head; ours right, front and head.
TO_RAS = np.diag([-1.0, -1.0, 1.0])


def simple_itk(path: Path) -> Any:
    """SimpleITK, silenced.

    Raises:
        InputError: naming the file, if it is not installed.
    """
    try:
        import SimpleITK
    except ImportError as error:
        raise InputError(
            f"{path}: NRRD and DICOM are read by SimpleITK, which is not installed; install the "
            "package SimpleITK, or convert the scan to NIfTI"
        ) from error
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    return SimpleITK


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
