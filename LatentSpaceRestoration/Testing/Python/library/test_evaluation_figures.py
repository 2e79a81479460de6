"""Figures: those of scikit-learn from counts, thresholds of regions, intervals, the design."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from LatentSpaceRestorationLib.bundle.bundle import Bundle, digest_of_models
from LatentSpaceRestorationLib.detection import Detection
from LatentSpaceRestorationLib.evaluation import store
from LatentSpaceRestorationLib.evaluation.metrics.figures import MEAN, FigureRow, rows_of
from LatentSpaceRestorationLib.evaluation.metrics.histograms import Histogram, Table
from LatentSpaceRestorationLib.evaluation.metrics.measures import CaseResult, Measured, measure
from LatentSpaceRestorationLib.evaluation.presentation.tables import as_csv, as_markdown
from LatentSpaceRestorationLib.evaluation.synthetic.design import LESION, UNTOUCHED, Case, design
from LatentSpaceRestorationLib.evaluation.synthetic.families import FAMILIES, family
from LatentSpaceRestorationLib.methods.registry import kinds
from LatentSpaceRestorationLib.results import provenance
from LatentSpaceRestorationLib.results.provenance import key_of, parts_of_kind

metrics = pytest.importorskip("sklearn.metrics")

#: 8 microlitres a voxel.
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def maps(number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Maps that see their labels somewhat, with many voxels at 0 and over several magnitudes."""
    generator = np.random.default_rng(0)
    pairs = []
    for scan in range(number):
        label = generator.uniform(size=(20, 20, 20)) < 0.02 * (scan + 1)
        values = generator.lognormal(sigma=1.5, size=label.shape) * np.where(label, 3.0, 1.0)
        values[generator.uniform(size=label.shape) < 0.3] = 0.0
        pairs.append((values.astype(np.float32) * 10.0**scan, label))
    return pairs


def test_counted_voxels_give_the_figures_of_scikit_learn() -> None:
    pairs = maps(3)
    table = Table.of([Histogram.of(values, label) for values, label in pairs])
    labels = np.concatenate([label.ravel() for _, label in pairs])
    values = np.concatenate([values.ravel() for values, _ in pairs])
    ap, auroc = (figure[0] for figure in table.ap_and_auroc(np.ones((1, 3))))
    assert ap == pytest.approx(metrics.average_precision_score(labels, values), abs=1e-3)
    assert auroc == pytest.approx(metrics.roc_auc_score(labels, values), abs=1e-4)
    weighted = table.weighted(np.ones(3))
    exact = metrics.average_precision_score(*weighted[:2], sample_weight=weighted[2])
    assert ap == pytest.approx(exact, abs=1e-12)


def test_replicates_weigh_scans_as_if_they_were_there_several_times() -> None:
    histograms = [Histogram.of(values, label) for values, label in maps(3)]
    table = Table.of(histograms)
    twice = Table.of([histograms[0], histograms[2], histograms[2]])
    weights = np.array([[1.0, 0.0, 2.0], [1.0, 1.0, 1.0]])
    expected = twice.ap_and_auroc(np.ones((1, 3)))
    for found, wanted in zip(table.ap_and_auroc(weights), expected, strict=True):
        assert found[0] == pytest.approx(wanted[0])
        assert found[0] != pytest.approx(found[1])


def test_counts_stay_small_and_lose_no_voxel() -> None:
    values, label = maps(1)[0]
    histogram = Histogram.of(np.tile(values, (10, 10, 10)), np.tile(label, (10, 10, 10)))
    assert len(histogram.keys) < 12_000
    assert histogram.normal.sum() + histogram.anomalous.sum() == values.size * 1000
    assert histogram.anomalous.sum() == label.sum() * 1000
    above = np.sort(values[values > 0])
    assert histogram.scores[1] == pytest.approx(above[0], rel=2e-3)
    assert histogram.scores[-1] == pytest.approx(above[-1], rel=2e-3)


def test_scores_of_scans_are_ranked_as_scikit_learn_does() -> None:
    scores, truth = [1.0, 2.0, 2.0, 3.0, 0.5, 2.5], [False, True, False, True, False, False]
    table = Table.of_scores(scores, truth)
    ap, auroc = table.ap_and_auroc(np.ones((1, 6)))
    assert auroc[0] == pytest.approx(metrics.roc_auc_score(truth, scores))
    assert ap[0] == pytest.approx(metrics.average_precision_score(truth, scores))


