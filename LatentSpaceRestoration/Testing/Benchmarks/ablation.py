"""What was tried for the anomaly map of the default mode, on one yardstick: every try a row.

    python ablation.py SUBJECTS.tsv --work DIR [--model brain-t1] [--subjects N] [--shapes FOLDER]
                    [--lesions FOLDER]

Anomalies of five families, three sizes and three contrasts are put into the scans of split `tune`;
what is usual comes from those of split `calibrate`. The maps of every case are kept in DIR, so that
a further try costs seconds. Writes results/ablation.md, and all figures into
DIR/ablation.json. Everything is in model
space: `lsr evaluate` measures what comes out on the scan's own grid.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from ablation_maps import ONE_SIDED, Sample, properties
from LatentSpaceRestorationLib.bundle.bundle import find_bundle
from LatentSpaceRestorationLib.calibration.atlas import PlaceStatistics, PlaceSums
from LatentSpaceRestorationLib.calibration.normative import NormativeMap
from LatentSpaceRestorationLib.calibration.p_value import p_value
from LatentSpaceRestorationLib.calibration.tail_probability import (
    TailCounts,
    TailProbability,
    zones,
)
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.evaluation.metrics.figures import MEAN, FigureRow, rows_of
from LatentSpaceRestorationLib.evaluation.metrics.histograms import Histogram, Table
from LatentSpaceRestorationLib.evaluation.metrics.measures import CaseResult, Measured, Regions
from LatentSpaceRestorationLib.evaluation.synthetic.design import LESION, UNTOUCHED, Case, design
from LatentSpaceRestorationLib.evaluation.synthetic.families import family
from LatentSpaceRestorationLib.evaluation.synthetic.sources import (
    Source,
    brain_finder,
    choose,
    real_lesions,
)
from LatentSpaceRestorationLib.methods.settings import ModeSettings
from LatentSpaceRestorationLib.model_space import robust_spread
from LatentSpaceRestorationLib.preprocessing.resampling import resample
from LatentSpaceRestorationLib.scoring.anomaly_map import MapRule
from LatentSpaceRestorationLib.scoring.filters import along_edges
from LatentSpaceRestorationLib.scoring.sample_score import peak_score
from LatentSpaceRestorationLib.training.calibrate import THRESHOLD_PERCENTILE
from LatentSpaceRestorationLib.volume import Volume, dice

RESULTS = Path(__file__).parent / "results"
FAMILIES = ("uniform-sphere", "noise-sphere", "gradient-sphere", "stroke-shape", "shift")


@dataclass(frozen=True)
class Try:
    """A rule for the anomaly map.

    Attributes:
        name: of its row.
        maps: of ``properties`` that it is made of.
        combine: ``rarest``, ``product`` or ``sum``, as in ``MapRule``; ``sum of rarities``.
        by_zone: whether rarity is told by the distance from the brain's edge.
        by_place: whether maps are in units of the healthy spread at their place.
        by_scan: whether of the scan's own spread, where that is wider than those of healthy scans.
        peak_ml: of the sample score.
        edges_mm: widths in which the map is made to follow the edges of the scan.
        needs: the training that it needs.
    """

    name: str
    maps: tuple[str, ...]
    combine: str = "rarest"
    by_zone: bool = True
    by_place: bool = True
    by_scan: bool = False
    peak_ml: float = 1.0
    edges_mm: tuple[float, ...] = ()
    needs: str = "masked"


#: What the weights cost: on two cores of a server, without a GPU.
COSTS = {
    "none": "none",
    "vqvae": "VQ-VAE: 1,100 steps of 32 slices, some 15 min",
    "pixelsnail": "VQ-VAE and PixelSNAIL: 1,600 more steps, some 25 min more",
    "masked": "VQ-VAE and masked prior: 9,000 more steps, some 60 min more",
}
_THREE = ("local-tile4", "residual", "nll-tile4")
#: The same, each in the prior's own standard deviations.
_OWN = ("own-difference", "own-residual", "own-nll")


def _raw(name: str, maps: tuple[str, ...] = _THREE, **changes: Any) -> Try:
    """The three properties as they are, but for something."""
    return Try(f"... {name}", maps, by_scan=True, **changes)


def _own(name: str, maps: tuple[str, ...] = _OWN, **changes: Any) -> Try:
    """All three in the prior's own units, but for something."""
    return Try(f"own units: {name}", maps, by_scan=True, **changes)


#: Widths of the default.
_EDGES = ModeSettings().edge_widths_mm


def _edges(name: str, edges_mm: tuple[float, ...] = _EDGES, **changes: Any) -> Try:
    """The default, but for something."""
    return Try(f"along edges: {name}", _OWN, by_scan=True, edges_mm=edges_mm, **changes)


