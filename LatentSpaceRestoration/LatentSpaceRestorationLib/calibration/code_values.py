"""What the codes of a codebook stand for in healthy scans: what a prior expects, in numbers.

A prior tells how likely each code is. With what each stands for, that becomes what is to be
expected of the scan at a place, and how far a healthy scan may well be from it. Everything here is
numpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Voxels' worth of the mean over all codes, for codes that are hardly ever seen.
_FEW = 16.0


@dataclass(frozen=True)
class CodeValues:
    """Means over the cells of each code.

    Attributes:
        intensity: (K,) float32, of the scan, in its robust standard deviations.
        residual: (K,) float32, of the absolute difference of the scan and its reconstruction, in
            the brain.
    """

    intensity: np.ndarray
    residual: np.ndarray

    @classmethod
    def of(
        cls, keys: int, scans: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]
    ) -> CodeValues:
        """Those of healthy scans.

        Args:
            keys: K, size of the codebook.
            scans: of each (N, h, w) codes; (N, rows, columns) slices, reconstruction and brain
                mask.
        """
        sums = np.zeros((4, keys))
        for codes, slices, back, mask in scans:
            brain = mask.astype(np.float32)
            ones = np.ones_like(brain)
            for row, voxels in enumerate((slices, ones, np.abs(slices - back) * brain, brain)):
                weights = by_cell(voxels, codes.shape).ravel()
                sums[row] += np.bincount(codes.ravel(), weights, minlength=keys)

        def mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
            overall = total.sum() / max(count.sum(), 1.0)
            return ((total + _FEW * overall) / (count + _FEW)).astype(np.float32)

        return cls(mean(sums[0], sums[1]), mean(sums[2], sums[3]))

    @classmethod
    def from_json(cls, data: Mapping[str, Sequence[float]]) -> CodeValues:
        """What :meth:`to_json` gave; KeyError, TypeError or ValueError if it is not."""
        return cls(*(np.array(data[name], np.float32) for name in ("intensity", "residual")))

    def to_json(self) -> dict[str, Any]:
        """For ``calibration.json``."""
        return {
            name: [float(f"{v:.6g}") for v in values]
            for name, values in (("intensity", self.intensity), ("residual", self.residual))
        }

    def moments(self) -> np.ndarray:
        """(K, 3) float32: intensity, its square, and residual, to take means of."""
        return np.stack([self.intensity, self.intensity**2, self.residual], axis=1)


def by_cell(voxels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(N, rows, columns) -> (N, h, w), sums over the cells of a code grid."""
    n, h, w = shape
    rows, columns = voxels.shape[1:]
    return np.asarray(voxels.reshape(n, h, rows // h, w, columns // w).sum(axis=(2, 4)))
