"""``intensity``: how unusual the intensity is for its place. No network at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..scoring.anomaly_map import MapRule
from ..scoring.filters import SMOOTHING_MM
from .base import Evidence, ScanContext


@dataclass(frozen=True)
class Intensity:
    """|z|, z the smoothed intensity less the normative value at its place, over the spread there.

    A learned method that loses to this has learned nothing of use.

    Attributes:
        sigma_mm: standard deviation of the Gaussian.
    """

    draws_maps: ClassVar[bool] = False
    sigma_mm: float = SMOOTHING_MM
    rule: MapRule = MapRule({"intensity": 1.0})

    def evidence(self, context: ScanContext) -> Iterator[Evidence]:
        """One, without a restoration."""
        slices = context.prepared.slices
        maps = context.smoothed({"intensity": slices}, self.sigma_mm)
        yield Evidence.of_maps(maps, slices)
