"""What was measured is told from what was put around it, whatever the value."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from LatentSpaceRestorationLib.preprocessing.field_of_view import measured_part
from LatentSpaceRestorationLib.preprocessing.resampling import resample
from LatentSpaceRestorationLib.volume import Volume

VALUES = [0.0, -50.0, -1024.0, -2048.0, -32768.0, 32767.0, 255.0, 0.1]


def head(seed: int = 0, air: float = 3.0) -> Volume:
    """An ellipsoid of tissue in noisy air."""
    generator = np.random.default_rng(seed)
    shape = (40, 44, 36)
    place = (np.moveaxis(np.indices(shape), 0, -1) - [19.5, 23.0, 16.0]) / [14.0, 16.0, 13.0]
    tissue = np.linalg.norm(place, axis=-1) < 1.0
    array = np.where(tissue, 150.0, 0.0) + np.abs(generator.normal(0.0, air, shape))
    array = np.clip(array, 0.0, 255.0).astype(np.float32)
    return Volume(array, np.array([[0, 2.0, 0, -9], [3, 0, 0, 5], [0, 0, -2, 7], [0, 0, 0, 1.0]]))


def padded(scan: Volume, pads: list[tuple[int, int]], value: float) -> Volume:
    affine = scan.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.array([float(before) for before, _ in pads])
    return replace(scan, array=np.pad(scan.array, pads, constant_values=value), affine=affine)


@settings(deadline=None, max_examples=40)
@given(
    value=st.sampled_from(VALUES),
    inner=st.sampled_from(VALUES),
    pads=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=3),
)
def test_frames_of_any_value_and_frames_within_frames_leave_no_trace(
    value: float, inner: float, pads: list[tuple[int, int]]
) -> None:
    scan = head()
    plain = measured_part(scan)
    framed = padded(padded(scan, [(2, 1), (0, 3), (1, 1)], inner), pads, value)
    found = measured_part(framed)
    np.testing.assert_array_equal(found.volume.array, plain.volume.array)
    np.testing.assert_array_equal(found.measured, plain.measured)
    np.testing.assert_allclose(found.volume.affine, plain.volume.affine, atol=1e-9)
    assert found.air == plain.air
    np.testing.assert_array_equal(found.cut(framed.array), plain.cut(scan.array))


@pytest.mark.parametrize("value", VALUES)
def test_what_lies_outside_a_cylinder_becomes_air(value: float) -> None:
    scan = head()
    i, j, _ = np.indices(scan.shape)
    outside = np.hypot(i - 19.5, j - 21.5) > 22.5
    found = measured_part(replace(scan, array=np.where(outside, np.float32(value), scan.array)))
    assert found.volume.shape == scan.shape
    # Of a value as in air, slivers may stay that are less than three voxels thick.
    assert found.measured[outside].mean() <= (0.05 if 0.0 <= value < 1.0 else 0.0)
    assert found.measured[~outside].mean() > 0.99
    assert found.volume.array.min() >= 0.0
    assert found.volume.array.max() <= 255.0
    assert np.abs(found.volume.array[outside]).max() < 1.0


def test_a_frame_that_was_interpolated_leaves_no_seam() -> None:
    scan = padded(head(), [(6, 6)] * 3, -1024.0)
    shape = (60, 60, 60)
    affine = scan.affine.copy()
    affine[:3, :3] *= 0.87
    turned = Volume(resample(scan, shape, affine, fill=-1024.0), affine)
    assert ((turned.array < -5.0) & (turned.array > -1000.0)).any()
    found = measured_part(turned).volume.array
    assert np.percentile(found, 0.1) >= -30.0
    assert (found < -60.0).mean() < 1e-3


def test_a_face_that_was_cut_away_and_a_neck_that_was_blanked_are_no_measurements() -> None:
    scan = head(air=4.0)
    _, j, k = np.indices(scan.shape)
    removed = (j - 34 + 0.7 * (k - 24) > 0) | (k > 31)
    found = measured_part(replace(scan, array=np.where(removed, np.float32(0), scan.array)))
    there = found.cut(removed)
    assert not found.measured[there].any()
    assert found.measured[~there].mean() > 0.95


def test_tissue_is_kept_though_it_is_of_one_value_and_reaches_the_end_of_the_scan() -> None:
    scan = head()
    i, j, k = np.indices(scan.shape)
    saturated = (np.hypot(i - 20, j - 23) < 3.5) & (k < 8)
    array = np.where(saturated, np.float32(255.0), scan.array)
    found = measured_part(replace(scan, array=array))
    assert found.measured[saturated].all()


def test_holes_within_tissue_are_measured() -> None:
    scan = head()
    scan.array[17:23, 20:26, 13:19] = 0.0
    framed = padded(scan, [(4, 4)] * 3, 0.0)
    found = measured_part(framed)
    np.testing.assert_array_equal(found.volume.array, measured_part(scan).volume.array)
    assert found.measured[17:23, 20:26, 13:19].all()


def test_a_volume_with_nothing_else_in_it_is_taken_whole() -> None:
    array = np.zeros((9, 8, 7), np.float32)
    array[4, 4, 3] = 1.0
    scan = Volume(array, np.eye(4))
    found = measured_part(scan)
    np.testing.assert_array_equal(found.volume.array, array)
    assert found.measured.all()
    assert found.cut(array).shape == array.shape
