"""What healthy scans give: percentiles, p-values, thresholds, and what is usual at each place."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from LatentSpaceRestorationLib.calibration.atlas import PlaceStatistics, PlaceSums
from LatentSpaceRestorationLib.calibration.levels import HealthyLevel, ModeCalibration
from LatentSpaceRestorationLib.calibration.p_value import p_value
from LatentSpaceRestorationLib.calibration.quantiles import PERCENTILES, Quantiles
from LatentSpaceRestorationLib.errors import BundleError

few = settings(max_examples=50, deadline=None, derandomize=True)
scores = st.lists(st.floats(-10.0, 10.0), min_size=1, max_size=30)


@few
@given(scores, st.floats(-20.0, 20.0))
def test_a_p_value_never_claims_more_than_its_scans_can_prove(
    healthy: list[float], score: float
) -> None:
    p = p_value(score, healthy)
    assert 1.0 / (len(healthy) + 1) <= p <= 1.0
    assert p_value(score + 1.0, healthy) <= p
    assert p_value(min(healthy), healthy) == 1.0
    assert p_value(max(healthy) + 1.0, healthy) == 1.0 / (len(healthy) + 1)


def test_percentiles_of_held_out_healthy_scans_are_spread_evenly() -> None:
    random = np.random.default_rng(0)
    p = np.array([p_value(d[0], d[1:]) for d in random.normal(size=(4000, 21))])
    counts = np.bincount(np.round(p * 21).astype(int), minlength=22)[1:]
    expected = 4000 / 21
    assert np.square(counts - expected).sum() / expected < 45.3  # chi squared, 20 df, p = 0.001


def test_quantiles_give_the_share_below_a_value() -> None:
    samples = np.random.default_rng(0).normal(size=20_000)
    quantiles = Quantiles.of(samples.reshape(20, 1000))
    assert quantiles.value(50.0) == pytest.approx(np.median(samples), abs=1e-6)
    assert quantiles.value(99.5) == pytest.approx(np.percentile(samples, 99.5))
    assert quantiles.value(100.0) == samples.max()


def test_percentiles_rise() -> None:
    assert (np.diff(PERCENTILES) > 0).all()
    assert (PERCENTILES[0], PERCENTILES[-1]) == (0, 100.0)


@few
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50))
def test_quantiles_survive_json(samples: list[float]) -> None:
    quantiles = Quantiles.of(np.array(samples))
    back = Quantiles.from_json(json.loads(json.dumps(quantiles.to_json())))
    np.testing.assert_array_equal(back.percentiles, quantiles.percentiles)
    np.testing.assert_allclose(back.values, quantiles.values, rtol=1e-5)
    assert (np.diff(back.values) >= 0).all()


def mode_calibration() -> ModeCalibration:
    """Of eight scans, with 1, 3 and 15 restorations: less noise, lower maps."""
    random = np.random.default_rng(0)
    levels = [
        HealthyLevel(
            number,
            Quantiles.of(random.exponential(1 + 1 / number, size=1000)),
            tuple(sorted(random.normal(1 / number, size=8).tolist())),
        )
        for number in (1, 3, 15)
    ]
    return ModeCalibration(3.5, 6.25, tuple(levels), 99.0)


def test_a_modes_calibration_survives_json() -> None:
    calibration = mode_calibration()
    back = ModeCalibration.from_json(json.loads(json.dumps(calibration.to_json())))
    assert (back.restore_threshold, back.slice_threshold) == (3.5, 6.25)
    assert back.threshold_percentile == 99.0
    assert [level.restorations for level in back.levels] == [1, 3, 15]
    for mine, theirs in zip(back.levels, calibration.levels, strict=True):
        np.testing.assert_allclose(mine.sample_scores, theirs.sample_scores, rtol=1e-5)
        np.testing.assert_allclose(mine.voxels.values, theirs.voxels.values, rtol=1e-5)


def test_a_level_between_two_is_linear_in_the_inverse_number_of_restorations() -> None:
    calibration = mode_calibration()
    one, three, fifteen = calibration.levels
    assert calibration.at(3) is three
    assert calibration.at(15) is fifteen
    assert calibration.at(100) is fifteen  # more restorations than healthy scans were given
    between = calibration.at(5)  # 1/5 lies half-way between 1/3 and 1/15
    assert between.restorations == 5
    np.testing.assert_allclose(
        between.voxels.values, (three.voxels.values + fifteen.voxels.values) / 2
    )
    np.testing.assert_allclose(
        between.sample_scores,
        (np.array(three.sample_scores) + np.array(fifteen.sample_scores)) / 2,
    )
    late = ModeCalibration(3.5, 6.25, (three, fifteen), 99.0)
    assert late.at(1) is three
    assert calibration.at(1) is one


def test_levels_of_different_scans_are_refused() -> None:
    data = mode_calibration().to_json()
    data["levels"][1]["sample_scores"].pop()
    with pytest.raises(BundleError, match="the same healthy scans"):
        ModeCalibration.from_json(data)


@pytest.mark.parametrize("key", sorted(mode_calibration().to_json()))
def test_a_garbled_calibration_is_refused_in_one_line(key: str) -> None:
    whole = mode_calibration().to_json()
    for broken in ({k: v for k, v in whole.items() if k != key}, {**whole, key: "x"}):
        with pytest.raises(BundleError, match=r"calibration\.json") as refusal:
            ModeCalibration.from_json(broken)
        assert "\n" not in str(refusal.value)


N, ROWS, COLUMNS = 40, 26, 22
POSITION = np.linspace(-0.5, 0.5, N).astype(np.float32)


def healthy_maps(count: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Maps whose mean and spread change smoothly with the place, and the brain."""
    z, r, c = np.meshgrid(*(np.linspace(0, 1, n) for n in (N, ROWS, COLUMNS)), indexing="ij")
    mean, spread = 1.0 + 0.3 * r + 0.5 * z, 0.2 + 0.3 * c
    random = np.random.default_rng(0)
    maps = [mean + spread * random.normal(size=mean.shape) for _ in range(count)]
    mask = np.zeros(mean.shape, bool)
    mask[2:-1, 3:-2, 2:-3] = True
    return maps, mask


