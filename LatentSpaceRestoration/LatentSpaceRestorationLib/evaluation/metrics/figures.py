"""From the results of single cases to figures by family, size and contrast, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..synthetic.design import LESION, UNTOUCHED, Case
from ..synthetic.families import FAMILIES
from .histograms import Table
from .measures import CaseResult, Regions

#: FigureRow of the mean over all families that are neither held out nor artefacts.
MEAN = "mean of families"
#: False regions per scan at which the recall of lesions is told.
FALSE_REGIONS = (1, 5)
#: Replicates that are worked on at a time.
_AT_ONCE = 100

#: What is told of a family, in this order: key and heading.
FIGURES: Mapping[str, str] = {
    "guess_ap": "AP of a guess: the share of anomalous voxels",
    "pooled_ap": "AP, voxels pooled",
    "pooled_auroc": "AUROC, voxels pooled",
    "case_ap": "AP per scan",
    "case_auroc": "AUROC per scan",
    "dice": "Dice at the calibrated threshold",
    "dice_oracle": "Dice at each scan's best threshold",
    **{f"recall_{n}": f"Lesions found at {n} false regions per scan" for n in FALSE_REGIONS},
    "hit": "Peak of the map in the lesion",
    "sample_auroc": "AUROC of sample scores",
    "sample_ap": "AP of sample scores",
    "top_3": "Lesion among the three highest regions",
    "flagged_ml": "Flagged, ml",
    "flagged_share": "Flagged, share of the brain",
    "alarms": "Share of scans with p < 0.05",
    "flagged_median": "Flagged, median share of the brain",
    "flagged_p90": "Flagged, 90th percentile",
    "flagged_worst": "Flagged, worst",
    "score_median": "Sample score, median",
    "score_highest": "Sample score, highest",
    "beyond": "Share of scans beyond all healthy ones",
}


@dataclass(frozen=True)
class Figure:
    """A value and the interval that 95 of 100 bootstrap replicates lie in (None: not made)."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class FigureRow:
    """The figures of one candidate and one group of cases.

    Attributes:
        candidate: its name.
        family: of the cases.
        size, contrast, site: of the cases; None is all of them.
        scans: number of changed scans (untouched ones where the family is that).
        figures: those of ``FIGURES`` that are defined.
        lead: of the first candidate over this one, by figure: the difference, draw by draw.
            Subjects that are hard for one are hard for the other, so that its interval is narrower
            than theirs, and tells which of two is better where theirs overlap. Empty for the first
            candidate, where the scans are not the same, and without a bootstrap.
        places: where most is flagged in untouched scans, such as ``midline, back, lower (40%)``.
    """

    candidate: str
    family: str
    size: float | None
    contrast: float | None
    scans: int
    figures: dict[str, Figure]
    lead: dict[str, Figure] = field(default_factory=dict)
    site: str | None = None
    places: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether it is of all sizes, contrasts and sites."""
        return self.size is None and self.contrast is None and self.site is None


class Bootstrap:
    """Draws of subjects with replacement, the same for every family and candidate.

    Healthy subjects and those with real lesions are drawn apart.

    Args:
        results: of the evaluation.
        replicates: number of draws.
        seed: of the draws.
    """

    def __init__(self, results: Sequence[CaseResult], replicates: int, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self._weights: dict[tuple[bool, str], np.ndarray] = {}
        for real in (False, True):
            names = sorted({r.case.subject for r in results if (r.case.family == LESION) is real})
            if names:
                even = np.full(len(names), 1.0 / len(names))
                drawn = generator.multinomial(len(names), even, size=replicates)
                for column, name in enumerate(names):
                    self._weights[real, name] = drawn[:, column].astype(float)

    def weights(self, results: Sequence[CaseResult]) -> np.ndarray:
        """(replicates, results) how often each result counts."""
        return np.stack(
            [self._weights[r.case.family == LESION, r.case.subject] for r in results], axis=1
        )


def rows_of(
    results: Sequence[CaseResult], *, replicates: int = 1000, seed: int = 0
) -> list[FigureRow]:
    """All figures: by candidate and family with intervals, then by size and by contrast.

    The first candidate is the one that the others are compared with, see :attr:`FigureRow.lead`.

    Args:
        results: of the evaluation.
        replicates: of the bootstrap; 0 makes no intervals.
        seed: of the bootstrap.
    """
    bootstrap = Bootstrap(results, replicates, seed) if replicates else None
    rows = []
    first = _First()
    for candidate in dict.fromkeys(result.candidate for result in results):
        own = [result for result in results if result.candidate == candidate]
        untouched = [result for result in own if result.case.family == UNTOUCHED]
        tuned: list[dict[str, np.ndarray]] = []
        families: list[FigureRow] = []
        for name in families_of(own):
            changed = [result for result in own if result.case.family == name]
            values = _figures(changed, untouched, bootstrap)
            row = _row(candidate, name, None, None, len(changed), values)
            families.append(first.compared(row, values, [*changed, *untouched]))
            if name in tuning_families():
                tuned.append(values)
            families += _by_level(candidate, name, changed, untouched)
        if len(tuned) > 1:
            means = _means(tuned)
            scans = sum(r.case.family in tuning_families() for r in own)
            row = _row(candidate, MEAN, None, None, scans, means)
            rows.append(first.compared(row, means, own))
        rows += families
        if untouched:
            values = _healthy_figures(untouched, bootstrap)
            rows.append(_row(candidate, UNTOUCHED, None, None, len(untouched), values))
        rows += _by_site(candidate, own)
    return rows


def families_of(results: Sequence[CaseResult]) -> list[str]:
    """Families that there are results of, in the order of tables, less the untouched scans."""
    there = {result.case.family for result in results}
    return [name for name in (*(f.name for f in FAMILIES), LESION) if name in there]


def tuning_families() -> set[str]:
    """Families that have a place and are not held out: those whose mean is told."""
    return {kind.name for kind in FAMILIES if not (kind.held_out or kind.whole_scan)}


def _by_level(
    candidate: str, name: str, changed: Sequence[CaseResult], untouched: Sequence[CaseResult]
) -> list[FigureRow]:
    """Rows of one size or one contrast, without intervals: they have few scans."""
    rows = []
    for attribute in ("size", "contrast"):
        levels = sorted({getattr(result.case, attribute) for result in changed})
        for level in levels if len(levels) > 1 else ():
            some = [r for r in changed if getattr(r.case, attribute) == level]
            subjects = {r.case.subject for r in some}
            healthy = [r for r in untouched if r.case.subject in subjects]
            size, contrast = (level, None) if attribute == "size" else (None, level)
            values = _figures(some, healthy, None)
            rows.append(_row(candidate, name, size, contrast, len(some), values))
    return rows


def _by_site(candidate: str, own: Sequence[CaseResult]) -> list[FigureRow]:
    """Rows of each site, where there are several: the untouched scans, and the mean of families."""
    healthy = [result for result in own if result.case.family != LESION]
    sites = dict.fromkeys(result.site for result in healthy)
    rows = []
    for site in sites if len(sites) > 1 else ():
        some = [result for result in healthy if result.site == site]
        untouched = [result for result in some if result.case.family == UNTOUCHED]
        values = _healthy_figures(untouched, None)
        row = _row(candidate, UNTOUCHED, None, None, len(untouched), values)
        rows.append(replace(row, site=site, places=_places(untouched)))
        of_families = [
            _figures([r for r in some if r.case.family == name], untouched, None)
            for name in families_of(some)
            if name in tuning_families()
        ]
        if of_families:
            scans = sum(r.case.family in tuning_families() for r in some)
            row = _row(candidate, MEAN, None, None, scans, _means(of_families))
            rows.append(replace(row, site=site))
    return rows


def _means(of_families: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Means over families of the figures that all of them have."""
    keys = set.intersection(*(set(values) for values in of_families))
    return {key: np.mean([v[key] for v in of_families], axis=0) for key in keys}


