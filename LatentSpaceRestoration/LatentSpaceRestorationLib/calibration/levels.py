"""What healthy scans give: thresholds, percentiles, p-values, and what is usual at each place.

Calibration scans are healthy and were not trained on. Everything here is numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from ..errors import BundleError
from ..preprocessing.slices import DEPTH_MM
from .code_values import CodeValues

#: Percentiles kept of voxel values and of code NLLs: fine where thresholds are cut.
PERCENTILES = (
    *range(0, 90),
    *np.round(np.arange(90.0, 99.0, 0.25), 2).tolist(),
    *np.round(np.arange(99.0, 99.875, 0.05), 2).tolist(),
    *np.round(np.arange(99.9, 100.0, 0.01), 2).tolist(),
    100.0,
)
#: Size of a cell of the place statistics: voxels in plane, and mm of depth.
CELL_VOXELS = 4
CELL_DEPTH_MM = 5.0


@dataclass(frozen=True)
class Quantiles:
    """An empirical distribution by its percentiles."""

    percentiles: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, samples: np.ndarray) -> Quantiles:
        """The distribution of samples of any shape."""
        grid = np.array(PERCENTILES, dtype=np.float64)
        return cls(grid, np.percentile(samples, grid))

    @classmethod
    def from_json(cls, data: Mapping[str, Sequence[float]]) -> Quantiles:
        """What :meth:`to_json` gave."""
        return cls(np.array(data["percentiles"], float), np.array(data["values"], float))

    def to_json(self) -> dict[str, list[float]]:
        """Two lists of the same length."""
        return {
            "percentiles": [round(float(p), 2) for p in self.percentiles],
            "values": [float(f"{v:.6g}") for v in self.values],
        }

    def value(self, percentile: float) -> float:
        """The value below which ``percentile`` (0 to 100) of the samples lie."""
        return float(np.interp(percentile, self.percentiles, self.values))


def p_value(score: float, healthy: Sequence[float]) -> float:
    """Chance that a healthy scan scores as high: (1 + #{healthy >= score}) / (1 + n).

    With n healthy scans it is never below 1 / (n + 1): that many scans can prove no more.
    """
    above = int(np.count_nonzero(np.asarray(healthy, float) >= score))
    return (1.0 + above) / (1.0 + len(healthy))


@dataclass(frozen=True)
class HealthyLevel:
    """What healthy scans give with a certain number of restorations.

    Fewer restorations leave more chance in the map, so that it is higher everywhere; figures are
    compared with healthy ones that were got in the same way.

    Attributes:
        restorations: how many.
        voxels: distribution of the anomaly map over healthy brain voxels.
        sample_scores: one per healthy scan, ascending.
    """

    restorations: int
    voxels: Quantiles
    sample_scores: tuple[float, ...]


@dataclass(frozen=True)
class ModeCalibration:
    """What one method, in one mode, gives on healthy scans.

    Attributes:
        restore_threshold: nats; a code whose NLL exceeds it is resampled. 0 in methods that have
            no use for it, as is ``slice_threshold``.
        slice_threshold: nats; codes above it count in the slice scores.
        levels: for ascending numbers of restorations, from the same scans.
        threshold_percentile: healthy percentile at which the mask is cut by default.
        codes: what the codes stand for, in modes that ask.
    """

    restore_threshold: float
    slice_threshold: float
    levels: tuple[HealthyLevel, ...]
    threshold_percentile: float
    codes: CodeValues | None = None

    def at(self, restorations: int) -> HealthyLevel:
        """The level of a number of restorations.

        Between two levels it is interpolated in 1 / S, in which the variance of a mean of S is
        linear; below the first and above the last level it is that level.
        """
        numbers = np.array([level.restorations for level in self.levels])
        above = int(np.searchsorted(numbers, restorations))
        if above == len(numbers) or numbers[above] == restorations or above == 0:
            return self.levels[min(above, len(numbers) - 1)]
        low, high = self.levels[above - 1], self.levels[above]
        share = (1 / low.restorations - 1 / restorations) / (
            1 / low.restorations - 1 / high.restorations
        )
        values = low.voxels.values + share * (high.voxels.values - low.voxels.values)
        few, many = np.array(low.sample_scores), np.array(high.sample_scores)
        return HealthyLevel(
            restorations,
            Quantiles(low.voxels.percentiles, values),
            tuple((few + share * (many - few)).tolist()),
        )

    def to_json(self) -> dict[str, Any]:
        """For ``calibration.json``."""
        return {
            "restore_threshold": self.restore_threshold,
            "slice_threshold": self.slice_threshold,
            "levels": [
                {
                    "restorations": level.restorations,
                    "voxels": level.voxels.to_json(),
                    "sample_scores": [float(f"{s:.6g}") for s in level.sample_scores],
                }
                for level in self.levels
            ],
            "threshold_percentile": self.threshold_percentile,
            **({"codes": self.codes.to_json()} if self.codes is not None else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModeCalibration:
        """What :meth:`to_json` gave.

        Raises:
            BundleError: a part is missing.
        """
        try:
            levels = [
                HealthyLevel(
                    int(level["restorations"]),
                    Quantiles.from_json(level["voxels"]),
                    tuple(sorted(float(s) for s in level["sample_scores"])),
                )
                for level in data["levels"]
            ]
            levels.sort(key=lambda level: level.restorations)
            if not levels or len({len(level.sample_scores) for level in levels}) > 1:
                raise ValueError("levels of the same healthy scans")
            return cls(
                float(data["restore_threshold"]),
                float(data["slice_threshold"]),
                tuple(levels),
                float(data["threshold_percentile"]),
                CodeValues.from_json(data["codes"]) if "codes" in data else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f"calibration.json lacks or garbles {error}; calibrate again"
            ) from error


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
        depth = np.round(_depth(position)).astype(int)[slices]
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
        """(value - usual) / spread at each voxel's place.

        Args:
            values: (N, rows, columns).
            position: (N,) in [-0.5, 0.5].
        """
        _, rows, columns = values.shape
        depth = _depth(position)
        r = (np.arange(rows) + 0.5) / CELL_VOXELS - 0.5
        c = (np.arange(columns) + 0.5) / CELL_VOXELS - 0.5
        where = np.meshgrid(depth, r, c, indexing="ij")
        mean = ndimage.map_coordinates(self.mean, where, order=1, mode="nearest")
        sd = ndimage.map_coordinates(self.sd, where, order=1, mode="nearest")
        return ((values - mean) / np.maximum(sd, 1e-6)).astype(np.float32)


def _depth(position: np.ndarray) -> np.ndarray:
    """Slice positions as fractional indices of depth."""
    return (0.5 - np.asarray(position, float)) * DEPTH_MM / CELL_DEPTH_MM
