"""Spheres of another intensity, in the style of the MOOD challenge's toy cases.

Each function returns the changed (I, J, K) voxels. ``size`` is a radius in mm; ``contrast`` is in
robust standard deviations of the brain's intensity.
"""

from __future__ import annotations

import numpy as np

from .geometry import Healthy, ball, random_direction, with_values


def uniform_sphere(
    scan: Healthy, centre: np.ndarray, size: float, contrast: float, seed: int
) -> np.ndarray:
    """One intensity; the contrast is its distance from the brain's median, negative is darker."""
    region = ball(scan, centre, size)
    return with_values(scan, region, np.full(region.distance.shape, scan.level(contrast)))


def noise_sphere(
    scan: Healthy, centre: np.ndarray, size: float, contrast: float, seed: int
) -> np.ndarray:
    """The scan with Gaussian noise added; the contrast is its standard deviation."""
    region = ball(scan, centre, size)
    noise = np.random.default_rng(seed).standard_normal(region.distance.shape)
    values = scan.volume.array[region.box] + contrast * scan.intensity[1] * noise
    return with_values(scan, region, np.maximum(values, scan.volume.array.min()))


def gradient_sphere(
    scan: Healthy, centre: np.ndarray, size: float, contrast: float, seed: int
) -> np.ndarray:
    """A ramp in a random direction, from minus the contrast to the contrast across the ball."""
    region = ball(scan, centre, size)
    direction = random_direction(np.random.default_rng(seed))
    # Rounded as places are, for the same reason.
    ramp = np.round(np.tensordot(direction, region.offset, 1) / size, 6)
    median, spread = scan.intensity
    values = np.maximum(median + contrast * spread * ramp, scan.volume.array.min())
    return with_values(scan, region, values)
