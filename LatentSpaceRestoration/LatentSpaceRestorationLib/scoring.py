"""From codes and residuals to scores: per slice, per scan, per voxel.

All arrays are numpy, in model space: (N, rows, columns) with slices from inferior to superior.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from .averages import Averages
from .calibration import PlaceStatistics
from .errors import BundleError
from .preprocessing import Prepared

#: The published sharpness k of the restoration weights (equation 6).
PAPER_SHARPNESS = 3.0


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


def masked_smooth(values: np.ndarray, mask: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean over the voxels of a mask only (normalised convolution).

    Args:
        values: (N, H, W).
        mask: (N, H, W) bool; what is outside neither counts nor gets a value (0).
        sigma: standard deviation in voxels.
    """
    weight = mask.astype(np.float32)
    total = ndimage.gaussian_filter(values * weight, sigma, mode="constant", truncate=3.0)
    share = ndimage.gaussian_filter(weight, sigma, mode="constant", truncate=3.0)
    return np.where(mask, total / np.maximum(share, 1e-6), 0.0).astype(np.float32)


@dataclass(frozen=True)
class ModeSettings:
    """How a mode turns restorations into a map and a score; a part of the model bundle.

    Attributes:
        paper: the published equations, which have percentiles only.
        restore_percentile: healthy percentile of the NLL of the brain's codes above which a code
            is resampled.
        slice_percentile: healthy percentile above which a code counts in the published score.
        difference_sigma_mm: Gaussian over the difference of the scan and its restoration.
        intensity_sigma_mm: Gaussian over the intensity.
        intensity_weight: share w of the intensity in the map, 0 to 1; see :func:`anomaly_map`.
        peak_ml: the sample score is the mean of the map over its hottest so many millilitres.
    """

    paper: bool = False
    restore_percentile: float = 60.0
    slice_percentile: float = 98.0
    difference_sigma_mm: float = 4.0
    intensity_sigma_mm: float = 4.0
    intensity_weight: float = 0.5
    peak_ml: float = 1.0

    @property
    def sharpness(self) -> float | None:
        """Of the restoration weights, see ``Averages``; None where they are not used."""
        return PAPER_SHARPNESS if self.paper else None

    @classmethod
    def of(cls, config: Mapping[str, Any], mode: str) -> ModeSettings:
        """A bundle's settings of a mode.

        Raises:
            BundleError: settings of another version.
        """
        if mode == "paper":
            return PAPER
        try:
            return cls(**config.get("scoring", {}))
        except TypeError as error:
            raise BundleError(
                f"model.json has scoring settings that are not known ({error})"
            ) from error


#: The published percentiles: 98th for the sample score, 90th for resampling.
PAPER = ModeSettings(paper=True, restore_percentile=90.0)


def feature_maps(
    prepared: Prepared, restored: Averages, settings: ModeSettings, spacing_mm: float
) -> dict[str, np.ndarray]:
    """The maps that the anomaly map is made of, before they are compared with what is usual.

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


def anomaly_map(
    prepared: Prepared,
    maps: Mapping[str, np.ndarray],
    settings: ModeSettings,
    places: Mapping[str, PlaceStatistics],
) -> np.ndarray:
    """The anomaly map in model space.

    Paper mode: the filtered residual. Default mode, in units of the healthy spread: |d|^(1-w)
    |i|^w, where d is the difference and i the intensity, each less what is usual at its place and
    over its healthy spread there, and w is ``intensity_weight``. The geometric mean asks for both:
    the prior must find the tissue unlikely, and its intensity must be unusual for the place.

    Args:
        prepared: the scan in model space.
        maps: from :func:`feature_maps`.
        settings: of the mode.
        places: what is usual, for each of the maps; not used in paper mode.

    Returns:
        (N, H, W) float32, at least 0, and 0 outside the brain.
    """
    if settings.paper:
        return maps["residual"]
    weights = {
        "difference": 1.0 - settings.intensity_weight,
        "intensity": settings.intensity_weight,
    }
    values = np.ones_like(prepared.slices)
    for name, map_ in maps.items():
        distance = np.abs(places[name].normalise(map_, prepared.position))
        values = values * distance ** weights[name]
    return np.where(prepared.mask, values, 0.0).astype(np.float32)


def sample_score(
    values: np.ndarray,
    mask: np.ndarray,
    nll: np.ndarray,
    slice_threshold: float,
    settings: ModeSettings,
    spacing_mm: float,
) -> float:
    """One figure for the scan.

    In paper mode the sum over all slices of the NLL of unlikely codes; else the mean of the map
    over its hottest ``peak_ml``: a lesion is a place, and a sum over the scan mostly measures the
    subject.
    """
    if settings.paper:
        return float(slice_nll_scores(nll, slice_threshold).sum())
    inside = values[mask]
    count = min(len(inside), max(1, round(settings.peak_ml * 1000.0 / spacing_mm**3)))
    return float(np.partition(inside, len(inside) - count)[-count:].mean())


def slice_scores(
    values: np.ndarray, nll: np.ndarray, slice_threshold: float, settings: ModeSettings
) -> np.ndarray:
    """(N,) one figure a slice: published sum in paper mode, else the peak of the map."""
    if settings.paper:
        return slice_nll_scores(nll, slice_threshold)
    return values.max(axis=(1, 2))
