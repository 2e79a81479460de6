"""What healthy scans give: thresholds, percentiles, p-values, and normative values at each place.

Calibration scans are healthy and were not trained on. Everything here is numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import BundleError
from .code_values import CodeValues
from .quantiles import Quantiles

#: Healthy voxels below the default threshold of the mask, percent.
THRESHOLD_PERCENTILE = 99.8


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
