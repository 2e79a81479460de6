"""Grids that scans come in: any order and direction of axes, oblique, of any spacing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from hypothesis import strategies as st
from LatentSpaceRestorationLib.volume import Volume

#: All 48 ways to lay the array's axes along the patient's: (3, 3) signed permutations.
ORIENTATIONS = [
    np.eye(3)[:, order] * np.array(signs)
    for order in permutations(range(3))
    for signs in product((1.0, -1.0), repeat=3)
]


@dataclass(frozen=True)
class ScanGrid:
    """Shape and affine of a scan."""

    shape: tuple[int, int, int]
    affine: np.ndarray

    def world(self, index: np.ndarray) -> np.ndarray:
        """(..., 3) voxel indices -> (..., 3) RAS in mm."""
        return index @ self.affine[:3, :3].T + self.affine[:3, 3]

    def positions(self) -> np.ndarray:
        """(I, J, K, 3) RAS in mm of every voxel's centre."""
        return self.world(np.moveaxis(np.indices(self.shape), 0, -1))

    @property
    def centre(self) -> np.ndarray:
        """(3,) RAS in mm."""
        return self.world((np.array(self.shape) - 1) / 2.0)


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """(3, 3) rotation about x, then y, then z."""
    result = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        a, b = [k for k in range(3) if k != axis]
        step = np.eye(3)
        step[a, a] = step[b, b] = np.cos(angle)
        step[a, b], step[b, a] = -np.sin(angle), np.sin(angle)
        result = step @ result
    return result


@st.composite
def scan_grids(draw: st.DrawFn, least_mm: float = 66.0, most_mm: float = 80.0) -> ScanGrid:
    """Grids of some extent along each axis, oblique, of odd and even sizes, 0.4 to 6 mm."""
    orientation = draw(st.sampled_from(ORIENTATIONS))
    degrees = draw(st.tuples(*[st.floats(-45.0, 45.0)] * 3))
    # One axis may be fine; if all were, the tests would take long.
    spacing = np.array([draw(st.floats(0.4, 6.0)), *draw(st.tuples(*[st.floats(1.2, 6.0)] * 2))])
    extent = np.array(draw(st.tuples(*[st.floats(least_mm, most_mm)] * 3)))
    origin = draw(st.tuples(*[st.floats(-150.0, 150.0)] * 3))
    affine = np.eye(4)
    affine[:3, :3] = rotation(degrees) @ orientation * spacing
    affine[:3, 3] = origin
    i, j, k = (int(n) for n in np.ceil(extent / spacing) + 1)
    return ScanGrid((i, j, k), affine)


def stored_as(volume: Volume, orientation: np.ndarray) -> Volume:
    """The same scan with its array's axes laid out another way.

    Args:
        volume: along RAS.
        orientation: one of ``ORIENTATIONS``; new axis n runs along column n.
    """
    order = np.abs(orientation).argmax(axis=0)
    signs = orientation.sum(axis=0)
    array = np.transpose(volume.array, order)[tuple(slice(None, None, int(s)) for s in signs)]
    to_old = np.eye(4)  # index in the new array -> index in the old one
    to_old[:3, :3] = orientation
    for new, (old, sign) in enumerate(zip(order, signs, strict=True)):
        to_old[old, 3] = 0.0 if sign > 0 else array.shape[new] - 1
    return Volume(np.ascontiguousarray(array), volume.affine @ to_old, volume.name)
