"""Running averages over restorations, so that none of them has to be kept.

All arrays are numpy, in model space: (N, rows, columns). Sums are in float64: the result does not
depend, to float32's precision, on the order or the groups in which restorations come.
"""

from __future__ import annotations

import numpy as np

_SMALLEST_DISTANCE = 1e-6


class Averages:
    """Mean, spread and weighted residual of the restorations seen so far.

    The weights w_j of equation 6, the softmax over the restorations j of a slice of k over the mean
    of |Y - X_j|, are exact: exponents are kept relative to the largest so far (a running
    log-sum-exp), and the sums are scaled down when a larger one comes.

    Args:
        slices: (N, H, W), Y.
        sharpness: k of the weights; None leaves the weighted residual out.

    Attributes:
        restorations: how many of each slice have been added.
        mean: (N, H, W) float64.
        replaced: (N, h, w) float64, share of the restorations in which a code was replaced.
    """

    def __init__(self, slices: np.ndarray, sharpness: float | None = None) -> None:
        self._slices, self._sharpness = slices, sharpness
        self.restorations = 0
        self.replaced = np.zeros((len(slices), 1, 1))
        self.mean = np.zeros(slices.shape)
        self._squares = np.zeros(slices.shape)  # summed squared distances from the mean
        self._count = np.zeros(len(slices), dtype=int)
        if sharpness is not None:
            self._residual = np.zeros(slices.shape)
            self._weight = np.zeros(len(slices))
            self._largest = np.full(len(slices), -np.inf)

    def add(self, index: int, restored: np.ndarray, times: int = 1) -> None:
        """Count a restoration of slice ``index``, (H, W), as ``times`` equal ones.

        Mean and squares by the update of Chan, Golub and LeVeque (1979).
        """
        self._count[index] += times
        difference = restored - self.mean[index]
        self.mean[index] += difference * (times / self._count[index])
        self._squares[index] += times * difference * (restored - self.mean[index])
        if self._sharpness is not None:
            self._add_residual(index, restored, times)

    def _add_residual(self, index: int, restored: np.ndarray, times: int) -> None:
        assert self._sharpness is not None
        residual = np.abs(self._slices[index] - restored)
        exponent = self._sharpness / max(float(residual.mean(dtype=float)), _SMALLEST_DISTANCE)
        largest = max(exponent, self._largest[index])
        before = np.exp(self._largest[index] - largest)  # 0 at first
        weight = times * np.exp(exponent - largest)
        self._residual[index] = self._residual[index] * before + residual * weight
        self._weight[index] = self._weight[index] * before + weight
        self._largest[index] = largest

    def close_group(self, count: int, replaced: np.ndarray) -> None:
        """Say that ``count`` restorations of every slice are in, and what was replaced in them.

        Args:
            count: how many.
            replaced: (N, h, w), the share of them in which a code was replaced.

        Raises:
            ValueError: a slice has more or fewer.
        """
        total = self.restorations + count
        if (self._count != total).any():
            raise ValueError(f"not every slice has {total} restorations")
        self.replaced = self.replaced + (replaced - self.replaced) * count / total
        self.restorations = total

    @property
    def sd(self) -> np.ndarray:
        """(N, H, W) standard deviation over the restorations (not corrected for their number)."""
        return np.sqrt(np.maximum(self._squares, 0.0) / np.maximum(self._count, 1)[:, None, None])

    @property
    def weighted_residual(self) -> np.ndarray:
        """(N, H, W), AS_pixel before filtering (equation 5): sum over j of w_j |Y - X_j|.

        Raises:
            ValueError: there is no sharpness.
        """
        if self._sharpness is None:
            raise ValueError("the weighted residual was not asked for")
        return self._residual / np.maximum(self._weight, 1e-300)[:, None, None]
