"""Patches of another healthy brain, put in by interpolation or by their gradients.

Each function returns the changed (I, J, K) voxels. ``size`` is the radius in mm of the patch.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import cg

from .geometry import BrainPart, Healthy, ball, look_up, with_values


def foreign_patch(
    scan: Healthy, centre: np.ndarray, size: float, contrast: float, seed: int, donor: Healthy
) -> np.ndarray:
    """A ball of another healthy brain shines through: foreign-patch interpolation.

    The values are (1 - contrast) of the scan and ``contrast`` of the other.

    Tan et al., "Detecting outliers with foreign patch interpolation", 2020. The patch is a ball and
    not a box, so that its edges do not follow the grid.
    """
    region = ball(scan, centre, size)
    before = scan.volume.array[region.box]
    values, in_brain = _of_donor(scan, region, centre, donor)
    return with_values(scan, region, before + contrast * (values - before), in_brain)


def poisson_patch(
    scan: Healthy, centre: np.ndarray, size: float, contrast: float, seed: int, donor: Healthy
) -> np.ndarray:
    """A ball of another healthy brain, put in by its gradients, so that it has no edge.

    Poisson image interpolation: the patch has mixed gradients and the scan's own border.

    Tan et al., "Detecting outliers with Poisson image interpolation", MICCAI 2021: within the patch
    the result u solves laplace(u) = div((1 - contrast) grad(scan) + contrast grad(donor)), and
    around it u is the scan. There is no edge, so that only what is inside can tell.
    """
    region = ball(scan, centre, size)
    before = scan.volume.array[region.box].astype(np.float64)
    values, in_brain = _of_donor(scan, region, centre, donor)
    where = region.inside & in_brain
    # The border of the box has no neighbours on one side; a ball ends before it, but for a ball
    # that the edge of the scan cuts.
    for axis in range(3):
        edge = np.moveaxis(where, axis, 0)
        edge[0] = edge[-1] = False
    if not where.any():
        return scan.volume.array.astype(np.float32, copy=True)
    # What is unknown is the change d = u - scan: laplace(d) = contrast laplace(donor - scan) in
    # the patch and d = 0 around it, which starts from where it nearly is.
    difference = contrast * (values.astype(np.float64) - before)
    change = _solve(difference, where)
    return with_values(scan, region, before + change, where)


def _of_donor(
    scan: Healthy, region: BrainPart, centre: np.ndarray, donor: Healthy
) -> tuple[np.ndarray, np.ndarray]:
    """The donor's intensities on the region, its brain brought to the extent and the intensities of
    the scan's; and whether they are of its brain."""
    low, high = scan.extent
    other_low, other_high = donor.extent
    scale = (other_high - other_low) / np.maximum(high - low, 1e-6)
    offset = scale * (centre - low) + other_low
    points = region.offset * scale[:, None, None, None] + offset[:, None, None, None]
    values, in_brain = look_up(donor, points)
    (median, spread), (other_median, other_spread) = scan.intensity, donor.intensity
    level = median + (values - other_median) * (spread / max(other_spread, 1e-12))
    return np.maximum(level, scan.volume.array.min()).astype(np.float32), in_brain


def _solve(target: np.ndarray, where: np.ndarray) -> np.ndarray:
    """d with laplace(d) = laplace(target) where asked, and d = 0 elsewhere.

    Args:
        target: (i, j, k) float64.
        where: (i, j, k) bool, False on the border of the box.
    """
    number = np.full(where.shape, -1)
    number[where] = np.arange(int(where.sum()))
    rows, columns = [], []
    right = 6.0 * target[where]
    for axis in range(3):
        for step in (1, -1):
            neighbour = np.roll(number, step, axis=axis)[where]
            right -= np.roll(target, step, axis=axis)[where]
            rows.append(np.flatnonzero(neighbour >= 0))
            columns.append(neighbour[neighbour >= 0])
    row, column = np.concatenate(rows), np.concatenate(columns)
    size = len(right)
    laplace = sparse.csr_matrix((np.full(len(row), -1.0), (row, column)), shape=(size, size))
    laplace = (laplace + 6.0 * sparse.identity(size)).tocsr()
    solution, failed = cg(laplace, right, rtol=1e-9, maxiter=5000)
    if failed:
        raise ArithmeticError("the Poisson equation was not solved")
    result = np.zeros(where.shape)
    result[where] = solution
    return result
