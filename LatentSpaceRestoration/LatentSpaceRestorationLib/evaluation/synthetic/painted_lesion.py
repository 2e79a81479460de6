"""A lesion painted into the head of a template."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ...errors import LSRError
from ...volume import Volume

#: Middle of the lesion in MNI space, RAS mm: white matter of the left parietal lobe.
LESION_MM = (-27.0, -34.0, 32.0)
LESION_RADIUS_MM = 15.0


def load_template() -> Volume:
    """The MNI152 T1 template at 1 mm, brain only, intensities in [0, 1].

    Raises:
        LSRError: if nilearn is not installed.
    """
    try:
        from nilearn.datasets import load_mni152_template
    except ModuleNotFoundError as error:
        raise LSRError(
            f"the demo's brain comes with nilearn and {error.name} is missing; "
            "install the package nilearn"
        ) from error
    image = load_mni152_template(resolution=1)
    return Volume(image.get_fdata(dtype=np.float32), image.affine, "MNI152")


def painted_template() -> tuple[Volume, np.ndarray]:
    """The scan that ``lsr demo`` and the pictures of the documents show, and its lesion.

    Raises:
        LSRError: if nilearn is not installed.
    """
    return paint_lesion(load_template(), LESION_MM, LESION_RADIUS_MM)


def paint_lesion(
    volume: Volume, centre_mm: tuple[float, float, float], radius_mm: float, seed: int = 0
) -> tuple[Volume, np.ndarray]:
    """Paint a dark lesion with an irregular, soft edge, as old strokes and oedema have in T1.

    Args:
        volume: (I, J, K) scan, 0 outside the brain.
        centre_mm: RAS position.
        radius_mm: mean radius.
        seed: of the irregularity.

    Returns:
        The painted scan, and the lesion, (I, J, K) bool: where more than half is lesion.
    """
    # All is done in a box about the lesion, which is small in the scan.
    middle = np.linalg.solve(volume.affine, [*centre_mm, 1.0])[:3]
    reach = 2.5 * radius_mm / volume.spacing
    low = np.maximum(np.floor(middle - reach), 0).astype(int)
    high = np.minimum(np.ceil(middle + reach) + 1, volume.shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    before = volume.array[box]
    index = np.indices(before.shape) + low[:, None, None, None]
    offset = np.tensordot(volume.affine[:3, :3], index - middle[:, None, None, None], 1)
    distance = np.sqrt(np.square(offset).sum(axis=0))

    rng = np.random.default_rng(seed)
    bumps = _smooth_noise(before.shape, 0.4 * radius_mm / volume.spacing, rng)
    # The surface moves in and out by about a third of the radius; the edge is 3 mm soft.
    depth = radius_mm * (1.0 + 0.35 * bumps) - distance
    share = np.clip(0.5 + depth / 3.0, 0.0, 1.0) * (before > 0)
    dark = 0.5 * float(np.median(volume.array[volume.array > 0]))
    inside = dark * (1.0 + 0.1 * _smooth_noise(before.shape, 2.0 / volume.spacing, rng))

    array = volume.array.copy()
    array[box] = before * (1.0 - share) + inside * share
    lesion = np.zeros(volume.shape, bool)
    lesion[box] = share > 0.5
    return Volume(array, volume.affine, "demo"), lesion


def _smooth_noise(
    shape: tuple[int, ...], width: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Gaussian noise of unit standard deviation, smoothed over ``width`` (3,) voxels."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), width)
    smooth: np.ndarray = noise / noise.std()
    return smooth
