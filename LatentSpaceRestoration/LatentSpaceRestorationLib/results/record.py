"""What is known of a scan, from its JSON file; whatever is missing or garbled there is left out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Flagged:
    """A flagged region; numbers that are not known are None.

    Attributes:
        place: in words.
        position_mm: (R, A, S), empty if it is not known.
        volume_ml, peak, mean: of the region, and of the map in it.
    """

    place: str
    position_mm: tuple[float, ...]
    volume_ml: float | None
    peak: float | None
    mean: float | None

    def position(self) -> str:
        """Such as ``-28, +4, +31``."""
        return ", ".join(f"{round(mm):+d}" for mm in self.position_mm)


@dataclass(frozen=True)
class ReportRecord:
    """The figures of a scan, as ``lsr detect`` writes them; None or empty where they are not known.

    Attributes:
        score, percentile, p_value, healthy_scans, healthy_sites, threshold: as in ``Detection``.
        healthy_scores: of the calibration scans.
        slice_scores: (position in mm, score), from below to above.
        flagged_ml, brain_ml: volumes.
        regions: the highest peak first; None if they are not known.
        warnings: lines.
        seconds: all in all.
        settings: how it was made, by its name in words.
    """

    score: float | None
    percentile: float | None
    p_value: float | None
    healthy_scans: int
    healthy_sites: int
    threshold: float | None
    healthy_scores: tuple[float, ...]
    slice_scores: tuple[tuple[float, float], ...]
    flagged_ml: float | None
    brain_ml: float | None
    regions: tuple[Flagged, ...] | None
    warnings: tuple[str, ...]
    seconds: float | None
    settings: dict[str, str]

    @classmethod
    def of(cls, figures: Mapping[str, Any]) -> ReportRecord:
        """The record of the content of a JSON file."""
        steps = figures.get("seconds")
        seconds = finite(steps)
        if isinstance(steps, Mapping):
            seconds = sum(finite(s) or 0.0 for k, s in steps.items() if k != "first_score")
        regions = figures.get("regions")
        slices = [
            (finite(row.get("position_mm")), finite(row.get("score")))
            for row in _items(figures.get("slice_scores"))
            if isinstance(row, Mapping)
        ]
        known = (
            "model",
            "mode",
            "method",
            "restorations",
            "seed",
            "device",
            "threshold_percentile",
            "version",
        )
        healthy = _numbers(figures.get("healthy_scores"))
        return cls(
            score=finite(figures.get("sample_score")),
            percentile=finite(figures.get("percentile")),
            p_value=finite(figures.get("p_value")),
            healthy_scans=int(finite(figures.get("healthy_scans")) or len(healthy)),
            healthy_sites=int(finite(figures.get("healthy_sites")) or 0),
            threshold=finite(figures.get("threshold")),
            healthy_scores=healthy,
            slice_scores=tuple(
                sorted((p, s) for p, s in slices if p is not None and s is not None)
            ),
            flagged_ml=finite(figures.get("flagged_ml")),
            brain_ml=finite(figures.get("brain_ml")),
            regions=None
            if regions is None
            else tuple(_flagged(row) for row in _items(regions) if isinstance(row, Mapping)),
            warnings=tuple(str(line) for line in _items(figures.get("warnings"))),
            seconds=seconds,
            settings={key.replace("_", " "): str(figures[key]) for key in known if key in figures},
        )


def finite(value: object) -> float | None:
    """A number, also one that is written out; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _flagged(row: Mapping[str, Any]) -> Flagged:
    position = _numbers(row.get("position_mm"))
    volume, peak, mean = (finite(row.get(key)) for key in ("volume_ml", "peak", "mean"))
    place = str(row.get("place", ""))
    return Flagged(place, position if len(position) == 3 else (), volume, peak, mean)


def _items(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _numbers(value: object) -> tuple[float, ...]:
    return tuple(number for item in _items(value) if (number := finite(item)) is not None)
