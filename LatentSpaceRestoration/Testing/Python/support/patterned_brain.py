"""Brains without a head, of one pattern and a little of their own, and how they are prepared."""

from __future__ import annotations

import numpy as np
from LatentSpaceRestorationLib.model_space import Grid
from LatentSpaceRestorationLib.preprocessing.pipeline import BrainFinder
from LatentSpaceRestorationLib.preprocessing.slices import PreparedScan, prepare, to_head
from LatentSpaceRestorationLib.runtime.placement import Placement
from LatentSpaceRestorationLib.volume import Volume
from scipy import ndimage

#: Finds brains without a network: those that are extracted.
FINDER = BrainFinder(None, 0.0, lambda: Placement("cpu", {"brain": 1}))
GRID = Grid(52, 40, 4.0)
#: Half the brain's size, mm: from side to side, back to front, bottom to top.
RADIUS = np.array([66.0, 84.0, 58.0])


def pattern(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """Smooth tissue, not the same upside down or back to front, but about so from left to right."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3.0)
    noise += noise[::-1]
    return 100.0 + 20.0 * noise / noise.std()


def brain(own: int = 1, spacing: float = 4.0, cut_mm: float = 0.0) -> Volume:
    """A brain without a head, of the common pattern and a little of its own.

    Args:
        own: seed of what is its own.
        spacing: mm from slice to slice.
        cut_mm: how much of its left side lies beyond the scan.
    """
    shape = (46, 54, 42)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = -2.0 * (np.array(shape) - 1)
    offset = np.moveaxis(np.indices(shape), 0, -1) * 4.0 + affine[:3, 3]
    inside = np.linalg.norm(offset / RADIUS, axis=-1) <= 1.0
    array = 0.8 * pattern(shape, 0) + 0.2 * pattern(shape, own)
    array = np.where(inside, array, 0.0)[int(cut_mm / 4.0) :]
    affine[0, 3] += 4.0 * int(cut_mm / 4.0)
    step = round(spacing / 4.0)
    affine[:3, 2] *= step
    return Volume(array[:, :, ::step].astype(np.float32), affine)


def prepared_of(volume: Volume) -> PreparedScan:
    """A brain in model space."""
    head = to_head(volume, GRID.spacing_mm)
    return prepare(volume, head, head.array > 20.0, GRID)