def detection(values: np.ndarray, threshold: float, score: float = 1.0) -> Detection:
    mask = (values >= threshold).astype(np.uint8)
    whole = np.ones(values.shape, np.uint8)
    return Detection(
        *(values, mask, values, values, whole),
        sample_score=score,
        percentile=50.0,
        p_value=0.5,
        threshold=threshold,
        threshold_percentile=99.0,
        slice_scores=(),
        healthy_scans=20,
        model="m",
        mode="default",
        method="lsr",
        restorations=1,
        seed=0,
        device="cpu",
        warnings=(),
        seconds={"all": 1.0, "first_score": 0.5},
        version="0",
    )


def scan_with(
    *, lesion: float, false: float, score: float = 1.0, labelled: bool = True
) -> Measured:
    """A lesion of 0.512 ml where the map has one value, and elsewhere a false region."""
    values = np.full((24, 12, 12), 0.01, np.float32)
    label = np.zeros(values.shape, bool)
    values[2:6, 2:6, 2:6], values[14:18, 2:6, 2:6] = lesion, false
    label[2:6, 2:6, 2:6] = labelled
    return measure(detection(values, 1.0, score), label, AFFINE)


def test_one_case_is_measured() -> None:
    numbers = scan_with(lesion=4.0, false=2.0).numbers
    assert numbers["label_ml"] == pytest.approx(0.512)
    assert numbers["flagged_ml"] == pytest.approx(1.024)
    assert numbers["dice"] == pytest.approx(2 / 3)
    assert numbers["dice_oracle"] == pytest.approx(1.0)
    assert numbers["ap"] == pytest.approx(1.0)
    assert numbers["hit"] is True
    assert numbers["top_3"] is True
    assert sum(numbers["flagged_at"].values()) == pytest.approx(1.024)
    missed = scan_with(lesion=0.5, false=2.0).numbers
    assert missed["dice"] == 0.0
    assert missed["hit"] is False
    assert missed["top_3"] is False
    second = scan_with(lesion=1.5, false=2.0).numbers
    assert (second["hit"], second["top_3"]) == (False, True)
    assert "ap" not in scan_with(lesion=4.0, false=2.0, labelled=False).numbers


def test_regions_count_false_ones_and_find_no_lesion_in_a_flagged_brain() -> None:
    regions = scan_with(lesion=1.0, false=2.0).regions
    thresholds = 2.0 ** ((regions.first + np.arange(len(regions.false))) / 12)
    assert thresholds[0] == pytest.approx(0.25, rel=0.06)
    assert thresholds[-1] == pytest.approx(2.0, rel=0.06)
    np.testing.assert_array_equal(regions.false, 1)
    np.testing.assert_array_equal(regions.found, thresholds <= 1.0)
    # All of the brain at once is not of the lesion, which is a small part of it.
    everywhere = measure(detection(np.full((20, 20, 20), 1.0, np.float32), 1.0), spot(), AFFINE)
    assert not everywhere.regions.found.any()


def spot() -> np.ndarray:
    label = np.zeros((20, 20, 20), bool)
    label[2:5, 2:5, 2:5] = True
    return label


def results(candidate: str = "lsr", better: float = 0.0) -> list[CaseResult]:
    """Six subjects; every other lesion of the spheres is hotter than the false regions."""
    found = []
    for number in range(6):
        name = f"S{number}"
        healthy = scan_with(lesion=0.5, false=2.0, score=float(number), labelled=False)
        found.append(CaseResult(Case(name, UNTOUCHED), candidate, healthy, Path("none.webp")))
        for kind, score in (("uniform-sphere", 2.5), ("sink", 0.0), ("bias-field", 9.0)):
            changed = scan_with(
                lesion=(3.0 if number % 2 else 1.5) + better,
                false=2.0,
                score=number + score,
                labelled=kind != "bias-field",
            )
            size = family(kind).sizes[number % 2]
            case = Case(name, kind, size, family(kind).contrasts[0])
            found.append(CaseResult(case, candidate, changed, Path("none.webp")))
    return found


def row(
    rows: list[FigureRow], name: str, candidate: str = "lsr", size: float | None = None
) -> FigureRow:
    return next(
        r
        for r in rows
        if (r.family, r.candidate, r.size, r.contrast) == (name, candidate, size, None)
    )


