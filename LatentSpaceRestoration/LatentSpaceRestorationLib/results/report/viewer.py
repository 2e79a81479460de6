"""The part of a page in which a scan is scrolled through, with its map and its restoration.

NiiVue draws it (Hanayik et al., BSD-2), in ``Resources/Viewer``. Volumes go into the page in 8
bits, cut to the surroundings of the brain, along the axes nearest to the patient's.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import nibabel
import numpy as np
from skimage.measure import block_reduce

from ...calibration.quantiles import PERCENTILES, Quantiles
from ...detection import Detection
from ...io.files import resources
from ...volume import Volume, voxel_ml
from ..patient_axes import PatientAxes
from ..picture import grey_range, heat_range
from ..regions import Extent, most_anomalous_place

#: Surroundings of the brain that are shown, in mm: skull and scalp.
_SURROUND_MM = 22.0
#: Voxels outside the brain that are darker than this share of the way from the darkest to the
#: brain's median are shown as black: the noise of air would be half of the page.
_AIR = 0.12
#: Outside the brain one level in so many is used: noise of the scalp would be half of a page.
_COARSE = 4
#: Of scans of finer voxels, in mm, two or more are shown as one: nobody's browser needs more.
_FINEST_MM = 0.6
#: Levels of 8 bits; 0 means no tissue, or nothing replaced, or nothing anomalous.
_LEVELS = 255
#: Healthy percentiles that the threshold goes through.
_LOWEST_PERCENTILE = 90.0


@dataclass(frozen=True)
class Viewer:
    """Parts of a page.

    Attributes:
        html: the viewer, with what it shows.
        style: CSS.
        scripts: that it runs, in their order.
    """

    html: str
    style: str
    scripts: tuple[str, ...]


def viewer(volume: Volume, detection: Detection, healthy: Quantiles) -> Viewer:
    """The viewer of a result.

    Args:
        volume: the (I, J, K) scan, of any orientation.
        detection: its result, on the same grid.
        healthy: what the map is in healthy brain voxels, made in the same way.
    """
    content = json.dumps(_content(volume, detection, healthy), allow_nan=False)
    block = f'<script type="application/json" id="volumes">{content}</script>'
    scripts = tuple(resource(name) for name in ("niivue.umd.js", "viewer.js"))
    return Viewer(resource("viewer.html") + block, resource("viewer.css"), scripts)


@cache
def resource(name: str) -> str:
    """A file of the viewer."""
    return (resources("Viewer") / name).read_text(encoding="utf-8")


def _content(volume: Volume, detection: Detection, healthy: Quantiles) -> dict[str, Any]:
    """Volumes and figures, as ``viewer.js`` has them."""
    crop = _Crop.of(volume, detection.brain_mask)
    scan, restoration = crop.shown(volume.array), crop.shown(detection.restoration)
    # Whatever is flagged is to be seen.
    heat = crop.shown(detection.anomaly_map, np.max)
    inside = crop.shown(detection.brain_mask > 0) >= 0.5
    window = grey_range(scan, inside)
    grey, healed = (_grey(array, window) for array in (scan, restoration))
    median = float(np.median(scan[inside])) if inside.any() else window[1]
    outside = ~inside
    grey[outside] = np.minimum(grey[outside] // _COARSE * _COARSE + 1, _LEVELS)
    grey[outside & (scan < window[0] + _AIR * (median - window[0]))] = 0
    healed[restoration == scan] = 0
    thresholds = _thresholds(detection, healthy)
    heat_shown = heat_range(detection)
    top = max(heat_shown[1], float(detection.anomaly_map.max()))
    marks = _marks(list(thresholds.values()), heat_shown[0], top)
    anomalous = np.sort(detection.anomaly_map[detection.anomaly_map > 0])
    one_ml = voxel_ml(volume.affine)
    return {
        "scan": _packed(crop.nifti(grey)),
        "restoration": _packed(healed.tobytes("F")),
        "map": _packed(np.searchsorted(marks, heat, side="right").astype(np.uint8).tobytes("F")),
        "values": [0.0, *(float(f"{mark:.6g}") for mark in marks)],
        "heat": list(heat_shown),
        "thresholds": [
            {
                "percentile": percentile,
                "code": int(np.searchsorted(marks, value)) + 1,
                "ml": (anomalous.size - int(np.searchsorted(anomalous, value))) * one_ml,
            }
            for percentile, value in thresholds.items()
        ],
        "chosen": list(thresholds).index(detection.threshold_percentile),
        "trusted": detection.p_value is not None,
        "peak": list(_peak(detection, volume.affine)),
    }


def _peak(detection: Detection, affine: np.ndarray) -> tuple[float, ...]:
    """(R, A, S) of the most anomalous place, or of the middle of the brain if nothing is."""
    brain = detection.brain_mask
    if not detection.anomaly_map.any():
        extent = Extent.of(brain, affine)
        return tuple((np.array(extent.low_mm) + np.array(extent.high_mm)) / 2.0)
    mask = detection.anomaly_mask
    return most_anomalous_place(detection.anomaly_map, mask, brain, affine).position_mm


@dataclass(frozen=True)
class _Crop:
    """What is shown of a scan's grid.

    Attributes:
        axes: of the scan.
        box: of the voxels along the patient's axes.
        blocks: how many voxels are shown as one, along each of these axes.
    """

    axes: PatientAxes
    box: tuple[slice, slice, slice]
    blocks: tuple[int, ...]

    @classmethod
    def of(cls, volume: Volume, brain_mask: np.ndarray) -> _Crop:
        axes = PatientAxes.of(volume)
        box = axes.around(axes.turned(brain_mask) > 0, _SURROUND_MM)
        blocks = np.maximum(np.ceil(_FINEST_MM / axes.spacing - 1e-6), 1).astype(int)
        return cls(axes, box, tuple(blocks.tolist()))

    def shown(self, array: np.ndarray, together: Callable[..., np.ndarray] = np.mean) -> np.ndarray:
        """An (I, J, K) array as it is shown: float32 (R, A, S); a block by its mean, or else."""
        part = np.asarray(self.axes.turned(array)[self.box], np.float32)
        missing = [(0, -n % block) for n, block in zip(part.shape, self.blocks, strict=True)]
        whole = np.pad(part, missing, mode="edge")
        return np.asarray(block_reduce(whole, self.blocks, together), np.float32)

    def nifti(self, array: np.ndarray) -> bytes:
        """The NIfTI file of an array as it is shown."""
        affine = self.axes.affine.copy()
        first = [part.start + (n - 1) / 2.0 for part, n in zip(self.box, self.blocks, strict=True)]
        affine[:3, 3] += affine[:3, :3] @ first
        affine[:3, :3] *= self.blocks
        image = nibabel.Nifti1Image(array, affine)
        image.header.set_xyzt_units("mm")
        file: bytes = image.to_bytes()
        return file


def _packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()


def _grey(array: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """uint8, from 1."""
    low, high = window
    share = np.clip((array - low) / max(high - low, 1e-30), 0.0, 1.0)
    grey: np.ndarray = np.round(1.0 + share * (_LEVELS - 1)).astype(np.uint8)
    return grey


def _thresholds(detection: Detection, healthy: Quantiles) -> dict[float, np.float32]:
    """Values of the map by healthy percentile, ascending, that of the result among them."""
    percentiles = (float(p) for p in PERCENTILES if _LOWEST_PERCENTILE <= p < 100.0)
    found = {percentile: healthy.value(percentile) for percentile in percentiles}
    found[detection.threshold_percentile] = detection.threshold
    # The map is 0 outside the brain, which is never flagged; and it is of this precision.
    least = np.finfo(np.float32).tiny
    return {p: np.float32(max(value, float(least))) for p, value in sorted(found.items())}


def _marks(cuts: Sequence[np.float32], cold: float, top: float) -> np.ndarray:
    """The values, ascending, of which a voxel's code says how many it reaches.

    All thresholds are among them, so that what is flagged is exact in 8 bits; the others are even
    steps of what has colours.
    """
    exact = np.unique([cut for cut in cuts if np.isfinite(cut)]).astype(np.float32)
    even = np.linspace(cold, top, _LEVELS + 1 - exact.size, dtype=np.float32)[1:]
    marks: np.ndarray = np.unique(np.concatenate([exact, even]))
    return marks
