"""``lsr`` in its default mode, with a masked prior: what is there beside what should be there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..averages import Averages
from ..scoring import MapRule, ModeSettings, without_wide_mean
from .evidence import Case, Evidence
from .nll import upsampled


@dataclass(frozen=True)
class MaskedRestoration:
    """Each tile of codes is hidden, and what the rest leads one to expect is set beside it.

    Three properties are looked at, since anomalies differ in which of them gives them away: the
    difference of the scan and its expectation (another intensity), the residual of the VQ-VAE
    (another texture) and the likelihood of the codes (another structure). The rarest counts. The
    map needs no restorations: those are made to be looked at, and for their spread.

    Attributes:
        settings: of the model.
        restore_threshold: nats; codes of the brain above it are drawn anew.
    """

    settings: ModeSettings
    restore_threshold: float

    @property
    def rule(self) -> MapRule:
        weights = dict.fromkeys(("difference", "residual", "nll"), 1 / 3)
        one_sided = frozenset({"residual", "nll"})
        return MapRule(weights, one_sided, "rarest", self.settings.peak_ml)

    def evidence(self, case: Case) -> Iterator[Evidence]:
        """After 1, 3, 7, 15 restorations, and after every 8 further ones."""
        networks, expected = case.expect(self.settings.tile_codes)
        prepared, course, reading = case.prepared, case.course, expected.reading
        x = prepared.slices
        maps = {
            "difference": self._difference(case, x - expected.image),
            **case.smoothed(
                {
                    "residual": expected.residual,
                    "nll": upsampled(reading.nll, x.shape),
                }
            ),
        }
        with course.step("restore", "Looking into what is unlikely", 0.45) as report:
            unlikely = reading.brain & (reading.nll > self.restore_threshold)
            holes = networks.look_into(prepared, reading, unlikely, report)
        share = float(unlikely.sum()) / max(float(reading.brain.sum()), 1.0)
        averages = Averages(x)
        groups = course.groups(case.restorations)
        group = next(groups, None)
        while group is not None:
            message = f"Restoring ({group.start} of {case.restorations} done)"
            with course.step("restore", message, 0.0):
                grids = holes.fill(group, case.seed)
            after = 0.45 + 0.5 * group.stop / case.restorations
            with course.step("decode", message, after) as report:
                networks.decode(prepared, reading, grids, averages, report, course.is_cancelled)
            group = next(groups, None)
            yield Evidence(
                maps,
                averages.mean.astype(np.float32),
                averages.sd.astype(np.float32),
                averages.restorations,
                case.restorations,
                is_last=group is None,
                unlikely=(share, 1.0 - self.settings.hole_percentile / 100.0),
            )

    def _difference(self, case: Case, difference: np.ndarray) -> np.ndarray:
        """Of the scan and what is expected, less what is so in all of the surroundings."""
        settings, spacing = self.settings, case.spacing_mm
        near = case.smoothed({"difference": difference}, settings.expected_sigma_mm)["difference"]
        sigma = settings.wide_sigma_mm / spacing
        return without_wide_mean(near, case.prepared.mask, sigma, settings.wide_limit)
