"""The picture of one case: four panes of one plane, side by side.

The scan; the scan with the outline of the truth; the hot part of the anomaly map with the same
outline and that of what is flagged; and the restoration. Seen as radiologists do: the patient's
right on the left, the front on top.
"""

from __future__ import annotations

import io

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation
from PIL import Image
from scipy import ndimage

from ..detection import Detection
from ..results.picture import inferno, outlined
from ..volume import Volume

#: Pixels of a side of a pane.
PANE = 260
PANES = ("Scan", "Truth", "Map", "Restoration")
_TRUTH = (94, 234, 140)
_FLAGGED = (64, 224, 255)
_SURROUND_MM = 6.0


def draw_case(volume: Volume, found: Detection, label: np.ndarray) -> bytes:
    """A WebP image of ``len(PANES)`` square panes, of the axial plane with most of the label.

    Args:
        volume: the scan that was looked at.
        found: its detection.
        label: (I, J, K) bool; where it is empty the map's peak, over some millimetres, decides.
    """
    orientation = io_orientation(volume.affine)
    spacing = np.empty(3)
    for axis, (target, _) in enumerate(orientation):
        spacing[int(target)] = volume.spacing[axis]

    def turned(array: np.ndarray) -> np.ndarray:
        return np.asarray(apply_orientation(array, orientation))

    truth, brain = turned(label), turned(found.brain_mask) > 0
    if truth.any():
        plane = int(truth.sum(axis=(0, 1)).argmax())
    else:
        smooth = ndimage.gaussian_filter(turned(found.anomaly_map), 3.0 / spacing, truncate=3.0)
        plane = int(np.unravel_index(np.argmax(smooth), smooth.shape)[2])
    box = _box(brain, spacing)

    def cut(array: np.ndarray) -> np.ndarray:
        return np.asarray(np.flip(turned(array)[box[0], box[1], plane], (0, 1)).T)

    # The scan's own window, so that a painted lesion does not dim the rest.
    inside = volume.array[found.brain_mask > 0] if brain.any() else volume.array.ravel()
    low, high = np.percentile(inside, (0.5, 99.5))
    low = min(float(low), float(np.percentile(volume.array, 1)))
    size = _size(box, spacing)
    grey = _grey(_resized(cut(volume.array), size), low, float(high))
    # Single voxels that happened not to change would only clutter the outline.
    shape = ndimage.binary_fill_holes(ndimage.binary_closing(cut(label)) | cut(label))
    outline, flagged = _resized(shape, size), _resized(cut(found.anomaly_mask), size)
    heat = _heat(_resized(cut(found.anomaly_map), size), found.threshold)
    cover = (0.85 * np.clip(heat / 0.2, 0.0, 1.0))[..., None]
    warm = (grey * (1.0 - cover) + inferno(0.25 + 0.75 * heat) * cover).round().astype(np.uint8)
    shown = [
        Image.fromarray(grey),
        outlined(Image.fromarray(grey), outline, _TRUTH, width=4),
        outlined(
            outlined(Image.fromarray(warm), flagged, _FLAGGED, width=4), outline, _TRUTH, width=4
        ),
        Image.fromarray(_grey(_resized(cut(found.restoration), size), low, float(high))),
    ]
    strip = Image.new("RGB", (PANE * len(PANES), PANE))
    for number, pane in enumerate(shown):
        left = number * PANE + (PANE - pane.width) // 2
        strip.paste(pane, (left, (PANE - pane.height) // 2))
    written = io.BytesIO()
    strip.save(written, "WEBP", quality=82, method=4)
    return written.getvalue()


def _box(brain: np.ndarray, spacing: np.ndarray) -> tuple[slice, slice]:
    """The brain and a little around it, along R and A."""
    box = []
    for axis in (0, 1):
        filled = np.flatnonzero(brain.any(axis=tuple(a for a in range(3) if a != axis)))
        low, high = (filled[0], filled[-1]) if len(filled) else (0, brain.shape[axis] - 1)
        more = int(np.ceil(_SURROUND_MM / spacing[axis]))
        box.append(slice(max(0, int(low) - more), min(brain.shape[axis], int(high) + more + 1)))
    return box[0], box[1]


def _size(box: tuple[slice, slice], spacing: np.ndarray) -> tuple[int, int]:
    """Pixels across and down such that the longer side fills the pane."""
    mm = [(s.stop - s.start) * float(spacing[axis]) for axis, s in enumerate(box)]
    across, down = (max(1, round(PANE * length / max(mm))) for length in mm)
    return across, down


def _resized(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = Image.fromarray(plane.astype(np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


def _grey(plane: np.ndarray, low: float, high: float) -> np.ndarray:
    level = np.clip((plane - low) / max(high - low, 1e-30), 0.0, 1.0) * 255.0
    return np.repeat(level.round().astype(np.uint8)[..., None], 3, axis=2)


def _heat(plane: np.ndarray, threshold: float) -> np.ndarray:
    """0 to 1 from half of the calibrated threshold to three times it."""
    return np.asarray(np.clip((plane / max(threshold, 1e-30) - 0.5) / 2.5, 0.0, 1.0))