def _places(untouched: Sequence[CaseResult]) -> tuple[str, ...]:
    """Up to three places that most of what is flagged lies at, with its share."""
    found: dict[str, float] = {}
    for result in untouched:
        for words, volume_ml in result.measured.numbers.get("flagged_at", {}).items():
            found[words] = found.get(words, 0.0) + volume_ml
    whole = sum(found.values())
    most = sorted(found.items(), key=lambda item: -item[1])[:3]
    return tuple(f"{words} ({100 * ml / whole:.0f}%)" for words, ml in most)


def _row(
    candidate: str,
    name: str,
    size: float | None,
    contrast: float | None,
    scans: int,
    values: Mapping[str, np.ndarray],
) -> FigureRow:
    known = {k: values[k] for k in FIGURES if k in values and not np.isnan(values[k][0])}
    figures = {key: _figure(array) for key, array in known.items()}
    return FigureRow(candidate, name, size, contrast, scans, figures)


def _figure(values: np.ndarray) -> Figure:
    """(1 + replicates,) -> the first, and the interval of the others."""
    usable = values[1:][~np.isnan(values[1:])]
    if not len(usable):
        return Figure(float(values[0]))
    low, high = (float(x) for x in np.percentile(usable, (2.5, 97.5)))
    return Figure(float(values[0]), low, high)