def test_a_scan_left_out_leaves_the_sums_of_the_others() -> None:
    maps, mask = healthy_maps(4)
    sums = [PlaceSums.of(m, mask, POSITION) for m in maps]
    others = (sums[0] + sums[1] + sums[2] + sums[3]) - sums[2]
    expected = sums[0] + sums[1] + sums[3]
    np.testing.assert_array_equal(others.count, expected.count)
    np.testing.assert_allclose(others.total, expected.total, atol=1e-9)
    np.testing.assert_allclose(others.square, expected.square, atol=1e-9)
    left, plain = PlaceStatistics.from_sums(others), PlaceStatistics.from_sums(expected)
    np.testing.assert_allclose(left.mean, plain.mean, atol=1e-5)
    np.testing.assert_allclose(left.sd, plain.sd, atol=1e-4)


def test_sums_count_the_voxels_of_the_brain_by_place() -> None:
    maps, mask = healthy_maps(1)
    poisoned = np.where(mask, maps[0], np.nan)
    sums = PlaceSums.of(poisoned, mask, POSITION)
    assert sums.count.shape == (31, 7, 6)  # 150 mm at 5, and cells of 4 voxels
    assert sums.count.sum() == mask.sum()
    assert sums.total.sum() == pytest.approx(maps[0][mask].sum())
    assert sums.square.sum() == pytest.approx(np.square(maps[0][mask]).sum())
    top = PlaceSums.of(maps[0][-3:], mask[-3:], np.full(3, 0.5))
    assert top.count[0].sum() == top.count.sum()  # depth 0 is the top


def test_a_slice_counts_at_the_depth_it_is_nearest_to() -> None:
    mask = np.ones((1, 8, 8), bool)
    for millimetres, depth in ((0.0, 0), (12.0, 2), (13.0, 3), (150.0, 30)):
        sums = PlaceSums.of(np.ones(mask.shape), mask, np.array([0.5 - millimetres / 150.0]))
        np.testing.assert_array_equal(np.flatnonzero(sums.count.sum(axis=(1, 2))), [depth])


def test_normalised_healthy_maps_have_mean_0_and_sd_1() -> None:
    maps, mask = healthy_maps(12)
    total = PlaceSums.of(maps[0], mask, POSITION)
    for other in maps[1:]:
        total = total + PlaceSums.of(other, mask, POSITION)
    usual = PlaceStatistics.from_sums(total)
    normalised = np.stack([usual.normalise(m, POSITION)[mask] for m in maps])
    assert normalised.dtype == np.float32
    assert normalised.mean() == pytest.approx(0.0, abs=0.02)
    assert normalised.std() == pytest.approx(1.0, abs=0.1)
    # Everywhere, not only on the whole.
    for axis, size in enumerate(mask.shape):
        for half in (slice(None, size // 2), slice(size // 2, None)):
            part = np.zeros(mask.shape, bool)
            part[(slice(None),) * axis + (half,)] = True
            found = np.stack([usual.normalise(m, POSITION)[mask & part] for m in maps])
            assert found.mean() == pytest.approx(0.0, abs=0.1)
            assert found.std() == pytest.approx(1.0, abs=0.15)


def test_a_new_scan_finds_its_place_at_other_slice_distances() -> None:
    maps, mask = healthy_maps(12)
    total = PlaceSums.of(maps[0], mask, POSITION)
    for other in maps[1:]:
        total = total + PlaceSums.of(other, mask, POSITION)
    usual = PlaceStatistics.from_sums(total)
    fewer = usual.normalise(maps[0][5:30:3], POSITION[5:30:3])
    np.testing.assert_allclose(fewer, usual.normalise(maps[0], POSITION)[5:30:3], rtol=1e-5)


def test_places_that_no_scan_has_take_the_whole_brains_statistics() -> None:
    maps, mask = healthy_maps(2)
    sums = PlaceSums.of(maps[0], mask, np.full(N, 0.5))
    usual = PlaceStatistics.from_sums(sums)
    inside = maps[0][mask]
    assert usual.mean[-1] == pytest.approx(inside.mean(), rel=1e-3)
    assert usual.sd[-1] == pytest.approx(inside.std(), rel=1e-2)
    assert np.isfinite(usual.normalise(maps[1], POSITION)).all()
