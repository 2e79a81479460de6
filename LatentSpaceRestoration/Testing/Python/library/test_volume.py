"""Resampling by physical position, and which volumes are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from LatentSpaceRestorationLib.errors import InputError
from LatentSpaceRestorationLib.preprocessing.resampling import reduced, resample, world_grid
from LatentSpaceRestorationLib.volume import Volume, box_of, check
from scan_grids import ORIENTATIONS, ScanGrid, rotation, scan_grids, stored_as

few = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


def along_ras(shape: tuple[int, int, int], spacing: float, seed: int = 0) -> Volume:
    """Noise on a grid along the patient's axes."""
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = [-31.7, 12.3, 5.1]
    array = np.random.default_rng(seed).normal(100.0, 20.0, shape).astype(np.float32)
    return Volume(array, affine)


def test_spacing_and_voxel_volume_of_an_oblique_left_handed_scan() -> None:
    affine = np.eye(4)
    affine[:3, :3] = rotation((10.0, 20.0, 30.0)) @ ORIENTATIONS[1] * [1.0, 2.0, 5.0]
    volume = Volume(np.zeros((2, 3, 4)), affine)
    assert volume.spacing == pytest.approx([1.0, 2.0, 5.0])
    assert volume.voxel_volume_ml == pytest.approx(0.01)
    assert volume.shape == (2, 3, 4)


def test_there_are_48_orientations() -> None:
    assert len({m.tobytes() for m in ORIENTATIONS}) == 48


def test_a_grid_of_the_models_spacing_is_only_reordered() -> None:
    scan = along_ras((5, 7, 9), 2.0)
    for orientation in ORIENTATIONS:
        stored = stored_as(scan, orientation)
        shape, affine = world_grid(stored, 2.0)
        assert shape == (5, 7, 9)
        values = resample(stored, shape, affine)
        np.testing.assert_array_equal(values, scan.array[::-1, ::-1])
        last = scan.affine @ [4, 6, 0, 1]
        np.testing.assert_allclose(affine[:, 3], last, atol=1e-9)


