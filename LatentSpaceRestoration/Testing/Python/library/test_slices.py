"""From a native scan to the model's slices, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from LatentSpaceRestorationLib.errors import InputError
from LatentSpaceRestorationLib.model_space import CLIP, DEPTH_MM, Grid, normalise, slice_position
from LatentSpaceRestorationLib.preprocessing.slices import ResampledScan, prepare, to_head
from LatentSpaceRestorationLib.volume import Volume
from native_grid import to_native
from phantoms import SMALL, little_brain, native_intensities, prepared_with
from scan_grids import ORIENTATIONS, ScanGrid, scan_grids, stored_as

few = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


def box_head(mask: np.ndarray, spacing: float = 2.0) -> tuple[Volume, ResampledScan]:
    """Noise on the patient's axes, of which a (slices, rows, columns) mask can be cut."""
    array = np.random.default_rng(1).normal(100.0, 15.0, mask.shape[::-1]).astype(np.float32)
    affine = np.diag([-spacing, -spacing, spacing, 1.0])
    affine[:3, 3] = [40.0, 50.0, -60.0]
    volume = Volume(array, affine)
    head = to_head(volume, spacing)
    assert head.array.shape == mask.shape
    return volume, head


@few
@given(scan_grids(), st.integers(0, 10_000), st.tuples(*[st.floats(-0.55, 0.55)] * 3))
def test_a_voxel_comes_back_where_it_was(
    grid: ScanGrid, seed: int, offset: tuple[float, float, float]
) -> None:
    scan, mask = little_brain(grid, seed)
    toward = grid.centre + np.array(offset) * 31.0
    index = np.round((toward - grid.affine[:3, 3]) @ np.linalg.inv(grid.affine[:3, :3]).T)
    place = tuple(index.astype(int))
    changed = scan.array.copy()
    changed[place] += 15.0
    before = prepared_with(scan, mask)
    after = prepared_with(Volume(changed, grid.affine), mask)
    assert before.cropped == 0.0
    difference = to_native(after, native_intensities(after) - native_intensities(before))
    assert difference.shape == grid.shape
    weight = np.where(np.abs(difference) > 0.03 * np.abs(difference).max(), difference, 0.0)
    found = np.tensordot(weight, grid.positions(), axes=3) / weight.sum()
    assert np.linalg.norm(found - grid.world(index)) < 0.5 * SMALL.spacing_mm


def test_a_lesion_of_the_native_scan_keeps_its_outline() -> None:
    affine = np.array([[0, 0, 1.3, -40], [0.9, 0, 0, -35], [0, -1.1, 0, 44], [0, 0, 0, 1]], float)
    grid = ScanGrid((85, 81, 63), affine)
    scan, mask = little_brain(grid, 0)
    lesion = np.linalg.norm(grid.positions() - grid.centre - [8.0, -6.0, 4.0], axis=-1) <= 10.0
    changed = Volume(np.where(lesion, scan.array + 15.0, scan.array), affine)
    after = prepared_with(changed, mask)
    before = prepared_with(scan, mask)
    difference = native_intensities(after) - native_intensities(before)
    found = to_native(after, difference) > 7.5
    assert 2.0 * (found & lesion).sum() / (found.sum() + lesion.sum()) > 0.9


def test_a_scan_at_the_models_spacing_gives_the_same_slices_however_it_is_stored() -> None:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = [-33.3, -36.1, 7.9]
    grid = ScanGrid((37, 41, 39), affine)
    scan, mask = little_brain(grid, 3)
    marks = Volume(mask.astype(np.float32), affine)
    expected = prepared_with(scan, mask)
    head_values = scan.array[::-1, ::-1].T  # (slice, row, column)
    inside = expected.mask
    cut = native_intensities(expected)[inside]
    np.testing.assert_allclose(cut, head_values[mask[::-1, ::-1].T], rtol=1e-5)
    for orientation in ORIENTATIONS:
        stored = stored_as(scan, orientation)
        got = prepared_with(stored, stored_as(marks, orientation).array > 0.5)
        np.testing.assert_array_equal(got.slices, expected.slices)
        np.testing.assert_array_equal(got.mask, expected.mask)
        np.testing.assert_array_equal(got.position, expected.position)
        np.testing.assert_allclose(got.position_mm, expected.position_mm, atol=1e-6)
        np.testing.assert_allclose(got.affine, expected.affine, atol=1e-6)
        back = to_native(got, got.slices)
        np.testing.assert_array_equal(
            back, stored_as(Volume(to_native(expected, expected.slices), affine), orientation).array
        )


