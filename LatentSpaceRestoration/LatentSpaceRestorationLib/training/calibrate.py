"""Calibration: what held-out healthy scans give, put into the bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from ..errors import BundleError, InputError
from ..estimation import sample_score
from ..methods import MODES, calibration_key
from ..methods.evidence import Evidence, Method
from ..scoring import ModeSettings, anomaly_map

if TYPE_CHECKING:
    from torch import Tensor

    from ..bundle import Bundle
    from ..detector import Detector
    from ..inference import Reading
    from ..preprocessing import Prepared

#: What is usual at each place, by map; empty for the paper mode.
Places = Mapping[str, PlaceStatistics]
#: By method, or mode of ``lsr``.
Modes = dict[str, tuple[ModeCalibration, Places]]
Report = Callable[[str], None]
#: Fewer healthy scans than this say nothing about a percentile.
FEWEST = 5
#: Healthy voxels below the default threshold of the mask, percent.
THRESHOLD_PERCENTILE = 99.0
#: Methods that use the codes of the VQ-VAE.
_READERS = ("lsr", "nll", "vqvae-residual")


@dataclass(frozen=True)
class HealthyScan:
    """A calibration scan in model space.

    Attributes:
        name: of the scan.
        prepared: the scan.
        reading: its codes, once they are known.
    """

    name: str
    prepared: Prepared
    reading: Reading | None = None


def calibrate(
    detector: Detector,
    scans: Sequence[HealthyScan],
    methods: Sequence[str] | None = None,
    *,
    restorations: int = 15,
    seed: int = 0,
    report: Report = print,
) -> tuple[list[str], Quantiles | None, Modes]:
    """What healthy scans give by each of a model's methods.

    Args:
        detector: the model, calibrated or not.
        scans: healthy, and not trained on.
        methods: names; ``lsr`` stands for both of its modes. None is all that the model can do.
        restorations: S, at most; distributions are also kept for 1, 3, 7, ... of them.
        seed: of the draws.
        report: takes a line of text.

    Returns:
        the arguments of :func:`to_files`.

    Raises:
        BundleError: the model cannot do one of the methods.
        InputError: fewer than five scans.
    """
    wanted = detector.methods() if methods is None else tuple(methods)
    for method in wanted:
        if method not in detector.methods():
            raise BundleError(
                f"model {detector.bundle.name} cannot do method {method!r}; "
                f"choose from: {', '.join(detector.methods())}"
            )
    if len(scans) < FEWEST:
        raise InputError(
            f"{len(scans)} healthy scans are too few to calibrate; give at least "
            f"{FEWEST}, better 20"
        )
    codes = None
    if any(method in _READERS for method in wanted):
        report("reading the healthy scans")
        scans = [
            scan if scan.reading else replace(scan, reading=detector.read(scan.prepared))
            for scan in scans
        ]
        codes = code_quantiles(scans)
    modes: Modes = {}
    for method in wanted:
        for mode in MODES if method == "lsr" else ("default",):
            key = calibration_key(method, mode)
            report(f"calibrating {key}")
            thresholds = (0.0, 0.0)
            if method == "lsr":
                assert codes is not None
                settings = ModeSettings.of(detector.bundle.config, mode)
                thresholds = (
                    codes.value(settings.restore_percentile),
                    codes.value(settings.slice_percentile),
                )
            empty = ModeCalibration(*thresholds, (), THRESHOLD_PERCENTILE)
            way = detector.method(method, mode, empty)
            use_places = mode != "paper"
            levels, places = healthy_levels(
                detector,
                scans,
                way,
                use_places=use_places,
                restorations=restorations,
                seed=seed,
                report=report,
            )
            modes[key] = replace(empty, levels=levels), places
    return [scan.name for scan in scans], codes, modes


def code_quantiles(scans: Sequence[HealthyScan]) -> Quantiles:
    """Distribution of the NLL of the brain's codes over healthy scans that were read."""
    readings = [scan.reading for scan in scans if scan.reading is not None]
    return Quantiles.of(np.concatenate([r.nll[r.brain] for r in readings]))


