"""Keyed Gumbel noise: the right distribution, and nothing but its key decides."""

from __future__ import annotations

import numpy as np
import pytest
from LatentSpaceRestorationLib.sampling.gumbel import gumbel_noise

CODES = 64


def _block(seed: int = 3) -> np.ndarray:
    """Noise of 20 slices, 5 restorations and 30 positions: (20, 5, 30, CODES)."""
    return gumbel_noise(
        seed,
        np.arange(20)[:, None, None],
        np.arange(5)[None, :, None],
        np.arange(30)[None, None, :],
        CODES,
    )


def test_the_distribution_is_standard_gumbel():
    values = np.sort(_block().ravel().astype(np.float64))
    expected = np.exp(-np.exp(-values))
    steps = np.arange(1, len(values) + 1) / len(values)
    # Kolmogorov-Smirnov: 1.95 / sqrt(n) is exceeded once in a thousand by chance.
    assert np.abs(expected - steps).max() < 1.95 / np.sqrt(len(values))
    assert values.mean() == pytest.approx(np.euler_gamma, abs=0.01)
    assert values.var() == pytest.approx(np.pi**2 / 6, abs=0.03)
    assert np.isfinite(values).all()


def test_argmax_with_noise_draws_from_the_softmax():
    logits = np.array([0.0, 1.0, 2.0, -1.0])
    draws = (logits + gumbel_noise(0, 0, 0, np.arange(40000), 4)).argmax(axis=1)
    expected = np.exp(logits) / np.exp(logits).sum()
    assert np.bincount(draws, minlength=4) / 40000 == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_neighbouring_keys_are_uncorrelated(axis: int):
    block = np.moveaxis(_block(), axis, 0).astype(np.float64)
    correlation = np.corrcoef(block[:-1].ravel(), block[1:].ravel())[0, 1]
    assert abs(correlation) < 0.012  # about 4 standard errors


def test_any_order_of_evaluation_gives_the_same():
    block = _block()
    order = np.random.default_rng(0).permutation(20 * 5 * 30)
    slices, restorations, positions = np.unravel_index(order, (20, 5, 30))
    assert np.array_equal(
        gumbel_noise(3, slices, restorations, positions, CODES), block.reshape(-1, CODES)[order]
    )
    assert np.array_equal(gumbel_noise(3, 7, 2, 11, CODES)[0], block[7, 2, 11])
    # The noise of a code does not depend on how many codes there are.
    assert np.array_equal(gumbel_noise(3, 7, 2, 11, 5)[0], block[7, 2, 11, :5])


def test_no_repeats():
    block = _block()
    rows = block.reshape(-1, CODES)
    assert len(np.unique(rows, axis=0)) == len(rows)
    # As float32, some of the 192,000 values coincide by chance, but no key repeats another's.
    assert len(np.unique(block)) > 0.9 * block.size


def test_seeds_and_swapped_keys_differ():
    assert not np.array_equal(gumbel_noise(0, 1, 2, 3, CODES), gumbel_noise(1, 1, 2, 3, CODES))
    assert not np.array_equal(gumbel_noise(0, 1, 2, 3, CODES), gumbel_noise(0, 2, 1, 3, CODES))
    assert not np.array_equal(gumbel_noise(0, 1, 2, 3, CODES), gumbel_noise(0, 1, 3, 2, CODES))
    assert np.isfinite(gumbel_noise(-1, -5, 2**40, 3, CODES)).all()
    assert np.isfinite(gumbel_noise(2**70, 0, 0, 0, CODES)).all()


def test_the_values_are_pinned():
    """A changed hash would change every restoration of a given seed: that needs a decision."""
    pinned = [0.284984171, 1.133434653, -0.177242443]
    assert gumbel_noise(0, 0, 0, 0, 3)[0] == pytest.approx(pinned, abs=1e-6)
