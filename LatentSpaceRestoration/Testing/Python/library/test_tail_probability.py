"""How rare a value is among healthy ones: the share of them, by zone, with an honest tail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from LatentSpaceRestorationLib.calibration.tail_probability import (
    TailCounts,
    TailProbability,
    zones,
)


def counts_of(values: np.ndarray, zone: int = 0) -> TailCounts:
    return TailCounts.of(values, np.full(len(values), zone, np.uint8))


def test_rarity_is_the_logarithm_of_the_healthy_share_and_goes_on_as_an_exponential_tail() -> None:
    healthy = np.random.default_rng(0).exponential(2.0, 400_000)
    rarity = TailProbability.from_counts(counts_of(healthy))
    asked = np.array([0.0, 1.0, 4.0, 9.2, 40.0])
    # Of an exponential distribution of mean 2 the share above v is exp(-v / 2), at any v.
    expected = asked / 2.0 / np.log(10.0)
    got = rarity.of(asked, np.zeros(5, np.uint8))
    np.testing.assert_allclose(got[:4], expected[:4], atol=0.03)
    assert got[4] == pytest.approx(expected[4], rel=0.15)  # no healthy voxel is as high


@given(st.integers(0, 1000), st.integers(1, 3000))
def test_a_higher_value_is_never_less_rare(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    rarity = TailProbability.from_counts(counts_of(random.gamma(0.7, 3.0, count)))
    asked = np.sort(np.append(random.uniform(0.0, 90.0, 200), (0.0, 1e6)))
    for zone in range(4):
        got = rarity.of(asked, np.full(len(asked), zone, np.uint8))
        assert (np.diff(got) >= 0).all()
        assert got[0] == 0.0
        assert np.isfinite(got).all()


def test_zones_have_distributions_of_their_own_unless_they_have_too_few_voxels() -> None:
    random = np.random.default_rng(1)
    wide, narrow = random.exponential(4.0, 50_000), random.exponential(1.0, 50_000)
    rarity = TailProbability.from_counts(counts_of(wide, 0) + counts_of(narrow, 2))
    at = np.full(1, 5.0)
    in_wide, in_narrow = (rarity.of(at, np.full(1, z, np.uint8))[0] for z in (0, 2))
    assert in_narrow > 2 * in_wide
    of_all = TailProbability.from_counts(counts_of(np.append(wide, narrow)))
    assert rarity.of(at, np.full(1, 3, np.uint8)) == of_all.of(at, np.zeros(1, np.uint8))


def test_a_scans_counts_can_be_taken_out_again() -> None:
    random = np.random.default_rng(2)
    one, others = random.exponential(1.0, 9000), random.exponential(2.0, 9000)
    left = counts_of(one) + counts_of(others) - counts_of(one)
    np.testing.assert_array_equal(left.count, counts_of(others).count)


def test_zones_follow_the_distance_from_the_edge_in_millimetres() -> None:
    mask = np.zeros((25, 25, 25), bool)
    mask[1:24, 1:24, 1:24] = True
    found = zones(mask, 2.0)[12, 12]
    # Voxel n from the edge is 2 n mm from the nearest voxel outside: 2 | 4 6 | 8 10 12 | 14 ...
    assert found[:9].tolist() == [0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert (zones(mask, 2.0)[~mask] == 0).all()
