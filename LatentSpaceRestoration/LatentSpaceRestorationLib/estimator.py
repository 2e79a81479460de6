"""From a method's evidence to an estimate, and from an estimate to a detection."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from . import __version__
from .calibration.levels import ModeCalibration
from .calibration.normative import NormativeMap
from .calibration.p_value import p_value
from .detection import Detection, Estimate, SliceScore
from .errors import is_distrusted
from .methods.base import Evidence
from .options import DetectionOptions
from .preprocessing.quality import doubts_of_model
from .preprocessing.slices import NativePart, PreparedScan
from .runtime.progress import RunControl
from .scoring.anomaly_map import MapRule, anomaly_map, signs_of
from .scoring.sample_score import sample_score
from .volume import Volume

#: A share of the brain above the threshold that is worth a warning, if it is also so many times the
#: healthy share.
_WIDELY, _TIMES = 0.05, 10.0
#: Of healthy voxels: where the anomaly map is above it in a larger region, tissue is healed.
_HEALED_PERCENTILE = 97.0
#: Shares of a restoration below this are rounding: the scan's own voxel stays.
_NO_SHARE = 1e-4
#: The map of the reconstruction error.
RESIDUAL = "residual"


@dataclass(frozen=True)
class HealthyReference:
    """What a method's maps of a scan are compared with.

    Attributes:
        rule: how the anomaly map comes from the method's maps.
        calibration: what healthy scans give.
        normative: values of healthy scans, by map; empty in paper mode.
        sites: how many the healthy scans are from; 0 if that is not known.
    """

    rule: MapRule
    calibration: ModeCalibration
    normative: Mapping[str, NormativeMap]
    sites: int = 0


@dataclass(frozen=True)
class _LookedAt:
    """Maps of a method, and what they say beside those of healthy scans.

    Attributes:
        maps: of the method.
        values: the anomaly map.
        error: mean reconstruction error in healthy spreads, of methods that look at it.
        width: how many times as widely as usual the map spreads that does so most.
    """

    maps: Mapping[str, np.ndarray]
    values: np.ndarray
    error: float | None
    width: float | None

    @classmethod
    def of(
        cls,
        maps: Mapping[str, np.ndarray],
        prepared: PreparedScan,
        reference: HealthyReference,
        spacing_mm: float,
    ) -> _LookedAt:
        normative, mask, position = reference.normative, prepared.mask, prepared.position
        values = anomaly_map(prepared, maps, reference.rule, normative, spacing_mm)
        error = None
        if RESIDUAL in normative:
            z = normative[RESIDUAL].place.normalise(maps[RESIDUAL], position)
            error = float(z[mask].mean())
        widths = [
            healthy.width(maps[name], mask, position)
            for name, healthy in normative.items()
            if healthy.spreads is not None
        ]
        return cls(maps, values, error, max(widths, default=None))


@dataclass(frozen=True)
class Estimator:
    """Makes the estimates of one scan.

    Attributes:
        volume: the scan.
        prepared: the scan in model space.
        options: how it is looked at; the threshold is a percentile.
        reference: what it is compared with.
        model: name of the model.
        control: of the detection.
        place: asks where it runs, and in which precision, by now.
        warnings: asks what the user should know, by now.
    """

    volume: Volume
    prepared: PreparedScan
    options: DetectionOptions
    reference: HealthyReference
    model: str
    control: RunControl
    place: Callable[[], tuple[str, str]]
    warnings: Callable[[], tuple[str, ...]]
    _looked_at: list[_LookedAt] = field(default_factory=list)
    _told: list[_LookedAt] = field(default_factory=list)

    def estimate(self, evidence: Evidence, spacing_mm: float) -> Estimate:
        """The estimate from the evidence so far; what comes later does not change it."""
        prepared, options, rule = self.prepared, self.options, self.reference.rule
        level = self.reference.calibration.at(evidence.restorations)
        seen = self._look_at(evidence.maps, spacing_mm)
        changes_map = not any(seen is before for before in self._told)
        self._told[:] = [seen]
        values = seen.values
        score = sample_score(values, prepared.mask, rule.peak_ml, spacing_mm, evidence.slice_scores)
        scores = evidence.slice_scores
        if scores is None:
            scores = values.max(axis=(1, 2))
        by_slice = tuple(
            SliceScore(round(float(z), 3), float(s))
            for z, s in zip(prepared.position_mm, scores, strict=True)
        )
        made = evidence.restorations
        assert options.threshold is not None  # the detector has filled it in
        cut_percentile = float(options.threshold)
        cut = level.voxels.value(cut_percentile)
        warnings = list(self.warnings())
        if evidence.is_last and made < evidence.wanted:
            warnings.append(
                f"the time budget of {self.control.budget:g} s ended it after {made} of "
                f"{evidence.wanted} restorations: the result is less certain"
            )
        warnings += doubts_of_model(evidence.unlikely, seen.error, seen.width)
        p = percentile = None
        if is_distrusted(warnings):
            mask_cut = np.inf
        else:
            mask_cut = cut
            p = p_value(score, level.sample_scores)
            percentile = 100.0 * (1.0 - p)
            warnings += _widely_flagged(values[prepared.mask] >= cut, cut_percentile)
        self.control.seconds.setdefault("first_score", self.control.elapsed)
        (device, precision), seconds = self.place(), dict(self.control.seconds)

        def detection() -> Detection:
            started = time.perf_counter()
            high = prepared.mask & (values >= level.voxels.value(_HEALED_PERCENTILE))
            given = signs_of(
                prepared, evidence.maps, rule, self.reference.normative, spacing_mm, high
            )
            images = _to_native(self.volume, prepared, values, evidence, mask_cut, given)
            undo = time.perf_counter() - started
            return Detection(
                **images,
                sample_score=score,
                percentile=percentile,
                p_value=p,
                threshold=cut,
                threshold_percentile=cut_percentile,
                slice_scores=by_slice,
                healthy_scans=len(level.sample_scores),
                healthy_sites=self.reference.sites,
                model=self.model,
                mode=options.mode,
                method=options.method,
                restorations=made,
                seed=options.seed,
                device=device,
                precision=precision,
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
            seconds=self.control.elapsed,
            is_last=evidence.is_last,
            _detection=detection,
            changes_map=changes_map,
        )

    def anomalous(self, maps: Mapping[str, np.ndarray], spacing_mm: float) -> np.ndarray:
        """Where the anomaly map of a method's maps is high enough for tissue to be healed."""
        voxels = self.reference.calibration.at(self.options.restorations).voxels
        high = self._look_at(maps, spacing_mm).values >= voxels.value(_HEALED_PERCENTILE)
        return np.asarray(high & self.prepared.mask)

    def _look_at(self, maps: Mapping[str, np.ndarray], spacing_mm: float) -> _LookedAt:
        """Those of a method; of maps that further restorations do not change it is done once."""
        if not self._looked_at or self._looked_at[-1].maps is not maps:
            self._looked_at[:] = [_LookedAt.of(maps, self.prepared, self.reference, spacing_mm)]
        return self._looked_at[-1]


