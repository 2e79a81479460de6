"""What a detection gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SliceScore:
    """Score of one axial slice of the model's grid.

    Attributes:
        position_mm: RAS superior coordinate of the slice's centre.
        score: in default mode the peak of the anomaly map in the slice, in paper mode the summed
            NLL of its unlikely codes.
    """

    position_mm: float
    score: float


@dataclass(frozen=True)
class Detection:
    """The result for one scan. Images are on the scan's own grid, (I, J, K).

    Attributes:
        anomaly_map: float32, at least 0, higher is more anomalous, 0 outside the brain.
        anomaly_mask: uint8, ``anomaly_map >= threshold`` in the brain; empty where a warning says
            that the map is not to be trusted.
        restoration: float32, native intensities: the scan, with healed tissue where something was
            replaced, and its own voxels everywhere else. Methods that draw the whole brain anew
            replace all of it.
        restoration_sd: float32, native intensities, spread of the healed tissue over the
            restorations; 0 where nothing was replaced.
        brain_mask: uint8.
        signs: uint8, what gives voxels away whose map is high: numbers of ``scoring.signs.SIGNS``,
            0 elsewhere and of methods that look at a single map; None where it is not known.
        sample_score: how unusual the scan is; higher is more.
        percentile: 100 (1 - p_value): share of healthy scans that score lower, as far as
            ``healthy_scans`` can tell; None where the map is not to be trusted.
        p_value: chance that a healthy scan scores as high; None as ``percentile``.
        threshold: value of the anomaly map at which the mask is cut.
        threshold_percentile: the same as a percentile of healthy brain voxels.
        slice_scores: from the lowest slice to the highest.
        healthy_scans: number of calibration scans.
        healthy_sites: number of sites that they are from; 0 if that is not known.
        restorations: how many were made; fewer than were asked for if a time budget ended it.
        model, mode, method, seed, device, precision, version: how it was made.
        warnings: what the user should know.
        seconds: wall time of each step, and ``first_score``, from the start to the first estimate.
    """

    anomaly_map: np.ndarray
    anomaly_mask: np.ndarray
    restoration: np.ndarray
    restoration_sd: np.ndarray
    brain_mask: np.ndarray
    sample_score: float
    percentile: float | None
    p_value: float | None
    threshold: float
    threshold_percentile: float
    slice_scores: tuple[SliceScore, ...]
    healthy_scans: int
    model: str
    mode: str
    method: str
    restorations: int
    seed: int
    device: str
    warnings: tuple[str, ...]
    seconds: dict[str, float]
    version: str
    healthy_sites: int = 0
    precision: str = "float32"
    signs: np.ndarray | None = None


@dataclass(frozen=True)
class Estimate:
    """What is known after some of the restorations: the score, and on demand the images.

    The first comes within seconds; each further group of restorations sharpens it.

    Attributes:
        restorations: how many are in.
        wanted: how many were asked for.
        sample_score, percentile, p_value, slice_scores: as in :class:`Detection`, compared with
            what healthy scans give after as many restorations.
        seconds: since the start.
        is_last: whether no other follows.
        changes_map: whether its anomaly map is another than that of the estimate before.
    """

    restorations: int
    wanted: int
    sample_score: float
    percentile: float | None
    p_value: float | None
    slice_scores: tuple[SliceScore, ...]
    seconds: float
    is_last: bool
    _detection: Callable[[], Detection]
    changes_map: bool = True

    def detection(self) -> Detection:
        """All results as they are now, with the images on the scan's own grid."""
        return self._detection()