@few
@given(scan_grids(20.0, 40.0), st.floats(1.0, 4.0))
def test_the_world_grid_covers_the_volume(grid: ScanGrid, spacing: float) -> None:
    shape, affine = world_grid(Volume(np.zeros(grid.shape), grid.affine), spacing)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape])).reshape(3, -1).T
    index = (grid.world(corners) - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    slack = 0.01
    assert index.min() >= -slack
    assert (index <= np.array(shape) - 1 + slack).all()
    # And it is no larger than that: a voxel less on either side would not do.
    assert (index.min(axis=0) < 1.0).all()
    assert (index.max(axis=0) > np.array(shape) - 2).all()


@few
@given(scan_grids(20.0, 40.0), st.floats(1.0, 4.0), st.sampled_from([0.0, -7.0]))
def test_a_constant_stays_constant_up_to_the_border(
    grid: ScanGrid, spacing: float, fill: float
) -> None:
    volume = Volume(np.full(grid.shape, 50.0, np.float32), grid.affine)
    shape, affine = world_grid(volume, spacing)
    values = resample(volume, shape, affine, fill=fill)
    place = ScanGrid(shape, affine).positions() - grid.affine[:3, 3]
    index = place @ np.linalg.inv(grid.affine[:3, :3]).T
    within = ((index > -0.49) & (index < np.array(grid.shape) - 0.51)).all(axis=-1)
    beyond = ((index < -0.51) | (index > np.array(grid.shape) - 0.49)).any(axis=-1)
    assert within.any()
    np.testing.assert_allclose(values[within], 50.0, rtol=1e-5)
    np.testing.assert_array_equal(values[beyond], fill)


@few
@given(scan_grids(20.0, 40.0), st.floats(1.0, 4.0))
def test_a_linear_ramp_is_read_off_by_position(grid: ScanGrid, spacing: float) -> None:
    slope = np.array([0.7, -1.3, 2.1])
    volume = Volume(((grid.positions() - grid.centre) @ slope).astype(np.float32), grid.affine)
    shape, affine = world_grid(volume, spacing)
    values = resample(volume, shape, affine, antialias=False)
    position = ScanGrid(shape, affine).positions()
    index = (position - grid.affine[:3, 3]) @ np.linalg.inv(grid.affine[:3, :3]).T
    between_centres = ((index > 0) & (index < np.array(grid.shape) - 1)).all(axis=-1)
    expected = (position - grid.centre) @ slope
    np.testing.assert_allclose(values[between_centres], expected[between_centres], atol=2e-3)


def test_a_fine_scan_is_reduced_to_the_means_of_blocks() -> None:
    fine = along_ras((9, 13, 8), 0.5)
    coarse = reduced(fine, 2.0)  # blocks of half of the model's voxels at most
    assert coarse.shape == (4, 6, 4)
    np.testing.assert_allclose(coarse.spacing, 1.0)
    np.testing.assert_allclose(coarse.array[1, 2, 3], fine.array[2:4, 4:6, 6:8].mean(), rtol=1e-6)
    middle = fine.affine @ [2.5, 4.5, 6.5, 1.0]
    np.testing.assert_allclose(coarse.affine @ [1, 2, 3, 1], middle, atol=1e-9)
    assert reduced(along_ras((9, 13, 8), 0.7), 2.0).shape == (9, 13, 8)


def test_what_a_scan_is_reduced_to_does_not_depend_on_how_it_is_stored() -> None:
    scan = along_ras((9, 13, 8), 0.5)
    wanted = reduced(scan, 2.0)
    for orientation in ORIENTATIONS:
        found = reduced(stored_as(scan, orientation), 2.0)
        np.testing.assert_array_equal(
            resample(found, wanted.shape, wanted.affine, antialias=False), wanted.array
        )


def test_the_box_of_a_mask() -> None:
    mask = np.zeros((5, 6, 7), bool)
    assert box_of(mask) == (slice(0, 5), slice(0, 6), slice(0, 7))
    mask[2, 1:3, 6] = True
    assert box_of(mask) == (slice(2, 3), slice(1, 3), slice(6, 7))
    assert box_of(mask, np.array([1.0, 2.0, 3.0])) == (slice(1, 4), slice(0, 5), slice(3, 7))


def test_coarsening_averages_and_finer_detail_does_not_alias() -> None:
    stripes = np.zeros((60, 10, 10), np.float32)
    stripes[::2] = 1.0
    coarse = resample(Volume(stripes, np.eye(4)), (14, 10, 10), np.diag([4.0, 1.0, 1.0, 1.0]))
    assert np.abs(coarse[2:-2] - 0.5).max() < 0.02


def test_labels_are_taken_from_the_nearest_voxel() -> None:
    labels = Volume(np.arange(8, dtype=np.float32).reshape(2, 2, 2), np.eye(4))
    finer = np.diag([0.5, 0.5, 0.5, 1.0])
    finer[:3, 3] = -0.25
    values = resample(labels, (4, 4, 4), finer, order=0, antialias=False)
    np.testing.assert_array_equal(values, np.kron(labels.array, np.ones((2, 2, 2))))


BAD = np.zeros((3, 4, 5), np.float32)
BAD[1, 1, 1] = 1.0


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((4, 5)), "4 x 5 voxels"),
        (np.zeros((4, 5, 1)), "4 x 5 x 1 voxels"),
        (np.zeros((4, 5, 6, 2)), "4 x 5 x 6 x 2 voxels"),
        (np.where(BAD > 0, np.nan, BAD), "1 of 60 voxels are NaN"),
        (np.where(BAD > 0, np.inf, BAD), "1 of 60 voxels are NaN or infinite"),
        (np.full((3, 4, 5), 7), "every voxel is 7"),
    ],
)
def test_volumes_that_cannot_be_used_are_refused_in_one_line(array: np.ndarray, says: str) -> None:
    with pytest.raises(InputError) as refusal:
        check(Volume(array, np.eye(4)))
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("broken", [np.diag([1.0, 1.0, 0.0, 1.0]), np.full((4, 4), np.nan)])
def test_an_affine_that_cannot_be_inverted_is_refused(broken: np.ndarray) -> None:
    with pytest.raises(InputError, match="affine"):
        check(Volume(BAD, broken))


def test_a_usable_volume_of_any_type_passes() -> None:
    for kind in (np.uint8, np.int16, np.float64, bool):
        check(Volume(BAD.astype(kind), np.eye(4)))
