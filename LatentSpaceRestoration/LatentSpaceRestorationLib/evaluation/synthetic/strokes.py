"""The shapes of real strokes, painted. The shapes are real; the intensities are synthetic."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from ...errors import InputError
from ...io.images import read_volume, scan_name
from ...preprocessing.resampling import resample
from ...volume import Volume
from .geometry import Healthy

#: RAS extent in mm of the brain of the MNI152 template, in which the shapes lie.
_MNI = np.array([[-72.0, -106.0, -66.0], [72.0, 73.0, 81.0]])
#: Share of the scan's own texture that a painted lesion keeps.
_TEXTURE = 0.3


@dataclass(frozen=True)
class Shape:
    """A lesion's mask in MNI space: its file and its volume in ml."""

    file: Path
    volume_ml: float


def read_shapes(folder: Path) -> list[Shape]:
    """The shapes of a folder: ``shapes.tsv`` with columns ``name`` and ``volume_ml``, and a
    ``<name>.nii.gz`` each; by name. Empty if there is no such table.

    Raises:
        InputError: a table that cannot be understood.
    """
    table = folder / "shapes.tsv"
    if not table.is_file():
        return []
    try:
        with table.open(newline="", encoding="utf-8") as stream:
            shapes = [
                Shape(folder / f"{row['name']}.nii.gz", float(row["volume_ml"]))
                for row in csv.DictReader(stream, delimiter="\t")
            ]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{table}: is not a table of lesion shapes ({error}); give columns name and volume_ml"
        ) from error
    return sorted(shapes, key=lambda shape: shape.file)


def choose_shape(shapes: Sequence[Shape], volume_ml: float, seed: int) -> Shape:
    """One of the shapes within a factor of 1.5 of a volume, or else the nearest one."""
    distance = np.abs(np.log([shape.volume_ml / volume_ml for shape in shapes]))
    near = np.flatnonzero(distance <= np.log(1.5))
    if not len(near):
        near = np.array([int(np.argmin(distance))])
    return shapes[int(near[np.random.default_rng(seed).integers(len(near))])]


def stroke(
    scan: Healthy,
    centre: np.ndarray,
    size: float,
    contrast: float,
    seed: int,
    shapes: Sequence[Shape],
) -> np.ndarray:
    """A stroke's shape at the place that it had, on its own or the other side.

    The MNI brain's extent is brought to the brain's, so that a shape in the insula is painted near
    the insula; ``centre`` is not used.

    Args:
        scan: the scan.
        centre: not used.
        size: volume of the shape in MNI space, in ml.
        contrast: mean intensity in robust standard deviations from the brain's median.
        seed: of the shape and of the side.
        shapes: to choose from.

    Returns:
        (I, J, K) the changed voxels.

    Raises:
        InputError: a shape's file cannot be read.
    """
    shape = choose_shape(shapes, size, seed)
    mask = _placed(scan, _read(shape), mirrored=bool(np.random.default_rng([seed, 1]).integers(2)))
    array = scan.volume.array.astype(np.float32, copy=True)
    where = (mask >= 0.5) & scan.brain
    if not where.any():
        return array
    blurred = ndimage.gaussian_filter(array, 3.0 / scan.volume.spacing)
    painted = scan.level(contrast) + _TEXTURE * (array - blurred)
    array[where] = np.maximum(painted, scan.volume.array.min())[where]
    return array


def _read(shape: Shape) -> Volume:
    try:
        volume = read_volume(shape.file)
    except InputError as error:
        raise InputError(f"{error} (a lesion shape named by shapes.tsv)") from error
    # A voxel of nothing around it, since masks are cropped to their bounding box.
    affine = volume.affine.copy()
    affine[:3, 3] -= affine[:3, :3].sum(axis=1)
    return Volume(np.pad(volume.array > 0.5, 1), affine, scan_name(shape.file))


def _placed(scan: Healthy, shape: Volume, *, mirrored: bool) -> np.ndarray:
    """The shape on the scan's grid, (I, J, K) float32, 0 to 1."""
    low, high = scan.extent
    scale = (high - low) / (_MNI[1] - _MNI[0])
    to_brain = np.diag([*scale, 1.0])
    to_brain[:3, 3] = low - scale * _MNI[0]
    if mirrored:
        to_brain = to_brain @ np.diag([-1.0, 1.0, 1.0, 1.0])
    source = Volume(shape.array.astype(np.float32), to_brain @ shape.affine)
    return resample(source, scan.volume.shape, scan.volume.affine)