class _First:
    """The first candidate's figures of each family, which the others' are set against."""

    def __init__(self) -> None:
        self._candidate: str | None = None
        self._of: dict[str, tuple[dict[str, np.ndarray], set[Case]]] = {}

    def compared(
        self, row: FigureRow, values: dict[str, np.ndarray], results: Sequence[CaseResult]
    ) -> FigureRow:
        """The row with the first candidate's lead; the first's own is remembered instead."""
        cases = {result.case for result in results}
        if self._candidate in (None, row.candidate):
            self._candidate = row.candidate
            self._of[row.family] = values, cases
            return row
        first, same = self._of.get(row.family, ({}, set()))
        if cases != same:
            return row
        keys = [k for k in row.figures if k in first and len(values[k]) > 1]
        return replace(row, lead={key: _figure(first[key] - values[key]) for key in keys})


def _figures(
    changed: Sequence[CaseResult], untouched: Sequence[CaseResult], bootstrap: Bootstrap | None
) -> dict[str, np.ndarray]:
    """Arrays (1 + replicates,), the value itself first.

    Untouched scans weigh as much as changed ones together. Real lesions come from elsewhere and
    have other voxels, so that their voxels and regions are counted without the untouched scans.
    """
    every = [*changed, *untouched]
    truth = np.array([True] * len(changed) + [False] * len(untouched))
    balance = np.where(truth, 1.0, len(changed) / max(1, len(untouched)))
    weights = balance * (np.ones((1, len(every))) if bootstrap is None else _all(bootstrap, every))
    values: dict[str, np.ndarray] = {}
    if untouched:
        scores = [result.measured.numbers["sample_score"] for result in every]
        table = Table.of_scores(scores, truth)
        values |= _ranked(table, weights, "sample")
    if not any("ap" in result.measured.numbers for result in changed):
        return values
    pool = changed if changed[0].case.family == LESION else every
    counted = weights[:, : len(pool)]
    voxels = [result.measured.voxels for result in pool]
    anomalous, normal = (
        counted @ [float(count.sum()) for count in counts]
        for counts in ([v.anomalous for v in voxels], [v.normal for v in voxels])
    )
    values["guess_ap"] = anomalous / np.maximum(anomalous + normal, 1.0)
    values |= _ranked(Table.of(voxels), counted, "pooled")
    recall = _recall([r.measured.regions for r in pool], counted, truth[: len(pool)])
    values |= {f"recall_{n}": r for n, r in zip(FALSE_REGIONS, recall, strict=True)}
    own = weights[:, : len(changed)]
    for key, name in (
        *(("case_ap", "ap"), ("case_auroc", "auroc"), ("dice", "dice")),
        *(("dice_oracle", "dice_oracle"), ("hit", "hit"), ("top_3", "top_3")),
        ("flagged_ml", "flagged_ml"),
    ):
        found = [result.measured.numbers.get(name, np.nan) for result in changed]
        values[key] = _mean(np.array(found, float), own)
    return values


