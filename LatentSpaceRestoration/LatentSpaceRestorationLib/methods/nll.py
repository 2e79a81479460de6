"""``nll``: how unlikely the prior finds the codes, without restoring anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..scoring.anomaly_map import SMOOTHING_MM, MapRule
from .base import Case, Evidence


@dataclass(frozen=True)
class CodeLikelihood:
    """-log p(code | codes before it), upsampled, smoothed, compared with what is usual there.

    Naval Marimont and Tarroni (ISBI 2021), as a map.

    Attributes:
        sigma_mm: standard deviation of the Gaussian.
    """

    sigma_mm: float = SMOOTHING_MM
    rule: MapRule = MapRule.of_high("nll")

    def evidence(self, case: Case) -> Iterator[Evidence]:
        """One, without a restoration."""
        slices = case.prepared.slices
        _, reading = case.read()
        maps = case.smoothed({"nll": upsampled(reading.nll, slices.shape)}, self.sigma_mm)
        yield Evidence.of_one(maps, slices, restorations=0)


def upsampled(cells: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Values of cells on the grid of voxels, linearly interpolated within a slice.

    Args:
        cells: (N, h, w).
        shape: (N, rows, columns), multiples of the cells' numbers.

    Returns:
        float32 of ``shape``; a voxel in the middle of a cell has the cell's value.
    """
    zoom = [size / number for size, number in zip(shape, cells.shape, strict=True)]
    fine = ndimage.zoom(cells, zoom, order=1, mode="nearest", grid_mode=True)
    return np.asarray(fine, np.float32)
