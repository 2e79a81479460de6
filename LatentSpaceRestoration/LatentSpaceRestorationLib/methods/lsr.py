"""``lsr``: latent space restoration, Naval Marimont and Tarroni (ISBI 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..inference.averages import Averages
from ..scoring.anomaly_map import MapRule, ModeSettings, feature_maps, slice_nll_scores
from .base import Case, Evidence


@dataclass(frozen=True)
class LatentSpaceRestoration:
    """Codes that the prior finds unlikely are drawn anew, several times, and decoded.

    Attributes:
        settings: of the mode.
        restore_threshold: nats; codes of the brain above it are resampled.
        slice_threshold: nats; codes above it count in the published score.
        sampler: see :func:`restore.restore`.
    """

    settings: ModeSettings
    restore_threshold: float
    slice_threshold: float
    sampler: str = "cached"

    @property
    def rule(self) -> MapRule:
        return self.settings.rule

    def evidence(self, case: Case) -> Iterator[Evidence]:
        """After 1, 3, 7, 15 restorations, and after every 8 further ones."""
        prepared, settings = case.prepared, self.settings
        _, reading = case.read()
        for averages, is_last in self.restorations(case):
            with case.course.step("score", "Scoring", 0.0):
                evidence = Evidence(
                    feature_maps(prepared, averages, settings, case.spacing_mm),
                    averages.mean.astype(np.float32),
                    averages.sd.astype(np.float32),
                    averages.restorations,
                    case.restorations,
                    is_last,
                    slice_nll_scores(reading.nll, self.slice_threshold) if settings.paper else None,
                )
            yield evidence

    def restorations(self, case: Case) -> Iterator[tuple[Averages, bool]]:
        """Restorations of a scan, group by group, as far as the time budget goes.

        Yields:
            after each group the averages so far, always the same object, and whether it was the
            last.
        """
        networks, reading = case.read()
        prepared, course, count = case.prepared, case.course, case.restorations
        averages = Averages(prepared.slices, self.settings.sharpness)
        groups = course.groups(count)
        group = next(groups, None)
        while group is not None:
            before, after = group.start / count, group.stop / count
            message = f"Restoring ({group.start} of {count} done)"
            with course.step(
                "restore", message, 0.2 + 0.75 * (0.4 * before + 0.6 * after)
            ) as report:
                grids = networks.resample(
                    prepared,
                    reading,
                    threshold=self.restore_threshold,
                    numbers=group,
                    seed=case.seed,
                    step=report,
                    is_cancelled=course.is_cancelled,
                    sampler=self.sampler,
                )
            with course.step("decode", message, 0.2 + 0.75 * after) as report:
                networks.decode(prepared, reading, grids, averages, report, course.is_cancelled)
            group = next(groups, None)
            yield averages, group is None
