"""``vqvae-residual``: what the VQ-VAE cannot reproduce, without its prior."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..scoring.anomaly_map import MapRule
from ..scoring.filters import SMOOTHING_MM
from .base import Case, Evidence


@dataclass(frozen=True)
class VQVAEResidual:
    """|slice - reconstruction|, smoothed, compared with what is usual at its place.

    Attributes:
        sigma_mm: standard deviation of the Gaussian.
    """

    sigma_mm: float = SMOOTHING_MM
    rule: MapRule = MapRule.of_high("residual")

    def evidence(self, case: Case) -> Iterator[Evidence]:
        """One; its restoration is the reconstruction from the scan's own codes."""
        prepared = case.prepared
        networks, reading = case.read()
        with case.course.step("decode", "Reconstructing", 0.9) as report:
            back = networks.reconstruct(prepared, reading, report)
        maps = case.smoothed({"residual": np.abs(prepared.slices - back)}, self.sigma_mm)
        yield Evidence.of_one(maps, back)
