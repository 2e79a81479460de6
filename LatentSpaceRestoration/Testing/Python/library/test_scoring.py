"""From codes and residuals to scores, against the paper's equations written out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from LatentSpaceRestorationLib.calibration.atlas import PlaceStatistics
from LatentSpaceRestorationLib.calibration.normative import NormativeMap
from LatentSpaceRestorationLib.calibration.tail_probability import (
    TailCounts,
    TailProbability,
    zones,
)
from LatentSpaceRestorationLib.errors import BundleError
from LatentSpaceRestorationLib.estimator import sample_score
from LatentSpaceRestorationLib.inference.averages import Averages
from LatentSpaceRestorationLib.methods.lsr import feature_maps, paper_filter, slice_nll_scores
from LatentSpaceRestorationLib.methods.settings import PAPER, ModeSettings
from LatentSpaceRestorationLib.preprocessing.slices import PreparedScan
from LatentSpaceRestorationLib.scoring.anomaly_map import MapRule, anomaly_map, signs_of
from LatentSpaceRestorationLib.scoring.filters import along_edges, masked_smooth, without_wide_mean
from LatentSpaceRestorationLib.scoring.sample_score import peak_score
from LatentSpaceRestorationLib.scoring.signs import SIGNS


def scan_in_model_space(
    n: int = 6, rows: int = 16, columns: int = 12, seed: int = 0
) -> PreparedScan:
    """Noise in a box of brain with a margin of two voxels."""
    mask = np.zeros((n, rows, columns), bool)
    mask[:, 2:-2, 2:-2] = True
    values = np.random.default_rng(seed).normal(0.0, 1.0, mask.shape).clip(-3, 3)
    return PreparedScan(
        slices=np.where(mask, values, -3.0).astype(np.float32),
        mask=mask,
        position=np.linspace(-0.3, 0.3, n, dtype=np.float32),
        position_mm=np.arange(n) * 2.0,
        affine=np.eye(4),
        centre=100.0,
        scale=10.0,
        native_shape=(columns, rows, n),
        native_affine=np.eye(4),
        cropped=0.0,
    )


def restorations_of(prepared: PreparedScan, count: int = 3, offset: float = 0.0) -> np.ndarray:
    """Noisy copies of a scan, (N, count, rows, columns)."""
    shape = (len(prepared.slices), count, *prepared.slices.shape[1:])
    noise = np.random.default_rng(1).normal(offset, 0.5, shape)
    return (prepared.slices[:, None] + noise).astype(np.float32)


def averages_of(prepared: PreparedScan, restored: np.ndarray, settings: ModeSettings) -> Averages:
    """The averages that a mode takes over restorations."""
    averages = Averages(prepared.slices, settings.sharpness)
    for i, of_slice in enumerate(restored):
        for image in of_slice:
            averages.add(i, image)
    averages.close_group(restored.shape[1], np.zeros((len(restored), 1, 1)))
    return averages


def test_slice_scores_sum_the_nll_of_unlikely_codes() -> None:
    nll = np.array([[[1.0, 8.0], [7.0, 9.5]], [[0.0, 1.0], [2.0, 3.0]]])
    np.testing.assert_allclose(slice_nll_scores(nll, 7.0), [17.5, 0.0])


def test_the_papers_filter_keeps_constants_and_removes_what_is_thin() -> None:
    np.testing.assert_allclose(paper_filter(np.full((5, 9, 8), 2.5)), 2.5)
    speck = np.zeros((7, 15, 15))
    speck[3, 7:9, 7:9] = 100.0
    assert paper_filter(speck).max() == 0.0
    block = np.zeros((9, 21, 21))
    block[3:6, 9:12, 9:12] = 1.0  # the minimum leaves its central voxel, the means spread it
    filtered = paper_filter(block)
    expected = np.zeros_like(block)
    expected[3:6, 7:14, 7:14] = 1.0 / (3 * 7 * 7)
    np.testing.assert_allclose(filtered, expected, atol=1e-12)


def test_smoothing_in_a_mask_keeps_constants_and_ignores_what_is_outside() -> None:
    mask = np.zeros((5, 12, 12), bool)
    mask[:, 3:, 2:9] = True
    values = np.where(mask, 4.0, 1e6)
    smooth = masked_smooth(values, mask, 1.5)
    np.testing.assert_allclose(smooth[mask], 4.0, rtol=1e-5)
    assert (smooth[~mask] == 0.0).all()
    noise = np.random.default_rng(0).normal(size=mask.shape)
    assert masked_smooth(noise, mask, 1.5)[mask].std() < 0.5 * noise[mask].std()


def test_paper_mode_is_the_weighted_residual_and_the_papers_filter() -> None:
    prepared = scan_in_model_space()
    averages = averages_of(prepared, restorations_of(prepared), PAPER)
    expected = np.where(prepared.mask, paper_filter(averages.weighted_residual), 0.0)
    maps = feature_maps(prepared, averages, PAPER, 2.0)
    assert set(maps) == {"residual"}
    got = anomaly_map(prepared, maps, PAPER.rule, {}, 2.0)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert got.dtype == np.float32
    assert (PAPER.restore_percentile, PAPER.slice_percentile) == (90.0, 98.0)
    assert PAPER.sharpness == 3.0


def test_differences_of_either_sign_average_out_unless_they_agree() -> None:
    prepared = scan_in_model_space()
    settings = ModeSettings(difference_sigma_mm=3.0)
    restored = restorations_of(prepared)
    expected = masked_smooth(prepared.slices - restored.mean(axis=1), prepared.mask, 1.5)
    averages = averages_of(prepared, restored, settings)
    got = feature_maps(prepared, averages, settings, 2.0)["difference"]
    np.testing.assert_allclose(got, expected, atol=1e-6)
    alike = averages_of(prepared, restorations_of(prepared, offset=1.0), settings)
    shifted = feature_maps(prepared, alike, settings, 2.0)["difference"]
    np.testing.assert_allclose((got - shifted)[prepared.mask], 1.0, atol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_map_is_the_geometric_mean_in_units_of_the_usual_spread(weight: float) -> None:
    prepared = scan_in_model_space()
    settings = ModeSettings(intensity_weight=weight)
    averages = averages_of(prepared, restorations_of(prepared), settings)
    maps = feature_maps(prepared, averages, settings, 2.0)
    assert set(maps) == ({"difference", "intensity"} if weight else {"difference"})
    size = np.ones((31, 4, 3), np.float32)
    usual = {
        "difference": NormativeMap(PlaceStatistics(0.25 * size, 0.5 * size)),
        "intensity": NormativeMap(PlaceStatistics(-0.1 * size, 0.2 * size)),
    }
    got = anomaly_map(prepared, maps, settings.rule, usual, 2.0)
    difference = np.abs((maps["difference"] - 0.25) / 0.5)
    smooth = masked_smooth(prepared.slices, prepared.mask, settings.intensity_sigma_mm / 2.0)
    expected = difference ** (1.0 - weight) * np.abs((smooth + 0.1) / 0.2) ** weight
    np.testing.assert_allclose(got[prepared.mask], expected[prepared.mask], atol=1e-5)
    assert (got[~prepared.mask] == 0.0).all()


def test_maps_may_be_added_and_count_on_one_side_only() -> None:
    prepared = scan_in_model_space()
    random = np.random.default_rng(3)
    a, b = (random.normal(size=prepared.slices.shape).astype(np.float32) for _ in range(2))
    size = np.ones((31, 4, 3), np.float32)
    usual = {"a": NormativeMap(PlaceStatistics(0.5 * size, 2.0 * size))}
    rule = MapRule({"a": 0.25, "b": 0.75}, frozenset("a"), "sum")
    got = anomaly_map(prepared, {"a": a, "b": b}, rule, usual, 2.0)
    expected = 0.25 * np.log(1.0 + np.exp((a - 0.5) / 2.0)) + 0.75 * b
    np.testing.assert_allclose(got[prepared.mask], expected[prepared.mask], atol=1e-5)
    alone = anomaly_map(prepared, {"a": a}, MapRule.of_high("a"), usual, 2.0)
    assert (alone[prepared.mask] > 0).all()
    # The order is that of the values themselves, high above the usual and below.
    order = np.argsort(a[prepared.mask])
    assert (np.diff(alone[prepared.mask][order]) >= 0).all()


def test_what_is_so_far_and_wide_is_taken_off_and_a_lesion_is_not() -> None:
    mask = np.zeros((40, 40, 40), bool)
    mask[4:36, 4:36, 4:36] = True
    field = np.linspace(-0.3, 0.3, 40)[None, None] * np.ones((40, 40, 1))
    lesion = np.zeros(mask.shape)
    lesion[16:22, 16:22, 16:22] = 2.0
    found = without_wide_mean(field + lesion, mask, 10.0, 0.5)
    inside = lesion > 0
    assert np.abs(found[inside] - 2.0).max() < 0.15
    healthy = mask & ~inside
    assert np.abs(found[healthy]).mean() < 0.5 * np.abs(field + 0 * lesion)[healthy].mean()
    assert (found[~mask] == 0.0).all()


def test_the_rarest_map_counts_by_what_is_healthy_at_that_distance_from_the_edge() -> None:
    prepared = scan_in_model_space()
    random = np.random.default_rng(4)
    maps = {n: random.normal(size=prepared.slices.shape).astype(np.float32) for n in "ab"}
    size = np.ones((31, 4, 3), np.float32)
    # Healthy values of b go ten times as far as those of a, and further at the edge.
    zone = zones(prepared.mask, 2.0)
    counts = [
        TailCounts.of(
            np.abs(random.normal(0.0, s * (1.0 + (np.arange(90_000) % 3 == 0)), 90_000)), z
        )
        for s in (1.0, 10.0)
        for z in [(np.arange(90_000) % 3).astype(np.uint8)]
    ]
    usual = {
        name: NormativeMap(
            PlaceStatistics(0.0 * size, size), TailProbability.from_counts(c), np.array([2.0])
        )
        for name, c in zip("ab", counts, strict=True)
    }
    rule = MapRule(dict.fromkeys("ab", 0.5), frozenset("b"), "rarest")
    got = anomaly_map(prepared, maps, rule, usual, 2.0)
    a = usual["a"].of_tail.of(np.abs(maps["a"]), zone)
    b = usual["b"].of_tail.of(np.log1p(np.exp(maps["b"])), zone)
    inside = prepared.mask
    np.testing.assert_allclose(got[inside], np.maximum(a, b)[inside], atol=1e-4)
    assert (got[~inside] == 0.0).all()
    for lacks in ("tail", "spreads"):
        old = {name: replace(healthy, **{lacks: None}) for name, healthy in usual.items()}
        with pytest.raises(BundleError, match="calibrate it again"):
            anomaly_map(prepared, maps, rule, old, 2.0)


def test_the_map_that_is_the_rarest_is_the_sign_and_of_a_difference_its_direction() -> None:
    prepared = scan_in_model_space()
    where = np.zeros_like(prepared.mask)
    where[tuple(np.argwhere(prepared.mask)[::7].T)] = True
    numbers = np.random.default_rng(8).integers(1, len(SIGNS) + 1, where.shape)
    values = {"difference": (-6.0, 6.0, 0.5, -0.5), "residual": (1, 1, 6, 1), "nll": (1, -9, 1, 6)}
    maps = {name: np.array(v, np.float32)[numbers - 1] for name, v in values.items()}
    size = np.ones((31, 4, 3), np.float32)
    healthy = np.abs(np.random.default_rng(9).normal(size=90_000))
    counts = TailCounts.of(healthy, (np.arange(90_000) % 3).astype(np.uint8))
    usual = NormativeMap(
        PlaceStatistics(0.0 * size, size), TailProbability.from_counts(counts), np.array([99.0])
    )
    rule = MapRule(dict.fromkeys(maps, 1 / 3), frozenset({"residual", "nll"}), "rarest")
    args = (prepared, maps, rule, dict.fromkeys(maps, usual), 2.0, where)
    found = signs_of(*args)
    np.testing.assert_array_equal(found, np.where(where, numbers, 0))
    # A rule that does not ask which is the rarest tells of none.
    product = (prepared, maps, replace(rule, combine="product"), *args[3:])
    assert not signs_of(*product).any()


def test_a_scan_that_departs_from_healthy_ones_all_over_is_measured_by_its_own_spread() -> None:
    prepared = scan_in_model_space()
    size = np.ones((31, 4, 3), np.float32)
    usual = NormativeMap(PlaceStatistics(0.0 * size, size), spreads=np.array([0.5, 1.0, 1.6]))
    values = np.random.default_rng(5).normal(size=prepared.slices.shape).astype(np.float32)
    where = prepared.mask, prepared.position
    assert usual.width(values, *where) == pytest.approx(1.0, abs=0.1)
    assert usual.width(3.0 * values, *where) == pytest.approx(3 * usual.width(values, *where))
    wide = usual.deviation(3.0 * values, *where)
    np.testing.assert_allclose(wide, usual.deviation(6.0 * values, *where), rtol=1e-4)
    # One that keeps closer to them than usual is measured by theirs, and so is not made more of.
    np.testing.assert_allclose(usual.deviation(0.2 * values, *where), 0.2 * values, rtol=1e-5)
    # A lesion hardly widens a spread between quartiles.
    lesion = values.copy()
    lesion[prepared.mask & (np.random.default_rng(6).random(values.shape) < 0.05)] = 30.0
    assert usual.width(lesion, *where) < 1.15 * usual.width(values, *where)


def test_a_blurred_map_follows_the_edges_of_the_scan_and_keeps_what_noise_gives() -> None:
    random = np.random.default_rng(0)
    place = np.indices((24, 48, 40))
    mask = np.ones((24, 48, 40), bool)
    mask[:, :4] = False
    ball = np.sqrt(sum((p - c) ** 2 for p, c in zip(place, (12, 26, 20), strict=True))) < 6.0
    texture = random.normal(0.0, 0.2, ball.shape).astype(np.float32)
    blurred = 8.0 * masked_smooth(ball.astype(np.float32), mask, 2.5)

    def dice_of_hot(values: np.ndarray) -> float:
        """At a threshold below half of the peak, as that of a strong lesion lies."""
        hot = values >= 2.0
        return float(2.0 * (ball & hot).sum() / (ball.sum() + hot.sum()))

    assert dice_of_hot(blurred) < 0.85
    for sign in (1.0, -1.0):  # darker or brighter
        scan = texture + np.float32(sign * 1.5) * ball
        followed = along_edges(blurred, scan, mask, 3)
        assert dice_of_hot(followed) > 0.97
        assert (followed[~mask] == 0.0).all()
        assert followed.min() >= 0.0
        assert followed.dtype == np.float32
        # What lies outside the brain takes no part.
        other = np.where(mask, scan, 99.0).astype(np.float32)
        np.testing.assert_array_equal(along_edges(blurred, other, mask, 3), followed)
    # Noise has no edge to follow: the map stays much as it was.
    noisy = texture + ball * random.normal(0.0, 1.0, ball.shape).astype(np.float32)
    kept = along_edges(blurred, noisy, mask, 3)
    assert np.corrcoef(kept[mask], blurred[mask])[0, 1] > 0.97


def test_the_default_map_follows_edges_at_each_of_its_widths() -> None:
    prepared = scan_in_model_space()
    maps = {"a": np.abs(prepared.slices)}
    plain = anomaly_map(prepared, maps, MapRule({"a": 1.0}), {}, 2.0)
    rule = MapRule({"a": 1.0}, edge_widths_mm=(6.0, 10.0))
    narrow = along_edges(plain, prepared.slices, prepared.mask, 1)
    wide = along_edges(narrow, prepared.slices, prepared.mask, 2)
    np.testing.assert_array_equal(anomaly_map(prepared, maps, rule, {}, 2.0), wide)


def test_the_sample_score_is_the_mean_of_the_hottest_millilitres() -> None:
    values = np.random.default_rng(0).normal(size=(10, 20, 20))
    mask = np.zeros(values.shape, bool)
    mask[2:8, 3:17, 3:17] = True
    hottest = np.sort(values[mask])[-500:]  # 4 ml at 2 mm
    values[~mask] = 1e6
    assert peak_score(values, mask, 4.0, 2.0) == pytest.approx(hottest.mean())
    tiny = np.zeros(values.shape, bool)
    tiny[5, 5, 5:8] = True  # less brain than the peak
    assert peak_score(values, tiny, 4.0, 2.0) == pytest.approx(values[tiny].mean())


def test_a_methods_own_slice_scores_go_before_the_maps_peak() -> None:
    prepared = scan_in_model_space()
    values = np.abs(prepared.slices)
    own = np.arange(6.0)
    assert sample_score(values, prepared.mask, 0.1, 2.0, own) == own.sum()
    peak = peak_score(values, prepared.mask, 0.1, 2.0)
    assert sample_score(values, prepared.mask, 0.1, 2.0) == peak


def test_a_bundle_may_set_the_default_mode_but_not_the_papers() -> None:
    config: dict[str, Any] = {"scoring": {"peak_ml": 5.0, "intensity_weight": 0.2}}
    found = ModeSettings.of(config, "default")
    assert (found.peak_ml, found.intensity_weight) == (5.0, 0.2)
    # Its calibration is from before maps followed edges.
    assert found.edge_widths_mm == ()
    config["scoring"]["edge_widths_mm"] = [10.0]
    assert ModeSettings.of(config, "default").edge_widths_mm == (10.0,)
    assert ModeSettings.of(config, "paper") == PAPER
    assert ModeSettings.of({}, "default") == ModeSettings()
    with pytest.raises(BundleError, match="not known"):
        ModeSettings.of({"scoring": {"sharpnes": 3}}, "default")
