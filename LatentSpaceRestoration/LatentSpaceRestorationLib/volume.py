"""A scan as an array with its place in the world, and resampling by physical position."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .errors import InputError

#: A scan that is larger than this, along an axis in mm or altogether in litres, has a wrong
#: spacing in its header; a grid that covers it would fill the memory.
LONGEST_MM = 2500.0
LARGEST_LITRES = 1000.0
#: A part of a volume, by its voxels.
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Volume:
    """A scalar volume.

    Attributes:
        array: (I, J, K) voxel values.
        affine: (4, 4) float64, voxel index (i, j, k) -> RAS position in mm (NIfTI convention).
        name: what to call the scan in messages and results.
        notes: what its file leaves in doubt, for the result.
    """

    array: np.ndarray
    affine: np.ndarray
    name: str = ""
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(I, J, K)."""
        i, j, k = self.array.shape
        return i, j, k

    @property
    def spacing(self) -> np.ndarray:
        """(3,) distance in mm between neighbours along I, J and K."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return voxel_ml(self.affine)

    def cut(self, box: Box) -> Volume:
        """The part of it in a box, in its place."""
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
        return replace(self, array=self.array[box], affine=affine)


def voxel_ml(affine: np.ndarray) -> float:
    """Millilitres of a voxel of a grid, by its (4, 4) affine to mm."""
    return float(abs(np.linalg.det(affine[:3, :3])) / 1000.0)


def cube_ml(spacing_mm: float) -> float:
    """Millilitres of a voxel of an isotropic grid."""
    return spacing_mm**3 / 1000.0


def box_of(mask: np.ndarray, margin: np.ndarray | int = 0) -> Box:
    """The box of the voxels that are not 0; all, if there are none.

    Args:
        mask: 3-D.
        margin: voxels more to each side, as far as there are, in all or along each axis.
    """
    box = []
    for axis, (size, more) in enumerate(zip(mask.shape, np.broadcast_to(margin, 3), strict=True)):
        filled = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        low, high = (int(filled[0]), int(filled[-1])) if len(filled) else (0, size - 1)
        box.append(slice(max(0, low - int(more)), min(size, high + int(more) + 1)))
    return box[0], box[1], box[2]


def positions(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Where the voxels of a mask lie.

    Args:
        mask: 3-D; voxels that are not 0 count.
        affine: (4, 4) voxel index -> RAS in mm.

    Returns:
        (n, 3) RAS in mm, in the order of the array.
    """
    return np.asarray(np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3])


def check(volume: Volume) -> None:
    """Refuse a volume that no anomaly can be looked for in.

    Raises:
        InputError: not three-dimensional, a single slice, larger than any scan, not real numbers,
            NaN or infinite voxels, or constant.
    """
    array = volume.array
    shape = " x ".join(str(n) for n in array.shape)
    if array.ndim != 3 or min(array.shape) < 2:
        raise InputError(f"{shape} voxels are not a volume; give a whole 3-D scan")
    if not np.isfinite(volume.affine).all() or _is_singular(volume):
        raise InputError("the affine cannot be inverted; mend the header")
    if array.dtype.kind not in "biuf":
        raise InputError("the voxels are not real numbers; give a scan with one real value a voxel")
    extent = volume.spacing * array.shape
    if extent.max() > LONGEST_MM or extent.prod() > LARGEST_LITRES * 1e6:
        size = " x ".join(f"{mm:.0f}" for mm in extent)
        raise InputError(
            f"the affine makes the scan {size} mm large; mend the spacing in the header"
        )
    with np.errstate(over="ignore"):  # what is computed with is float32
        usable = np.isfinite(array.astype(np.float32, copy=False))
    if not usable.all():
        count = int(usable.size - np.count_nonzero(usable))
        raise InputError(
            f"{count} of {usable.size} voxels are NaN or infinite; replace them, for example by 0"
        )
    low, high = float(array.min()), float(array.max())
    if low == high:
        raise InputError(f"every voxel is {low:g}; give a scan that shows something")


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Dice overlap of two masks of the same shape, above 0 is in: 0 (apart, or both empty) to 1."""
    a, b = np.asarray(one) > 0, np.asarray(other) > 0
    both = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / both if both else 0.0


def _is_singular(volume: Volume) -> bool:
    """Whether the axes of a grid span no space, be it of millimetres or of metres."""
    extent = float(volume.spacing.prod())
    return not extent > 0 or volume.voxel_volume_ml * 1000.0 < 1e-6 * extent
