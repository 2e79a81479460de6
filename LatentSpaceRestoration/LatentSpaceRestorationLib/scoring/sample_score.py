"""One figure for a scan."""

from __future__ import annotations

import numpy as np

from ..volume import cube_ml


def sample_score(
    values: np.ndarray,
    mask: np.ndarray,
    peak_ml: float,
    spacing_mm: float,
    slice_scores: np.ndarray | None = None,
) -> float:
    """The sum of a method's own slice scores, else the map's peak.

    Args:
        values, mask, peak_ml, spacing_mm: as of :func:`peak_score`.
        slice_scores: (N,), of a method that scores slices by other means than the map.
    """
    if slice_scores is not None:
        return float(slice_scores.sum())
    return peak_score(values, mask, peak_ml, spacing_mm)


def peak_score(values: np.ndarray, mask: np.ndarray, peak_ml: float, spacing_mm: float) -> float:
    """One figure for the scan: the mean of the map over its hottest millilitres.

    A lesion is a place, and a sum over the scan mostly measures the subject.

    Args:
        values: (N, H, W), the anomaly map.
        mask: (N, H, W) bool, brain.
        peak_ml: how many.
        spacing_mm: of the voxels.
    """
    inside = values[mask]
    count = min(len(inside), max(1, round(peak_ml / cube_ml(spacing_mm))))
    return float(np.partition(inside, len(inside) - count)[-count:].mean())