TRIES = (
    Try("intensity", ("intensity",), needs="none"),
    Try("intensity, without zones", ("intensity",), "product", False, needs="none"),
    Try("VQ-VAE residual", ("residual",), needs="vqvae"),
    Try("PixelSNAIL NLL", ("nll",), needs="pixelsnail"),
    Try("paper (1 restoration)", ("paper",), "product", False, False, needs="pixelsnail"),
    Try("PixelSNAIL difference", ("restored",), "product", False, needs="pixelsnail"),
    Try("... times intensity", ("restored", "intensity"), "product", False, needs="pixelsnail"),
    Try("... by zone", ("restored",), needs="pixelsnail"),
    Try("PixelSNAIL, three properties", ("restored", "residual", "nll"), needs="pixelsnail"),
    Try("masked NLL, tiles of 4", ("nll-tile4",)),
    Try("masked NLL, tiles of 6", ("nll-tile6",)),
    Try("masked difference, tiles of 4", ("difference-tile4",)),
    Try("masked difference, tiles of 6", ("difference-tile6",)),
    Try("... without zones", ("difference-tile4",), "product", False),
    Try("... absolute, then smoothed", ("absolute-tile4",)),
    Try("... of the reconstruction", ("reconstruction-tile4",)),
    Try("... times intensity", ("difference-tile4", "intensity"), "product", False),
    Try("... less its wide mean", ("local-tile4",)),
    Try("the three properties, the rarest", _THREE),
    Try("... by the scan's own spread", _THREE, by_scan=True),
    _raw("with the wide mean", ("difference-tile4", "residual", "nll-tile4")),
    _raw("difference of 3 mm", ("local-near-tile4", "residual", "nll-tile4")),
    _raw("difference of 8 mm", ("local-wide-tile4", "residual", "nll-tile4")),
    _raw("tiles of 6", ("local-tile6", "residual", "nll-tile6")),
    _raw("tiles of 4 and 6", (*_THREE, "local-tile6", "nll-tile6")),
    _raw("residual of 2.5 mm", ("local-tile4", "residual-near", "nll-tile4")),
    _raw("residual of one view", ("local-tile4", "residual-one-view", "nll-tile4")),
    _raw("residual less its wide mean", ("local-tile4", "residual-local", "nll-tile4")),
    _raw("NLL less its wide mean", ("local-tile4", "residual", "nll-local-tile4")),
    _raw("without NLL", ("local-tile4", "residual")),
    _raw("without zones", by_zone=False),
    _raw("sum of rarities", combine="sum of rarities"),
    _raw("with intensity", (*_THREE, "intensity")),
    _raw("with PixelSNAIL's", (*_THREE, "restored", "nll"), needs="pixelsnail"),
    _raw("score of 0.2 ml", peak_ml=0.2),
    _raw("score of 5 ml", peak_ml=5.0),
    _raw("difference in the prior's own units", (_OWN[0], *_THREE[1:])),
    _raw("residual in the prior's own units", (_THREE[0], _OWN[1], _THREE[2])),
    _raw("NLL in the prior's own units", (*_THREE[:2], _OWN[2])),
    _own("all three"),
    _own("with the NLL as it is", (*_OWN, "nll-tile4")),
    _own("without zones", by_zone=False),
    _own("without NLL", _OWN[:2]),
    _own("sum of rarities", combine="sum of rarities"),
    _own("score of 0.2 ml", peak_ml=0.2),
    _own("score of 5 ml", peak_ml=5.0),
    _edges("of 14 and of 34 mm (default)"),
    _edges("of 14 mm", (14.0,)),
    _edges("of 22 mm", (22.0,)),
    _edges("of 34 mm", (34.0,)),
    _edges("of 34 and of 14 mm", (34.0, 14.0)),
    _edges("of 14 and of 50 mm", (14.0, 50.0)),
    _edges("score of 0.2 ml", peak_ml=0.2),
    _edges("score of 5 ml", peak_ml=5.0),
    Try("along edges: intensity alone", ("intensity",), edges_mm=_EDGES, needs="none"),
    Try("along edges: VQ-VAE residual alone", ("residual",), edges_mm=_EDGES, needs="vqvae"),
    Try(
        "along edges: PixelSNAIL, three properties",
        ("restored", "residual", "nll"),
        edges_mm=_EDGES,
        needs="pixelsnail",
    ),
)


