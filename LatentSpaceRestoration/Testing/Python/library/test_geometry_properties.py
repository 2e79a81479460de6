"""In scans of any geometry and type an anomaly comes back at its place, on the scan's own grid."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from LatentSpaceRestorationLib.io.images import read_geometry, read_volume, write_volume
from LatentSpaceRestorationLib.preprocessing.resampling import world_grid
from LatentSpaceRestorationLib.volume import Volume
from phantoms import (
    BRIGHTER,
    SMALL,
    block_at,
    little_brain,
    middle_of,
    prepared_with,
    what_changed,
    with_block,
)
from scan_grids import ORIENTATIONS, ScanGrid, rotation, scan_grids, stored_as

few = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
#: A place in the ball, mm from its centre.
offsets = st.tuples(*[st.floats(-8.0, 8.0)] * 3).map(np.array)

#: Types of voxels in NIfTI files, with the slope and intercept that they are scaled by.
STORED = [
    ("int8", 0.25, 100.0),
    ("uint8", 0.25, 75.0),
    ("int16", 0.01, 0.0),
    (">i2", -0.05, 3.0),
    ("uint16", 0.125, -1000.0),
    ("int32", 1e-4, 50.0),
    ("uint32", 0.5, -7.0),
    ("int64", 0.01, 0.0),
    ("uint64", 0.01, 0.0),
    ("float32", 1.0, 0.0),
    (">f4", 1.0, 0.0),
    ("float64", 1.0, 0.0),
]


@few
@given(scan_grids(), st.integers(0, 10_000), offsets, st.floats(0.0, 5.0))
def test_an_anomaly_comes_back_within_half_a_model_voxel(
    grid: ScanGrid, seed: int, offset: np.ndarray, half_mm: float
) -> None:
    scan, mask = little_brain(grid, seed)
    block = block_at(grid, offset, half_mm)  # often a single voxel
    back = what_changed(scan, with_block(scan, block), mask)
    assert back.shape == grid.shape
    distance = grid.world(middle_of(back)) - grid.world(block.middle)
    assert np.linalg.norm(distance) < 0.5 * SMALL.spacing_mm


@few
@given(scan_grids(), st.integers(0, 10_000), offsets)
def test_a_block_keeps_its_outline(grid: ScanGrid, seed: int, offset: np.ndarray) -> None:
    scan, mask = little_brain(grid, seed)
    block = block_at(grid, offset, 8.0)
    found = what_changed(scan, with_block(scan, block), mask) > 0.5 * BRIGHTER
    # An axis is not better known than the coarser of both grids.
    spacing = np.linalg.norm(grid.affine[:3, :3], axis=0)
    beyond = block.beyond(grid) / np.maximum(spacing, SMALL.spacing_mm)
    assert found[(beyond < -0.75).all(axis=-1)].all()
    assert not found[(beyond > 0.75).any(axis=-1)].any()


@pytest.mark.slow
def test_a_fine_scan_keeps_a_voxel_in_its_place() -> None:
    grid = ScanGrid((161, 163, 165), np.diag([-0.4, 0.4, 0.4, 1.0]))
    scan, mask = little_brain(grid, 0)
    block = block_at(grid, np.array([7.0, -9.0, 5.0]), 0.0)
    back = what_changed(scan, with_block(scan, block), mask)
    assert np.linalg.norm(middle_of(back) - block.middle) * 0.4 < 0.5 * SMALL.spacing_mm


def save(
    path: Path, array: np.ndarray, affine: np.ndarray, kind: str, slope: float, intercept: float
) -> np.ndarray:
    """Write intensities as a NIfTI file of that type; returns what can be read of them.

    Byte by byte, since nibabel would choose a slope of its own.
    """
    stored = (array.astype(np.float64) - intercept) / slope
    if np.dtype(kind).kind != "f":
        stored = np.round(stored)
    stored = stored.astype(kind)
    header = nibabel.Nifti1Header(endianness=">" if kind.startswith(">") else "<")
    header.set_data_dtype(np.dtype(kind))
    header.set_data_shape(array.shape)
    header.set_sform(affine, code=1)
    header["scl_slope"], header["scl_inter"], header["vox_offset"] = slope, intercept, 352
    path.write_bytes(header.binaryblock + bytes(4) + stored.tobytes(order="F"))
    return stored.astype(np.float64) * slope + intercept


def oblique_grid(number: int) -> ScanGrid:
    """A grid of the orientation of that number, with its own obliquity, spacings and sizes."""
    random = np.random.default_rng(number)
    spacing = random.uniform(1.2, 5.0, 3)
    affine = np.eye(4)
    turn = rotation(tuple(random.uniform(-45.0, 45.0, 3)))
    affine[:3, :3] = turn @ ORIENTATIONS[number] * spacing
    affine[:3, 3] = random.uniform(-150.0, 150.0, 3)
    i, j, k = (int(n) for n in np.ceil(random.uniform(66.0, 74.0, 3) / spacing) + 1)
    return ScanGrid((i, j, k), affine)


@pytest.mark.parametrize("number", range(len(ORIENTATIONS)))
def test_from_file_to_file(tmp_path: Path, number: int) -> None:
    """Each orientation, with one of the types: what was changed in the file is where it was."""
    kind, slope, intercept = STORED[number % len(STORED)]
    grid = oblique_grid(number)
    scan, mask = little_brain(grid, number)
    block = block_at(grid, np.array([6.0, -5.0, 7.0]), 4.0)
    volumes = {}
    for name, volume in (("before", scan), ("after", with_block(scan, block))):
        values = save(tmp_path / f"{name}.nii", volume.array, grid.affine, kind, slope, intercept)
        volumes[name] = read_volume(tmp_path / f"{name}.nii")
        np.testing.assert_allclose(volumes[name].array, values, rtol=1e-5, atol=1e-4)
    source = nibabel.load(tmp_path / "after.nii")
    assert source.get_data_dtype() == np.dtype(kind)
    back = what_changed(volumes["before"], volumes["after"], mask)
    result = Volume(back, volumes["after"].affine)
    write_volume(tmp_path / "map.nii.gz", result, like=read_geometry(tmp_path / "after.nii"))
    written = nibabel.load(tmp_path / "map.nii.gz")
    assert written.shape == source.shape
    np.testing.assert_array_equal(written.affine, source.affine)
    found = nibabel.affines.apply_affine(written.affine, middle_of(np.asarray(written.dataobj)))
    place = nibabel.affines.apply_affine(source.affine, block.middle)
    assert np.linalg.norm(found - place) < 0.5 * SMALL.spacing_mm


@few
@given(scan_grids(20.0, 40.0), st.floats(0.4, 6.0))
def test_the_grid_is_the_same_however_a_scan_is_stored(grid: ScanGrid, spacing: float) -> None:
    scan = Volume(np.broadcast_to(np.float32(0), grid.shape), grid.affine)
    expected, affine = world_grid(scan, spacing)
    for orientation in ORIENTATIONS:
        shape, other = world_grid(stored_as(scan, orientation), spacing)
        assert shape == expected
        np.testing.assert_allclose(other, affine, atol=1e-6)


def test_any_type_of_voxel_gives_the_same_slices() -> None:
    grid = ScanGrid((25, 27, 29), np.diag([2.7, 2.6, 2.5, 1.0]))
    scan, mask = little_brain(grid, 1)
    whole = np.round(scan.array)
    expected = prepared_with(Volume(whole.astype(np.float32), grid.affine), mask).slices
    for kind in ("i1", "u1", "i2", ">i2", "u2", "i4", "u4", "i8", "u8", "f2", "f8", ">f8"):
        got = prepared_with(Volume(whole.astype(kind), grid.affine), mask).slices
        np.testing.assert_array_equal(got, expected, err_msg=kind)
