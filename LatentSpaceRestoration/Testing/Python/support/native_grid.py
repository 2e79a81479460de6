"""Values in model space on the scan's own grid, without regard to the brain."""

from __future__ import annotations

import numpy as np
from LatentSpaceRestorationLib.preprocessing.resampling import resample
from LatentSpaceRestorationLib.preprocessing.slices import PreparedScan
from LatentSpaceRestorationLib.volume import Volume


def to_native(prepared: PreparedScan, array: np.ndarray) -> np.ndarray:
    """(N, rows, columns) values as float32 of the native shape; 0 where the model saw nothing."""
    return resample(Volume(array, prepared.affine), prepared.native_shape, prepared.native_affine)
