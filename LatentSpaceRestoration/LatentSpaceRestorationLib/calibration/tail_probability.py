"""How rare a value is among healthy voxels of its kind: one scale for maps of every sort.

A residual, a likelihood and a difference have other units and other tails, and near the edge of the
brain, where its mask is drawn a little differently in each scan, all of them have heavier ones. So
each map's value becomes -log10 of the share of healthy voxels, as far from the edge, that have as
high a one: 2 is one in a hundred, whatever the map and the place. Everything here is numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

#: Zones of the brain by the distance from its edge, in mm: up to the first, to the second, ...
ZONE_ENDS_MM = (3.0, 7.0, 13.0)
_STEP = 0.05
#: Values at which healthy voxels are counted, in standard deviations of their place.
_VALUES = np.arange(0.0, 64.0, _STEP)
#: A share is told from at least so many voxels; beyond, the tail goes on as an exponential one.
_FEWEST = 30
#: The slope of that tail is taken over this factor of shares.
_SLOPE_OVER = 100.0


def zones(mask: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Zone of each voxel by its distance from the edge of the brain.

    Args:
        mask: (N, rows, columns) bool, brain.
        spacing_mm: of the voxels.

    Returns:
        (N, rows, columns) uint8, 0 at the edge, and outside the brain.
    """
    distance = ndimage.distance_transform_edt(mask, sampling=spacing_mm)
    return np.digitize(distance, ZONE_ENDS_MM).astype(np.uint8)


@dataclass(frozen=True)
class TailCounts:
    """How many healthy voxels of each zone have a value between two of a ladder.

    Attributes:
        count: (zones, steps) int64.
    """

    count: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, zone: np.ndarray) -> TailCounts:
        """Counts of one scan.

        Args:
            values: (n,) of brain voxels; negative counts as 0.
            zone: (n,) from :func:`zones`.
        """
        step = np.clip(values / _STEP, 0, len(_VALUES) - 1).astype(np.int64)
        kinds = len(ZONE_ENDS_MM) + 1
        found = np.bincount(
            zone.astype(np.int64) * len(_VALUES) + step, minlength=kinds * len(_VALUES)
        )
        return cls(found.reshape(kinds, len(_VALUES)))

    def __add__(self, other: TailCounts) -> TailCounts:
        return TailCounts(self.count + other.count)

    def __sub__(self, other: TailCounts) -> TailCounts:
        return TailCounts(self.count - other.count)


@dataclass(frozen=True)
class TailProbability:
    """-log10 of the share of healthy voxels with as high a value, by zone.

    Attributes:
        ladder: (zones, steps) float32, at each of a ladder of values.
    """

    ladder: np.ndarray

    @classmethod
    def from_counts(cls, counts: TailCounts) -> TailProbability:
        """From counts of several scans; zones with too few voxels have those of all zones."""
        every = counts.count.sum(axis=0)
        rows = [row if row.sum() >= 100 * _FEWEST else every for row in counts.count]
        return cls(np.stack([_ladder(row) for row in rows]).astype(np.float32))

    def of(self, values: np.ndarray, zone: np.ndarray) -> np.ndarray:
        """Rarity of each value.

        Args:
            values: (n,) or any shape; negative counts as 0.
            zone: of the same shape, from :func:`zones`.

        Returns:
            float32 of that shape, at least 0.
        """
        place = np.maximum(values, 0.0) / _STEP
        low = np.minimum(place, len(_VALUES) - 2).astype(np.int64)
        first, second = self.ladder[zone, low], self.ladder[zone, low + 1]
        return (first + (place - low) * (second - first)).astype(np.float32)


def _ladder(count: np.ndarray) -> np.ndarray:
    """(steps,) -log10 of the share of values of at least each step, which never falls."""
    above = np.cumsum(count[::-1])[::-1].astype(float)
    if above[0] < _FEWEST:  # nothing is known: a value is as rare as it is high
        return _VALUES.copy()
    last = int(np.flatnonzero(above >= _FEWEST)[-1])
    tail = -np.log10(above[: last + 1] / above[0])
    start = int(np.searchsorted(tail, tail[-1] - np.log10(_SLOPE_OVER)))
    start = min(start, last - 1) if last else 0
    slope = (tail[-1] - tail[start]) / max(last - start, 1)
    beyond = tail[-1] + max(slope, 1e-3) * np.arange(1, len(count) - last)
    return np.concatenate([tail, beyond])
