"""Calibration: what held-out healthy scans give, put into the bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np

from ..calibration import ModeCalibration, PlaceStatistics, PlaceSums, Quantiles
from ..errors import InputError
from ..scoring import ModeSettings, residual_map, sample_score

if TYPE_CHECKING:
    from torch import Tensor

    from ..detector import Detector
    from ..inference import Reading
    from ..preprocessing import Prepared

#: Fewer healthy scans than this say nothing about a percentile.
FEWEST = 5
#: Healthy voxels below the default threshold of the mask, percent.
THRESHOLD_PERCENTILE = 99.0


@dataclass(frozen=True)
class HealthyScan:
    """A calibration scan in model space, read."""

    name: str
    prepared: Prepared
    reading: Reading


def code_quantiles(scans: Sequence[HealthyScan]) -> Quantiles:
    """Distribution of the NLL of the brain's codes over healthy scans."""
    return Quantiles.of(np.concatenate([s.reading.nll[s.reading.brain] for s in scans]))


def calibrate_mode(
    detector: Detector,
    scans: Sequence[HealthyScan],
    settings: ModeSettings,
    *,
    restorations: int = 15,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> tuple[ModeCalibration, PlaceStatistics | None]:
    """Thresholds, voxel distribution, sample scores and place statistics of one mode.

    A scan's own values never take part in the place statistics that it is compared with, so that
    its score is what a new healthy scan would get.

    Raises:
        InputError: fewer than five scans.
    """
    if len(scans) < FEWEST:
        raise InputError(
            f"{len(scans)} healthy scans are too few to calibrate; give at least "
            f"{FEWEST}, better 20"
        )
    spacing = detector.grid.spacing_mm
    quantiles = code_quantiles(scans)
    restore_threshold = quantiles.value(settings.restore_percentile)
    slice_threshold = quantiles.value(settings.slice_percentile)
    maps, sums = [], []
    for scan in scans:
        restored = detector.restore(
            scan.prepared, scan.reading, restore_threshold, restorations, seed
        )
        values = residual_map(scan.prepared, restored, settings, spacing)
        maps.append(values)
        sums.append(PlaceSums.of(values, scan.prepared.mask, scan.prepared.position))
        report(f"{scan.name}: {100 * restored.resampled:.0f}% of the brain's codes resampled")
    total = reduce(add, sums)
    scores, voxels = [], []
    for scan, values, own in zip(scans, maps, sums, strict=True):
        if settings.normalise:
            others = PlaceStatistics.from_sums(total - own)
            values = others.normalise(values, scan.prepared.position)
        values = np.where(scan.prepared.mask, values, 0.0)
        scores.append(
            sample_score(
                values, scan.prepared.mask, scan.reading.nll, slice_threshold, settings, spacing
            )
        )
        voxels.append(np.maximum(values[scan.prepared.mask], 0.0))
    calibration = ModeCalibration(
        restore_threshold,
        slice_threshold,
        Quantiles.of(np.concatenate(voxels)),
        tuple(scores),
        THRESHOLD_PERCENTILE,
    )
    return calibration, PlaceStatistics.from_sums(total) if settings.normalise else None


def to_files(
    scans: Sequence[str],
    codes: Quantiles,
    modes: Mapping[str, tuple[ModeCalibration, PlaceStatistics | None]],
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Contents of ``calibration.json`` and ``place.safetensors``."""
    import torch

    data = {
        "scans": sorted(scans),
        "code_nll": codes.to_json(),
        "modes": {mode: calibration.to_json() for mode, (calibration, _) in modes.items()},
    }
    tensors = {}
    for mode, (_, place) in modes.items():
        if place is not None:
            tensors[f"{mode}.mean"] = torch.from_numpy(place.mean)
            tensors[f"{mode}.sd"] = torch.from_numpy(place.sd)
    return data, tensors
