"""Results in words."""

from __future__ import annotations

import numpy as np
import pytest
from LatentSpaceRestorationLib.results.regions import (
    Evidence,
    Extent,
    Seen,
    find_regions,
    most_anomalous_place,
    percent,
    score_in_words,
)

AFFINE = np.diag([-2.0, 2.0, 2.0, 1.0])
AFFINE[:3, 3] = [100.0, 10.0, -60.0]
SHAPE = (40, 48, 36)


def test_shares_in_percent() -> None:
    assert [percent(share) for share in (0.041, 0.2, 12.34, 99.6, 100.0)] == [
        *("0.041%", "0.2%", "12%", "100%", "100%")
    ]


def brain() -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:36, 4:44, 4:32] = 1
    return mask


@pytest.mark.parametrize(
    ("index", "words"),
    [
        # I runs to the patient's left here, and the world's origin lies outside the head.
        ((8, 10, 8), "right, back, lower"),
        ((31, 38, 28), "left, front, upper"),
        ((20, 24, 18), "midline, middle, mid-height"),
    ],
)
def test_place_is_the_highest_over_some_millimetres(
    index: tuple[int, int, int], words: str
) -> None:
    heat = np.zeros(SHAPE, np.float32)
    i, j, k = index
    heat[i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2] = 3.0
    # The hottest voxel is elsewhere, alone.
    heat[20, 5, 30] = 9.0
    place = most_anomalous_place(heat, heat > 1, brain(), AFFINE)
    assert place.index == index
    np.testing.assert_allclose(place.position_mm, (AFFINE @ [*index, 1])[:3])
    assert place.words == words
    assert place.volume_ml == pytest.approx(27 * 8 / 1000)


def test_the_place_in_a_fine_scan_is_the_one_in_a_coarse_scan() -> None:
    heat = np.zeros(SHAPE, np.float32)
    heat[8:12, 9:12, 9:13] = 3.0
    heat[30, 30, 20] = 4.0  # too small to count
    coarse = most_anomalous_place(heat, heat > 1, brain(), AFFINE)
    fine_affine = AFFINE.copy()
    fine_affine[:3, :3] /= 4.0
    fine_affine[:3, 3] = (AFFINE @ [-0.375, -0.375, -0.375, 1.0])[:3]
    fine = heat.repeat(4, axis=0).repeat(4, axis=1).repeat(4, axis=2)
    whole = brain().repeat(4, axis=0).repeat(4, axis=1).repeat(4, axis=2)
    place = most_anomalous_place(fine, fine > 1, whole, fine_affine)
    assert np.abs(np.subtract(place.position_mm, coarse.position_mm)).max() <= 1.5
    assert place.words == coarse.words
    assert place.volume_ml == pytest.approx(coarse.volume_ml)
    speck = np.zeros_like(fine)  # one that no step of a coarser look meets
    speck[41, 43, 47] = 1.0
    found = most_anomalous_place(speck, speck > 0, whole, fine_affine)
    assert found.index == (41, 43, 47)
    assert found.volume_ml == pytest.approx(0.5**3 / 1000)


def test_place_lies_in_a_hollow_region() -> None:
    shell = np.zeros(SHAPE, np.float32)
    shell[10:21, 10:21, 10:21] = 1.0
    shell[11:20, 11:20, 11:20] = 0.0
    place = most_anomalous_place(shell, shell > 0.5, brain(), AFFINE)
    assert shell[place.index] == 1.0


def test_place_where_nothing_is_flagged() -> None:
    heat = np.zeros(SHAPE, np.float32)
    heat[8, 30, 20] = 0.3
    place = most_anomalous_place(heat, heat > 1, brain(), AFFINE)
    assert place.index == (8, 30, 20)
    assert place.volume_ml == 0.0
    assert place.position() == "(+84, +70, -20) mm"


