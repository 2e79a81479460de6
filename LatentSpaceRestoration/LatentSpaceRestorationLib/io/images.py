"""Scans on disk: reading with checks, writing all or nothing.

nibabel gives the formats: NIfTI-1 and -2, Analyze, MGH/MGZ and the few others that it reads. NRRD,
MetaImage and DICOM series come through SimpleITK, where it is installed.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.nifti1 import Nifti1Header, Nifti1Pair
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import SpatialImage

from ..errors import InputError
from ..volume import Volume, check
from . import nrrd
from .dicom_series import read_series
from .dicom_slices import is_dicom, series_in
from .files import reason, written_whole
from .nifti import mismatch, notes_of, open_image

#: Endings that are taken off a file's name to get the scan's name, longest first.
ENDINGS = (
    *(".nii.gz", ".nii.bz2", ".hdr.gz", ".img.gz"),
    *(".nii", ".hdr", ".img", ".mgz", ".mgh", ".mnc"),
    *nrrd.ENDINGS,
)

#: No scan has more; 4 GB of float32.
MOST_VOXELS = 10**9

#: Header fields that place a NIfTI image in the world.
_GEOMETRY_FIELDS = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)


def scan_name(path: str | Path) -> str:
    """A scan's name: the file's, less its ending (``scan.nii.gz`` -> ``scan``)."""
    name = Path(path).name
    if name in ("", ".."):
        name = Path(path).resolve().name
    for ending in ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    # A folder of a series is often named by its UID, of which the last number is no ending.
    return name if Path(name).suffix[1:].isdigit() else Path(name).stem


def read_volume(path: str | Path, *, series: str = "", keep_small_integers: bool = False) -> Volume:
    """Read a three-dimensional scan.

    Args:
        path: image file, or folder of a DICOM series (the longest, if there are several). Further
            axes of length one are dropped.
        series: UID of one of the folder's series instead of the longest.
        keep_small_integers: leave voxels as they are that are integers of 8 or 16 bits without a
            slope and an intercept: half of the memory.

    Returns:
        (I, J, K) float32 voxels, slope and intercept applied, with the IJK -> RAS affine.

    Raises:
        InputError: naming the file, if it is missing, not an image, damaged, not a volume of real
            numbers (four-dimensional, RGB, complex, a single slice), empty, constant, has NaN or
            infinite voxels, or an affine that cannot be inverted.
    """
    volume = _read(path, series, keep_small_integers)
    try:
        check(volume)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return volume


def read_mask(path: str | Path, scan: Volume) -> np.ndarray:
    """Read a mask that lies on a scan's own grid.

    Args:
        path: image file; voxels above 0.5 are in the mask.
        scan: the volume that the mask belongs to.

    Returns:
        (I, J, K) bool, the scan's shape.

    Raises:
        InputError: naming the mask, as ``read_volume`` does, and if its shape or affine is not the
            scan's, or nothing is in it.
    """
    inside = _read_on_grid(path, scan) > 0.5
    if not inside.any():
        raise InputError(f"{path}: the mask is empty; give one that marks the brain with ones")
    return inside


def read_labels(path: str | Path, scan: Volume, most: int) -> np.ndarray:
    """Read a map of labels that lies on a scan's own grid.

    Args:
        path: image file of whole numbers.
        scan: the volume that it belongs to.
        most: the largest label.

    Returns:
        (I, J, K) uint8, the scan's shape.

    Raises:
        InputError: as of :func:`read_mask`, and if there are other values than 0 to ``most``.
    """
    array = _read_on_grid(path, scan)
    if array.min() < 0 or array.max() > most or not np.array_equal(array, np.round(array)):
        raise InputError(f"{path}: is no map of labels from 0 to {most}; give one")
    return array.astype(np.uint8)


def _read_on_grid(path: str | Path, scan: Volume) -> np.ndarray:
    mask = _read(path)
    if mask.shape != scan.shape:
        raise InputError(
            f"{path}: the mask has {_by(mask.shape)} voxels and the scan {_by(scan.shape)}; "
            "give a mask on the scan's own grid"
        )
    # The corners of the grid decide, since that is where a difference is largest.
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in scan.shape])).reshape(3, -1)
    shift = (mask.affine - scan.affine)[:3] @ np.vstack([corners, np.ones(corners.shape[1])])
    distance = float(np.linalg.norm(shift, axis=0).max())
    if not distance <= 0.1 * scan.spacing.min():  # not a number is no place either
        raise InputError(
            f"{path}: the mask lies elsewhere than the scan (corners are up to {distance:.1f} mm "
            "apart); give a mask on the scan's own grid"
        )
    return mask.array


def read_geometry(path: str | Path) -> Nifti1Pair | None:
    """How a file says where its voxels lie, for :func:`write_volume`; None if it is not NIfTI.

    The voxels are not read. What is done to the file afterwards does not change the answer.

    Raises:
        InputError: naming the file, if it is missing or not an image.
    """
    if os.path.isdir(path) or _is_nrrd(path):
        return None
    image = _open(path)
    return image if isinstance(image, Nifti1Pair) else None


def files_of(path: str | Path, series: str = "") -> list[Path]:
    """All files that :func:`read_volume` reads of a scan: what a result follows from.

    Args:
        path, series: as of :func:`read_volume`.

    Raises:
        InputError: a header names a file that is not there, or the series is gone.
    """
    file = Path(path)
    if not file.is_dir():
        return [file, *files_beside(file)]
    if not series:
        return sorted(entry for entry in file.iterdir() if entry.is_file())
    for one in series_in(file):
        if one.uid == series:
            return list(map(Path, one.files))
    raise InputError(f"{path}: the DICOM series {series} is gone")


def files_beside(path: str | Path) -> list[Path]:
    """The files that are read with an image: the other half of a pair, the voxels of a header.

    Raises:
        InputError: a header names a file that is not there.
    """
    file = Path(path)
    if _is_nrrd(file) and file.is_file():
        return nrrd.data_files(file)
    for half, other in (("hdr", "img"), ("img", "hdr")):
        for ending in (f".{half}", f".{half}.gz"):
            if file.name.lower().endswith(ending):
                stem = file.name[: -len(ending)]
                beside = {p.name.lower(): p for p in file.parent.iterdir()} if file.exists() else {}
                names = (f"{stem}.{other}".lower(), f"{stem}.{other}.gz".lower())
                return [beside[name] for name in names if name in beside][:1]
    return []


def write_volume(path: str | Path, volume: Volume, *, like: Nifti1Pair | None = None) -> None:
    """Write a volume as NIfTI, all or nothing: beside its place first, then renamed.

    Args:
        path: a ``.nii`` or ``.nii.gz`` file; replaced if it exists.
        volume: float voxels are written as float32, bool and uint8 ones as uint8.
        like: the geometry of the file that the volume was computed from. It (sform, qform, codes,
            units, trailing axes of length one) is taken over bit by bit, so that the result has
            exactly its shape and affine; nothing else of its header is, since that may tell whose
            scan it is.

    Raises:
        OutputError: naming the file, if it cannot be written.
        ValueError: for voxels of another type, or a ``like`` of another shape.
    """
    image = _to_image(volume, like)
    with written_whole(Path(path), "choose a folder that can be written and has room") as beside:
        image.to_filename(beside)


def _read(path: str | Path, series: str = "", keep_small_integers: bool = False) -> Volume:
    if os.path.isdir(path):
        return read_series(Path(path), scan_name(path), series)
    if _is_nrrd(path) and os.path.isfile(path):
        return nrrd.read_nrrd(Path(path), scan_name(path))
    image = _open(path)
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3:
        raise InputError(
            f"{path}: the image has {len(shape)} axes ({_by(shape)}); give one 3-D volume, "
            "for example the first or the mean of the series"
        )
    if math.prod(shape) > MOST_VOXELS:
        raise InputError(f"{path}: {_by(shape)} voxels are more than can be worked on; resample it")
    kind = image.get_data_dtype()
    if kind.fields is not None or kind.kind not in "biuf":
        what = "complex numbers" if kind.kind == "c" else "colours, not intensities"
        raise InputError(f"{path}: the voxels are {what}; give a scan with one real value a voxel")
    stored: Any = image.dataobj
    scaling = (getattr(stored, "slope", None), getattr(stored, "inter", None))
    small = kind.kind in "iu" and kind.itemsize <= 2 and scaling == (1, 0)
    wanted = kind.newbyteorder("=") if keep_small_integers and small else np.dtype(np.float32)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            array = np.asarray(image.dataobj, dtype=wanted).reshape(shape)
    except MemoryError as error:
        raise InputError(
            f"{path}: {_by(shape)} voxels do not fit into memory; resample it"
        ) from error
    except Exception as error:  # of gzip, of memory maps, of scaling, ...
        raise InputError(
            f"{path}: the image is damaged or cut short ({reason(error)}); copy or export it again"
        ) from error
    _refuse_beyond_float32(path, image, array)
    affine = np.array(image.affine, dtype=np.float64)
    return Volume(np.ascontiguousarray(array), affine, scan_name(path), notes_of(Path(path), image))


def _refuse_beyond_float32(path: str | Path, image: SpatialImage, array: np.ndarray) -> None:
    if np.isfinite(array).all():
        return
    stated = np.asarray(image.dataobj, np.float64)
    if np.isfinite(stated).all():
        raise InputError(
            f"{path}: voxels reach {np.abs(stated).max():.3g}, more than is computed with "
            "(3.4e+38); scale the scan down"
        )


def _is_nrrd(path: str | Path) -> bool:
    return Path(path).name.lower().endswith(nrrd.ENDINGS)


def _open(path: str | Path) -> SpatialImage:
    file = Path(path)
    try:
        exists = file.exists()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason(error)}); check the path") from error
    if not exists:
        raise InputError(f"{path}: there is no such file; check the path")
    if not file.is_file():  # a pipe would be waited for, a device read without end
        raise InputError(f"{path}: is not a file; give an image file")
    try:
        image = open_image(file)
    except InputError:
        raise
    except PermissionError as error:
        raise InputError(f"{path}: may not be read; check the file's permissions") from error
    except Exception as error:  # each of nibabel's readers has its own ways to fail
        if why := mismatch(file):
            raise InputError(f"{path}: {why}") from error
        wanted = "the folder of its series" if is_dicom(file) else "a NIfTI file (.nii or .nii.gz)"
        raise InputError(f"{path}: is not an image that can be read; give {wanted}") from error
    if not isinstance(image, SpatialImage):
        raise InputError(f"{path}: holds no voxels; give a NIfTI file (.nii or .nii.gz)")
    if image.affine is None:
        raise InputError(f"{path}: does not say where its voxels lie; give a file with an affine")
    return image


def _to_image(volume: Volume, source: Nifti1Pair | None) -> nibabel.Nifti1Image:
    array = volume.array
    if array.dtype.kind == "f":
        array = array.astype(np.float32, copy=False)
    elif array.dtype in (np.dtype(bool), np.dtype(np.uint8)):
        array = array.astype(np.uint8, copy=False)
    else:
        raise ValueError(f"voxels must be floats, bool or uint8, not {array.dtype}")
    if source is None:
        return _placed(array, volume.affine)
    if array.size != np.prod(source.shape) or array.shape != source.shape[:3]:
        raise ValueError(f"shape {array.shape} is not that of the scan, {source.shape}")
    array = array.reshape(source.shape)
    two = isinstance(source.header, Nifti2Header)
    header = Nifti2Header() if two else Nifti1Header()
    header.set_data_shape(array.shape)
    for field in _GEOMETRY_FIELDS:
        header[field] = source.header[field]
    try:
        header.get_best_affine()
    except ValueError:  # a quaternion a hair too long, which not every reader takes
        header.set_qform(source.affine, int(header["qform_code"]))
    header.set_data_dtype(array.dtype)
    return (nibabel.Nifti2Image if two else nibabel.Nifti1Image)(array, source.affine, header)


def _placed(array: np.ndarray, affine: np.ndarray) -> nibabel.Nifti1Image:
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="scanner")
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    # A qform has no shear: where the axes are not at right angles the sform stands alone.
    if np.allclose(axes.T @ axes, np.eye(3), atol=1e-5):
        image.set_qform(affine, code="scanner")
    return image


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)
