"""A scan as an array with its place in the world, and resampling by physical position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .errors import InputError

#: A scan that is larger than this, along an axis in mm or altogether in litres, has a wrong
#: spacing in its header; a grid that covers it would fill the memory.
LONGEST_MM = 2500.0
LARGEST_LITRES = 1000.0
#: Full width at half maximum of a Gaussian, in standard deviations.
_FWHM = 2.3548200450309493


@dataclass(frozen=True)
class Volume:
    """A scalar volume.

    Attributes:
        array: (I, J, K) voxel values.
        affine: (4, 4) float64, voxel index (i, j, k) -> RAS position in mm (NIfTI convention).
        name: what to call the scan in messages and results.
    """

    array: np.ndarray
    affine: np.ndarray
    name: str = ""

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
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000.0)


def positions(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Where the voxels of a mask lie.

    Args:
        mask: 3-D; voxels that are not 0 count.
        affine: (4, 4) voxel index -> RAS in mm.

    Returns:
        (n, 3) RAS in mm, in the order of the array.
    """
    return np.asarray(np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3])


def resample(
    volume: Volume,
    shape: Sequence[int],
    affine: np.ndarray,
    *,
    order: int = 1,
    fill: float = 0.0,
    antialias: bool = True,
) -> np.ndarray:
    """Values of a volume at the voxel centres of another grid.

    Where the target is coarser than the source, the source is first low-passed by the Gaussian
    that takes a resolution of one source voxel to one target voxel (FWHM in quadrature, as in
    ``nibabel.processing.resample_to_output`` users are advised to do); a target that is as fine or
    finer is sampled as is, so that a grid that coincides with the source returns it unchanged.

    Args:
        volume: (I, J, K) source.
        shape: target shape, three axes.
        affine: (4, 4) target voxel index -> RAS in mm.
        order: spline order, 0 (nearest), 1 (linear) or 3 (cubic: keeps fine detail).
        fill: value outside the source's voxels; in the outer half of its border voxels their own
            value holds on, so that a border is neither damped nor cut.
        antialias: low-pass before coarsening; off for labels.

    Returns:
        float32 array of the target shape.
    """
    index = np.linalg.inv(volume.affine) @ affine  # target index -> source index
    array = np.asarray(volume.array, dtype=np.float32)
    if antialias:
        # Extent of one target voxel along each source axis, in source voxels.
        factor = np.sqrt((index[:3, :3] ** 2).sum(axis=1))
        sigma = np.sqrt(np.maximum(factor**2 - 1.0, 0.0)) / _FWHM
        if np.any(sigma > 0.05):
            array = ndimage.gaussian_filter(array, sigma, mode="nearest", truncate=3.0)
    matrix = np.round(index, 9)  # keeps grids that coincide exact
    target = tuple(int(n) for n in shape)
    values = ndimage.affine_transform(
        array,
        matrix[:3, :3],
        offset=matrix[:3, 3],
        output_shape=target,
        output=np.float32,
        order=order,
        mode="nearest",
        prefilter=order > 1,
    )
    return np.where(covered(volume, target, affine), values, np.float32(fill))


def covered(volume: Volume, shape: Sequence[int], affine: np.ndarray) -> np.ndarray:
    """Whether the voxel centres of another grid lie in voxels of a volume.

    Args:
        volume: (I, J, K); only its shape and affine matter.
        shape: of the other grid, three axes.
        affine: (4, 4) voxel index of the other grid -> RAS in mm.

    Returns:
        bool, broadcastable to ``shape``: grids with the same axes need no full array.
    """
    matrix = np.round(np.linalg.inv(volume.affine) @ affine, 9)
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    within = np.ones((1, 1, 1), dtype=bool)
    for row, size in zip(matrix[:3], volume.shape, strict=True):
        terms = [step * axis for step, axis in zip(row, axes, strict=False) if abs(step) > 1e-7]
        place = sum(terms, start=row[3])
        within = within & (place >= -0.5 - 1e-6) & (place <= size - 0.5 + 1e-6)
    return within


def world_grid(
    volume: Volume, spacing: float, through: Sequence[float] | None = None
) -> tuple[tuple[int, int, int], np.ndarray]:
    """The grid along the patient's axes that covers a volume.

    Axes: index 0 runs to the patient's left, 1 to the back, 2 to the head. The grid passes through
    the leftmost, hindmost and lowest centres of voxels: it is the same in whatever order and
    direction the volume's axes are stored, and a volume that already has this spacing along these
    axes is only reordered.

    Args:
        volume: source; only its shape and affine matter.
        spacing: mm.
        through: RAS in mm of a point that the grid is to pass through instead.

    Returns:
        shape, and the (4, 4) affine from index to RAS in mm.
    """
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in volume.shape], indexing="ij"))
    points = volume.affine[:3, :3] @ corners.reshape(3, -1) + volume.affine[:3, 3:]
    low = points.min(axis=1)
    if through is not None:
        low -= (low - np.asarray(through, float)) % spacing
    steps = np.ceil((points.max(axis=1) - low) / spacing - 1e-3).astype(int)
    n0, n1, n2 = (steps + 1).tolist()
    affine = np.diag([-spacing, -spacing, spacing, 1.0])
    affine[:3, 3] = low + spacing * steps * [1, 1, 0]
    return (n0, n1, n2), affine


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
    finite = np.isfinite(volume.affine).all()
    if not finite or abs(np.linalg.det(volume.affine[:3, :3])) < 1e-9:
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