def _widely_flagged(flagged: np.ndarray, percentile: float) -> list[str]:
    """A line where far more of the brain is above the threshold than of a healthy one."""
    share, healthy = float(flagged.mean()), 1.0 - percentile / 100.0
    if share <= max(_WIDELY, _TIMES * healthy):
        return []
    return [
        f"{100 * share:.0f}% of the brain is above the threshold, against {100 * healthy:.2g}% of "
        "a healthy one: a very large lesion, or a scan unlike those that the model knows, whose "
        "regions mean little"
    ]


def _to_native(
    volume: Volume,
    prepared: PreparedScan,
    values: np.ndarray,
    evidence: Evidence,
    cut: float,
    given: np.ndarray,
) -> dict[str, np.ndarray]:
    """The images of a detection on the scan's own grid, by name."""
    shape = volume.shape
    restoration = volume.array.astype(np.float32)
    native_map, spread = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    mask, brain, sign = (np.zeros(shape, np.uint8) for _ in range(3))

    def place(part: NativePart) -> None:
        box = part.box

        def at(some: np.ndarray) -> np.ndarray:
            there = np.zeros(part.brain.shape, bool)
            there[part.brain] = some
            return there

        brain[box][part.brain] = 1
        # What stays 0 is not touched: it takes no memory.
        found = part.values(0)
        high = found > 0.0
        native_map[box][at(high)] = found[high]
        mask[box][at(np.maximum(found, 0.0) >= cut)] = 1
        number = part.nearest(given)
        sign[box][at(number > 0)] = number[number > 0]
        # Without shares the whole brain is drawn anew.
        drawn = evidence.replaced is None
        share = np.ones_like(found) if drawn else np.clip(part.values(3), 0.0, 1.0)
        some = share > _NO_SHARE
        if some.any():
            there, share = at(some), share[some]
            own = restoration[box][there]
            mixed = (1.0 - share) * own + share * part.values(1, some)
            restoration[box][there] = mixed
            spread[box][there] = np.where(mixed != own, share * part.values(2, some), 0.0)

    prepared.over_brain(
        place,
        values,
        prepared.to_intensity(evidence.restoration),
        prepared.to_spread(evidence.sd),
        *([] if evidence.replaced is None else [evidence.replaced]),
    )
    return {
        "anomaly_map": native_map,
        "anomaly_mask": mask,
        "restoration": restoration,
        "restoration_sd": spread,
        "brain_mask": brain,
        "signs": sign,
    }
