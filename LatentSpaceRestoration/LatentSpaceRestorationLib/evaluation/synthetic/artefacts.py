"""What scanners and movement do to a whole scan. There is no place to find, only a scan to doubt.

Each function returns the changed (I, J, K) voxels; the whole head changes.
"""

from __future__ import annotations

import numpy as np
from scipy import fft

from .geometry import Healthy


def bias_field(
    scan: Healthy, centre: np.ndarray, size: float, contrast: float, seed: int
) -> np.ndarray:
    """Shading: a smooth factor over the whole scan.

    The factor is exp(contrast f), with f the sum of four waves of random direction and of
    wavelength ``size``, scaled to 1 at most; wavelengths of one to two heads look like the fields
    of coils.
    """
    generator = np.random.default_rng(seed)
    waves = generator.standard_normal((4, 3))
    waves *= 2.0 * np.pi / (size * np.linalg.norm(waves, axis=1, keepdims=True))
    phase = generator.uniform(0.0, 2.0 * np.pi, 4)
    affine = scan.volume.affine
    axes = np.ogrid[tuple(slice(n) for n in scan.volume.shape)]
    field = np.zeros(scan.volume.shape, np.float32)
    for wave, start in zip(waves, phase, strict=True):
        steps = wave @ affine[:3, :3]
        argument = sum(step * axis for step, axis in zip(steps, axes, strict=True))
        field += np.cos(argument + (wave @ affine[:3, 3] + start)).astype(np.float32)
    field /= np.abs(field).max()
    return np.asarray(scan.volume.array * np.exp(np.float32(contrast) * field))


def motion_ghost(
    scan: Healthy, centre: np.ndarray, size: float, contrast: float, seed: int
) -> np.ndarray:
    """Ghosts of periodic movement along a random axis of the grid.

    Lines of k-space are weighed alternately over ``size`` lines, which repeats the head, shifted
    by a ``size``-th of the field of view, with ``contrast`` of its intensity.
    """
    axis = int(np.random.default_rng(seed).integers(3))
    array = scan.volume.array.astype(np.float64)
    lines = array.shape[axis]
    k = np.arange(lines)
    # The two ghosts of a cosine, to either side, are one and the same at half the field of view.
    factor = 1.0 + (1.0 if size == 2.0 else 2.0) * contrast * np.cos(2.0 * np.pi * k / size)
    shape = [1, 1, 1]
    shape[axis] = lines
    spectrum = fft.fft(array, axis=axis) * factor.reshape(shape)
    return np.abs(fft.ifft(spectrum, axis=axis)).astype(np.float32)


def missing_slices(
    scan: Healthy, centre: np.ndarray, size: float, contrast: float, seed: int
) -> np.ndarray:
    """A slab of slices loses a share of its signal, the contrast.

    The slab is ``size`` mm thick, at least one slice, and lies about the centre, across a random
    axis of the grid.
    """
    volume = scan.volume
    axis = int(np.random.default_rng(seed).integers(3))
    index = np.linalg.solve(volume.affine, [*centre, 1.0])[axis]
    count = max(1, round(size / float(volume.spacing[axis])))
    first = int(np.clip(round(index - (count - 1) / 2.0), 0, volume.shape[axis] - count))
    array = volume.array.astype(np.float32, copy=True)
    slab = np.moveaxis(array, axis, 0)[first : first + count]
    darkest = np.float32(volume.array.min())
    slab[:] = darkest + np.float32(1.0 - contrast) * (slab - darkest)
    return array
