"""From running averages of restorations to an estimate, and from an estimate to a detection."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from . import __version__
from .averages import Averages
from .calibration import ModeCalibration, PlaceStatistics, p_value
from .course import Course
from .detection import Detection, Estimate, SliceScore
from .preprocessing import Prepared
from .scoring import ModeSettings, anomaly_map, feature_maps, sample_score, slice_scores
from .volume import Volume

if TYPE_CHECKING:
    from .inference import Reading


@dataclass(frozen=True)
class Request:
    """How a scan is to be examined; see ``Detector.detect``."""

    mode: str
    method: str
    percentile: float
    restorations: int
    seed: int


@dataclass(frozen=True)
class Yardstick:
    """What a mode is measured by.

    Attributes:
        settings: of the mode.
        calibration: what healthy scans give.
        places: what is usual at each place, by feature map; empty in paper mode.
    """

    settings: ModeSettings
    calibration: ModeCalibration
    places: Mapping[str, PlaceStatistics]


@dataclass(frozen=True)
class Estimator:
    """Makes the estimates of one scan.

    Attributes:
        volume: the scan.
        prepared, reading: the scan in model space, and what the networks read in it.
        request, yardstick: how it is examined, and what it is measured by.
        model: name of the model.
        course: of the detection.
        device, warnings: ask where it runs, and what the user should know, by now.
    """

    volume: Volume
    prepared: Prepared
    reading: Reading
    request: Request
    yardstick: Yardstick
    model: str
    course: Course
    device: Callable[[], str]
    warnings: Callable[[], tuple[str, ...]]

    def estimate(self, averages: Averages, spacing_mm: float, is_last: bool) -> Estimate:
        """The estimate from the restorations so far; later ones do not change it."""
        prepared, reading, request = self.prepared, self.reading, self.request
        settings, calibration = self.yardstick.settings, self.yardstick.calibration
        level = calibration.at(averages.restorations)
        maps = feature_maps(prepared, averages, settings, spacing_mm)
        values = anomaly_map(prepared, maps, settings, self.yardstick.places)
        nats = calibration.slice_threshold
        score = sample_score(values, prepared.mask, reading.nll, nats, settings, spacing_mm)
        p = p_value(score, level.sample_scores)
        by_slice = tuple(
            SliceScore(round(float(z), 3), float(s))
            for z, s in zip(
                prepared.position_mm,
                slice_scores(values, reading.nll, nats, settings),
                strict=True,
            )
        )
        mean, sd = averages.mean.astype(np.float32), averages.sd.astype(np.float32)
        made = averages.restorations
        cut = level.voxels.value(request.percentile)
        warnings = list(self.warnings())
        if is_last and made < request.restorations:
            warnings.append(
                f"the time budget of {self.course.budget:g} s ended it after {made} of "
                f"{request.restorations} restorations: the map is less certain"
            )
        self.course.seconds.setdefault("first_score", self.course.elapsed)
        device, seconds = self.device(), dict(self.course.seconds)

        def detection() -> Detection:
            started = time.perf_counter()
            images = _to_native(self.volume, prepared, values, mean, sd, cut)
            undo = time.perf_counter() - started
            return Detection(
                *images,
                sample_score=score,
                percentile=100.0 * (1.0 - p),
                p_value=p,
                threshold=cut,
                threshold_percentile=float(request.percentile),
                slice_scores=by_slice,
                healthy_scans=len(level.sample_scores),
                model=self.model,
                mode=request.mode,
                method=request.method,
                restorations=made,
                seed=request.seed,
                device=device,
                warnings=tuple(warnings),
                seconds={**seconds, "undo": undo},
                version=__version__,
            )

        return Estimate(
            restorations=made,
            wanted=request.restorations,
            sample_score=score,
            percentile=100.0 * (1.0 - p),
            p_value=p,
            slice_scores=by_slice,
            seconds=self.course.elapsed,
            is_last=is_last,
            _detection=detection,
        )


def _to_native(
    volume: Volume,
    prepared: Prepared,
    values: np.ndarray,
    mean: np.ndarray,
    sd: np.ndarray,
    cut: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Map, mask, restoration, its spread and the brain mask, on the scan's own grid."""
    brain, (signed, healthy, spread) = prepared.brain_to_native(values, mean, sd)
    native_map = np.maximum(signed, 0.0)
    mask = ((native_map >= cut) & brain).astype(np.uint8)
    healthy = healthy * prepared.scale + prepared.centre
    restoration = np.where(brain, healthy, volume.array).astype(np.float32)
    spread = spread * np.float32(prepared.scale)
    return native_map, mask, restoration, spread, brain.astype(np.uint8)
