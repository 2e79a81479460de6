"""Calibration: what held-out healthy scans give, put into the bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bundle.schema import PLACE
from ..calibration.atlas import PlaceStatistics, PlaceSums
from ..calibration.levels import THRESHOLD_PERCENTILE, HealthyLevel, ModeCalibration
from ..calibration.normative import NormativeMap, to_tensors
from ..calibration.quantiles import Quantiles
from ..calibration.tail_probability import TailCounts, TailProbability, zones
from ..errors import BundleError, InputError
from ..inference.readings import code_quantiles
from ..methods.base import Evidence, Known, Method
from ..methods.registry import calibration_key, entry
from ..model_space import robust_spread
from ..scoring.anomaly_map import MapRule, anomaly_map
from ..scoring.sample_score import sample_score

if TYPE_CHECKING:
    from torch import Tensor

    from ..bundle.bundle import Bundle
    from ..detector import Detector
    from ..model import Model
    from ..preprocessing.slices import PreparedScan

#: Normative values, by map; empty for the paper mode.
NormativeMaps = Mapping[str, NormativeMap]
#: By method, or mode of ``lsr``.
Modes = dict[str, tuple[ModeCalibration, NormativeMaps]]
Report = Callable[[str], None]
#: Fewer healthy scans than this say nothing about a percentile.
FEWEST = 5
#: That healthy scans are looked at in: what others are compared with is the same everywhere.
PRECISION = "float32"


@dataclass(frozen=True)
class HealthyScan:
    """A calibration scan in model space.

    Attributes:
        name: of the scan.
        prepared: the scan.
        site: where it was made; empty if that is not known.
        known: what the networks have read in it so far.
    """

    name: str
    prepared: PreparedScan
    site: str = ""
    known: Known = field(default_factory=Known)


def calibrate(
    detector: Detector,
    scans: Sequence[HealthyScan],
    methods: Sequence[str] | None = None,
    *,
    modes: Sequence[str] | None = None,
    restorations: int = 15,
    seed: int = 0,
    report: Report = print,
) -> tuple[dict[str, str], Quantiles | None, Modes]:
    """What healthy scans give by each of a model's methods.

    Args:
        detector: the model, calibrated or not.
        scans: healthy, and not trained on.
        methods: names. None is all that the model can do.
        modes: of ``lsr``; None is all of them.
        restorations: S, at most; distributions are also kept for 1, 3, 7, ... of them.
        seed: of the draws.
        report: takes a line of text.

    Returns:
        the arguments of :func:`to_files`.

    Raises:
        BundleError: the model cannot do one of the methods or modes.
        InputError: fewer than five scans.
    """
    model = detector.model
    for mode in modes or ():
        if mode not in model.modes():
            raise BundleError(
                f"model {model.bundle.name} has no mode {mode!r}; choose from: "
                f"{', '.join(model.modes())}"
            )
    wanted = model.methods() if methods is None else tuple(methods)
    for method in wanted:
        if method not in model.methods():
            raise BundleError(
                f"model {model.bundle.name} cannot do method {method!r}; "
                f"choose from: {', '.join(model.methods())}"
            )
    if len(scans) < FEWEST:
        raise InputError(
            f"{len(scans)} healthy scans are too few to calibrate; give at least "
            f"{FEWEST}, better 20"
        )
    codes = None
    contexts = [model.context(scan.prepared, known=scan.known) for scan in scans]
    if any(entry(method).reads_codes for method in wanted):
        report("reading the healthy scans")
        codes = code_quantiles([context.read()[1].nll_of_brain for context in contexts])
    found: Modes = {}
    for method in wanted:
        for mode in model.modes(method):
            if method == "lsr" and modes is not None and mode not in modes:
                continue
            key = calibration_key(method, mode)
            report(f"calibrating {key}")
            known = ModeCalibration(0.0, 0.0, (), THRESHOLD_PERCENTILE)
            before = entry(method).before_calibration()
            if before is not None:
                known = before(model.setup(mode, known), contexts)
            way = model.method(method, mode, known)
            levels, normative = healthy_levels(
                model,
                scans,
                way,
                use_places=mode != "paper",
                restorations=restorations if way.draws_maps else 1,
                seed=seed,
                report=report,
            )
            found[key] = replace(known, levels=levels), normative
    return {scan.name: scan.site for scan in scans}, codes, found


def healthy_levels(
    model: Model,
    scans: Sequence[HealthyScan],
    way: Method,
    *,
    use_places: bool = True,
    restorations: int = 15,
    seed: int = 0,
    report: Report = print,
) -> tuple[tuple[HealthyLevel, ...], NormativeMaps]:
    """Voxel distribution, sample scores and normative values of a method.

    A scan's own values never take part in what it is compared with, so that its score is what a new
    healthy scan would get. Distributions are kept for each number of restorations that the method
    tells of; normative values are of all of them together.

    Args:
        model: the networks.
        scans, restorations, seed, report: as for :func:`calibrate`.
        way: the method.
        use_places: whether its maps are compared with the normative values at each place.

    Returns:
        levels, and normative values of all scans; nothing if those are not used.
    """
    found: list[list[Evidence]] = []
    sums: list[dict[str, PlaceSums]] = []
    for scan in scans:
        context = model.context(scan.prepared, restorations, seed, known=scan.known)
        # Maps alone are kept: images of every scan and step would fill the memory.
        nothing = np.zeros(0, np.float32)
        found.append(
            [
                replace(one, restoration=nothing, sd=nothing, replaced=None)
                for one in way.evidence(context)
                if one.restorations or one.is_last  # before it the maps are those of one
            ]
        )
        mask, position = scan.prepared.mask, scan.prepared.position
        last = found[-1][-1].maps
        sums.append({name: PlaceSums.of(last[name], mask, position) for name in last if use_places})
        report(f"{scan.name}: done")
    spacing = model.grid.spacing_mm
    maps = [evidence[-1].maps for evidence in found]
    of_others, of_all = _normative(scans, maps, sums, way.rule, spacing)
    levels = []
    for steps in zip(*found, strict=True):
        scores, voxels = [], []
        for scan, evidence, normative in zip(scans, steps, of_others, strict=True):
            values = anomaly_map(scan.prepared, evidence.maps, way.rule, normative, spacing)
            scores.append(
                sample_score(
                    values, scan.prepared.mask, way.rule.peak_ml, spacing, evidence.slice_scores
                )
            )
            voxels.append(values[scan.prepared.mask])
        distribution = Quantiles.of(np.concatenate(voxels))
        number = steps[0].restorations
        levels.append(HealthyLevel(number, distribution, tuple(sorted(scores))))
    return tuple(levels), of_all


def _normative(
    scans: Sequence[HealthyScan],
    maps: Sequence[Mapping[str, np.ndarray]],
    sums: Sequence[Mapping[str, PlaceSums]],
    rule: MapRule,
    spacing_mm: float,
) -> tuple[list[dict[str, NormativeMap]], dict[str, NormativeMap]]:
    """Normative values for each scan by all others, and by all of them for a new one."""
    total = {name: reduce(add, (s[name] for s in sums)) for name in sums[0]}
    places = [
        {n: PlaceStatistics.from_sums(total[n] - own[n]).symmetric() for n in total} for own in sums
    ]
    every = {name: PlaceStatistics.from_sums(total[name]).symmetric() for name in total}
    if rule.combine != "rarest":
        return [{n: NormativeMap(p) for n, p in own.items()} for own in places], {
            n: NormativeMap(p) for n, p in every.items()
        }
    spreads: dict[str, list[float]] = {name: [] for name in total}
    for scan, own, place in zip(scans, maps, places, strict=True):
        for name in total:
            z = place[name].normalise(own[name], scan.prepared.position)
            spreads[name].append(robust_spread(z[scan.prepared.mask]))

    def others(name: str, number: int | None = None) -> np.ndarray:
        """Spreads of all scans but one."""
        kept = [s for i, s in enumerate(spreads[name]) if i != number]
        return np.sort(np.array(kept, np.float32))

    counts: list[dict[str, TailCounts]] = []
    for number, (scan, own, place) in enumerate(zip(scans, maps, places, strict=True)):
        mask, position = scan.prepared.mask, scan.prepared.position
        zone, far = zones(mask, spacing_mm)[mask], {}
        for name in total:
            normative = NormativeMap(place[name], spreads=others(name, number))
            far[name] = rule.distance(name, normative.deviation(own[name], mask, position)[mask])
        counts.append({name: TailCounts.of(values, zone) for name, values in far.items()})
    counted = {name: reduce(add, (c[name] for c in counts)) for name in total}
    of_others = [
        {
            n: NormativeMap(
                place[n], TailProbability.from_counts(counted[n] - own[n]), others(n, i)
            )
            for n in total
        }
        for i, (place, own) in enumerate(zip(places, counts, strict=True))
    ]
    return of_others, {
        n: NormativeMap(every[n], TailProbability.from_counts(counted[n]), others(n)) for n in total
    }


def to_files(
    scans: Mapping[str, str],
    codes: Quantiles | None,
    modes: Mapping[str, tuple[ModeCalibration, NormativeMaps]],
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Contents of ``calibration.json`` and ``place.safetensors``.

    Args:
        scans: site of each healthy scan, by name; empty if that is not known.
        codes: distribution of the codes' NLL; None for a model without codes.
        modes: figures and normative values by method, or mode of ``lsr``.
    """
    data: dict[str, Any] = {"scans": sorted(scans), "precision": PRECISION}
    if sites := sorted(set(scans.values()) - {""}):
        data["sites"] = sites
    if codes is not None:
        data["code_nll"] = codes.to_json()
    data["modes"] = {mode: calibration.to_json() for mode, (calibration, _) in modes.items()}
    tensors: dict[str, Tensor] = {}
    for mode, (_, normative) in modes.items():
        tensors |= to_tensors(normative, mode)
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
    kept = bundle.tensors(PLACE) if bundle.has(PLACE) else {}
    others = {k: v for k, v in kept.items() if k.split(".")[0] not in data["modes"]}
    return {**old, **data, "modes": modes}, {**others, **tensors}
