"""``vqvae-residual``: what the VQ-VAE cannot reproduce, without its prior."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..scoring.anomaly_map import MapRule
from ..scoring.filters import SMOOTHING_MM
from .base import Evidence, ScanContext


@dataclass(frozen=True)
class VQVAEResidual:
    """|slice - reconstruction|, smoothed, compared with the normative value at its place.

    Attributes:
        sigma_mm: standard deviation of the Gaussian.
    """

    draws_maps: ClassVar[bool] = False
    sigma_mm: float = SMOOTHING_MM
    rule: MapRule = MapRule.of_high("residual")

    def evidence(self, context: ScanContext) -> Iterator[Evidence]:
        """One; its restoration is the reconstruction from the scan's own codes."""
        prepared = context.prepared
        networks, reading = context.read()
        with context.control.step("decode", "Reconstructing", 0.9) as report:
            back = networks.reconstruct(prepared, reading.codes, report)
        maps = context.smoothed({"residual": np.abs(prepared.slices - back)}, self.sigma_mm)
        yield Evidence.of_one(maps, back)
