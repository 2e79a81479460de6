"""Anatomy in the wrong place or shape: the intensities are the scan's own.

Each function returns the changed (I, J, K) voxels. ``size`` is the radius in mm of the ball that
changes. What would come from outside the brain is left as it was, since skull or air inside a brain
would be found by its intensity alone.
"""

from __future__ import annotations

import numpy as np

from .geometry import BrainPart, Healthy, ball, look_up, random_direction, with_values


def sink(scan: Healthy, centre: np.ndarray, size: float, contrast: float, seed: int) -> np.ndarray:
    """Tissue drawn towards the centre, most where it is near.

    What is shown at distance r comes from r (1 + contrast (1 - r / size)^2); the map has no folds
    for contrasts up to 2.
    """
    return _radial(scan, centre, size, contrast)


def source(
    scan: Healthy, centre: np.ndarray, size: float, contrast: float, seed: int
) -> np.ndarray:
    """Tissue pushed away from the centre, as a mass would: :func:`sink` with the other sign.

    Contrasts are below 1.
    """
    return _radial(scan, centre, size, -contrast)


def shift(scan: Healthy, centre: np.ndarray, size: float, contrast: float, seed: int) -> np.ndarray:
    """A ball that shows what lies elsewhere: so far away as the contrast says, in mm."""
    region = ball(scan, centre, size)
    direction = random_direction(np.random.default_rng(seed))
    points = region.offset + (centre + contrast * direction)[:, None, None, None]
    return _from(scan, region, points)


def reflection(
    scan: Healthy, centre: np.ndarray, size: float, contrast: float, seed: int
) -> np.ndarray:
    """A ball mirrored in a plane through its centre; the contrast is the mirror image's share.

    The plane's direction is random.
    """
    region = ball(scan, centre, size)
    normal = random_direction(np.random.default_rng(seed))
    along = np.tensordot(normal, region.offset, 1)
    mirrored = region.offset - 2.0 * normal[:, None, None, None] * along
    return _from(scan, region, mirrored + centre[:, None, None, None], share=contrast)


def _radial(scan: Healthy, centre: np.ndarray, size: float, strength: float) -> np.ndarray:
    region = ball(scan, centre, size)
    towards = 1.0 - np.minimum(region.distance / size, 1.0)
    points = region.offset * (1.0 + strength * towards**2) + centre[:, None, None, None]
    return _from(scan, region, points)


def _from(scan: Healthy, region: BrainPart, points: np.ndarray, share: float = 1.0) -> np.ndarray:
    """The scan with a region's voxels taken from other points of its brain."""
    values, in_brain = look_up(scan, points)
    before = scan.volume.array[region.box]
    return with_values(scan, region, before + share * (values - before), in_brain)
