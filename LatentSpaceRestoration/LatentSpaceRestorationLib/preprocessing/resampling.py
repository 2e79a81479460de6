"""Resampling by physical position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from ..volume import Volume


#: Full width at half maximum of a Gaussian, in standard deviations.
_FWHM = 2.3548200450309493


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
