"""``lsr``: latent space restoration, Naval Marimont and Tarroni (ISBI 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from scipy import ndimage

from ..calibration.code_values import CodeValues
from ..calibration.levels import ModeCalibration
from ..errors import BundleError
from ..inference.averages import Averages
from ..inference.healing import healed
from ..inference.readings import code_quantiles
from ..preprocessing.slices import PreparedScan
from ..scoring.anomaly_map import MapRule
from ..scoring.filters import masked_smooth
from .base import Evidence, Method, ScanContext, Setup
from .masked import MaskedRestoration
from .settings import ModeSettings

#: A code is shown as replaced where it was in this share of the restorations.
_MOSTLY = 0.5


def latent_space_restoration(setup: Setup) -> Method:
    """The method in a mode: by the masked prior where the model has one, unless asked otherwise.

    Raises:
        BundleError: the calibration does not say what the masked prior's codes stand for.
    """
    settings = ModeSettings.of(setup.config, setup.mode)
    known = setup.calibration
    if not _is_masked(setup):
        return LatentSpaceRestoration(settings, known.restore_threshold, known.slice_threshold)
    if known.codes is None:
        raise BundleError(
            f"model {setup.model} does not say what its codes stand for; calibrate it "
            "again on healthy scans"
        )
    return MaskedRestoration(settings, known.restore_threshold, known.codes)


def calibrated(setup: Setup, healthy: Sequence[ScanContext]) -> ModeCalibration:
    """What must be known of healthy scans first: thresholds in nats, and what codes stand for.

    Args:
        setup: its calibration has no levels yet.
        healthy: scans and their model.
    """
    settings, empty = ModeSettings.of(setup.config, setup.mode), setup.calibration
    if not _is_masked(setup):
        seen = code_quantiles([context.read()[1].nll_of_brain for context in healthy])
        return replace(
            empty,
            restore_threshold=seen.value(settings.restore_percentile),
            slice_threshold=seen.value(settings.slice_percentile),
        )
    values = _code_values(setup, healthy)
    seen = code_quantiles(
        [context.expect(settings.plan, values)[1].nll_of_brain for context in healthy]
    )
    threshold = seen.value(settings.hole_percentile)
    return replace(empty, restore_threshold=threshold, codes=values)


def _is_masked(setup: Setup) -> bool:
    return setup.mode == "default" and "masked" in setup.config


def _code_values(setup: Setup, healthy: Sequence[ScanContext]) -> CodeValues:
    """What the codes stand for in healthy scans."""

    def each() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        for context in healthy:
            networks, reading = context.read()
            back = networks.reconstruct(context.prepared, reading.codes)
            yield reading.codes, context.prepared.slices, back, context.prepared.mask

    return CodeValues.of(int(setup.config["vqvae"]["codes"]), each())


@dataclass(frozen=True)
class LatentSpaceRestoration:
    """Codes that the prior finds unlikely are drawn anew, several times, and decoded.

    Attributes:
        settings: of the mode.
        restore_threshold: nats; codes of the brain above it are resampled.
        slice_threshold: nats; codes above it count in the published score.
        sampler: see :func:`restore.restore`.
    """

    draws_maps: ClassVar[bool] = True
    settings: ModeSettings
    restore_threshold: float
    slice_threshold: float
    sampler: str = "cached"

    @property
    def rule(self) -> MapRule:
        return self.settings.rule

    def evidence(self, context: ScanContext) -> Iterator[Evidence]:
        """After 1, 3, 7, 15 restorations, and after every 8 further ones."""
        prepared, settings = context.prepared, self.settings
        networks, reading = context.read()
        own = networks.reconstruct(prepared, reading.codes)
        for averages, is_last in self.restorations(context):
            with context.control.step("score", "Scoring", 0.0):
                mean, cells = averages.mean.astype(np.float32), averages.replaced >= _MOSTLY
                image, weight = healed(prepared, mean, own, cells, context.spacing_mm)
                evidence = Evidence(
                    feature_maps(prepared, averages, settings, context.spacing_mm),
                    image,
                    averages.sd.astype(np.float32),
                    averages.restorations,
                    context.restorations,
                    is_last,
                    slice_nll_scores(reading.nll, self.slice_threshold) if settings.paper else None,
                    replaced=weight,
                )
            yield evidence

    def restorations(self, context: ScanContext) -> Iterator[tuple[Averages, bool]]:
        """Restorations of a scan, group by group, as far as the time budget goes.

        Yields:
            after each group the averages so far, always the same object, and whether it was the
            last.
        """
        networks, reading = context.read()
        prepared, control, count = context.prepared, context.control, context.restorations
        averages = Averages(prepared.slices, self.settings.sharpness)
        groups = control.groups(count)
        group = next(groups, None)
        while group is not None:
            before, after = group.start / count, group.stop / count
            message = f"Restoring ({group.start} of {count} done)"
            with control.step(
                "restore", message, 0.2 + 0.75 * (0.4 * before + 0.6 * after)
            ) as report:
                grids = networks.resample(
                    prepared,
                    reading,
                    threshold=self.restore_threshold,
                    numbers=group,
                    seed=context.seed,
                    step=report,
                    is_cancelled=control.is_cancelled,
                    sampler=self.sampler,
                )
            with control.step("decode", message, 0.2 + 0.75 * after) as report:
                networks.decode(
                    prepared, reading.codes, grids, averages, report, control.is_cancelled
                )
            group = next(groups, None)
            yield averages, group is None


def slice_nll_scores(nll: np.ndarray, threshold: float) -> np.ndarray:
    """AS_sample of the paper (equation 4) by slice: sum of the NLL of unlikely codes.

    Args:
        nll: (N, h, w) negative log-likelihoods in nats.
        threshold: lambda_s in nats.

    Returns:
        (N,) sums; their sum is the published score of the scan.
    """
    return np.where(nll > threshold, nll, 0.0).sum(axis=(1, 2))


def paper_filter(residual: np.ndarray) -> np.ndarray:
    """The published smoothing: a 3-wide minimum in 3-D, then means over 3 x 7 x 7.

    Means count no padding: a constant map stays constant up to its borders, where the published
    filters damp it to 0.57 at an edge and 0.22 at a corner.

    Args:
        residual: (N, H, W).
    """
    smallest = ndimage.minimum_filter(residual, size=3, mode="nearest")
    return ndimage.uniform_filter(smallest, size=(3, 7, 7), mode="nearest")


def feature_maps(
    prepared: PreparedScan, restored: Averages, settings: ModeSettings, spacing_mm: float
) -> dict[str, np.ndarray]:
    """The maps that the anomaly map is made of, before they are compared with normative values.

    The default mode smooths the *signed* difference of the scan and the mean restoration: what a
    restoration redraws in healthy tissue is darker here and brighter there and averages out, which
    an absolute difference keeps.

    Returns:
        paper mode: ``residual``; else ``difference`` and, if it has a weight, ``intensity``. Each
        (N, H, W) float32, 0 outside the brain.
    """
    mask = prepared.mask
    if settings.paper:
        residual = paper_filter(restored.weighted_residual)
        return {"residual": np.where(mask, residual, 0.0).astype(np.float32)}
    difference = prepared.slices - restored.mean
    maps = {
        "difference": masked_smooth(difference, mask, settings.difference_sigma_mm / spacing_mm)
    }
    if settings.intensity_weight > 0:
        sigma = settings.intensity_sigma_mm / spacing_mm
        maps["intensity"] = masked_smooth(prepared.slices, mask, sigma)
    return maps
