"""From codes and residuals to scores: per slice, per scan, per voxel.

All arrays are numpy, in model space: (N, rows, columns) with slices from inferior to superior.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..calibration.normative import NormativeMap
from ..calibration.tail_probability import zones
from ..preprocessing.slices import PreparedScan
from .filters import along_edges

#: Of maps, by name: the numbers of what low and high values are signs of.
_OF_MAP = {"difference": (1, 2), "residual": (3, 3), "nll": (4, 4)}


@dataclass(frozen=True)
class MapRule:
    """How the anomaly map and the sample score come from the maps of a method.

    A map with statistics of its place is taken in units of the healthy spread: z, the value less
    the normative value at its place, over the spread there; |z| counts, or, if only high values are
    unusual, log(1 + exp(z)), which is about z where it is high, and never negative. A map without
    statistics counts as it is.

    Attributes:
        weights: share of each map, in sum 1.
        one_sided: maps of which only values above the usual ones are unusual.
        combine: ``product``, the weighted geometric mean of the maps, which asks that all of them
            be high; ``sum``, their weighted mean; ``rarest``, the least of their tail
            probabilities among healthy voxels (see :mod:`tail_probability`), which asks that one of
            them be, whatever the weights.
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


def anomaly_map(
    prepared: PreparedScan,
    maps: Mapping[str, np.ndarray],
    rule: MapRule,
    normative: Mapping[str, NormativeMap],
    spacing_mm: float,
) -> np.ndarray:
    """The anomaly map in model space.

    Args:
        prepared: the scan in model space.
        maps: of a method, (N, H, W) each.
        rule: of the method.
        normative: values of healthy scans, by map; maps that are left out of it count as they are.
        spacing_mm: of the voxels.

    Returns:
        (N, H, W) float32, at least 0, and 0 outside the brain.
    """
    if rule.combine == "rarest":
        values = _rarest(prepared, maps, rule, normative, spacing_mm)
    else:
        values = _combined(prepared, maps, rule, normative)
    for width_mm in rule.edge_widths_mm:
        radius = int(0.5 * width_mm / spacing_mm)
        values = along_edges(values, prepared.slices, prepared.mask, radius)
    return values


def _combined(
    prepared: PreparedScan,
    maps: Mapping[str, np.ndarray],
    rule: MapRule,
    normative: Mapping[str, NormativeMap],
) -> np.ndarray:
    add = rule.combine == "sum"
    values = np.full_like(prepared.slices, 0.0 if add else 1.0)
    for name, weight in rule.weights.items():
        distance = maps[name]
        if name in normative:
            z = normative[name].place.normalise(distance, prepared.position)
            distance = rule.distance(name, z)
        values = values + weight * distance if add else values * distance**weight
    return np.where(prepared.mask, values, 0.0).astype(np.float32)


def _rarest(
    prepared: PreparedScan,
    maps: Mapping[str, np.ndarray],
    rule: MapRule,
    normative: Mapping[str, NormativeMap],
    spacing_mm: float,
) -> np.ndarray:
    mask = prepared.mask
    highest = np.zeros(int(mask.sum()), np.float32)
    for _, _, rarity in tails(prepared, maps, rule, normative, spacing_mm, mask):
        highest = np.maximum(highest, rarity)
    values = np.zeros(mask.shape, np.float32)
    values[mask] = highest
    return values


def tails(
    prepared: PreparedScan,
    maps: Mapping[str, np.ndarray],
    rule: MapRule,
    normative: Mapping[str, NormativeMap],
    spacing_mm: float,
    where: np.ndarray,
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """How rare the values of each map of a rule are among healthy voxels.

    Args:
        where: (N, H, W) bool, voxels of the brain that are asked for; the others as of
            :func:`anomaly_map`.

    Yields:
        name of the map; (n,) deviations from the usual, signed, in spreads; (n,) rarity, higher is
        rarer, as of :class:`TailProbability`.
    """
    mask = prepared.mask
    zone = zones(mask, spacing_mm)[where]
    for name in rule.weights:
        z = normative[name].deviation(maps[name], mask, prepared.position)[where]
        yield name, z, normative[name].of_tail.of(rule.distance(name, z), zone)


def signs_of(
    prepared: PreparedScan,
    maps: Mapping[str, np.ndarray],
    rule: MapRule,
    normative: Mapping[str, NormativeMap],
    spacing_mm: float,
    where: np.ndarray,
) -> np.ndarray:
    """What gives voxels away: which of the maps of a rule is the rarest there.

    Args:
        where: (N, H, W) bool, voxels of the brain that are asked for; the others as of
            :func:`anomaly_map`.

    Returns:
        (N, H, W) uint8, numbers of ``SIGNS``; 0 everywhere of rules that do not look at which of
        several maps is the rarest.
    """
    numbers = np.zeros(where.shape, np.uint8)
    if rule.combine != "rarest" or not where.any():
        return numbers
    highest = np.zeros(int(where.sum()), np.float32)
    found = np.zeros(len(highest), np.uint8)
    for name, z, rarity in tails(prepared, maps, rule, normative, spacing_mm, where):
        low, high = _OF_MAP.get(name, (0, 0))
        rarer = rarity > highest
        found = np.where(rarer, np.where(z < 0.0, low, high), found)
        highest = np.maximum(highest, rarity)
    numbers[where] = found
    return numbers
