"""Shading: the smooth field that a scanner's coils multiply a brain's intensities by.

It is most of what tells scanners apart, once a brain's intensities are scaled. Here it is what is
left of the scan, on a logarithmic scale, beside the intensities that are usual at each place: a
polynomial in space, by robust regression, so that an anomaly counts for little (Cauchy's weights;
Holland and Welsch 1977). Bias fields are told apart from anatomy by an atlas as in Ashburner and
Friston, Unified segmentation, NeuroImage 2005.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from ..calibration.atlas import PlaceSums
from ..model_space import CLIP, Grid
from .alignment import positions_of
from .slices import PreparedScan, ResampledScan

#: Steps of the regression, and its tuning constant in median absolute deviations.
_STEPS, _TUNING = 10, 3.0
#: Fewer places than this tell no field.
_FEWEST_PLACES = 100
#: Of the intensities, in the units of :func:`slices.normalise`, that nothing lies below.
_DARKEST = -CLIP + 0.3
#: Middle of a brain and half its size, mm from the middle of its sides and from its top.
_MIDDLE_MM, _HALF_MM = np.array([0.0, 0.0, -66.0]), np.array([70.0, 90.0, 70.0])
#: The field is looked at no further from the middle than this, in halves of a brain.
_REACH = 1.1
#: And is at most so many times brighter or darker than in its middle.
_MOST = 4.0
#: Standard deviation over the brain of the logarithm of what is found in scans of one scanner,
#: about their mean: anatomy, not shading. Measured in 30 scans of IXI and 30 of two other scanners:
#: 0.041 to 0.054 at second order, and 0.10 to 0.15 between the means of scanners.
_ANATOMY = 0.045


@dataclass(frozen=True)
class Shading:
    """How to tell the shading of a scan that lies as the atlas does.

    Attributes:
        atlas: (depths, h, w) intensities from :func:`alignment.read_atlas`, left and right alike.
        grid: of the model.
        order: of the polynomial; 0 is no shading.
    """

    atlas: np.ndarray
    grid: Grid
    order: int

    @classmethod
    def of(cls, atlas: np.ndarray | None, grid: Grid, order: int) -> Shading | None:
        """None where there is no atlas, or no shading is to be told."""
        if atlas is None or order < 1:
            return None
        return cls((atlas + atlas[:, :, ::-1]) / 2.0, grid, order)

    def coefficients(self, prepared: PreparedScan) -> np.ndarray | None:
        """(terms,) of the logarithm of the field; None if there are too few places to tell it.

        Args:
            prepared: the scan, aligned, with its shading.
        """
        sums = PlaceSums.of(prepared.slices, prepared.mask, prepared.position)
        known = sums.filled
        if known.shape != self.atlas.shape or np.count_nonzero(known) < _FEWEST_PLACES:
            return None
        mine = sums.total[known] / sums.count[known]
        lift = np.log(np.maximum(mine, _DARKEST) + CLIP)
        lift -= np.log(np.maximum(self.atlas[known], _DARKEST) + CLIP)
        terms = self._terms(positions_of(self.atlas.shape, self.grid)[known])
        weight = np.ones(len(lift))
        for _ in range(_STEPS):
            root = np.sqrt(weight)
            found = np.linalg.lstsq(terms * root[:, None], lift * root, rcond=None)[0]
            left = lift - terms @ found
            width = _TUNING * max(float(np.median(np.abs(left))), 1e-6)
            weight = 1.0 / (1.0 + (left / width) ** 2)
        return np.asarray(found)

    def field(self, coefficients: np.ndarray, head: ResampledScan, mask: np.ndarray) -> np.ndarray:
        """(slices, rows, columns) float32, what intensities were multiplied by; 1 in the middle.

        Args:
            coefficients: from :meth:`coefficients`.
            head: the scan, aligned: its origin is the middle of the brain's sides, and its top,
                and its axes are those of the grid.
            mask: (slices, rows, columns) bool, brain, of which the median of the field is 1.
        """
        slices, rows, columns = (np.arange(size) for size in head.array.shape)
        x = _scaled(head.affine[0, 2] * columns + head.affine[0, 3], 0)
        y = _scaled(head.affine[1, 1] * rows + head.affine[1, 3], 1)
        z = _scaled(head.affine[2, 0] * slices + head.affine[2, 3], 2)
        log = np.zeros(head.array.shape)
        for (i, j, k), weight in zip(self._powers(), coefficients, strict=True):
            log += (weight * z**k)[:, None, None] * (y**j)[:, None] * x**i
        log -= np.median(log[mask])
        # Shrunk by what is no more than anatomy (James and Stein 1961).
        log *= max(0.0, 1.0 - (_ANATOMY / max(float(log[mask].std()), 1e-6)) ** 2)
        return np.exp(np.clip(log, -np.log(_MOST), np.log(_MOST))).astype(np.float32)

    def _terms(self, points: np.ndarray) -> np.ndarray:
        """(n, terms) monomials of (n, 3) points in mm."""
        x, y, z = (_scaled(points[:, axis], axis) for axis in range(3))
        return np.stack([x**i * y**j * z**k for i, j, k in self._powers()], axis=1)

    def _powers(self) -> list[tuple[int, int, int]]:
        powers = product(range(self.order + 1), repeat=3)
        return [(i, j, k) for i, j, k in powers if i + j + k <= self.order]


def _scaled(mm: np.ndarray, axis: int) -> np.ndarray:
    return np.clip((mm - _MIDDLE_MM[axis]) / _HALF_MM[axis], -_REACH, _REACH)


def unshaded(
    head: ResampledScan, prepared: PreparedScan, field: np.ndarray
) -> tuple[ResampledScan, float]:
    """A head without its shading, and the intensity that it leaves as it is.

    Args:
        head: native intensities.
        prepared: the same, in units of its brain.
        field: from :meth:`Shading.field`.
    """
    dark = prepared.centre - CLIP * prepared.scale
    array = (dark + (head.array - dark) / field).astype(np.float32)
    return replace(head, array=array), dark
