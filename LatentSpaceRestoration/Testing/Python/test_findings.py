"""Results in words."""

from __future__ import annotations

import numpy as np
import pytest
from LatentSpaceRestorationLib.findings import most_anomalous_place, score_in_words

AFFINE = np.diag([-2.0, 2.0, 2.0, 1.0])
AFFINE[:3, 3] = [100.0, 10.0, -60.0]
SHAPE = (40, 48, 36)


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


def test_score_in_words() -> None:
    assert score_in_words(1 / 21, 20) == "more unusual than all 20 healthy scans (p at most 0.048)"
    assert score_in_words(2 / 21, 20) == "more unusual than 19 of 20 healthy scans (p = 0.095)"
    assert score_in_words(20 / 21, 20) == "more unusual than 1 of 20 healthy scans (p = 0.95)"
    assert score_in_words(1.0, 20) == "no more unusual than any of 20 healthy scans (p = 1)"
    assert score_in_words(1.0, 0) == "no healthy scans to compare it with"