def test_regions_are_sorted_by_their_peaks() -> None:
    heat = np.zeros(SHAPE, np.float32)
    heat[8:10, 10:13, 8:10] = 2.0
    heat[9, 11, 9] = 5.0
    # Two voxels that touch by a corner are one region; a third one stands alone.
    heat[30, 38, 28], heat[31, 39, 29] = 9.0, 3.0
    heat[20, 24, 18] = 7.0
    extent = Extent.of(brain(), AFFINE)
    found = find_regions(heat, heat > 1, extent, AFFINE)
    assert [region.index for region in found] == [(30, 38, 28), (20, 24, 18), (9, 11, 9)]
    assert [region.peak for region in found] == [9.0, 7.0, 5.0]
    assert found[0].words == "left, front, upper"
    assert found[0].mean == pytest.approx(6.0)
    assert found[0].volume_ml == pytest.approx(2 * 8 / 1000)
    assert found[2].words == "right, back, lower"
    assert found[2].mean == pytest.approx((11 * 2.0 + 5.0) / 12)
    np.testing.assert_allclose(found[2].position_mm, (AFFINE @ [9, 11, 9, 1])[:3])
    kept = find_regions(heat, heat > 1, extent, AFFINE, smallest_ml=0.012)
    assert [region.peak for region in kept] == [9.0, 5.0]
    assert find_regions(heat, heat > 99, extent, AFFINE) == []


def test_a_region_says_what_it_is_flagged_for() -> None:
    heat, signs = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint8)
    heat[8:10, 10:15, 8], heat[30, 38, 28], heat[20, 24, 8:28] = 3.0, 9.0, 2.0
    signs[8, 10:15, 8], signs[9, 10:14, 8], signs[9, 14, 8] = 1, 4, 3  # 5, 4 and 1 of 10
    signs[20, 24, 8:27], signs[20, 24, 27] = 2, 3  # 19 and 1 of 20
    scan = np.full(SHAPE, 1212.3, np.float32)
    seen = Seen(signs, scan, scan + 92.7)
    extent = Extent.of(brain(), AFFINE)
    unknown, dark, bright = find_regions(heat, heat > 1, extent, AFFINE, seen=seen)
    assert dark.evidence.signs == (("darker", 0.5), ("structure", 0.4), ("texture", 0.1))
    assert dark.evidence.words == "darker than expected (1212, expected 1305), unlikely structure"
    assert bright.evidence.signs == (("brighter", 0.95),)
    assert bright.evidence.words == "brighter than expected (1212, expected 1305)"
    assert (unknown.evidence.signs, unknown.evidence.words) == ((), "")
    assert unknown.evidence.intensity == pytest.approx(1212.3, rel=1e-5)
    assert find_regions(heat, heat > 1, extent, AFFINE)[0].evidence == Evidence()


def test_extent_of_the_brain() -> None:
    extent = Extent.of(brain(), AFFINE)
    assert extent.volume_ml == pytest.approx(32 * 40 * 28 * 8 / 1000)
    assert extent.low_mm == (100.0 - 2 * 35, 10.0 + 2 * 4, -60.0 + 2 * 4)
    nothing = Extent.of(np.zeros(SHAPE), AFFINE)
    assert nothing.words(np.zeros(3)) == "place in the brain unknown"


def test_score_in_words() -> None:
    assert score_in_words(1 / 21, 20) == "more unusual than all 20 healthy scans (p at most 0.048)"
    assert score_in_words(2 / 21, 20) == "more unusual than 19 of 20 healthy scans (p = 0.095)"
    assert score_in_words(20 / 21, 20) == "more unusual than 1 of 20 healthy scans (p = 0.95)"
    assert score_in_words(1.0, 20) == "no more unusual than any of 20 healthy scans (p = 1)"
    assert score_in_words(1 / 31, 30, 2).startswith("more unusual than all 30 healthy scans of 2 ")
    assert score_in_words(1.0, 20, 1) == score_in_words(1.0, 20)
    assert score_in_words(1.0, 0) == "no healthy scans to compare it with"