def test_figures_by_family_with_intervals_and_by_size() -> None:
    rows = rows_of(results() + results("other", 2.0), replicates=200)
    sphere = row(rows, "uniform-sphere").figures
    # Half the lesions are hotter than the false region that every scan has: at a threshold above
    # those there is no false region, below them there is one a scan.
    assert sphere["recall_1"].value == pytest.approx(1.0)
    assert sphere["hit"].value == pytest.approx(0.5)
    assert sphere["case_ap"].value == pytest.approx((1.0 + 0.5) / 2)
    assert sphere["hit"].low is not None
    assert sphere["hit"].low < 0.5 < sphere["hit"].high
    assert row(rows, "uniform-sphere", "other").figures["case_ap"].value == pytest.approx(1.0)
    own = [n + d for n in range(6) for d in (0.0, 2.5)]
    auroc = metrics.roc_auc_score([False, True] * 6, own)
    assert sphere["sample_auroc"].value == pytest.approx(auroc)
    assert row(rows, "sink").figures["sample_auroc"].value == pytest.approx(0.5)
    mean = row(rows, MEAN)
    assert mean.figures["sample_auroc"].value == pytest.approx((auroc + 0.5) / 2)
    artefact = row(rows, "bias-field").figures
    assert set(artefact) == {"sample_auroc", "sample_ap"}
    assert artefact["sample_auroc"].value == 1.0
    by_size = row(rows, "uniform-sphere", size=family("uniform-sphere").sizes[1])
    assert by_size.scans == 3
    assert by_size.figures["case_ap"].value == pytest.approx(1.0)
    assert by_size.figures["case_ap"].low is None
    healthy = row(rows, UNTOUCHED)
    assert healthy.scans == 6
    assert healthy.figures["flagged_ml"].value == pytest.approx(0.512)
    assert rows_of(results(), replicates=50) == rows_of(results(), replicates=50)


def test_a_lead_in_every_scan_is_told_where_the_intervals_overlap() -> None:
    """Each scan has an AP of its own, and the other method one that is a little lower."""

    def at(candidate: str, off: float) -> list[CaseResult]:
        found = []
        for n, result in enumerate(results(candidate)):
            numbers = result.measured.numbers
            if "ap" in numbers:
                numbers = {**numbers, "ap": 0.1 + 0.03 * n - off}
            found.append(replace(result, measured=replace(result.measured, numbers=numbers)))
        return found

    worse, missing = at("worse", 0.05), at("less", 0.05)[:-1]
    rows = rows_of(at("lsr", 0.0) + worse + missing, replicates=200)
    for name in ("uniform-sphere", MEAN):
        ours, theirs = row(rows, name), row(rows, name, "worse")
        assert ours.lead == {}
        assert theirs.figures["case_ap"].high > ours.figures["case_ap"].low  # type: ignore[operator]
        lead = theirs.lead["case_ap"]
        assert (lead.value, lead.low, lead.high) == pytest.approx((0.05, 0.05, 0.05))
    # Of other scans no difference is made.
    assert row(rows, "uniform-sphere", "less").lead
    assert row(rows, "bias-field", "less").lead == {}
    assert row(rows, MEAN, "less").lead == {}
    text = as_markdown(rows, "Title", [])
    assert "### AUROC of sample scores: lsr less the other" in text
    assert "| uniform-sphere | +0.00 (+0.00 to +0.00) |" in text


def test_more_changed_than_untouched_scans_weigh_no_more() -> None:
    """With every size in every scan the sample AP is that of as many scans of either kind."""
    once = results()
    more = [replace(r, case=replace(r.case, size=r.case.size + 1)) for r in once]
    doubled = once + [r for r in more if r.case.family != UNTOUCHED]
    for name in ("uniform-sphere", "sink"):
        one = row(rows_of(once, replicates=0), name).figures
        two = row(rows_of(doubled, replicates=0), name).figures
        assert {k: f.value for k, f in two.items()} == pytest.approx(
            {k: f.value for k, f in one.items()}
        )


def test_false_regions_limit_the_recall() -> None:
    """Two false regions a scan that are hotter than the lesion: not at one, but at five."""
    values = np.full((24, 12, 12), 0.01, np.float32)
    label = np.zeros(values.shape, bool)
    label[2:6, 2:6, 2:6] = True
    values[label] = 1.0
    values[10:14, 2:6, 2:6], values[18:22, 2:6, 2:6] = 2.0, 2.1
    measured = measure(detection(values, 1.0), label, AFFINE)
    case = Case("S0", LESION)
    figures = row(
        rows_of([CaseResult(case, "lsr", measured, Path("x"))], replicates=0), LESION
    ).figures
    assert figures["recall_1"].value == 0.0
    assert figures["recall_5"].value == 1.0