@dataclass(frozen=True)
class Bench:
    """Samples, and what is usual of each map.

    Attributes:
        spacing_mm: of the model.
        healthy: of the calibration, by name.
        cases: of the yardstick.
    """

    spacing_mm: float
    healthy: dict[str, Sample]
    cases: dict[Case, Sample]
    _far: dict[tuple[str, str, bool, bool], np.ndarray] = field(default_factory=dict)
    _of_spread: dict[str, np.ndarray] = field(default_factory=dict)
    _sums: dict[str, dict[str, PlaceSums]] = field(default_factory=dict)
    _usual: dict[tuple[str, str], PlaceStatistics] = field(default_factory=dict)

    def far(self, key: str, sample: Sample, name: str, one: Try) -> np.ndarray:
        """(brain voxels,) how far from the usual; healthy scans leave themselves out."""
        known = key, name, one.by_place, one.by_scan
        if known not in self._far:
            rule = MapRule.of_high(name) if name in ONE_SIDED else MapRule({name: 1.0})
            values = sample.maps[name]
            if one.by_scan:
                usual = NormativeMap(self._usual_without(key, name), spreads=self._spreads(name))
                z = usual.deviation(values, sample.mask, sample.position)
            elif one.by_place:
                z = self._usual_without(key, name).normalise(values, sample.position)
            found = rule.distance(name, z) if one.by_place else np.abs(values)
            self._far[known] = found[sample.mask].astype(np.float32)
        return self._far[known]

    def _spreads(self, name: str) -> np.ndarray:
        """How widely a map spreads in each of the healthy scans."""
        if name not in self._of_spread:
            self._of_spread[name] = np.array(
                [
                    robust_spread(
                        self._usual_without(key, name).normalise(s.maps[name], s.position)[s.mask]
                    )
                    for key, s in self.healthy.items()
                ]
            )
        return self._of_spread[name]

    def _usual_without(self, key: str, name: str) -> PlaceStatistics:
        """What is usual of a map in the healthy scans, less that of a name."""
        if name not in self._sums:
            self._sums[name] = {
                other: PlaceSums.of(s.maps[name], s.mask, s.position)
                for other, s in self.healthy.items()
            }
        sums = self._sums[name]
        known = (key if key in sums else "", name)
        if known not in self._usual:
            others = [s for other, s in sums.items() if other != key]
            self._usual[known] = PlaceStatistics.from_sums(reduce(add, others))
        return self._usual[known]

    def values(self, one: Try) -> tuple[dict[str, np.ndarray], dict[Case, np.ndarray]]:
        """The anomaly map's brain voxels by a try, of healthy scans and of cases."""
        zone = {
            key: zones(s.mask, self.spacing_mm)[s.mask] * one.by_zone
            for key, s in (*self.healthy.items(), *((c.name, s) for c, s in self.cases.items()))
        }
        counts = {
            name: {
                key: TailCounts.of(self.far(key, s, name, one), zone[key])
                for key, s in self.healthy.items()
            }
            for name in one.maps
            if one.combine in ("rarest", "sum of rarities")
        }

        def of(key: str, sample: Sample) -> np.ndarray:
            parts = []
            for name in one.maps:
                far = self.far(key, sample, name, one)
                if name in counts:
                    others = [c for other, c in counts[name].items() if other != key]
                    far = TailProbability.from_counts(reduce(add, others)).of(far, zone[key])
                parts.append(far)
            if one.combine == "rarest":
                found = np.maximum.reduce(parts)
            elif one.combine == "product":
                found = np.asarray(np.prod(parts, axis=0) ** (1.0 / len(parts)))
            else:
                found = np.asarray(np.mean(parts, axis=0))
            return self._along_edges(found, sample, one.edges_mm)

        return (
            {key: of(key, sample) for key, sample in self.healthy.items()},
            {case: of(case.name, sample) for case, sample in self.cases.items()},
        )

    def _along_edges(
        self, found: np.ndarray, sample: Sample, widths_mm: Sequence[float]
    ) -> np.ndarray:
        if not widths_mm:
            return found
        values = np.zeros(sample.mask.shape, np.float32)
        values[sample.mask] = found
        for width in widths_mm:
            radius = int(0.5 * width / self.spacing_mm)
            values = along_edges(values, sample.slices, sample.mask, radius)
        return values[sample.mask]

    def results(self, one: Try) -> list[CaseResult]:
        """Figures of every case by a try."""
        healthy, found = self.values(one)
        cut = float(np.percentile(np.concatenate(list(healthy.values())), THRESHOLD_PERCENTILE))
        ml = self.spacing_mm**3 / 1000.0

        def score(values: np.ndarray) -> float:
            return peak_score(values, np.ones(len(values), bool), one.peak_ml, self.spacing_mm)

        usual = [score(values) for values in healthy.values()]
        results = []
        for case, values in found.items():
            label = self.cases[case].label[self.cases[case].mask]
            numbers = {
                "sample_score": score(values),
                "p_value": p_value(score(values), usual),
                "healthy_scans": len(usual),
                "flagged_ml": float((values >= cut).sum()) * ml,
                "brain_ml": len(values) * ml,
            }
            voxels = Histogram.of(values, label)
            if label.any():
                ap, auroc = Table.of([voxels]).ap_and_auroc(np.ones((1, 1)))
                numbers |= {
                    "ap": float(ap[0]),
                    "auroc": float(auroc[0]),
                    "dice": dice(values >= cut, label),
                }
            none = Regions(0, np.zeros(0, np.int64), np.zeros(0, bool))
            results.append(CaseResult(case, one.name, Measured(numbers, voxels, none), Path()))
        return results


