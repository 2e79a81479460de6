"""Calibration: what held-out healthy scans give, put into the bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bundle.schema import PLACE
from ..calibration.atlas import PlaceStatistics, PlaceSums
from ..calibration.code_values import CodeValues
from ..calibration.levels import HealthyLevel, ModeCalibration
from ..calibration.normative import Usual, to_tensors
from ..calibration.quantiles import Quantiles
from ..calibration.tail_probability import Rarity, RarityCounts, zones
from ..errors import BundleError, InputError
from ..estimator import sample_score
from ..methods import calibration_key
from ..methods.base import Evidence, Known, Method
from ..methods.masked import MaskedRestoration
from ..methods.settings import ModeSettings
from ..model_space import robust_spread
from ..scoring.anomaly_map import MapRule, anomaly_map

if TYPE_CHECKING:
    from torch import Tensor

    from ..bundle.bundle import Bundle
    from ..detector import Detector
    from ..inference.readings import Reading
    from ..preprocessing.slices import Prepared

#: What is usual, by map; empty for the paper mode.
Usuals = Mapping[str, Usual]
#: By method, or mode of ``lsr``.
Modes = dict[str, tuple[ModeCalibration, Usuals]]
Report = Callable[[str], None]
#: Fewer healthy scans than this say nothing about a percentile.
FEWEST = 5
#: Healthy voxels below the default threshold of the mask, percent.
THRESHOLD_PERCENTILE = 99.8
#: Methods that use the codes of the VQ-VAE.
_READERS = ("lsr", "nll", "vqvae-residual")


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
    prepared: Prepared
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
    for mode in modes or ():
        if mode not in detector.modes():
            raise BundleError(
                f"model {detector.bundle.name} has no mode {mode!r}; choose from: "
                f"{', '.join(detector.modes())}"
            )
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
        for scan in scans:
            detector.case(scan.prepared, known=scan.known).read()
        codes = code_quantiles([scan.known.reading for scan in scans if scan.known.reading])
    found: Modes = {}
    for method in wanted:
        for mode in detector.modes(method):
            if method == "lsr" and modes is not None and mode not in modes:
                continue
            key = calibration_key(method, mode)
            report(f"calibrating {key}")
            empty = _before_levels(detector, scans, method, mode)
            way = detector.method(method, mode, empty)
            levels, usual = healthy_levels(
                detector,
                scans,
                way,
                use_places=mode != "paper",
                # The masked prior's map does not depend on what is drawn.
                restorations=1 if isinstance(way, MaskedRestoration) else restorations,
                seed=seed,
                report=report,
            )
            found[key] = replace(empty, levels=levels), usual
    return {scan.name: scan.site for scan in scans}, codes, found


def _before_levels(
    detector: Detector, scans: Sequence[HealthyScan], method: str, mode: str
) -> ModeCalibration:
    """What a method must know before it can look at a scan: thresholds in nats, values of codes."""
    if method != "lsr":
        return ModeCalibration(0.0, 0.0, (), THRESHOLD_PERCENTILE)
    settings = ModeSettings.of(detector.bundle.config, mode)
    if mode == "default" and detector.has_masked_prior:
        values = _code_values(detector, scans)
        readings = [
            detector.case(scan.prepared, known=scan.known)
            .expect(settings.tile_codes, values)[1]
            .reading
            for scan in scans
        ]
        threshold = code_quantiles(readings).value(settings.hole_percentile)
        return ModeCalibration(threshold, 0.0, (), THRESHOLD_PERCENTILE, values)
    seen = code_quantiles([s.known.reading for s in scans if s.known.reading])
    thresholds = seen.value(settings.restore_percentile), seen.value(settings.slice_percentile)
    return ModeCalibration(*thresholds, (), THRESHOLD_PERCENTILE)


def _code_values(detector: Detector, scans: Sequence[HealthyScan]) -> CodeValues:
    """What the codes stand for in the healthy scans."""

    def each() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        for scan in scans:
            networks, reading = detector.case(scan.prepared, known=scan.known).read()
            back = networks.reconstruct(scan.prepared, reading)
            yield reading.codes, scan.prepared.slices, back, scan.prepared.mask

    return CodeValues.of(int(detector.bundle.config["vqvae"]["codes"]), each())


def code_quantiles(readings: Sequence[Reading]) -> Quantiles:
    """Distribution of the NLL of the brain's codes over healthy scans."""
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
) -> tuple[tuple[HealthyLevel, ...], Usuals]:
    """Voxel distribution, sample scores and what is usual of a method.

    A scan's own values never take part in what it is compared with, so that its score is what a new
    healthy scan would get. Distributions are kept for each number of restorations that the method
    tells of; what is usual is so with all of them.

    Args:
        detector, scans, restorations, seed, report: as for :func:`calibrate`.
        way: the method.
        use_places: whether its maps are compared with what is usual at each place.

    Returns:
        levels, and what is usual over all scans; nothing if that is not used.
    """
    found: list[list[Evidence]] = []
    sums: list[dict[str, PlaceSums]] = []
    for scan in scans:
        case = detector.case(scan.prepared, restorations, seed, known=scan.known)
        # Maps alone are kept: images of every scan and step would fill the memory.
        nothing = np.zeros(0, np.float32)
        found.append([replace(e, mean=nothing, sd=nothing) for e in way.evidence(case)])
        mask, position = scan.prepared.mask, scan.prepared.position
        last = found[-1][-1].maps
        sums.append({name: PlaceSums.of(last[name], mask, position) for name in last if use_places})
        report(f"{scan.name}: done")
    spacing = detector.grid.spacing_mm
    maps = [evidence[-1].maps for evidence in found]
    of_others, of_all = _usual(scans, maps, sums, way.rule, spacing)
    levels = []
    for steps in zip(*found, strict=True):
        scores, voxels = [], []
        for scan, evidence, usual in zip(scans, steps, of_others, strict=True):
            values = anomaly_map(scan.prepared, evidence.maps, way.rule, usual, spacing)
            scores.append(sample_score(evidence, values, scan.prepared, way.rule, spacing))
            voxels.append(values[scan.prepared.mask])
        distribution = Quantiles.of(np.concatenate(voxels))
        number = steps[0].restorations
        levels.append(HealthyLevel(number, distribution, tuple(sorted(scores))))
    return tuple(levels), of_all


