"""Shading: what a coil multiplies a brain by goes, what does not belong there stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from LatentSpaceRestorationLib.calibration.atlas import PlaceStatistics, PlaceSums
from LatentSpaceRestorationLib.model_space import CLIP
from LatentSpaceRestorationLib.preprocessing.pipeline import Preprocessing
from LatentSpaceRestorationLib.preprocessing.slices import PreparedScan
from LatentSpaceRestorationLib.volume import Volume, positions
from native_grid import to_native
from patterned_brain import FINDER, GRID, brain
from scipy import ndimage


@pytest.fixture(scope="module")
def atlas() -> np.ndarray:
    """The mean of eight brains that lie as they should."""
    sums = None
    for own in range(8):
        scan = brain(own)
        prepared, _ = Preprocessing(GRID, FINDER)(scan, scan.array > 20.0)
        found = PlaceSums.of(prepared.slices, prepared.mask, prepared.position)
        sums = found if sums is None else sums + found
    assert sums is not None
    return PlaceStatistics.from_sums(sums).symmetric().mean


def shaded(scan: Volume, by: tuple[float, float, float], bow: float) -> Volume:
    """A scan times a field that rises along the axes and towards the rim."""
    there = scan.array > 0
    points = positions(there, scan.affine)
    points = (points - points.mean(axis=0)) / 80.0
    array = scan.array.astype(np.float32).copy()
    array[there] *= np.exp(points @ by + bow * (points**2).sum(axis=1)).astype(np.float32)
    return replace(scan, array=array)


def prepared(scan: Volume, mask: np.ndarray, atlas: np.ndarray, order: int) -> PreparedScan:
    made, laid = Preprocessing.of(GRID, FINDER, atlas, order)(scan, mask)
    assert laid.is_aligned
    return made


@pytest.mark.parametrize(("by", "bow"), [((0.3, 0.0, 0.2), 0.0), ((-0.2, 0.3, -0.2), 0.5)])
def test_a_smooth_field_is_taken_out(
    atlas: np.ndarray, by: tuple[float, float, float], bow: float
) -> None:
    scan = brain(11)
    mask = scan.array > 20.0
    plain = prepared(scan, mask, atlas, 2)
    found = prepared(shaded(scan, by, bow), mask, atlas, 2)
    as_it_is = prepared(shaded(scan, by, bow), mask, atlas, 0)
    both = plain.mask & found.mask
    left = np.abs(found.slices - plain.slices)[both].mean()
    without = np.abs(as_it_is.slices - plain.slices)[both].mean()
    assert without > 0.5
    assert left < 0.3 * without


def test_what_does_not_belong_there_stays_and_intensities_come_back(atlas: np.ndarray) -> None:
    scan = brain(11)
    mask = scan.array > 20.0
    centre = np.array(ndimage.center_of_mass(mask)) + [0.0, 6.0, 2.0]
    grid = np.stack(np.indices(scan.shape), -1)
    ball = (np.linalg.norm((grid - centre) * scan.spacing, axis=-1) < 20.0) & mask
    array = scan.array.astype(np.float32).copy()
    array[ball] += 2.0 * scan.array[mask].std()
    lesion = replace(scan, array=array)
    field = ((0.2, -0.3, 0.1), 0.4)
    kept = {}
    for order in (0, 2):
        healthy, ill = (
            prepared(shaded(s, *field) if order else s, mask, atlas, order) for s in (scan, lesion)
        )
        there = ill.slices - healthy.slices
        kept[order] = float(np.sort(there[healthy.mask & ill.mask])[-50:].mean())
        back = ill.to_intensity(ill.slices)
        native = to_native(ill, back)
        inside = ndimage.binary_erosion(mask, iterations=2)
        inside &= to_native(ill, (np.abs(ill.slices) < CLIP).astype(np.float32)) > 0.99
        given = (shaded(lesion, *field) if order else lesion).array
        relative = np.abs(native - given)[inside] / given[inside]
        assert np.median(relative) < 0.05
    assert kept[2] > 0.85 * kept[0]


def test_a_brain_that_is_not_aligned_is_taken_as_it_is(
    atlas: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = shaded(brain(11), (0.3, 0.0, 0.2), 0.0)
    # Nothing fits.
    monkeypatch.setattr("LatentSpaceRestorationLib.preprocessing.alignment.LEAST_FIT", 1.1)
    made, laid = Preprocessing.of(GRID, FINDER, atlas, 2)(scan, scan.array > 20.0)
    assert not laid.is_aligned
    assert made.shading is None
    assert Preprocessing.of(GRID, FINDER, None, 2).shading is None
    assert Preprocessing.of(GRID, FINDER, atlas, 0).shading is None
