"""``nll``: how unlikely the prior finds the codes, without restoring anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..scoring.anomaly_map import MapRule
from ..scoring.filters import SMOOTHING_MM, upsampled
from .base import Evidence, ScanContext


@dataclass(frozen=True)
class CodeLikelihood:
    """-log p(code | codes before it), upsampled, smoothed, beside the normative values there.

    Naval Marimont and Tarroni (ISBI 2021), as a map.

    Attributes:
        sigma_mm: standard deviation of the Gaussian.
    """

    draws_maps: ClassVar[bool] = False
    sigma_mm: float = SMOOTHING_MM
    rule: MapRule = MapRule.of_high("nll")

    def evidence(self, context: ScanContext) -> Iterator[Evidence]:
        """One, without a restoration."""
        slices = context.prepared.slices
        _, reading = context.read()
        maps = context.smoothed({"nll": upsampled(reading.nll, slices.shape)}, self.sigma_mm)
        yield Evidence.of_maps(maps, slices)
