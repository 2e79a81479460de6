"""The coordinates and the units of a model: its grid, its intensities, places in the brain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import InputError

#: Size of a cell of the place statistics: voxels in plane, and mm of depth.
CELL_VOXELS = 4
CELL_DEPTH_MM = 5.0
#: Intensities after normalisation are clipped to this, in robust standard deviations from the
#: brain's median; what is outside the brain has the lower bound, the value of very dark fluid.
CLIP = 3.0
#: Depth in mm below the top of the brain that the slice position of -0.5 stands for.
DEPTH_MM = 150.0


@dataclass(frozen=True)
class Grid:
    """The model's grid: axial slices of ``rows`` x ``columns`` at an isotropic spacing in mm.

    Rows run from anterior to posterior, columns from the patient's right to left, slices from
    inferior to superior.
    """

    rows: int = 104
    columns: int = 80
    spacing_mm: float = 2.0


def normalise(array: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Intensities in robust standard deviations from the median of the brain.

    Median and interquartile range, because a large lesion moves a mean and a standard deviation.

    Args:
        array: native intensities, any shape.
        mask: bool of the same shape, the brain.

    Returns:
        float32 of the same shape, clipped to +-CLIP and -CLIP outside the mask; the median; and
        the scale (interquartile range / 1.349, the standard deviation of a normal distribution).

    Raises:
        InputError: if the brain has (nearly) one intensity only.
    """
    low, centre, high = np.percentile(array[mask], (25, 50, 75))
    scale = spread_of_quartiles(low, high)
    if not scale > 1e-6 * max(abs(low), abs(high), 1e-30):
        raise InputError(
            "the brain has almost no contrast (half of its voxels share one intensity); "
            "check that the scan is not a mask or a label map"
        )
    values = np.clip((array - centre) / scale, -CLIP, CLIP).astype(np.float32)
    values[~mask] = -CLIP
    return values, float(centre), float(scale)


def slice_position(height_mm: np.ndarray, top_mm: float) -> np.ndarray:
    """Position channel of slices: 0.5 at the top of the brain, -0.5 at ``DEPTH_MM`` below it.

    Args:
        height_mm: (N,) RAS superior coordinates.
        top_mm: coordinate of the top of the brain.
    """
    return np.clip(0.5 - (top_mm - height_mm) / DEPTH_MM, -0.5, 0.5).astype(np.float32)


def interpolated(values: np.ndarray, *places: np.ndarray | None) -> np.ndarray:
    """Values between those of a grid, linearly, axis by axis; beyond its ends, those of the ends.

    Args:
        values: of the grid.
        places: along each axis, as fractional indices; None leaves an axis as it is.

    Returns:
        float32, of as many values along each axis as there are places.
    """
    found = np.asarray(values, np.float32)
    for axis, place in enumerate(places):
        if place is None:
            continue
        last = found.shape[axis] - 1
        place = np.clip(place, 0, last)
        low = np.minimum(place.astype(int), max(last - 1, 0))
        shape = [-1 if other == axis else 1 for other in range(found.ndim)]
        share = (place - low).astype(np.float32).reshape(shape)
        below, above = found.take(low, axis), found.take(np.minimum(low + 1, last), axis)
        found = below + share * (above - below)
    return found


def depth_index(position: np.ndarray) -> np.ndarray:
    """Slice positions as fractional indices of depth."""
    return (0.5 - np.asarray(position, float)) * DEPTH_MM / CELL_DEPTH_MM


def robust_spread(values: np.ndarray) -> float:
    """Standard deviation by the quartiles, above 0: a large lesion does not move it."""
    low, high = np.percentile(values, [25.0, 75.0])
    return max(float(spread_of_quartiles(low, high)), 1e-6)


def spread_of_quartiles(low: float, high: float) -> float:
    """The standard deviation of normal values with these quartiles."""
    return (high - low) / 1.349