@few
@given(scan_grids(), st.integers(0, 100))
def test_a_map_of_ones_comes_back_as_ones_in_the_brain(grid: ScanGrid, seed: int) -> None:
    scan, mask = little_brain(grid, seed)
    prepared = prepared_with(scan, mask)
    ones = np.ones(prepared.slices.shape, np.float32)
    brain, (back, hundreds) = prepared.brain_to_native(ones, 100.0 * ones)
    assert back.dtype == np.float32
    assert back.shape == brain.shape == grid.shape
    np.testing.assert_allclose(back, brain, atol=1e-4)
    np.testing.assert_allclose(hundreds, 100.0 * brain, atol=1e-2)
    assert 2.0 * (brain & mask).sum() / (brain.sum() + mask.sum()) > 0.85
    # Only a box is resampled; nothing of the brain lies outside it.
    whole = to_native(prepared, prepared.mask.astype(np.float32)) >= 0.5
    np.testing.assert_array_equal(brain, whole)


def test_what_lies_outside_the_brain_does_not_leak_into_it() -> None:
    grid = ScanGrid((45, 45, 45), np.diag([1.7, 1.7, 1.7, 1.0]))
    scan, mask = little_brain(grid, 0)
    prepared = prepared_with(scan, mask)
    poisoned = np.where(prepared.mask, 1.0, 1e6)
    brain, (back,) = prepared.brain_to_native(poisoned)
    np.testing.assert_allclose(back[brain], 1.0, atol=1e-4)
    assert (back[~brain] == 0.0).all()


def test_slices_are_on_the_patients_axes() -> None:
    mask = np.zeros((36, 40, 38), bool)
    mask[4:32, 6:36, 5:35] = True
    volume, head = box_head(mask)
    prepared = prepare(volume, head, mask, SMALL)
    steps = prepared.affine[:3, :3]
    np.testing.assert_array_equal(steps[:, 0], [0.0, 0.0, 2.0])  # slices: to the head
    np.testing.assert_array_equal(steps[:, 1], [0.0, -2.0, 0.0])  # rows: to the back
    np.testing.assert_array_equal(steps[:, 2], [-2.0, 0.0, 0.0])  # columns: to the left
    # The box of brain is in the middle of the grid, padded where the scan ends.
    assert prepared.slices.shape == (28, 44, 40)
    rows, columns = (np.flatnonzero(prepared.mask.any(axis=a)) for a in ((0, 2), (0, 1)))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (7, 36, 5, 34)
    assert prepared.slices.dtype == np.float32
    assert (prepared.slices[~prepared.mask] == -CLIP).all()
    assert np.abs(prepared.slices).max() <= CLIP
    position = prepared.affine @ [0, 7, 5, 1]
    np.testing.assert_allclose(position[:3], (head.affine @ [4, 6, 5, 1])[:3])


def test_every_slice_with_brain_is_there() -> None:
    mask = np.zeros((50, 40, 38), bool)
    mask[10:35, 6:36, 5:35] = True
    mask[3:10, 20, 20] = True  # a thread below
    mask[35:44, 20, 20] = True  # and above
    volume, head = box_head(mask)
    prepared = prepare(volume, head, mask, SMALL)
    assert len(prepared.slices) == len(prepared.position) == len(prepared.position_mm) == 41
    assert prepared.mask.any(axis=(1, 2)).all()
    np.testing.assert_array_equal(prepared.mask.sum(axis=(1, 2)), mask[3:44].sum(axis=(1, 2)))
    np.testing.assert_allclose(prepared.position_mm, -60.0 + 2.0 * np.arange(3, 44))
    # The thread is not the top of the brain.
    np.testing.assert_allclose(prepared.position[31:], 0.5)
    assert prepared.position[30] == pytest.approx(0.5 - 2.0 / DEPTH_MM)


