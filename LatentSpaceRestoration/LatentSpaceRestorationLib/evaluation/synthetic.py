"""Anomalies put into healthy scans at native resolution. They are synthetic, and called so."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from ..volume import Volume


@dataclass(frozen=True)
class Sphere:
    """A sphere of one intensity, in the style of the MOOD challenge's toy cases.

    Attributes:
        centre: (3,) RAS in mm.
        radius_mm: radius.
        contrast: intensity in robust standard deviations of the brain from its median.
    """

    centre: tuple[float, float, float]
    radius_mm: float
    contrast: float


def random_sphere(
    volume: Volume,
    brain: np.ndarray,
    seed: int,
    *,
    radius_mm: tuple[float, float] = (10.0, 30.0),
    contrast: tuple[float, float] = (1.2, 3.0),
) -> Sphere:
    """A sphere with its centre at least 6 mm inside the brain; odd seeds are dark, even bright.

    Args:
        volume: (I, J, K) scan.
        brain: (I, J, K) bool.
        seed: of the place, the radius and the contrast.
        radius_mm: smallest and largest radius.
        contrast: smallest and largest contrast, without the sign.
    """
    generator = np.random.default_rng([seed, 7])
    depth = ndimage.distance_transform_edt(brain, sampling=volume.spacing)
    places = np.argwhere(depth >= min(6.0, float(depth.max())))
    index = places[generator.integers(len(places))]
    centre = volume.affine[:3, :3] @ index + volume.affine[:3, 3]
    radius = generator.uniform(*radius_mm)
    sign = -1.0 if seed % 2 else 1.0
    x, y, z = (float(c) for c in centre)
    return Sphere((x, y, z), float(radius), sign * float(generator.uniform(*contrast)))


def paint_sphere(volume: Volume, brain: np.ndarray, sphere: Sphere) -> tuple[Volume, np.ndarray]:
    """Paint a sphere into the brain.

    Args:
        volume: (I, J, K) scan.
        brain: (I, J, K) bool; nothing outside it changes.
        sphere: what to paint.

    Returns:
        the changed scan, and its (I, J, K) bool label: where a voxel changed.
    """
    low, median, high = np.percentile(volume.array[brain], (25, 50, 75))
    darkest = float(volume.array.min())
    value = max(darkest, float(median + sphere.contrast * (high - low) / 1.349))
    index = np.indices(volume.shape).reshape(3, -1)
    offset = volume.affine[:3, :3] @ index + (volume.affine[:3, 3] - sphere.centre)[:, None]
    within = (np.square(offset).sum(axis=0) <= sphere.radius_mm**2).reshape(volume.shape)
    label = within & brain
    array = np.where(label, np.float32(value), volume.array).astype(np.float32)
    return replace(volume, array=array), label
