"""Scores of very many voxels, counted.

A voxel's score is kept to 10 bits of its mantissa (a tenth of a percent) whatever its size, so that
one rule serves every method's map, histograms of different scans can be added up, and 10^9 voxels
take some 10^4 bins. Precision and recall are those of the rounded scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

#: Bits of float32 that are dropped: 23 of the mantissa less those kept.
_DROPPED = 13


@dataclass(frozen=True)
class Histogram:
    """How many normal and anomalous voxels have which score.

    Attributes:
        keys: (n,) uint32 ascending, of rounded scores.
        normal, anomalous: (n,) uint64, voxels.
    """

    keys: np.ndarray
    normal: np.ndarray
    anomalous: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, label: np.ndarray) -> Histogram:
        """Count the voxels of a map.

        Args:
            values: any shape; higher is more anomalous, negative counts as 0.
            label: bool of the same shape.
        """
        scores = np.maximum(values.ravel().astype(np.float32), np.float32(0.0)) + np.float32(0.0)
        # Of floats that are not negative the bits have the order of the numbers.
        every = (scores.view(np.uint32) >> _DROPPED).astype(np.int32)
        voxels = np.bincount(every)
        anomalous = np.bincount(every[label.ravel()], minlength=len(voxels))
        keys = np.flatnonzero(voxels)
        normal = (voxels - anomalous)[keys]
        return cls(
            keys.astype(np.uint32), normal.astype(np.uint64), anomalous[keys].astype(np.uint64)
        )

    @property
    def scores(self) -> np.ndarray:
        """(n,) float32, ascending: the least score of each bin."""
        return (self.keys.astype(np.uint32) << _DROPPED).view(np.float32)


@dataclass(frozen=True)
class Table:
    """Histograms of several scans on the same bins.

    Attributes:
        scores: (bins,) descending.
        normal, anomalous: (scans, bins) float64.
    """

    scores: np.ndarray
    normal: np.ndarray
    anomalous: np.ndarray

    @classmethod
    def of(cls, histograms: Sequence[Histogram]) -> Table:
        """One row a histogram."""
        keys = np.unique(np.concatenate([h.keys for h in histograms]))[::-1]
        normal = np.zeros((len(histograms), len(keys)))
        anomalous = np.zeros_like(normal)
        for row, histogram in enumerate(histograms):
            at = len(keys) - 1 - np.searchsorted(keys[::-1], histogram.keys)
            normal[row, at] = histogram.normal
            anomalous[row, at] = histogram.anomalous
        scores = Histogram(keys, normal, anomalous).scores
        return cls(scores, normal, anomalous)

    @classmethod
    def of_scores(cls, scores: Iterable[float], truth: Iterable[bool]) -> Table:
        """One row a scan, of its one score."""
        values, anomalous = np.array(list(scores), float), np.array(list(truth), bool)
        bins = np.unique(values)[::-1]
        rows = values[:, None] == bins
        return cls(bins, rows & ~anomalous[:, None], rows & anomalous[:, None])

    def ap_and_auroc(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Average precision, and area under the ROC curve, of all voxels together.

        As scikit-learn defines them, for many sets of weights at a time.

        Args:
            weights: (r, scans), how often each scan counts; one row a replicate.

        Returns:
            (r,) and (r,); not a number where nothing, or everything, is anomalous.
        """
        hit, false = self._cumulative(weights)
        gained = np.diff(hit, axis=1, prepend=0.0)
        rejected = np.diff(false, axis=1, prepend=0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.where(gained > 0, hit / (hit + false), 0.0)
            ap = (gained * precision).sum(axis=1) / hit[:, -1]
            area = (rejected * (hit - 0.5 * gained)).sum(axis=1)
            return ap, area / (hit[:, -1] * false[:, -1])

    def best_dice(self) -> float:
        """Dice at the threshold that is best for all scans together: that of an oracle."""
        hit, false = self._cumulative(np.ones((1, len(self.normal))))
        return float((2.0 * hit / np.maximum(hit + false + hit[:, -1:], 1.0)).max())

    def weighted(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels, scores and counts, as scikit-learn takes them, with its ``sample_weight``.

        Args:
            weights: (scans,), how often each counts.
        """
        normal, anomalous = weights @ self.normal, weights @ self.anomalous
        labels = np.repeat([False, True], len(self.scores))
        counts = np.concatenate([normal, anomalous])
        there = counts > 0
        return labels[there], np.tile(self.scores, 2)[there], counts[there]

    def _cumulative(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(r, bins) weighted counts with this score or a higher one: anomalous, normal."""
        anomalous = np.cumsum(weights @ self.anomalous.astype(float), axis=1)
        return anomalous, np.cumsum(weights @ self.normal.astype(float), axis=1)
