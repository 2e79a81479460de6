"""The record of a result: what the JSON file, the reports, a cohort's table and a scene know of it.

A record is made of a detection, or read from what was written of one; whatever is missing or
garbled there is None or empty.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from ..calibration.levels import ModeCalibration
from ..detection import Detection, SliceScore
from ..volume import Volume, voxel_ml
from .regions import Evidence, Extent, Seen, find_regions

#: Smaller regions are not listed, in ml.
SMALLEST_ML = 0.2
_NOTICE = "For research use. Not for diagnosis."
#: How it was made, in the order in which it is told.
_SETTINGS = (
    "model",
    "mode",
    "method",
    "restorations",
    "seed",
    "device",
    "precision",
    "threshold_percentile",
    "version",
)


@dataclass(frozen=True)
class Flagged:
    """A flagged region; numbers that are not known are None.

    Attributes:
        place: in words.
        position_mm: (R, A, S), empty if it is not known.
        volume_ml, peak, mean: of the region, and of the map in it.
        evidence: what it is flagged for.
    """

    place: str
    position_mm: tuple[float, ...]
    volume_ml: float | None
    peak: float | None
    mean: float | None
    evidence: Evidence = Evidence()

    def position(self) -> str:
        """Such as ``-28, +4, +31``."""
        return ", ".join(f"{round(mm):+d}" for mm in self.position_mm)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Flagged:
        """What the JSON file says of a region."""
        position = _numbers(row.get("position_mm"))
        volume, peak, mean = (finite(row.get(key)) for key in ("volume_ml", "peak", "mean"))
        place = str(row.get("place", ""))
        signs = [
            (str(sign.get("sign", "")), finite(sign.get("share")) or 0.0)
            for sign in _items(row.get("signs"))
            if isinstance(sign, Mapping)
        ]
        told = (finite(row.get(key)) for key in ("intensity", "expected_intensity"))
        evidence = Evidence(tuple(signs), *told)
        return cls(place, position if len(position) == 3 else (), volume, peak, mean, evidence)

    def to_json(self) -> dict[str, Any]:
        """For the JSON file."""
        return {
            "place": self.place,
            "position_mm": list(self.position_mm),
            "volume_ml": self.volume_ml,
            "peak": self.peak,
            "mean": self.mean,
            "signs": [{"sign": name, "share": share} for name, share in self.evidence.signs],
            "intensity": self.evidence.intensity,
            "expected_intensity": self.evidence.expected,
        }


@dataclass(frozen=True, kw_only=True)
class DetectionRecord:
    """The figures of a scan; None or empty where they are not known.

    Attributes:
        sample_score, percentile, p_value, healthy_scans, healthy_sites, threshold,
            threshold_percentile, slice_scores, model, mode, method, restorations, seed, device,
            precision, warnings, seconds, version: as in ``Detection``.
        healthy_scores: sample scores of the calibration scans, made in the same way, ascending.
        flagged_ml, brain_ml: volumes; None of the first where the map is not to be trusted.
        regions: flagged regions, the highest peak first.
    """

    sample_score: float | None = None
    percentile: float | None = None
    p_value: float | None = None
    healthy_scans: int = 0
    healthy_sites: int = 0
    healthy_scores: tuple[float, ...] = ()
    threshold: float | None = None
    threshold_percentile: float | None = None
    slice_scores: tuple[SliceScore, ...] = ()
    flagged_ml: float | None = None
    brain_ml: float | None = None
    regions: tuple[Flagged, ...] | None = None
    model: str | None = None
    mode: str | None = None
    method: str | None = None
    restorations: int | None = None
    seed: int | None = None
    device: str | None = None
    precision: str | None = None
    version: str | None = None
    warnings: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, detection: Detection, calibration: ModeCalibration) -> DetectionRecord:
        """The record of a detection, without its regions.

        Args:
            detection: the result.
            calibration: of the method and mode that it was made with.
        """
        return cls(
            sample_score=float(detection.sample_score),
            percentile=detection.percentile,
            p_value=detection.p_value,
            healthy_scans=detection.healthy_scans,
            healthy_sites=detection.healthy_sites,
            healthy_scores=calibration.at(detection.restorations).sample_scores,
            threshold=detection.threshold,
            threshold_percentile=detection.threshold_percentile,
            slice_scores=detection.slice_scores,
            model=detection.model,
            mode=detection.mode,
            method=detection.method,
            restorations=detection.restorations,
            seed=detection.seed,
            device=detection.device,
            precision=detection.precision,
            version=detection.version,
            warnings=detection.warnings,
            seconds=detection.seconds,
        )

    def with_regions(self, detection: Detection, volume: Volume) -> DetectionRecord:
        """The same with how much is flagged, where, and what for.

        Args:
            detection: that it is the record of.
            volume: the scan.
        """
        affine = volume.affine
        one_ml = voxel_ml(affine)
        brain_ml = round(float((detection.brain_mask > 0).sum()) * one_ml, 3)
        if detection.p_value is None:
            return replace(self, brain_ml=brain_ml)
        regions = find_regions(
            detection.anomaly_map,
            detection.anomaly_mask,
            Extent.of(detection.brain_mask, affine),
            affine,
            SMALLEST_ML,
            Seen(detection.signs, volume.array, detection.restoration),
        )
        return replace(
            self,
            flagged_ml=round(float((detection.anomaly_mask > 0).sum()) * one_ml, 3),
            brain_ml=brain_ml,
            regions=tuple(
                Flagged(
                    region.words,
                    tuple(round(mm, 1) for mm in region.position_mm),
                    round(region.volume_ml, 3),
                    float(f"{region.peak:.4g}"),
                    float(f"{region.mean:.4g}"),
                    _rounded(region.evidence),
                )
                for region in regions
            ),
        )

    def detection(
        self,
        anomaly_map: np.ndarray,
        anomaly_mask: np.ndarray,
        restoration: np.ndarray,
        brain_mask: np.ndarray,
        signs: np.ndarray | None = None,
    ) -> Detection:
        """The detection that this is the record of, from its images, (I, J, K).

        The spread of its restorations is not known, and is 0.
        """
        images: dict[str, Any] = {
            "anomaly_map": anomaly_map,
            "anomaly_mask": anomaly_mask,
            "restoration": restoration,
            "restoration_sd": np.zeros_like(anomaly_map),
            "brain_mask": brain_mask,
            "signs": signs,
        }
        names = {each.name for each in fields(Detection)} - images.keys()
        return Detection(**images, **{name: getattr(self, name) for name in names})

    @property
    def total_seconds(self) -> float | None:
        """All in all."""
        if not self.seconds:
            return None
        return float(sum(s for step, s in self.seconds.items() if step != "first_score"))

    @property
    def settings(self) -> dict[str, str]:
        """How it was made, by its name in words."""
        known = {key: getattr(self, key) for key in _SETTINGS}
        return {k.replace("_", " "): str(v) for k, v in known.items() if v is not None}

    def to_json(self, scan: str) -> dict[str, Any]:
        """The content of a scan's JSON file."""
        regions = self.regions
        return {
            "scan": scan,
            "sample_score": self.sample_score,
            "percentile": self.percentile,
            "p_value": self.p_value,
            "healthy_scans": self.healthy_scans,
            **({"healthy_sites": self.healthy_sites} if self.healthy_sites else {}),
            "threshold": self.threshold,
            "threshold_percentile": self.threshold_percentile,
            "slice_scores": [
                {"position_mm": s.position_mm, "score": s.score} for s in self.slice_scores
            ],
            "model": self.model,
            "mode": self.mode,
            "method": self.method,
            "restorations": self.restorations,
            "seed": self.seed,
            "device": self.device,
            "precision": self.precision,
            "warnings": list(self.warnings),
            "seconds": {step: round(s, 3) for step, s in self.seconds.items()},
            "version": self.version,
            "notice": _NOTICE,
            "healthy_scores": [float(f"{score:.6g}") for score in self.healthy_scores],
            "flagged_ml": self.flagged_ml,
            "brain_ml": self.brain_ml,
            "regions": None if regions is None else [region.to_json() for region in regions],
        }

    @classmethod
    def from_json(cls, figures: Mapping[str, Any]) -> DetectionRecord:
        """The record of the content of a JSON file, or of a row of a table."""
        steps = figures.get("seconds")
        if not isinstance(steps, Mapping):
            steps = {"all": steps}
        regions = figures.get("regions")
        slices = [
            (finite(row.get("position_mm")), finite(row.get("score")))
            for row in _items(figures.get("slice_scores"))
            if isinstance(row, Mapping)
        ]
        healthy = _numbers(figures.get("healthy_scores"))
        return cls(
            sample_score=finite(figures.get("sample_score")),
            percentile=finite(figures.get("percentile")),
            p_value=finite(figures.get("p_value")),
            healthy_scans=int(finite(figures.get("healthy_scans")) or len(healthy)),
            healthy_sites=int(finite(figures.get("healthy_sites")) or 0),
            threshold=finite(figures.get("threshold")),
            healthy_scores=healthy,
            slice_scores=tuple(
                SliceScore(p, s)
                for p, s in sorted((p, s) for p, s in slices if p is not None and s is not None)
            ),
            flagged_ml=finite(figures.get("flagged_ml")),
            brain_ml=finite(figures.get("brain_ml")),
            regions=None
            if regions is None
            else tuple(Flagged.from_json(r) for r in _items(regions) if isinstance(r, Mapping)),
            warnings=tuple(str(line) for line in _items(figures.get("warnings"))),
            seconds={k: s for k, v in steps.items() if (s := finite(v)) is not None},
            **{key: figures[key] for key in _SETTINGS if figures.get(key) is not None},
        )


def _rounded(evidence: Evidence) -> Evidence:
    def short(value: float | None) -> float | None:
        return None if value is None else float(f"{value:.4g}")

    signs = tuple((name, round(share, 2)) for name, share in evidence.signs)
    return Evidence(signs, short(evidence.intensity), short(evidence.expected))


def finite(value: object) -> float | None:
    """A number, also one that is written out; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _items(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _numbers(value: object) -> tuple[float, ...]:
    return tuple(number for item in _items(value) if (number := finite(item)) is not None)
