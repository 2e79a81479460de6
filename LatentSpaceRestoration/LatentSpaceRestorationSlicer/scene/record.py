"""What is remembered of a detection with its anomaly map, so that a saved scene shows it again."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from LatentSpaceRestorationLib.detection import Detection
    from LatentSpaceRestorationLib.detector import Detector
    from LatentSpaceRestorationLib.results.regions import Extent

#: Of what is written; a scene of another format is shown as a scene without results.
_FORMAT = 1


@dataclass(frozen=True)
class Record:
    """The figures of a detection, and what is needed to cut its map elsewhere.

    Attributes:
        sampleScore, pValue, healthyScans, healthySites: as in ``Detection``.
        healthyScores: sample scores of the model's healthy scans, made in the same way, ascending.
        healthyPercentiles, healthyValues: the map's distribution over healthy brain voxels.
        threshold: healthy percentile at which the map was cut at first.
        affine: (4, 4) voxel index -> RAS that the scan was analysed in.
        brainLow, brainHigh, brainML: extent of the brain in that RAS, and its volume.
        model, mode, method, restorations, seed, device, version: how it was made.
        warnings: what the user should know.
        seconds: how long it took.
        made: when, in seconds since 1970.
    """

    sampleScore: float
    pValue: float | None
    healthyScans: int
    healthyScores: tuple[float, ...]
    healthyPercentiles: tuple[float, ...]
    healthyValues: tuple[float, ...]
    threshold: float
    affine: tuple[tuple[float, ...], ...]
    brainLow: tuple[float, ...]
    brainHigh: tuple[float, ...]
    brainML: float
    model: str
    mode: str
    method: str
    restorations: int
    seed: int
    device: str
    version: str
    warnings: tuple[str, ...]
    seconds: float
    made: float
    healthySites: int = 0

    @classmethod
    def of(
        cls,
        detection: Detection,
        detector: Detector,
        affine: np.ndarray,
        warnings: tuple[str, ...],
    ) -> Record:
        """The record of a detection.

        Args:
            detection: on the scan's grid.
            detector: that made it.
            affine: (4, 4) that the scan was given to it with.
            warnings: all that there are.
        """
        from LatentSpaceRestorationLib.results.regions import Extent

        calibration = detector.model.calibration(detection.mode, detection.method)
        level = calibration.at(detection.restorations)
        brain = Extent.of(detection.brain_mask, affine)
        return cls(
            sampleScore=float(detection.sample_score),
            pValue=detection.p_value,
            healthyScans=detection.healthy_scans,
            healthySites=detection.healthy_sites,
            healthyScores=_floats(level.sample_scores),
            healthyPercentiles=_floats(level.voxels.percentiles),
            healthyValues=_floats(level.voxels.values),
            threshold=float(detection.threshold_percentile),
            affine=tuple(_floats(row) for row in affine),
            brainLow=_floats(brain.low_mm),
            brainHigh=_floats(brain.high_mm),
            brainML=float(brain.volume_ml),
            model=detection.model,
            mode=detection.mode,
            method=detection.method,
            restorations=detection.restorations,
            seed=detection.seed,
            device=detection.device,
            version=detection.version,
            warnings=warnings,
            seconds=float(sum(s for step, s in detection.seconds.items() if step != "first_score")),
            made=time.time(),
        )

    def value(self, percentile: float) -> float:
        """The map value that a percentage of healthy brain voxels stays below."""
        return float(np.interp(percentile, self.healthyPercentiles, self.healthyValues))

    def brain(self) -> Extent:
        """How far the brain reaches, for the names of places in it."""
        from LatentSpaceRestorationLib.results.regions import Extent

        low, high = ((x[0], x[1], x[2]) for x in (self.brainLow, self.brainHigh))
        return Extent(low, high, self.brainML)

    def toText(self) -> str:
        """JSON without the signs that mean something in a scene file."""
        text = json.dumps({"format": _FORMAT, **dataclasses.asdict(self)})
        for sign in (";", "%"):
            text = text.replace(sign, f"\\u{ord(sign):04x}")
        return text

    @classmethod
    def fromText(cls, text: str) -> Record | None:
        """What ``toText`` gave; None if it is something else."""
        try:
            data = json.loads(text)
            if data.pop("format") != _FORMAT:
                return None
            return cls(**{name: _frozen(value) for name, value in data.items()})
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(entry) for entry in value) if isinstance(value, list) else value