def healthy_levels(
    detector: Detector,
    scans: Sequence[HealthyScan],
    way: Method,
    *,
    use_places: bool = True,
    restorations: int = 15,
    seed: int = 0,
    report: Report = print,
) -> tuple[tuple[HealthyLevel, ...], Places]:
    """Voxel distribution, sample scores and place statistics of a method.

    A scan's own values never take part in the place statistics that it is compared with, so that
    its score is what a new healthy scan would get. Distributions are kept for each number of
    restorations that the method tells of; the place statistics are those with all of them.

    Args:
        detector, scans, restorations, seed, report: as for :func:`calibrate`.
        way: the method.
        use_places: whether its maps are compared with what is usual at each place.

    Returns:
        levels, and the place statistics over all scans; none if they are not used.
    """
    found: list[list[Evidence]] = []
    sums: list[dict[str, PlaceSums]] = []
    for scan in scans:
        case = detector.case(scan.prepared, restorations, seed, reading=scan.reading)
        # Maps alone are kept: images of every scan and step would fill the memory.
        nothing = np.zeros(0, np.float32)
        found.append([replace(e, mean=nothing, sd=nothing) for e in way.evidence(case)])
        mask, position = scan.prepared.mask, scan.prepared.position
        last = found[-1][-1].maps
        sums.append({name: PlaceSums.of(last[name], mask, position) for name in last if use_places})
        report(f"{scan.name}: done")
    total = {name: reduce(add, (s[name] for s in sums)) for name in sums[0]}
    levels = []
    for steps in zip(*found, strict=True):
        scores, voxels = [], []
        for scan, evidence, own in zip(scans, steps, sums, strict=True):
            others = {n: PlaceStatistics.from_sums(total[n] - own[n]) for n in total}
            values = anomaly_map(scan.prepared, evidence.maps, way.rule, others)
            scores.append(
                sample_score(evidence, values, scan.prepared, way.rule, detector.grid.spacing_mm)
            )
            voxels.append(values[scan.prepared.mask])
        distribution = Quantiles.of(np.concatenate(voxels))
        number = steps[0].restorations
        levels.append(HealthyLevel(number, distribution, tuple(sorted(scores))))
    return tuple(levels), {name: PlaceStatistics.from_sums(total[name]) for name in total}


def to_files(
    scans: Sequence[str],
    codes: Quantiles | None,
    modes: Mapping[str, tuple[ModeCalibration, Places]],
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Contents of ``calibration.json`` and ``place.safetensors``.

    Args:
        scans: names of the healthy scans.
        codes: distribution of the codes' NLL; None for a model without codes.
        modes: figures and place statistics by method, or mode of ``lsr``.
    """
    import torch

    data: dict[str, Any] = {"scans": sorted(scans)}
    if codes is not None:
        data["code_nll"] = codes.to_json()
    data["modes"] = {mode: calibration.to_json() for mode, (calibration, _) in modes.items()}
    tensors = {}
    for mode, (_, places) in modes.items():
        for name, place in places.items():
            tensors[f"{mode}.{name}.mean"] = torch.from_numpy(place.mean)
            tensors[f"{mode}.{name}.sd"] = torch.from_numpy(place.sd)
    return data, tensors


def added_to(
    bundle: Bundle, data: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A model's calibration, with that of further methods added, or made anew.

    Entries of the same scans are kept; entries of other scans are left out, since a model states
    one list of scans for all of its figures.

    Args:
        bundle: the model.
        data, tensors: from :func:`to_files`.
    """
    old = bundle.calibration
    if old.get("scans") != data["scans"]:
        return dict(data), dict(tensors)
    modes = {**old["modes"], **data["modes"]}
    place = "place.safetensors"
    kept = bundle.tensors(place) if place in bundle.config["files"] else {}
    others = {k: v for k, v in kept.items() if k.split(".")[0] not in data["modes"]}
    return {**old, **data, "modes": modes}, {**others, **tensors}