def prepare(detector: Detector, options: argparse.Namespace) -> Bench:
    """Make the samples that are not there yet, and read them all."""
    options.work.mkdir(parents=True, exist_ok=True)
    beside = options.subjects_table.resolve().parent.parent / "stroke-lesion-shapes"
    shapes = options.shapes or beside

    def sample(source: Source, case: Case) -> Sample:
        file = options.work / f"{case.name}.npz"
        if not file.is_file():
            volume, label = source.make(case)
            prepared, _ = detector.prepare(volume)
            like = prepared.slices.shape, prepared.affine
            truth = resample(Volume(label.astype(np.float32), volume.affine), *like) > 0.5
            maps = properties(detector, prepared)
            Sample(prepared.mask, prepared.position, truth, prepared.slices, maps).save(file)
            print(case.name, file=sys.stderr, flush=True)
        return Sample.load(file)

    lesions = real_lesions(options.lesions) if options.lesions else []

    def source(split: str, count: int | None) -> Source:
        subjects = choose([options.subjects_table], [split], [detector])[:count]
        return Source(subjects, lesions, shapes, 0, brain_finder(detector))

    calibrate, tune = source("calibrate", None), source("tune", options.subjects)
    names = [subject.name for subject in tune.healthy]
    cases = design(names, [family(n) for n in FAMILIES])
    cases += [Case(subject.name, LESION) for subject in lesions]
    return Bench(
        detector.grid.spacing_mm,
        {s.name: sample(calibrate, Case(s.name, UNTOUCHED)) for s in calibrate.healthy},
        {case: sample(tune, case) for case in cases},
    )


def table(rows: Sequence[tuple[Try, list[FigureRow]]], subjects: int, model: str) -> str:
    """All tries as Markdown."""
    families = [*FAMILIES, *([LESION] if any(r.family == LESION for r in rows[0][1]) else [])]
    lines = [
        "# What was tried",
        "",
        f"Synthetic anomalies in {subjects} healthy scans, each with one of every family, in sizes "
        f"and contrasts by turns; model {model}; in model space. Means over the synthetic "
        "families, and AP of pooled voxels by family; 95% intervals by bootstrap of subjects. "
        "Made by `ablation.py`.",
        "",
        "| try | pooled AP | AP per scan | AUROC of samples | Dice | healthy flagged | "
        + " | ".join(name.replace("-", " ") for name in families)
        + " | trained |",
        "|---" * (7 + len(families)) + "|",
    ]
    for one, found in rows:
        whole = {row.family: row.figures for row in found}
        cells = [one.name]
        for key in ("pooled_ap", "case_ap", "sample_auroc"):
            f = whole[MEAN][key]
            cells.append(f"{f.value:.2f} ({f.low:.2f} to {f.high:.2f})")
        cells.append(f"{whole[MEAN]['dice'].value:.2f}")
        cells.append(f"{100 * whole[UNTOUCHED]['flagged_share'].value:.1f}%")
        cells += [f"{whole[name]['pooled_ap'].value:.2f}" for name in families]
        lines.append("| " + " | ".join([*cells, one.needs]) + " |")
    return "\n".join([*lines, "", *(f"- {k}: {v}" for k, v in COSTS.items())]) + "\n"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("subjects_table", type=Path, metavar="SUBJECTS.tsv")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", default="brain-t1")
    parser.add_argument("--subjects", type=int, help="the first so many")
    parser.add_argument("--shapes", type=Path)
    parser.add_argument("--lesions", type=Path, help="scans with masks of real lesions")
    options = parser.parse_args()
    folder = find_bundle(options.model)
    detector = Detector.load(folder, "cpu", search=[folder.parent])
    bench = prepare(detector, options)
    rows = [(one, rows_of(bench.results(one), replicates=1000)) for one in TRIES]
    # By size and contrast there are a few scans each, and one figure of many would be the best.
    rows = [(one, [r for r in of if r.is_whole]) for one, of in rows]
    subjects = len({case.subject for case in bench.cases if case.family != LESION})
    text = table(rows, subjects, detector.bundle.name)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "ablation.md").write_text(text, encoding="utf-8")
    told = [{**asdict(one), "rows": [asdict(row) for row in found]} for one, found in rows]
    (options.work / "ablation.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
