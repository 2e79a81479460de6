"""Quantiles of healthy values: map values and likelihoods by percentile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

#: Percentiles kept of voxel values and of code NLLs: fine where thresholds are cut.
PERCENTILES = (
    *range(0, 90),
    *np.round(np.arange(90.0, 99.0, 0.25), 2).tolist(),
    *np.round(np.arange(99.0, 99.875, 0.05), 2).tolist(),
    *np.round(np.arange(99.9, 100.0, 0.01), 2).tolist(),
    100.0,
)


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
