"""Resampling by physical position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ..runtime.side_by_side import gaussian_filter, side_by_side, slabs

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
    fill: float | None = 0.0,
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
            value holds on, so that a border is neither damped nor cut. None lets it hold on beyond.
        antialias: low-pass before coarsening; off for labels.

    Returns:
        float32 array of the target shape.
    """
    index = np.linalg.inv(volume.affine) @ affine  # target index -> source index
    array = np.asarray(volume.array, dtype=np.float32)
    if antialias:
        array = low_passed(array, np.sqrt((index[:3, :3] ** 2).sum(axis=1)))
    matrix = np.round(index, 9)  # keeps grids that coincide exact
    target = tuple(int(n) for n in shape)
    values = np.empty(target, np.float32)

    def some(part: slice) -> None:
        ndimage.affine_transform(
            array,
            matrix[:3, :3],
            offset=matrix[:3, 3] + matrix[:3, 0] * part.start,
            output_shape=values[part].shape,
            output=values[part],
            order=order,
            mode="nearest",
            prefilter=order > 1,
        )

    # Splines are prepared for the whole, not for each slab.
    side_by_side(some, slabs(target) if order < 2 else [slice(0, target[0])])
    if fill is None:
        return values
    return np.where(covered(volume, target, affine), values, np.float32(fill))


def at_places(array: np.ndarray, places: np.ndarray, fill: float | None = None) -> np.ndarray:
    """Values of an array at some places, linearly: of few, faster than :func:`resample`.

    Args:
        array: (I, J, K) float32.
        places: (3, n) in its voxels.
        fill: value beyond its voxels; None lets that of the border hold on.

    Returns:
        (n,) float32.
    """
    values = np.empty(places.shape[1], np.float32)
    ndimage.map_coordinates(array, places, output=values, order=1, mode="nearest", prefilter=False)
    if fill is None:
        return values
    ends = np.array(array.shape)[:, None] - 0.5
    within = ((places >= -0.5 - 1e-6) & (places <= ends + 1e-6)).all(axis=0)
    return np.where(within, values, np.float32(fill))


def low_passed(array: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """Values at the resolution of a coarser grid.

    Args:
        array: (I, J, K) float32.
        extent: (3,) of one voxel of that grid along each axis of this one, in its voxels. However
            a grid of cubes is turned, it is the same.
    """
    sigma = np.sqrt(np.maximum(extent**2 - 1.0, 0.0)) / _FWHM
    if not np.any(sigma > 0.05):
        return array
    return gaussian_filter(array, sigma, mode="nearest", truncate=3.0)


def reduced(volume: Volume, spacing_mm: float) -> Volume:
    """A scan by the means of blocks of its voxels, at most half as wide as those of a model.

    What is finer than that nothing looks at, and a scan of 0.5 mm has sixty-four times the voxels
    of a model's grid of 2 mm.

    Args:
        volume: (I, J, K).
        spacing_mm: of the model's grid.

    Returns:
        float32, or the scan itself where it is no finer. Of voxels that make up no whole block,
        those are left off that lie furthest to the right, the front or the top.
    """
    blocks = np.maximum((0.5 * spacing_mm / volume.spacing + 1e-3).astype(int), 1)
    shape = np.array(volume.shape) // blocks
    if blocks.max() == 1 or shape.min() < 2:
        return volume
    axes = volume.affine[:3, :3]
    upward = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)[0] > 0
    first = np.where(upward, 0, np.array(volume.shape) - shape * blocks)
    means = np.empty(shape, np.float32)

    def some(part: slice) -> None:
        total = np.zeros(means[part].shape)  # in whatever order, with float64's precision
        ends = first + shape * blocks
        starts = first + [part.start * blocks[0], 0, 0]
        ends[0] = first[0] + part.stop * blocks[0]
        for offset in np.ndindex(*blocks):
            total += volume.array[
                tuple(map(slice, (starts + offset).tolist(), ends.tolist(), blocks.tolist()))
            ]
        means[part] = total / blocks.prod()

    side_by_side(some, slabs(shape.tolist()))
    affine = volume.affine.copy()
    affine[:3, 3] += axes @ (first + (blocks - 1) / 2.0)
    affine[:3, :3] = axes * blocks
    return replace(volume, array=means, affine=affine)


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
