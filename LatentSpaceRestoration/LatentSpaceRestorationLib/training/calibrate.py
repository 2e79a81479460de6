"""Calibration: what held-out healthy scans give, put into the bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np

from ..calibration import (
    HealthyLevel,
    ModeCalibration,
    PlaceStatistics,
    PlaceSums,
    Quantiles,
)
from ..errors import InputError
from ..scoring import ModeSettings, anomaly_map, feature_maps, sample_score

if TYPE_CHECKING:
    from torch import Tensor

    from ..detector import Detector
    from ..inference import Reading
    from ..preprocessing import Prepared

#: What is usual at each place, by feature map; empty for the paper mode.
Places = Mapping[str, PlaceStatistics]
#: (N, rows, columns) of one scan, by name.
Maps = Mapping[str, np.ndarray]
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
) -> tuple[ModeCalibration, Places]:
    """Thresholds, voxel distribution, sample scores and place statistics of one mode.

    A scan's own values never take part in the place statistics that it is compared with, so that
    its score is what a new healthy scan would get. Distributions are kept for 1, 3, 7, ... up to
    all restorations; the place statistics are those with all of them.

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
    maps: list[dict[int, Maps]] = []  # a scan's, by number of restorations
    sums: list[dict[str, PlaceSums]] = []
    for scan in scans:
        own: dict[int, Maps] = {}
        for averages, _ in detector.restorations(
            scan.prepared, scan.reading, settings, restore_threshold, restorations, seed
        ):
            own[averages.restorations] = feature_maps(scan.prepared, averages, settings, spacing)
        maps.append(own)
        sums.append(
            {
                name: PlaceSums.of(values, scan.prepared.mask, scan.prepared.position)
                for name, values in own[restorations].items()
            }
        )
        report(f"{scan.name}: {100 * averages.resampled:.0f}% of the brain's codes resampled")
    total = {name: reduce(add, (s[name] for s in sums)) for name in sums[0]}
    levels = []
    for number in maps[0]:
        scores, voxels = [], []
        for scan, own, left_out in zip(scans, maps, sums, strict=True):
            others = {n: PlaceStatistics.from_sums(total[n] - left_out[n]) for n in total}
            values = anomaly_map(scan.prepared, own[number], settings, others)
            scores.append(
                sample_score(
                    values, scan.prepared.mask, scan.reading.nll, slice_threshold, settings, spacing
                )
            )
            voxels.append(values[scan.prepared.mask])
        distribution = Quantiles.of(np.concatenate(voxels))
        levels.append(HealthyLevel(number, distribution, tuple(sorted(scores))))
    calibration = ModeCalibration(
        restore_threshold, slice_threshold, tuple(levels), THRESHOLD_PERCENTILE
    )
    if settings.paper:
        return calibration, {}
    return calibration, {name: PlaceStatistics.from_sums(total[name]) for name in total}


def to_files(
    scans: Sequence[str],
    codes: Quantiles,
    modes: Mapping[str, tuple[ModeCalibration, Places]],
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Contents of ``calibration.json`` and ``place.safetensors``."""
    import torch

    data = {
        "scans": sorted(scans),
        "code_nll": codes.to_json(),
        "modes": {mode: calibration.to_json() for mode, (calibration, _) in modes.items()},
    }
    tensors = {}
    for mode, (_, places) in modes.items():
        for name, place in places.items():
            tensors[f"{mode}.{name}.mean"] = torch.from_numpy(place.mean)
            tensors[f"{mode}.{name}.sd"] = torch.from_numpy(place.sd)
    return data, tensors
