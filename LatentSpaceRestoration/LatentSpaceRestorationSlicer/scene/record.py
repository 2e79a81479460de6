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
    from LatentSpaceRestorationLib.results.record import DetectionRecord
    from LatentSpaceRestorationLib.results.regions import Extent

#: Of what is written; a scene of another format is shown as a scene without results.
_FORMAT = 1


#: What a scene calls the figures that it keeps. They are not renamed: saved scenes have them.
_FIGURES = {
    "sampleScore": "sample_score",
    "pValue": "p_value",
    "healthyScans": "healthy_scans",
    "healthySites": "healthy_sites",
    "healthyScores": "healthy_scores",
    "threshold": "threshold_percentile",
    **{name: name for name in ("model", "mode", "method", "restorations", "seed", "device")},
    **{name: name for name in ("precision", "version", "warnings")},
}


@dataclass(frozen=True)
class SceneRecord:
    """The figures of a detection, and what is needed to cut its map elsewhere.

    Attributes:
        figures: those that a scene keeps: not of slices and regions, which are nodes, and not the
            map's value at the threshold, which is moved.
        healthyPercentiles, healthyValues: the map's distribution over healthy brain voxels.
        affine: (4, 4) voxel index -> RAS that the scan was analysed in.
        brainLow, brainHigh, brainML: extent of the brain in that RAS, and its volume.
        made: when, in seconds since 1970.
    """

    figures: DetectionRecord
    healthyPercentiles: tuple[float, ...]
    healthyValues: tuple[float, ...]
    affine: tuple[tuple[float, ...], ...]
    brainLow: tuple[float, ...]
    brainHigh: tuple[float, ...]
    brainML: float
    made: float

    @classmethod
    def of(
        cls,
        detection: Detection,
        detector: Detector,
        affine: np.ndarray,
        warnings: tuple[str, ...],
    ) -> SceneRecord:
        """The record of a detection.

        Args:
            detection: on the scan's grid.
            detector: that made it.
            affine: (4, 4) that the scan was given to it with.
            warnings: all that there are.
        """
        from LatentSpaceRestorationLib.results.record import DetectionRecord
        from LatentSpaceRestorationLib.results.regions import Extent

        calibration = detector.model.calibration(detection.mode, detection.method)
        voxels = calibration.at(detection.restorations).voxels
        figures = DetectionRecord.of(detection, calibration)
        brain = Extent.of(detection.brain_mask, affine)
        return cls(
            figures=dataclasses.replace(
                figures,
                threshold=None,
                slice_scores=(),
                warnings=warnings,
                seconds={"all": figures.total_seconds or 0.0},
            ),
            healthyPercentiles=_floats(voxels.percentiles),
            healthyValues=_floats(voxels.values),
            affine=tuple(_floats(row) for row in affine),
            brainLow=_floats(brain.low_mm),
            brainHigh=_floats(brain.high_mm),
            brainML=float(brain.volume_ml),
            made=time.time(),
        )

    @property
    def threshold(self) -> float:
        """Healthy percentile at which the map was cut at first."""
        percentile = self.figures.threshold_percentile
        assert percentile is not None  # every detection has one
        return percentile

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
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del own["figures"]
        kept = {name: getattr(self.figures, key) for name, key in _FIGURES.items()}
        content = {"format": _FORMAT, **kept, "seconds": self.figures.total_seconds, **own}
        text = json.dumps(content)
        for sign in (";", "%"):
            text = text.replace(sign, f"\\u{ord(sign):04x}")
        return text

    @classmethod
    def fromText(cls, text: str) -> SceneRecord | None:
        """What ``toText`` gave; None if it is something else."""
        from LatentSpaceRestorationLib.results.record import DetectionRecord

        try:
            data = {name: _frozen(value) for name, value in json.loads(text).items()}
            if data.pop("format") != _FORMAT:
                return None
            seconds = {"all": float(data.pop("seconds"))}
            # Scenes of before do not have the number of sites, and the precision.
            given = {key: data.pop(name) for name, key in _FIGURES.items() if name in data}
            if given.keys() | {"healthy_sites", "precision"} != set(_FIGURES.values()):
                return None
            p = given["p_value"]
            percentile = None if p is None else 100.0 * (1.0 - p)
            return cls(DetectionRecord(**given, percentile=percentile, seconds=seconds), **data)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(entry) for entry in value) if isinstance(value, list) else value
