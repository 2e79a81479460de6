"""Filters of maps within the brain."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..model_space import interpolated
from ..runtime.side_by_side import gaussian_filter, side_by_side

#: Standard deviation of the Gaussian over maps, as measured to be best for the default mode.
SMOOTHING_MM = 4.0
#: Least variance of the intensity that is worth following, in squared robust standard deviations.
_FLAT = 0.05


def masked_smooth(
    values: np.ndarray, mask: np.ndarray, sigma: float, known: np.ndarray | None = None
) -> np.ndarray:
    """Gaussian mean over the voxels of a mask only (normalised convolution).

    Args:
        values: (N, H, W).
        mask: (N, H, W) bool; what is outside neither counts nor gets a value (0).
        sigma: standard deviation in voxels.
        known: (N,) bool, slices whose values count; the others get theirs from those beside. None
            counts all.
    """
    weight = mask.astype(np.float32)
    if known is not None:
        weight *= known[:, None, None]
    total, share = (
        gaussian_filter(array, sigma, mode="constant", truncate=3.0)
        for array in (values * weight, weight)
    )
    return np.where(mask, total / np.maximum(share, 1e-6), 0.0).astype(np.float32)


def without_wide_mean(
    values: np.ndarray, mask: np.ndarray, sigma: float, limit: float
) -> np.ndarray:
    """What stands out from its wider surroundings.

    A bias field or another contrast shifts a difference over wide parts of the brain, which is not
    what is looked for; the wide mean of it is taken off. Values count in that mean up to a limit,
    so that a lesion, which is large where it is, hardly takes part.

    Args:
        values: (N, H, W).
        mask: (N, H, W) bool; outside it the result is 0.
        sigma: of the Gaussian mean, in voxels.
        limit: largest absolute value that counts.
    """
    wide = masked_smooth(np.clip(values, -limit, limit), mask, sigma)
    return np.where(mask, values - wide, 0.0).astype(np.float32)


def along_edges(
    values: np.ndarray, slices: np.ndarray, mask: np.ndarray, radius: int
) -> np.ndarray:
    """A map that ends where things in the scan end, as far as it goes with the scan at all.

    Maps are smoothed, so that an anomaly has a halo. In each neighbourhood the map is explained by
    the intensity, by linear regression, as in the guided filter (He, Sun and Tang 2010, "Guided
    image filtering", ECCV), and moves to what that explains by the size of their correlation. What
    the intensity does not explain, such as noise, stays as it is. What it explains far and wide,
    such as all that is dark in sulci a little wider than usual, is evened out.

    Args:
        values: (N, H, W), at least 0.
        slices: (N, H, W), the scan in its robust standard deviations.
        mask: (N, H, W) bool, brain; what is outside does not count.
        radius: of a neighbourhood, in voxels: it is 2 * radius + 1 wide.

    Returns:
        (N, H, W) float32, at least 0, and 0 outside the brain.
    """
    weight, width = mask.astype(np.float32), 2 * radius + 1

    def total(array: np.ndarray) -> np.ndarray:
        return np.asarray(ndimage.uniform_filter(array * weight, width, mode="constant"))

    share, *totals = side_by_side(
        total, (weight, slices, values, slices**2, values**2, slices * values)
    )
    share = np.maximum(share, 1e-6)
    intensity, value, square, of_values, product = (one / share for one in totals)
    variance = square - intensity**2 + _FLAT
    spread = np.maximum(of_values - value**2, 1e-6)
    covariance = product - intensity * value
    explained = value + covariance / variance * (slices - intensity)
    correlation = np.minimum(np.abs(covariance) / np.sqrt(variance * spread), 1.0)
    moved = values + correlation * (explained - values)
    return np.where(mask, np.maximum(moved, 0.0), 0.0).astype(np.float32)


def upsampled(cells: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Values of cells on the grid of voxels, linearly interpolated within a slice.

    Args:
        cells: (N, h, w).
        shape: (N, rows, columns), multiples of the cells' numbers.

    Returns:
        float32 of ``shape``; a voxel in the middle of a cell has the cell's value.
    """
    (_, rows, columns), (_, h, w) = shape, cells.shape

    def in_cells(voxels: int, count: int) -> np.ndarray:
        return np.asarray((np.arange(voxels) + 0.5) * count / voxels - 0.5)

    return interpolated(cells, None, in_cells(rows, h), in_cells(columns, w))
