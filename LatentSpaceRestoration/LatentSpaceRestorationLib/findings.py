"""What a result says, in words: how unusual the scan is, and where that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

#: Closer to the middle of the brain than this share of its half extent is neither side.
_MIDDLE = 0.12
#: The peak of the map is looked for in its Gaussian mean of this standard deviation.
_PEAK_MM = 3.0
_SIDES = (
    ("left", "midline", "right"),
    ("back", "middle", "front"),
    ("lower", "mid-height", "upper"),
)


@dataclass(frozen=True)
class Place:
    """Where the anomaly is greatest.

    Attributes:
        index: (i, j, k) voxel.
        position_mm: the voxel's RAS position.
        words: side, front to back and height within the brain, such as ``left, back, upper``.
        volume_ml: what is flagged around it; 0 where nothing is.
    """

    index: tuple[int, int, int]
    position_mm: tuple[float, float, float]
    words: str
    volume_ml: float

    def position(self) -> str:
        """Such as ``(-28, +4, +31) mm``."""
        return "(" + ", ".join(f"{round(x):+d}" for x in self.position_mm) + ") mm"


def most_anomalous_place(
    anomaly_map: np.ndarray, anomaly_mask: np.ndarray, brain_mask: np.ndarray, affine: np.ndarray
) -> Place:
    """Where the map is highest over some millimetres, and how much is flagged around it.

    Not the middle of the largest region: in a scan that differs everywhere a little, regions grow
    into one another, and their middle says nothing.

    Args:
        anomaly_map: (I, J, K), 0 outside the brain, higher is more anomalous.
        anomaly_mask: (I, J, K), non-zero where flagged. The place is flagged if anything is.
        brain_mask: (I, J, K), non-zero in the brain; it gives the words their sides.
        affine: (4, 4) IJK -> RAS in mm.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    smooth = ndimage.gaussian_filter(anomaly_map, _PEAK_MM / spacing, truncate=3.0)
    labels, count = ndimage.label(anomaly_mask, structure=np.ones((3, 3, 3)))
    volume_ml = 0.0
    if count:
        smooth = np.where(labels > 0, smooth, -np.inf)
    voxel = np.array(np.unravel_index(np.argmax(smooth), smooth.shape))
    if count:
        voxels = int(np.count_nonzero(labels == labels[tuple(voxel)]))
        volume_ml = voxels * abs(float(np.linalg.det(affine[:3, :3]))) / 1000.0
    position = affine[:3, :3] @ voxel + affine[:3, 3]
    i, j, k = voxel.tolist()
    x, y, z = position.tolist()
    return Place((i, j, k), (x, y, z), _words(position, brain_mask, affine), volume_ml)


def score_in_words(p_value: float, healthy_scans: int) -> str:
    """Such as ``more unusual than 19 of 20 healthy scans (p = 0.095)``.

    Args:
        p_value: (1 + healthy scans that score as high) / (1 + healthy scans).
        healthy_scans: how many there are.
    """
    if healthy_scans < 1:
        return "no healthy scans to compare it with"
    lower = healthy_scans + 1 - round(p_value * (healthy_scans + 1))
    if lower >= healthy_scans:
        # No smaller p can come of this many scans.
        return f"more unusual than all {healthy_scans} healthy scans (p at most {p_value:.2g})"
    if lower <= 0:
        return f"no more unusual than any of {healthy_scans} healthy scans (p = {p_value:.2g})"
    return f"more unusual than {lower} of {healthy_scans} healthy scans (p = {p_value:.2g})"


def _words(position: np.ndarray, brain_mask: np.ndarray, affine: np.ndarray) -> str:
    voxels = np.argwhere(brain_mask)
    if not len(voxels):
        return "place in the brain unknown"
    points = voxels @ affine[:3, :3].T + affine[:3, 3]
    low, high = points.min(axis=0), points.max(axis=0)
    share = (position - (low + high) / 2.0) / np.maximum((high - low) / 2.0, 1e-6)
    sides = np.where(share < -_MIDDLE, 0, np.where(share > _MIDDLE, 2, 1))
    return ", ".join(words[side] for words, side in zip(_SIDES, sides, strict=True))