def test_each_site_is_told_of_where_there_are_several() -> None:
    one_site = rows_of(results(), replicates=0)
    assert all(row.site is None for row in one_site)
    rows = rows_of([replace(r, site=r.case.subject[:1]) for r in results()], replicates=0)
    assert rows == one_site
    sites = {f"S{number}": "first" if number < 4 else "second" for number in range(6)}
    rows = rows_of([replace(r, site=sites[r.case.subject]) for r in results()], replicates=0)
    assert [r for r in rows if r.site is None] == one_site
    healthy = {r.site: r for r in rows if r.site is not None and r.family == UNTOUCHED}
    assert {site: r.scans for site, r in healthy.items()} == {"first": 4, "second": 2}
    # All flag the false region alone, 0.512 of 27.648 ml; scores are 0 to 3, and 4 and 5.
    for found in healthy.values():
        worst, median = (found.figures[f"flagged_{name}"].value for name in ("worst", "median"))
        assert worst == median == pytest.approx(0.512 / 27.648)
        assert [place.endswith("(100%)") for place in found.places] == [True]
    assert healthy["first"].figures["score_median"].value == 1.5
    assert healthy["second"].figures["score_highest"].value == 5.0
    means = {r.site: r for r in rows if r.site is not None and r.family == MEAN}
    assert {site: r.scans for site, r in means.items()} == {"first": 8, "second": 4}
    text = as_markdown(rows, "Title", [])
    assert "| lsr | second | 2 | 1.85% | 1.85% | 1.85% | 4.5 | 5 | 0 |" in text


def test_tables_name_every_family_and_method() -> None:
    rows = rows_of(results() + results("other", 2.0), replicates=20)
    text = as_markdown(rows, "Title", ["a note"])
    for words in ("lsr | other", "uniform-sphere", "bias-field (artefact)", "a note", " to "):
        assert words in text
    lines = as_csv(rows).splitlines()
    assert len(lines) == 1 + len(rows)
    assert len({line.count(",") for line in lines}) == 1


def test_the_design_covers_sizes_and_contrasts() -> None:
    kind = family("uniform-sphere")
    names = [f"S{n:02}" for n in range(len(kind.sizes) * len(kind.contrasts))]
    cases = [c for c in design(names, FAMILIES) if c.family == kind.name]
    pairs = {(case.size, case.contrast) for case in cases}
    assert len(cases) == len(pairs) == len(names)
    few = [c for c in design(names[:5], FAMILIES) if c.family == kind.name]
    assert {case.size for case in few} == set(kind.sizes)
    assert {case.contrast for case in few} == set(kind.contrasts)
    assert design(names[::-1], FAMILIES) == design(names, FAMILIES)
    assert design(names, FAMILIES, seed=1) != design(names, FAMILIES)
    full = design(names[:2], [kind], full=True)
    assert len(full) == 2 * (1 + len(names))
    assert len({case.name for case in full}) == len(full)


def test_results_are_kept_and_damaged_or_other_ones_made_again(tmp_path: Path) -> None:
    path = tmp_path / "lsr" / "case.npz"
    measured = scan_with(lesion=4.0, false=2.0)
    assert store.load(path, "key") is None
    store.save(path, "key", measured, b"picture")
    kept = store.load(path, "key")
    assert kept is not None
    assert kept.numbers == measured.numbers
    np.testing.assert_array_equal(kept.voxels.normal, measured.voxels.normal)
    np.testing.assert_array_equal(kept.regions.found, measured.regions.found)
    assert store.load(path, "another key") is None
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"x" + whole, whole[:300] + b"y" + whole[301:]):
        path.write_bytes(damaged)
        assert store.load(path, "key") is None
    path.write_bytes(whole)
    path.with_suffix(".webp").unlink()
    assert store.load(path, "key") is None
    keys = [key_of(kind, a=a) for kind in ("anomaly", "vae") for a in (1, 2)]
    assert keys == [key_of(kind, a=a) for kind in ("anomaly", "vae") for a in (1, 2)]
    assert len(set(keys)) == 4


def test_results_hang_on_the_model_that_finds_the_brain(tmp_path: Path) -> None:
    digests = []
    for number in range(2):
        brain, model = tmp_path / f"brain{number}", tmp_path / "model"
        for folder in (brain, model):
            folder.mkdir(exist_ok=True)
            (folder / "model.json").write_text("{}")
        (brain / "model.json").write_text(f'{{"number": {number}}}')
        bundle = Bundle(model, "model", {"brain_model": str(brain)})
        digests.append(digest_of_models(bundle))
    assert digests[0] != digests[1]
    none = Bundle(model, "model", {"brain_model": "there-is-none"})
    assert digest_of_models(none) not in digests


def test_results_of_one_kind_of_model_do_not_hang_on_the_code_of_another():
    library = Path(provenance.__file__).resolve().parents[1]
    of_kinds = [part for kind in kinds() for part in parts_of_kind(kind)]
    assert len(set(of_kinds)) == len(of_kinds)
    for name in of_kinds:
        assert (library / name).exists(), name
    # A method's module belongs to one kind; what is shared belongs to none.
    methods = {f"methods/{file.name}" for file in (library / "methods").glob("*.py")}
    assert methods - set(of_kinds) == {
        f"methods/{name}.py" for name in ("__init__", "base", "registry")
    }