def test_position_runs_from_half_at_the_top_to_minus_half_below() -> None:
    height = np.array([90.0, 80.0, 5.0, -70.0, -200.0])
    position = slice_position(height, 80.0)
    np.testing.assert_allclose(position, [0.5, 0.5, 0.0, -0.5, -0.5])
    assert position.dtype == np.float32


@few
@given(st.floats(0.05, 50.0), st.floats(-500.0, 500.0), st.integers(0, 1000))
def test_normalising_forgets_slope_and_intercept(slope: float, intercept: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    array = random.normal(100.0, 30.0, (6, 7, 8)).astype(np.float32)
    mask = random.random((6, 7, 8)) < 0.7
    plain, centre, scale = normalise(array, mask)
    other, moved, stretched = normalise((array * slope + intercept).astype(np.float32), mask)
    np.testing.assert_allclose(other, plain, atol=2e-3)
    assert moved == pytest.approx(centre * slope + intercept, rel=1e-3, abs=1e-2)
    assert stretched == pytest.approx(scale * slope, rel=1e-3)


def test_normalised_brain_has_median_0_and_robust_sd_1() -> None:
    array = np.random.default_rng(0).normal(500.0, 80.0, (20, 30, 30))
    mask = np.ones(array.shape, bool)
    mask[0] = False
    values, centre, scale = normalise(array, mask)
    assert np.median(values[1:]) == pytest.approx(0.0, abs=1e-6)
    assert values[1:].std() == pytest.approx(1.0, abs=0.03)
    assert (values[0] == -CLIP).all()
    assert centre == pytest.approx(500.0, abs=3.0)
    assert scale == pytest.approx(80.0, abs=3.0)


def test_a_lesion_hardly_changes_the_rest() -> None:
    array = np.random.default_rng(0).normal(500.0, 80.0, (20, 30, 30))
    mask = np.ones(array.shape, bool)
    plain, _, _ = normalise(array, mask)
    array[:2] = 2000.0  # a tenth of the brain
    changed, _, _ = normalise(array, mask)
    assert np.abs(changed[2:] - plain[2:]).mean() < 0.25


def test_the_share_of_the_brain_outside_the_field_of_view_is_told() -> None:
    mask = np.zeros((30, 60, 38), bool)
    mask[2:28, 2:58, 4:34] = True
    volume, head = box_head(mask)
    prepared = prepare(volume, head, mask, SMALL)
    assert prepared.cropped == pytest.approx(1.0 - 44 / 56)
    assert to_native(prepared, prepared.slices).shape == volume.shape


def test_brain_outside_the_scans_own_field_of_view_does_not_count() -> None:
    grid = ScanGrid((40, 40, 40), np.diag([2.0, 2.0, 2.0, 1.0]))
    turned = grid.affine.copy()
    turned[:2, :2] = [[1.6, -1.2], [1.2, 1.6]]
    volume = Volume(np.random.default_rng(0).normal(9, 1, grid.shape), turned)
    head = to_head(volume, 2.0)
    assert not head.inside.all()
    assert (head.array[~head.inside] == np.float32(volume.array.min())).all()
    prepared = prepare(volume, head, np.ones(head.array.shape, bool), Grid(70, 70, 2.0))
    assert prepared.mask.sum() == head.inside.sum()


def test_too_little_brain_is_refused() -> None:
    mask = np.zeros((36, 40, 38), bool)
    mask[10:20, 10:20, 10:20] = True  # 8 ml
    volume, head = box_head(mask)
    with pytest.raises(InputError, match="only 8 ml of brain"):
        prepare(volume, head, mask, SMALL)


def test_a_brain_without_contrast_is_refused() -> None:
    mask = np.ones((30, 34, 34), bool)
    volume = Volume(np.ones(mask.shape[::-1], np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))
    volume.array[0] = 0.0
    head = to_head(volume, 2.0)
    with pytest.raises(InputError, match="almost no contrast"):
        prepare(volume, head, mask, SMALL)


def test_a_brain_in_one_slice_is_refused() -> None:
    mask = np.zeros((4, 130, 120), bool)
    mask[2] = True
    volume, head = box_head(mask)
    with pytest.raises(InputError, match="single slice"):
        prepare(volume, head, mask, SMALL)
