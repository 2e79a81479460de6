"""From codes and residuals to scores: per slice, per scan, per voxel.

All arrays are numpy, in model space: (N, rows, columns) with slices from inferior to superior.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from .calibration import PlaceStatistics
from .errors import BundleError
from .preprocessing import Prepared

if TYPE_CHECKING:
    from .inference import Restorations

#: The published sharpness of the restoration weights.
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


def restoration_weights(distance: np.ndarray, sharpness: float = PAPER_SHARPNESS) -> np.ndarray:
    """Weights of the S restorations of each slice (equation 6): softmax of k / distance.

    Args:
        distance: (N, S) mean absolute difference of slice and restoration.
        sharpness: k; 0 weighs all alike.

    Returns:
        (N, S), rows sum to 1.
    """
    exponent = sharpness / np.maximum(distance, 1e-6)
    exponent -= exponent.max(axis=1, keepdims=True)
    weights = np.exp(exponent)
    return weights / weights.sum(axis=1, keepdims=True)


def weighted_residual(
    slices: np.ndarray, restorations: np.ndarray, sharpness: float = PAPER_SHARPNESS
) -> np.ndarray:
    """AS_pixel before filtering (equation 5): sum over j of w_j |Y - X_j|.

    Args:
        slices: (N, H, W), Y.
        restorations: (N, S, H, W), X_j.
        sharpness: k of the weights.

    Returns:
        (N, H, W) in the unit of the slices.
    """
    difference = np.abs(slices[:, None] - restorations)
    weights = restoration_weights(difference.mean(axis=(2, 3)), sharpness)
    return np.einsum("ns,nshw->nhw", weights, difference, optimize=True)


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
    """How a mode turns residuals into a map and a score; a part of the model bundle.

    Attributes:
        paper: the published equations; all else is then ignored but ``restore_percentile`` and
            ``slice_percentile``.
        restore_percentile: healthy percentile of the NLL of the brain's codes above which a code
            is resampled.
        slice_percentile: healthy percentile above which a code counts in the published score.
        reference: ``scan`` or ``reconstruction``: what the restorations are compared with.
        sharpness: k of the weights; 0 is the plain mean.
        sigma_mm: Gaussian over the residual.
        normalise: in units of the healthy spread at each place.
        intensity_weight: share of the intensity itself, against what is usual at its place; 0
            leaves it out. A lesion of one intensity is redrawn badly by a weak prior, and stands
            out by its intensity alone.
        intensity_sigma_mm: Gaussian over the intensity.
        peak_ml: the sample score is the mean of the map over its hottest so many millilitres.
    """

    paper: bool = False
    restore_percentile: float = 80.0
    slice_percentile: float = 98.0
    reference: str = "scan"
    sharpness: float = 0.0
    sigma_mm: float = 3.0
    normalise: bool = True
    intensity_weight: float = 1.0
    intensity_sigma_mm: float = 5.0
    peak_ml: float = 4.0

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
PAPER = ModeSettings(
    paper=True, restore_percentile=90.0, sharpness=PAPER_SHARPNESS, normalise=False
)


def residual_map(
    prepared: Prepared, restored: Restorations, settings: ModeSettings, spacing_mm: float
) -> np.ndarray:
    """The smoothed residual, before it is compared with what is usual.

    Returns:
        (N, H, W) float32, 0 outside the brain.
    """
    if settings.paper:
        residual = weighted_residual(prepared.slices, restored.restored, settings.sharpness)
        return np.where(prepared.mask, paper_filter(residual), 0.0).astype(np.float32)
    base = prepared.slices if settings.reference == "scan" else restored.reconstruction
    residual = weighted_residual(base, restored.restored, settings.sharpness)
    return masked_smooth(residual, prepared.mask, settings.sigma_mm / spacing_mm)


def feature_maps(
    prepared: Prepared, restored: Restorations, settings: ModeSettings, spacing_mm: float
) -> dict[str, np.ndarray]:
    """The maps that the anomaly map is made of, before they are compared with what is usual.

    Returns:
        ``residual`` and, if the mode asks for it, ``intensity``, each (N, H, W) float32, 0
        outside the brain.
    """
    maps = {"residual": residual_map(prepared, restored, settings, spacing_mm)}
    if settings.normalise and settings.intensity_weight > 0:
        sigma = settings.intensity_sigma_mm / spacing_mm
        maps["intensity"] = masked_smooth(prepared.slices, prepared.mask, sigma)
    return maps


def anomaly_map(
    prepared: Prepared,
    maps: Mapping[str, np.ndarray],
    settings: ModeSettings,
    places: Mapping[str, PlaceStatistics],
) -> np.ndarray:
    """The anomaly map in model space.

    In units of the healthy spread: sqrt(r^2 + (w i)^2), where r is the residual above what is
    usual at its place, i the intensity's distance from what is usual there, either way, and w
    ``intensity_weight``. Modes that do not normalise give the residual as it is.

    Args:
        prepared: the scan in model space.
        maps: from :func:`feature_maps`.
        settings: of the mode.
        places: what is usual, for each of the maps; not used if the mode does not normalise.

    Returns:
        (N, H, W) float32, at least 0, and 0 outside the brain.
    """
    if not settings.normalise:
        values = maps["residual"]
    else:
        residual = places["residual"].normalise(maps["residual"], prepared.position)
        values = np.maximum(residual, 0.0)
        if "intensity" in maps:
            intensity = places["intensity"].normalise(maps["intensity"], prepared.position)
            values = np.hypot(values, settings.intensity_weight * intensity)
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
