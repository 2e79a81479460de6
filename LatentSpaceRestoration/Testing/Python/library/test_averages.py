"""Running averages over restorations, against the paper's equations written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from LatentSpaceRestorationLib.inference.averages import Averages

N, S, H, W = 2, 5, 4, 5


def scan_and_restorations(spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Slices (N, H, W), and restorations (N, S, H, W) at various distances from them."""
    random = np.random.default_rng(0)
    slices = random.normal(size=(N, H, W))
    far = spread * np.array([0.4, 0.5, 0.9, 0.2, 0.3])[None, :, None, None]
    return slices, slices[:, None] + random.normal(size=(N, S, H, W)) * far


def averages_of(
    slices: np.ndarray, restored: np.ndarray, sharpness: float | None, order: list[int]
) -> Averages:
    averages = Averages(slices, sharpness)
    for j in order:
        for i in range(len(slices)):
            averages.add(i, restored[i, j])
        averages.close_group(1, np.zeros((N, 1, 1)))
    return averages


@given(st.permutations(range(S)))
def test_mean_spread_and_weighted_residual_are_those_of_all_at_once(order: list[int]) -> None:
    slices, restored = scan_and_restorations()
    k = 3.0
    averages = averages_of(slices, restored, k, order)
    np.testing.assert_allclose(averages.mean, restored.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(averages.sd, restored.std(axis=1), atol=1e-12)
    for i in range(N):
        powers = [math.exp(k / np.abs(slices[i] - restored[i, j]).mean()) for j in range(S)]
        weights = [power / sum(powers) for power in powers]  # equation 6
        residual = sum(w * np.abs(slices[i] - restored[i, j]) for j, w in enumerate(weights))
        np.testing.assert_allclose(averages.weighted_residual[i], residual, rtol=1e-9)


def test_weights_whose_exponentials_overflow_are_exact() -> None:
    slices, restored = scan_and_restorations(spread=1e-4)  # exponents of 10,000 and more
    restored[:, 3] = slices  # and one restoration that is the slice itself
    residual = averages_of(slices, restored, 3.0, list(range(S))).weighted_residual
    np.testing.assert_allclose(residual, 0.0, atol=1e-12)
    alone = averages_of(slices, restored[:, :1], 3.0, [0]).weighted_residual
    np.testing.assert_allclose(alone, np.abs(slices - restored[:, 0]), rtol=1e-9)


def test_sharpness_0_is_the_plain_mean() -> None:
    slices, restored = scan_and_restorations()
    residual = averages_of(slices, restored, 0.0, list(range(S))).weighted_residual
    np.testing.assert_allclose(residual, np.abs(slices[:, None] - restored).mean(axis=1))


def test_a_restoration_that_came_out_several_times_counts_as_often() -> None:
    slices, restored = scan_and_restorations()
    twice = Averages(slices, 3.0)
    for i in range(N):
        twice.add(i, restored[i, 0], times=2)
        twice.add(i, restored[i, 1])
    twice.close_group(3, np.full((N, 1, 1), 0.25))
    each = averages_of(slices, restored, 3.0, [0, 1, 0])
    np.testing.assert_allclose(twice.mean, each.mean)
    np.testing.assert_allclose(twice.sd, each.sd)
    np.testing.assert_allclose(twice.weighted_residual, each.weighted_residual)
    assert twice.restorations == 3


def test_the_share_replaced_is_the_mean_over_restorations_and_none_is_missing() -> None:
    averages = Averages(np.zeros((1, 2, 2)))
    averages.add(0, np.ones((2, 2)))
    averages.close_group(1, np.array([[[0.4, 0.0]]]))
    averages.add(0, np.ones((2, 2)), times=3)
    averages.close_group(3, np.array([[[0.8, 1.0]]]))
    np.testing.assert_allclose(averages.replaced, [[[0.7, 0.75]]])
    averages.add(0, np.ones((2, 2)))
    with pytest.raises(ValueError, match="not every slice has 6"):
        averages.close_group(2, np.zeros((1, 1, 2)))
    with pytest.raises(ValueError, match="weighted residual"):
        _ = averages.weighted_residual
