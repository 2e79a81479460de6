"""From codes and residuals to scores, against the paper's equations written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from LatentSpaceRestorationLib.calibration import PlaceStatistics
from LatentSpaceRestorationLib.errors import BundleError
from LatentSpaceRestorationLib.inference import Restorations
from LatentSpaceRestorationLib.preprocessing import Prepared
from LatentSpaceRestorationLib.scoring import (
    PAPER,
    ModeSettings,
    anomaly_map,
    feature_maps,
    masked_smooth,
    paper_filter,
    restoration_weights,
    sample_score,
    slice_nll_scores,
    slice_scores,
    weighted_residual,
)


def scan_in_model_space(n: int = 6, rows: int = 16, columns: int = 12, seed: int = 0) -> Prepared:
    """Noise in a box of brain with a margin of two voxels."""
    mask = np.zeros((n, rows, columns), bool)
    mask[:, 2:-2, 2:-2] = True
    values = np.random.default_rng(seed).normal(0.0, 1.0, mask.shape).clip(-3, 3)
    return Prepared(
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


def restorations_of(prepared: Prepared, count: int = 3, seed: int = 1) -> Restorations:
    """Noisy copies of a scan."""
    random = np.random.default_rng(seed)
    shape = (len(prepared.slices), count, *prepared.slices.shape[1:])
    restored = prepared.slices[:, None] + random.normal(0.0, 0.5, shape)
    reconstruction = prepared.slices + random.normal(0.0, 0.1, prepared.slices.shape)
    return Restorations(reconstruction.astype(np.float32), restored.astype(np.float32), 0.5)


def test_slice_scores_sum_the_nll_of_unlikely_codes() -> None:
    nll = np.array([[[1.0, 8.0], [7.0, 9.5]], [[0.0, 1.0], [2.0, 3.0]]])
    np.testing.assert_allclose(slice_nll_scores(nll, 7.0), [17.5, 0.0])


def test_weights_and_residual_are_those_of_the_paper() -> None:
    random = np.random.default_rng(0)
    n, s, h, w, k = 2, 3, 4, 5, 3.0
    slices = random.normal(size=(n, h, w))
    restored = slices[:, None] + random.normal(size=(n, s, h, w)) * [[[[0.4]], [[0.5]], [[0.9]]]]
    for i in range(n):
        mean_distance = [np.abs(slices[i] - restored[i, j]).mean() for j in range(s)]
        powers = [math.exp(k / d) for d in mean_distance]
        weights = [p / sum(powers) for p in powers]
        expected = sum(weights[j] * np.abs(slices[i] - restored[i, j]) for j in range(s))
        got = restoration_weights(np.array([mean_distance]), k)
        np.testing.assert_allclose(got, [weights], rtol=1e-6)
        np.testing.assert_allclose(weighted_residual(slices, restored, k)[i], expected, rtol=1e-6)


def test_sharpness_0_is_the_plain_mean_and_the_nearest_restoration_weighs_most() -> None:
    distance = np.array([[0.2, 0.5, 0.1], [1.0, 1.0, 1.0]])
    np.testing.assert_allclose(restoration_weights(distance, 0.0), 1.0 / 3.0)
    weights = restoration_weights(distance)
    assert weights[0].argmax() == 2
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    np.testing.assert_allclose(weights[1], 1.0 / 3.0)
    random = np.random.default_rng(2)
    slices, restored = random.normal(size=(2, 4, 4)), random.normal(size=(2, 5, 4, 4))
    plain = np.abs(slices[:, None] - restored).mean(axis=1)
    np.testing.assert_allclose(weighted_residual(slices, restored, 0.0), plain)


def test_a_restoration_equal_to_the_slice_does_not_divide_by_zero() -> None:
    weights = restoration_weights(np.array([[0.0, 0.5]]))
    np.testing.assert_allclose(weights, [[1.0, 0.0]], atol=1e-6)


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
    restored = restorations_of(prepared)
    residual = weighted_residual(prepared.slices, restored.restored, 3.0)
    expected = np.where(prepared.mask, paper_filter(residual), 0.0)
    maps = feature_maps(prepared, restored, PAPER, 2.0)
    assert set(maps) == {"residual"}
    got = anomaly_map(prepared, maps, PAPER, {})
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert got.dtype == np.float32
    assert (PAPER.restore_percentile, PAPER.slice_percentile) == (90.0, 98.0)


def test_differences_of_either_sign_average_out_unless_they_agree() -> None:
    prepared = scan_in_model_space()
    restored = restorations_of(prepared)
    settings = ModeSettings(difference_sigma_mm=3.0)
    mean = restored.restored.mean(axis=1)
    expected = masked_smooth(prepared.slices - mean, prepared.mask, 1.5)
    got = feature_maps(prepared, restored, settings, 2.0)["difference"]
    np.testing.assert_allclose(got, expected, atol=1e-6)
    alike = Restorations(restored.reconstruction, restored.restored + 1.0, restored.resampled)
    shifted = feature_maps(prepared, alike, settings, 2.0)["difference"]
    np.testing.assert_allclose((got - shifted)[prepared.mask], 1.0, atol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_map_is_the_geometric_mean_in_units_of_the_usual_spread(weight: float) -> None:
    prepared = scan_in_model_space()
    restored = restorations_of(prepared)
    settings = ModeSettings(intensity_weight=weight)
    maps = feature_maps(prepared, restored, settings, 2.0)
    assert set(maps) == ({"difference", "intensity"} if weight else {"difference"})
    size = np.ones((31, 4, 3), np.float32)
    usual = {
        "difference": PlaceStatistics(0.25 * size, 0.5 * size),
        "intensity": PlaceStatistics(-0.1 * size, 0.2 * size),
    }
    got = anomaly_map(prepared, maps, settings, usual)
    difference = np.abs((maps["difference"] - 0.25) / 0.5)
    smooth = masked_smooth(prepared.slices, prepared.mask, settings.intensity_sigma_mm / 2.0)
    expected = difference ** (1.0 - weight) * np.abs((smooth + 0.1) / 0.2) ** weight
    np.testing.assert_allclose(got[prepared.mask], expected[prepared.mask], atol=1e-5)
    assert (got[~prepared.mask] == 0.0).all()


def test_the_sample_score_is_the_mean_of_the_hottest_millilitres() -> None:
    values = np.random.default_rng(0).normal(size=(10, 20, 20))
    mask = np.zeros(values.shape, bool)
    mask[2:8, 3:17, 3:17] = True
    hottest = np.sort(values[mask])[-500:]  # 4 ml at 2 mm
    values[~mask] = 1e6
    settings = ModeSettings(peak_ml=4.0)
    nll = np.zeros((10, 5, 5))
    score = sample_score(values, mask, nll, 1.0, settings, 2.0)
    assert score == pytest.approx(hottest.mean())
    tiny = np.zeros(values.shape, bool)
    tiny[5, 5, 5:8] = True  # less brain than the peak
    score = sample_score(values, tiny, nll, 1.0, settings, 2.0)
    assert score == pytest.approx(values[tiny].mean())


def test_scores_of_the_paper_come_from_the_nll_alone() -> None:
    random = np.random.default_rng(0)
    nll = random.exponential(2.0, (6, 4, 3))
    values, mask = random.normal(size=(6, 16, 12)), np.ones((6, 16, 12), bool)
    by_slice = slice_scores(values, nll, 4.0, PAPER)
    np.testing.assert_allclose(by_slice, slice_nll_scores(nll, 4.0))
    assert sample_score(values, mask, nll, 4.0, PAPER, 2.0) == pytest.approx(nll[nll > 4.0].sum())


def test_slice_scores_of_the_default_mode_are_peaks() -> None:
    values = np.zeros((3, 4, 4))
    values[1, 2, 2] = 5.0
    got = slice_scores(values, np.ones((3, 1, 1)), 0.0, ModeSettings())
    np.testing.assert_array_equal(got, [0.0, 5.0, 0.0])


def test_a_bundle_may_set_the_default_mode_but_not_the_papers() -> None:
    config = {"scoring": {"peak_ml": 5.0, "intensity_weight": 0.2}}
    assert ModeSettings.of(config, "default") == ModeSettings(peak_ml=5.0, intensity_weight=0.2)
    assert ModeSettings.of(config, "paper") == PAPER
    assert ModeSettings.of({}, "default") == ModeSettings()
    with pytest.raises(BundleError, match="not known"):
        ModeSettings.of({"scoring": {"sharpnes": 3}}, "default")
