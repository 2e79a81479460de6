"""From a method's evidence to an estimate, and from an estimate to a detection."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from . import __version__
from .calibration.levels import ModeCalibration
from .calibration.normative import Usual
from .calibration.quantiles import p_value
from .detection import Detection, Estimate, SliceScore
from .methods.base import Evidence
from .preprocessing.quality import doubts_of_model, is_distrusted
from .preprocessing.slices import Prepared
from .runtime.progress import Course
from .scoring.anomaly_map import MapRule, anomaly_map, peak_score
from .volume import Volume

#: A share of the brain above the threshold that is worth a warning, if it is also so many times the
#: healthy share.
_WIDELY, _TIMES = 0.05, 10.0
#: The map of the reconstruction error.
RESIDUAL = "residual"


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
    """What a method is measured by.

    Attributes:
        rule: how the anomaly map comes from the method's maps.
        calibration: what healthy scans give.
        usual: what is usual, by map; empty in paper mode.
        sites: how many the healthy scans are from; 0 if that is not known.
    """

    rule: MapRule
    calibration: ModeCalibration
    usual: Mapping[str, Usual]
    sites: int = 0


@dataclass(frozen=True)
class Estimator:
    """Makes the estimates of one scan.

    Attributes:
        volume: the scan.
        prepared: the scan in model space.
        request, yardstick: how it is examined, and what it is measured by.
        model: name of the model.
        course: of the detection.
        device, warnings: ask where it runs, and what the user should know, by now.
    """

    volume: Volume
    prepared: Prepared
    request: Request
    yardstick: Yardstick
    model: str
    course: Course
    device: Callable[[], str]
    warnings: Callable[[], tuple[str, ...]]
    _made: list[tuple[Mapping[str, np.ndarray], np.ndarray]] = field(default_factory=list)

    def estimate(self, evidence: Evidence, spacing_mm: float) -> Estimate:
        """The estimate from the evidence so far; what comes later does not change it."""
        prepared, request, rule = self.prepared, self.request, self.yardstick.rule
        level = self.yardstick.calibration.at(evidence.restorations)
        values = self._map(evidence.maps, spacing_mm)
        score = sample_score(evidence, values, prepared, rule, spacing_mm)
        scores = evidence.slice_scores
        if scores is None:
            scores = values.max(axis=(1, 2))
        by_slice = tuple(
            SliceScore(round(float(z), 3), float(s))
            for z, s in zip(prepared.position_mm, scores, strict=True)
        )
        mean, sd, made = evidence.mean, evidence.sd, evidence.restorations
        cut = level.voxels.value(request.percentile)
        warnings = list(self.warnings())
        if evidence.is_last and made < evidence.wanted:
            warnings.append(
                f"the time budget of {self.course.budget:g} s ended it after {made} of "
                f"{evidence.wanted} restorations: the result is less certain"
            )
        warnings += doubts_of_model(evidence.unlikely, self._error(evidence), self._width(evidence))
        p = percentile = None
        if is_distrusted(warnings):
            mask_cut = np.inf
        else:
            mask_cut = cut
            p = p_value(score, level.sample_scores)
            percentile = 100.0 * (1.0 - p)
            warnings += _widely_flagged(values[prepared.mask] >= cut, request.percentile)
        self.course.seconds.setdefault("first_score", self.course.elapsed)
        device, seconds = self.device(), dict(self.course.seconds)

        def detection() -> Detection:
            started = time.perf_counter()
            images = _to_native(self.volume, prepared, values, mean, sd, mask_cut)
            undo = time.perf_counter() - started
            return Detection(
                *images,
                sample_score=score,
                percentile=percentile,
                p_value=p,
                threshold=cut,
                threshold_percentile=float(request.percentile),
                slice_scores=by_slice,
                healthy_scans=len(level.sample_scores),
                healthy_sites=self.yardstick.sites,
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
            wanted=evidence.wanted,
            sample_score=score,
            percentile=percentile,
            p_value=p,
            slice_scores=by_slice,
            seconds=self.course.elapsed,
            is_last=evidence.is_last,
            _detection=detection,
        )

    def _map(self, maps: Mapping[str, np.ndarray], spacing_mm: float) -> np.ndarray:
        """The anomaly map; of maps that further restorations do not change it is made once."""
        if not self._made or self._made[-1][0] is not maps:
            rule, usual = self.yardstick.rule, self.yardstick.usual
            self._made[:] = [(maps, anomaly_map(self.prepared, maps, rule, usual, spacing_mm))]
        return self._made[-1][1]

    def _error(self, evidence: Evidence) -> float | None:
        """Mean reconstruction error in healthy spreads, of methods that look at it."""
        usual = self.yardstick.usual.get(RESIDUAL)
        if usual is None:
            return None
        z = usual.place.normalise(evidence.maps[RESIDUAL], self.prepared.position)
        return float(z[self.prepared.mask].mean())

    def _width(self, evidence: Evidence) -> float | None:
        """How many times as widely as usual the map of the scan spreads that does so most."""
        prepared, usual = self.prepared, self.yardstick.usual
        widths = [
            healthy.width(evidence.maps[name], prepared.mask, prepared.position)
            for name, healthy in usual.items()
            if healthy.spreads is not None
        ]
        return max(widths, default=None)


def sample_score(
    evidence: Evidence, values: np.ndarray, prepared: Prepared, rule: MapRule, spacing_mm: float
) -> float:
    """One figure for the scan: the sum of a method's own slice scores, else the map's peak."""
    if evidence.slice_scores is not None:
        return float(evidence.slice_scores.sum())
    return peak_score(values, prepared.mask, rule.peak_ml, spacing_mm)


def _widely_flagged(flagged: np.ndarray, percentile: float) -> list[str]:
    """A line where far more of the brain is above the threshold than of a healthy one."""
    share, usual = float(flagged.mean()), 1.0 - percentile / 100.0
    if share <= max(_WIDELY, _TIMES * usual):
        return []
    return [
        f"{100 * share:.0f}% of the brain is above the threshold, against {100 * usual:.2g}% of a "
        "healthy one: a very large lesion, or a scan unlike those that the model knows, whose "
        "regions mean little"
    ]


def _to_native(
    volume: Volume,
    prepared: Prepared,
    values: np.ndarray,
    mean: np.ndarray,
    sd: np.ndarray,
    cut: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Map, mask, restoration, its spread and the brain mask, on the scan's own grid."""
    brain, (signed, healthy, spread) = prepared.brain_to_native(
        values, prepared.to_intensity(mean), prepared.to_spread(sd)
    )
    native_map = np.maximum(signed, 0.0)
    mask = ((native_map >= cut) & brain).astype(np.uint8)
    restoration = np.where(brain, healthy, volume.array).astype(np.float32)
    return native_map, mask, restoration, spread, brain.astype(np.uint8)
