"""However a head lies, the same brain gives the same slices, and what is found goes back."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from LatentSpaceRestorationLib.calibration.atlas import PlaceStatistics, PlaceSums
from LatentSpaceRestorationLib.preprocessing.alignment import AlignmentAtlas, own_axes, upright
from LatentSpaceRestorationLib.preprocessing.pipeline import BrainFinder, Preprocessing
from LatentSpaceRestorationLib.preprocessing.quality import doubts
from LatentSpaceRestorationLib.preprocessing.slices import PreparedScan, to_head
from LatentSpaceRestorationLib.runtime.placement import Placement
from LatentSpaceRestorationLib.volume import Volume
from native_grid import to_native
from patterned_brain import GRID, brain, prepared_of
from scan_grids import ORIENTATIONS, rotation, stored_as
from scipy import ndimage

FINDER = BrainFinder(None, 0.0, lambda: Placement("cpu", {"brain": 1}))


@pytest.fixture(scope="module")
def places() -> AlignmentAtlas:
    """Of four other brains."""
    sums = []
    for own in range(2, 6):
        p = prepared_of(brain(own))
        sums.append(PlaceSums.of(p.slices, p.mask, p.position))
    usual = PlaceStatistics.from_sums(sums[0] + sums[1] + sums[2] + sums[3]).mean
    found = AlignmentAtlas.of(usual, GRID)
    assert found is not None
    return found


def prepared(scan: Volume, places: AlignmentAtlas | None) -> PreparedScan:
    return Preprocessing(GRID, FINDER, places)(scan, scan.array > 20.0)[0]


def moved(scan: Volume, degrees: tuple[float, float, float]) -> Volume:
    """Turned and shifted by the header."""
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = rotation(degrees), (31.7, -8.1, 12.3)
    return replace(scan, affine=transform @ scan.affine)


def tilted(scan: Volume, degrees: float) -> Volume:
    """Nods within the scan's own grid."""
    turn = rotation((degrees, 0.0, 0.0))
    middle = (np.array(scan.shape) - 1) / 2.0
    array = ndimage.affine_transform(scan.array, turn, middle - turn @ middle, order=1)
    return replace(scan, array=array)


@pytest.mark.parametrize("degrees", [(3.0, -3.0, 5.0), (-12.0, 8.0, 20.0)])
def test_what_the_header_says_of_how_it_lies_does_not_matter(
    places: AlignmentAtlas, degrees: tuple[float, float, float]
) -> None:
    scan = brain()
    expected, found = prepared(scan, places), prepared(moved(scan, degrees), places)
    np.testing.assert_allclose(found.slices, expected.slices, atol=2e-3)
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_allclose(found.position, expected.position, atol=1e-4)
    # Without, the slices are others.
    assert prepared(moved(scan, degrees), None).slices.shape != expected.slices.shape


def test_neither_does_the_order_of_axes(places: AlignmentAtlas) -> None:
    scan = brain()
    expected = prepared(scan, places)
    for number in (7, 29, 40):
        found = prepared(stored_as(scan, ORIENTATIONS[number]), places)
        np.testing.assert_allclose(found.slices, expected.slices, atol=1e-4)


def test_a_mirror_image_gives_mirrored_slices(places: AlignmentAtlas) -> None:
    scan = brain()
    scan.array[:12] *= 0.8  # the sides differ
    expected = prepared(scan, places)
    found = prepared(replace(scan, array=scan.array[::-1].copy()), places)
    np.testing.assert_allclose(found.slices, expected.mirrored().slices, atol=2e-3)
    np.testing.assert_array_equal(found.mask, expected.mirrored().mask)


def test_a_head_that_nods_is_set_upright(places: AlignmentAtlas) -> None:
    def pitch(scan: Volume) -> float:
        head = to_head(scan, GRID.spacing_mm)
        pose = upright(head, head.array > 20.0, GRID.spacing_mm, places)
        assert pose is not None
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)
        return float(np.degrees(np.arctan2(pose[2, 1], pose[2, 2])))

    straight = pitch(brain())
    for degrees in (-10.0, 6.0):
        assert pitch(tilted(brain(), degrees)) - straight == pytest.approx(degrees, abs=1.5)


def test_what_is_found_goes_back_to_its_place(places: AlignmentAtlas) -> None:
    scan = moved(tilted(brain(), 8.0), (5.0, -9.0, 4.0))
    mask = scan.array > 20.0
    found = Preprocessing(GRID, FINDER, places)(scan, mask)[0]
    back = to_native(found, found.slices * found.scale + found.centre)
    assert back.shape == scan.shape
    inner = ndimage.binary_erosion(mask, iterations=3)

    def alike(shift: tuple[int, int, int]) -> float:
        return float(np.corrcoef(back[inner], np.roll(scan.array, shift, (0, 1, 2))[inner])[0, 1])

    there = alike((0, 0, 0))
    assert there > 0.98
    for axis, step in itertools.product(range(3), (-1, 1)):
        shift = [0, 0, 0]
        shift[axis] = step
        assert alike((shift[0], shift[1], shift[2])) < there - 0.01


def test_what_fits_nowhere_is_left_as_it_lies(places: AlignmentAtlas) -> None:
    scan = moved(brain(), (4.0, 5.0, 6.0))
    noise = np.random.default_rng(0).normal(100.0, 9.0, scan.shape).astype(np.float32)
    scan = replace(scan, array=np.where(scan.array > 20.0, noise, 0.0).astype(np.float32))
    found, expected = prepared(scan, places), prepared(scan, None)
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-6)
    assert found.slices.shape == expected.slices.shape
    assert found.is_aligned is False
    assert expected.is_aligned is None
    assert any("as it lies" in line for line in doubts(scan, found, GRID.spacing_mm, None))
    assert AlignmentAtlas.of(np.full((31, 13, 10), 0.5, np.float32), GRID) is None
    assert AlignmentAtlas.of(None, GRID) is None


def test_the_axes_of_an_oblique_scan() -> None:
    for orientation in ORIENTATIONS:
        affine = np.eye(4)
        affine[:3, :3] = orientation * [1.0, 2.0, 3.0]
        np.testing.assert_array_equal(own_axes(affine), np.eye(3))
        turn = rotation((10.0, -15.0, 8.0))
        affine[:3, :3] = turn @ affine[:3, :3]
        np.testing.assert_allclose(own_axes(affine), turn.T, atol=1e-9)
    affine[:3, :3] = rotation((40.0, 0.0, 0.0))
    np.testing.assert_array_equal(own_axes(affine), np.eye(3))