def _usual(
    scans: Sequence[HealthyScan],
    maps: Sequence[Mapping[str, np.ndarray]],
    sums: Sequence[Mapping[str, PlaceSums]],
    rule: MapRule,
    spacing_mm: float,
) -> tuple[list[dict[str, Usual]], dict[str, Usual]]:
    """What is usual for each scan by all others, and by all of them for a new one."""
    total = {name: reduce(add, (s[name] for s in sums)) for name in sums[0]}
    places = [
        {n: PlaceStatistics.from_sums(total[n] - own[n]).symmetric() for n in total} for own in sums
    ]
    every = {name: PlaceStatistics.from_sums(total[name]).symmetric() for name in total}
    if rule.combine != "rarest":
        return [{n: Usual(p) for n, p in own.items()} for own in places], {
            n: Usual(p) for n, p in every.items()
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

    counts: list[dict[str, RarityCounts]] = []
    for number, (scan, own, place) in enumerate(zip(scans, maps, places, strict=True)):
        mask, position = scan.prepared.mask, scan.prepared.position
        zone, far = zones(mask, spacing_mm)[mask], {}
        for name in total:
            usual = Usual(place[name], spreads=others(name, number))
            far[name] = rule.distance(name, usual.deviation(own[name], mask, position)[mask])
        counts.append({name: RarityCounts.of(values, zone) for name, values in far.items()})
    counted = {name: reduce(add, (c[name] for c in counts)) for name in total}
    of_others = [
        {n: Usual(place[n], Rarity.from_counts(counted[n] - own[n]), others(n, i)) for n in total}
        for i, (place, own) in enumerate(zip(places, counts, strict=True))
    ]
    return of_others, {n: Usual(every[n], Rarity.from_counts(counted[n]), others(n)) for n in total}


def to_files(
    scans: Mapping[str, str],
    codes: Quantiles | None,
    modes: Mapping[str, tuple[ModeCalibration, Usuals]],
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Contents of ``calibration.json`` and ``place.safetensors``.

    Args:
        scans: site of each healthy scan, by name; empty if that is not known.
        codes: distribution of the codes' NLL; None for a model without codes.
        modes: figures and what is usual by method, or mode of ``lsr``.
    """
    data: dict[str, Any] = {"scans": sorted(scans)}
    if sites := sorted(set(scans.values()) - {""}):
        data["sites"] = sites
    if codes is not None:
        data["code_nll"] = codes.to_json()
    data["modes"] = {mode: calibration.to_json() for mode, (calibration, _) in modes.items()}
    tensors: dict[str, Tensor] = {}
    for mode, (_, usual) in modes.items():
        tensors |= to_tensors(usual, mode)
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
    kept = bundle.tensors(PLACE) if PLACE in bundle.config["files"] else {}
    others = {k: v for k, v in kept.items() if k.split(".")[0] not in data["modes"]}
    return {**old, **data, "modes": modes}, {**others, **tensors}
