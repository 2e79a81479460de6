"""From codes and residuals to scores: per slice, per scan, per voxel.

All arrays are numpy, in model space: (N, rows, columns) with slices from inferior to superior.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from ..calibration.normative import Usual
from ..calibration.tail_probability import zones
from ..errors import BundleError
from ..inference.averages import Averages
from ..preprocessing.slices import Prepared

#: Standard deviation of the Gaussian over maps, as measured to be best for the default mode.
SMOOTHING_MM = 4.0
#: The published sharpness k of the restoration weights (equation 6).
PAPER_SHARPNESS = 3.0
#: Least variance of the intensity that is worth following, in squared robust standard deviations.
_FLAT = 0.05


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


def without_wide_mean(
    values: np.ndarray, mask: np.ndarray, sigma: float, limit: float
) -> np.ndarray:
    """What stands out from its wider surroundings.

    A bias field or another contrast shifts a difference over wide parts of the brain, which is not
    what is looked for; the wide mean of it is taken off. Values count in that mean up to a limit,
    so that a lesion, which is large where it is, hardly takes part.

    Args:
        values: (N, H, W).
        mask: (N, H, W) bool; outside it the result is 0.
        sigma: of the Gaussian mean, in voxels.
        limit: largest absolute value that counts.
    """
    wide = masked_smooth(np.clip(values, -limit, limit), mask, sigma)
    return np.where(mask, values - wide, 0.0).astype(np.float32)


def along_edges(
    values: np.ndarray, slices: np.ndarray, mask: np.ndarray, radius: int
) -> np.ndarray:
    """A map that ends where things in the scan end, as far as it goes with the scan at all.

    Maps are smoothed, so that an anomaly has a halo. In each neighbourhood the map is explained by
    the intensity, by linear regression, as in the guided filter (He, Sun and Tang 2010, "Guided
    image filtering", ECCV), and moves to what that explains by the size of their correlation. What
    the intensity does not explain, such as noise, stays as it is. What it explains far and wide,
    such as all that is dark in sulci a little wider than usual, is evened out.

    Args:
        values: (N, H, W), at least 0.
        slices: (N, H, W), the scan in its robust standard deviations.
        mask: (N, H, W) bool, brain; what is outside does not count.
        radius: of a neighbourhood, in voxels: it is 2 * radius + 1 wide.

    Returns:
        (N, H, W) float32, at least 0, and 0 outside the brain.
    """
    weight, width = mask.astype(np.float32), 2 * radius + 1

    def total(array: np.ndarray) -> np.ndarray:
        return np.asarray(ndimage.uniform_filter(array * weight, width, mode="constant"))

    share = np.maximum(total(weight), 1e-6)
    intensity, value = total(slices) / share, total(values) / share
    variance = total(slices**2) / share - intensity**2 + _FLAT
    spread = np.maximum(total(values**2) / share - value**2, 1e-6)
    covariance = total(slices * values) / share - intensity * value
    explained = value + covariance / variance * (slices - intensity)
    correlation = np.minimum(np.abs(covariance) / np.sqrt(variance * spread), 1.0)
    moved = values + correlation * (explained - values)
    return np.where(mask, np.maximum(moved, 0.0), 0.0).astype(np.float32)


@dataclass(frozen=True)
class MapRule:
    """How the anomaly map and the sample score come from the maps of a method.

    A map with statistics of its place is taken in units of the healthy spread: z, the value less
    what is usual at its place, over the spread there; |z| counts, or, if only high values are
    unusual, log(1 + exp(z)), which is about z where it is high, and never negative. A map without
    statistics counts as it is.

    Attributes:
        weights: share of each map, in sum 1.
        one_sided: maps of which only values above the usual ones are unusual.
        combine: ``product``, the weighted geometric mean of the maps, which asks that all of them
            be high; ``sum``, their weighted mean; ``rarest``, the highest of their rarities among
            healthy voxels (see :mod:`rarity`), which asks that one of them be, whatever the
            weights.
        peak_ml: the sample score is the mean of the map over its hottest so many millilitres.
        edge_widths_mm: neighbourhoods in which the map is made to follow the edges of the scan, one
            after the other; see :func:`along_edges`.
    """

    weights: Mapping[str, float]
    one_sided: frozenset[str] = frozenset()
    combine: str = "product"
    peak_ml: float = 1.0
    edge_widths_mm: tuple[float, ...] = ()

    @classmethod
    def of_high(cls, name: str) -> MapRule:
        """One map, whose high values are unusual."""
        return cls({name: 1.0}, frozenset({name}))

    def distance(self, name: str, z: np.ndarray) -> np.ndarray:
        """How far from the usual a map is, at least 0."""
        return np.logaddexp(np.float32(0.0), z) if name in self.one_sided else np.abs(z)


@dataclass(frozen=True)
class ModeSettings:
    """How a mode of latent space restoration makes a map and a score; a part of the model bundle.

    Attributes:
        paper: the published equations, which have percentiles only.
        restore_percentile: healthy percentile of the NLL of the brain's codes above which a code
            is resampled.
        slice_percentile: healthy percentile above which a code counts in the published score.
        difference_sigma_mm: Gaussian over the difference of the scan and its restoration.
        intensity_sigma_mm: Gaussian over the intensity.
        intensity_weight: share w of the intensity in the map, 0 to 1; see :attr:`rule`.
        tile_codes: of a masked prior, the side of a tile.
        hole_percentile: of a masked prior, the healthy percentile of the NLL of the brain's codes
            above which a code is drawn anew.
        expected_sigma_mm: Gaussian over the difference of the scan and what is expected.
        wide_sigma_mm, wide_limit: of the wide mean that is taken off it; the limit in the scan's
            robust standard deviations.
        peak_ml: the sample score is the mean of the map over its hottest so many millilitres.
        edge_widths_mm: of a masked prior, neighbourhoods in which the map follows the edges of the
            scan.
    """

    paper: bool = False
    restore_percentile: float = 60.0
    slice_percentile: float = 98.0
    difference_sigma_mm: float = SMOOTHING_MM
    intensity_sigma_mm: float = SMOOTHING_MM
    intensity_weight: float = 0.5
    tile_codes: int = 4
    hole_percentile: float = 95.0
    expected_sigma_mm: float = 5.0
    wide_sigma_mm: float = 20.0
    wide_limit: float = 0.5
    peak_ml: float = 1.0
    edge_widths_mm: tuple[float, ...] = (14.0, 34.0)

    @property
    def sharpness(self) -> float | None:
        """Of the restoration weights, see ``Averages``; None where they are not used."""
        return PAPER_SHARPNESS if self.paper else None

    @property
    def rule(self) -> MapRule:
        """How the map comes from :func:`feature_maps`.

        Paper mode: the filtered residual. Default mode: |d|^(1-w) |i|^w in units of the healthy
        spread, where d is the difference, i the intensity and w ``intensity_weight``. The geometric
        mean asks for both: the prior must find the tissue unlikely, and its intensity must be
        unusual for the place.
        """
        if self.paper:
            return MapRule({"residual": 1.0}, peak_ml=self.peak_ml)
        weights = {"difference": 1.0 - self.intensity_weight, "intensity": self.intensity_weight}
        return MapRule({k: w for k, w in weights.items() if w > 0}, peak_ml=self.peak_ml)

    @classmethod
    def of(cls, config: Mapping[str, Any], mode: str) -> ModeSettings:
        """A bundle's settings of a mode.

        Raises:
            BundleError: settings of another version.
        """
        if mode == "paper":
            return PAPER
        scoring = dict(config.get("scoring", {}))
        # A model from before there was this setting was calibrated without.
        widths = scoring.pop("edge_widths_mm", () if scoring else cls.edge_widths_mm)
        try:
            return cls(**scoring, edge_widths_mm=tuple(map(float, widths)))
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
    rule: MapRule,
    usual: Mapping[str, Usual],
    spacing_mm: float,
) -> np.ndarray:
    """The anomaly map in model space.

    Args:
        prepared: the scan in model space.
        maps: of a method, (N, H, W) each.
        rule: of the method.
        usual: what is usual, by map; maps that are left out of it count as they are.
        spacing_mm: of the voxels.

    Returns:
        (N, H, W) float32, at least 0, and 0 outside the brain.
    """
    if rule.combine == "rarest":
        values = _rarest(prepared, maps, rule, usual, spacing_mm)
    else:
        values = _combined(prepared, maps, rule, usual)
    for width_mm in rule.edge_widths_mm:
        radius = int(0.5 * width_mm / spacing_mm)
        values = along_edges(values, prepared.slices, prepared.mask, radius)
    return values


def _combined(
    prepared: Prepared, maps: Mapping[str, np.ndarray], rule: MapRule, usual: Mapping[str, Usual]
) -> np.ndarray:
    add = rule.combine == "sum"
    values = np.full_like(prepared.slices, 0.0 if add else 1.0)
    for name, weight in rule.weights.items():
        distance = maps[name]
        if name in usual:
            z = usual[name].place.normalise(distance, prepared.position)
            distance = rule.distance(name, z)
        values = values + weight * distance if add else values * distance**weight
    return np.where(prepared.mask, values, 0.0).astype(np.float32)


def _rarest(
    prepared: Prepared,
    maps: Mapping[str, np.ndarray],
    rule: MapRule,
    usual: Mapping[str, Usual],
    spacing_mm: float,
) -> np.ndarray:
    mask = prepared.mask
    zone = zones(mask, spacing_mm)[mask]
    highest = np.zeros(len(zone), np.float32)
    for name in rule.weights:
        z = usual[name].deviation(maps[name], mask, prepared.position)[mask]
        highest = np.maximum(highest, usual[name].of_rarity.of(rule.distance(name, z), zone))
    values = np.zeros(mask.shape, np.float32)
    values[mask] = highest
    return values


def peak_score(values: np.ndarray, mask: np.ndarray, peak_ml: float, spacing_mm: float) -> float:
    """One figure for the scan: the mean of the map over its hottest millilitres.

    A lesion is a place, and a sum over the scan mostly measures the subject.

    Args:
        values: (N, H, W), the anomaly map.
        mask: (N, H, W) bool, brain.
        peak_ml: how many.
        spacing_mm: of the voxels.
    """
    inside = values[mask]
    count = min(len(inside), max(1, round(peak_ml * 1000.0 / spacing_mm**3)))
    return float(np.partition(inside, len(inside) - count)[-count:].mean())
