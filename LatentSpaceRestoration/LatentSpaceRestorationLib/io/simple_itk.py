"""SimpleITK, by which NRRD, MetaImage and DICOM are read, where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError


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