def _healthy_figures(
    untouched: Sequence[CaseResult], bootstrap: Bootstrap | None
) -> dict[str, np.ndarray]:
    numbers = [result.measured.numbers for result in untouched]
    once = np.ones((1, len(untouched)))
    weights = once if bootstrap is None else _all(bootstrap, untouched)
    share = [n["flagged_ml"] / max(n["brain_ml"], 1e-9) for n in numbers]
    scores = [n["sample_score"] for n in numbers]
    # With n healthy scans no p-value is below 1 / (n + 1).
    p_values = [1.0 if n["p_value"] is None else n["p_value"] for n in numbers]
    most = [n["healthy_scans"] + 1 for n in numbers]
    beyond = [p * count < 1.5 for p, count in zip(p_values, most, strict=True)]
    told = {
        "flagged_median": np.median(share),
        "flagged_p90": np.percentile(share, 90.0),
        "flagged_worst": max(share),
        "score_median": np.median(scores),
        "score_highest": max(scores),
        "beyond": np.mean(beyond),
    }
    return {
        "flagged_ml": _mean(np.array([n["flagged_ml"] for n in numbers]), weights),
        "flagged_share": _mean(np.array(share), weights),
        "alarms": _mean(np.array([float(p < 0.05) for p in p_values]), weights),
        **{key: np.array([float(value)]) for key, value in told.items()},
    }


def _all(bootstrap: Bootstrap, results: Sequence[CaseResult]) -> np.ndarray:
    """(1 + replicates, results): every result once, then the draws."""
    return np.vstack([np.ones(len(results)), bootstrap.weights(results)])


def _ranked(table: Table, weights: np.ndarray, name: str) -> dict[str, np.ndarray]:
    """AP and AUROC: of the data by scikit-learn, of the replicates many at a time."""
    starts = range(0, len(weights), _AT_ONCE)
    parts = [table.ap_and_auroc(weights[start : start + _AT_ONCE]) for start in starts]
    ap, auroc = (np.concatenate(part) for part in zip(*parts, strict=True))
    labels, scores, counts = table.weighted(weights[0])
    if labels.any() and not labels.all():
        from sklearn.metrics import average_precision_score, roc_auc_score

        ap[0] = average_precision_score(labels, scores, sample_weight=counts)
        auroc[0] = roc_auc_score(labels, scores, sample_weight=counts)
    return {f"{name}_ap": ap, f"{name}_auroc": auroc}


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(r,) weighted means of (n,) values, less those that are not a number."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(weights[:, there] @ values[there] / weights[:, there].sum(axis=1))


def _recall(regions: Sequence[Regions], weights: np.ndarray, truth: np.ndarray) -> list[np.ndarray]:
    """Share of lesions found at a mean of so many false regions per scan; see ``Regions``.

    Thresholds are lowered for all scans together until false regions are too many.

    Returns:
        (r,) for each of ``FALSE_REGIONS``.
    """
    first = max(r.first for r in regions)
    last = max(r.first + len(r.false) for r in regions)
    false = np.zeros((len(regions), max(1, last - first)))
    found = np.zeros_like(false)
    for row, scan in enumerate(regions):
        skipped = first - scan.first
        false[row, : max(0, len(scan.false) - skipped)] = scan.false[skipped:]
        found[row, : max(0, len(scan.found) - skipped)] = scan.found[skipped:]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_false = weights @ false / weights.sum(axis=1, keepdims=True)
        lesions = weights[:, truth]
        recall = lesions @ found[truth] / lesions.sum(axis=1, keepdims=True)
    results = []
    for limit in FALSE_REGIONS:
        # From the highest threshold down; what comes after the first excess does not count.
        over = np.maximum.accumulate(mean_false[:, ::-1] > limit, axis=1)[:, ::-1]
        results.append(np.where(over, 0.0, recall).max(axis=1))
    return results
