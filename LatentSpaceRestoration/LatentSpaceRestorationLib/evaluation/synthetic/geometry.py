"""Places in a healthy scan, where anomalies are put."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from ...model_space import spread_of_quartiles
from ...volume import Volume, positions

Box = tuple[slice, slice, slice]

#: Places are rounded to so many decimals, in mm or voxels: machines whose last bits differ must
#: agree on which voxels a ball holds and on what lies halfway between two.
_DECIMALS = 6


@dataclass(frozen=True)
class Healthy:
    """A healthy scan that anomalies are put into.

    Attributes:
        volume: the scan on its native grid.
        brain: (I, J, K) bool; nothing outside it changes, but for artefacts.
    """

    volume: Volume
    brain: np.ndarray

    @cached_property
    def intensity(self) -> tuple[float, float]:
        """Median of the brain, and its robust standard deviation (interquartile range / 1.349)."""
        low, median, high = np.percentile(self.volume.array[self.brain], (25, 50, 75))
        return float(median), float(spread_of_quartiles(low, high))

    @cached_property
    def extent(self) -> tuple[np.ndarray, np.ndarray]:
        """(3,) lowest and highest RAS coordinates of the brain, in mm."""
        points = positions(self.brain, self.volume.affine)
        return points.min(axis=0), points.max(axis=0)

    def level(self, contrast: float) -> float:
        """The intensity ``contrast`` robust standard deviations from the median; never below the
        scan's darkest voxel."""
        median, spread = self.intensity
        return max(float(self.volume.array.min()), median + contrast * spread)


@dataclass(frozen=True)
class BrainPart:
    """The voxels of the brain within some distance of a centre.

    Attributes:
        box: the smallest box of voxels that holds them.
        offset: (3, i, j, k) RAS mm from the centre, in the box.
        distance: (i, j, k) mm from the centre.
        inside: (i, j, k) bool, in the brain and within the radius.
    """

    box: Box
    offset: np.ndarray
    distance: np.ndarray
    inside: np.ndarray


def ball(scan: Healthy, centre: np.ndarray, radius_mm: float) -> BrainPart:
    """The part of the brain within ``radius_mm`` of ``centre``, (3,) RAS in mm."""
    volume = scan.volume
    to_index = np.linalg.inv(volume.affine)
    middle = np.round(to_index[:3, :3] @ centre + to_index[:3, 3], _DECIMALS)
    # How far a ball reaches along each axis of the grid, whatever its obliquity.
    reach = np.round(radius_mm * np.linalg.norm(to_index[:3, :3], axis=1), _DECIMALS)
    low = np.clip(np.floor(middle - reach).astype(int), 0, np.array(volume.shape) - 1)
    high = np.clip(np.ceil(middle + reach).astype(int) + 1, low + 1, volume.shape)
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    index = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in (i, j, k)), indexing="ij"))
    offset = np.tensordot(volume.affine[:3, :3], index - middle[:, None, None, None], 1)
    offset = np.round(offset, _DECIMALS)
    distance = np.round(np.sqrt(np.square(offset).sum(axis=0)), _DECIMALS)
    inside = (distance <= radius_mm) & scan.brain[i, j, k]
    return BrainPart((i, j, k), offset, distance, inside)


def random_centre(scan: Healthy, generator: np.random.Generator) -> np.ndarray:
    """(3,) RAS mm of a voxel at least 6 mm inside the brain, or as deep as the brain is."""
    depth = ndimage.distance_transform_edt(scan.brain, sampling=scan.volume.spacing)
    places = np.argwhere(depth >= min(6.0, float(depth.max())))
    index = places[generator.integers(len(places))]
    return np.asarray(scan.volume.affine[:3, :3] @ index + scan.volume.affine[:3, 3])


def random_direction(generator: np.random.Generator) -> np.ndarray:
    """(3,) a unit vector, all directions alike."""
    vector = generator.standard_normal(3)
    return np.asarray(vector / np.linalg.norm(vector))


def look_up(scan: Healthy, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intensities at points between voxels, by linear interpolation.

    Args:
        scan: the scan.
        points: (3, ...) RAS in mm.

    Returns:
        (...) float32 intensities; (...) bool, whether the point lies in the brain.
    """
    to_index = np.linalg.inv(scan.volume.affine)
    at = np.tensordot(to_index[:3, :3], points, 1)
    at = np.round(at + to_index[:3, 3].reshape(3, *[1] * (points.ndim - 1)), _DECIMALS)
    values = ndimage.map_coordinates(
        scan.volume.array, at, output=np.float32, order=1, mode="nearest"
    )
    brain = ndimage.map_coordinates(scan.brain.astype(np.uint8), at, order=0, mode="constant")
    return values, brain > 0


def with_values(
    scan: Healthy, region: BrainPart, values: np.ndarray, where: np.ndarray | None = None
) -> np.ndarray:
    """The scan's voxels with ``values`` put into a region, on its box, or into a part of it."""
    array = scan.volume.array.astype(np.float32, copy=True)
    inside = region.inside if where is None else region.inside & where
    array[region.box] = np.where(inside, values, array[region.box])
    return array
