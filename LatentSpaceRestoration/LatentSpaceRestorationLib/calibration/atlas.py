"""Statistics of healthy maps by place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..model_space import CELL_DEPTH_MM, CELL_VOXELS, DEPTH_MM, depth_index, interpolated


@dataclass(frozen=True)
class PlaceSums:
    """Running sums of a healthy map by place, from which statistics are made.

    A place is a depth below the top of the brain and a cell of the model's grid, which is centred
    on the brain.

    Attributes:
        count, total, square: (depths, h, w) float64.
    """

    count: np.ndarray
    total: np.ndarray
    square: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, mask: np.ndarray, position: np.ndarray) -> PlaceSums:
        """Sums of one scan.

        Args:
            values: (N, rows, columns).
            mask: (N, rows, columns) bool; only these voxels count.
            position: (N,) slice positions in [-0.5, 0.5].
        """
        depths = int(DEPTH_MM / CELL_DEPTH_MM) + 1
        _, rows, columns = values.shape
        h, w = -(-rows // CELL_VOXELS), -(-columns // CELL_VOXELS)
        slices, r, c = np.nonzero(mask)
        depth = np.round(depth_index(position)).astype(int)[slices]
        cell = (depth * h + r // CELL_VOXELS) * w + c // CELL_VOXELS
        found = values[mask].astype(np.float64)
        size = depths * h * w

        def by_cell(weights: np.ndarray | None) -> np.ndarray:
            counted = np.bincount(cell, weights=weights, minlength=size)
            return counted.reshape(depths, h, w).astype(np.float64)

        return cls(by_cell(None), by_cell(found), by_cell(found**2))

    @property
    def filled(self) -> np.ndarray:
        """(depths, h, w) bool, places that have about as many voxels as most have."""
        there = self.count > 0
        return self.count >= 0.75 * np.median(self.count[there]) if there.any() else there

    def __add__(self, other: PlaceSums) -> PlaceSums:
        return PlaceSums(
            self.count + other.count, self.total + other.total, self.square + other.square
        )

    def __sub__(self, other: PlaceSums) -> PlaceSums:
        return PlaceSums(
            self.count - other.count, self.total - other.total, self.square - other.square
        )


@dataclass(frozen=True)
class PlaceStatistics:
    """Mean and standard deviation of a healthy map at each place.

    Attributes:
        mean, sd: (depths, h, w) float32.
    """

    mean: np.ndarray
    sd: np.ndarray

    @classmethod
    def from_sums(cls, sums: PlaceSums, smoothing: float = 1.0) -> PlaceStatistics:
        """Statistics of neighbouring places together, shrunk to the whole brain's where few.

        Args:
            sums: of several scans.
            smoothing: Gaussian over places, in cells.
        """
        whole_mean = sums.total.sum() / sums.count.sum()
        whole_square = sums.square.sum() / sums.count.sum()
        few = 50.0  # voxels' worth of the whole brain's statistics
        count = ndimage.gaussian_filter(sums.count, smoothing, mode="constant") + few
        total = ndimage.gaussian_filter(sums.total, smoothing, mode="constant")
        square = ndimage.gaussian_filter(sums.square, smoothing, mode="constant")
        mean = (total + few * whole_mean) / count
        variance = (square + few * whole_square) / count - mean**2
        return cls(mean.astype(np.float32), np.sqrt(np.maximum(variance, 1e-8)).astype(np.float32))

    def symmetric(self) -> PlaceStatistics:
        """Those of scans and their mirror images together."""
        mean = (self.mean + self.mean[:, :, ::-1]) / 2.0
        square = self.sd**2 + self.mean**2
        variance = (square + square[:, :, ::-1]) / 2.0 - mean**2
        return PlaceStatistics(mean, np.sqrt(np.maximum(variance, 1e-8)).astype(np.float32))

    def normalise(self, values: np.ndarray, position: np.ndarray) -> np.ndarray:
        """(value - mean) / spread at each voxel's place.

        Args:
            values: (N, rows, columns).
            position: (N,) in [-0.5, 0.5].
        """
        _, rows, columns = values.shape
        r = (np.arange(rows) + 0.5) / CELL_VOXELS - 0.5
        c = (np.arange(columns) + 0.5) / CELL_VOXELS - 0.5
        where = depth_index(position), r, c
        mean, sd = interpolated(self.mean, *where), interpolated(self.sd, *where)
        return np.asarray((values - mean) / np.maximum(sd, np.float32(1e-6)), np.float32)
