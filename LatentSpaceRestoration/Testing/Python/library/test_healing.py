"""What is shown of a restoration: healed tissue that fits in, and the scan itself elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from LatentSpaceRestorationLib.inference.healing import (
    cells_to_heal,
    healed,
    larger_regions,
    spread_between,
)
from LatentSpaceRestorationLib.preprocessing.slices import PreparedScan
from scipy import ndimage

SPACING = 2.0
#: Of the block of cells that is replaced: slices, rows, columns of the code grid.
BLOCK = (slice(4, 22), slice(2, 8), slice(2, 8))


def prepared() -> PreparedScan:
    """A smooth pattern with some noise, in a box of brain; cells are four voxels wide."""
    shape = (26, 40, 40)
    mask = np.zeros(shape, bool)
    mask[1:-1, 2:-2, 2:-2] = True
    noise = np.random.default_rng(0).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, 1.5)
    values = np.clip(smooth / smooth.std(), -2.9, 2.9)
    return PreparedScan(
        slices=np.where(mask, values, -3.0).astype(np.float32),
        mask=mask,
        position=np.linspace(-0.3, 0.3, shape[0], dtype=np.float32),
        position_mm=np.arange(shape[0]) * SPACING,
        affine=np.eye(4),
        centre=100.0,
        scale=10.0,
        native_shape=shape[::-1],
        native_affine=np.eye(4),
        cropped=0.0,
    )


def replaced_cells() -> np.ndarray:
    cells = np.zeros((26, 10, 10), bool)
    cells[BLOCK] = True
    return cells


def in_voxels(cells: np.ndarray) -> np.ndarray:
    return cells.repeat(4, axis=1).repeat(4, axis=2)


def energy(image: np.ndarray, where: np.ndarray) -> float:
    return float(sum(g[where] ** 2 for g in np.gradient(image)).mean())


def test_the_spread_between_slices_is_that_of_those_beside() -> None:
    """It is looked at in every second slice, and is what they agree on in the others."""
    cells = replaced_cells()
    replaced = in_voxels(cells)
    drawn = np.arange(0, 26, 2)
    sd = np.where(replaced, np.arange(26.0)[:, None, None], 99.0)[drawn]
    found = spread_between(sd, drawn, cells, 26)
    assert found.dtype == np.float32
    assert not found[~replaced].any()
    inner = replaced.copy()
    inner[21] = False  # beyond it, slice 22, nothing was replaced
    np.testing.assert_allclose(found, np.where(inner, np.arange(26.0)[:, None, None], found))
    np.testing.assert_array_equal(found[21][replaced[21]], 20.0)
    every = np.arange(26)
    np.testing.assert_array_equal(spread_between(found, every, cells, 26), found)


def test_nothing_outside_the_replaced_cells_changes_nor_at_their_border() -> None:
    scan, cells = prepared(), replaced_cells()
    _, weight = healed(scan, scan.slices + 1.0, scan.slices, cells, SPACING)
    inside = in_voxels(cells)
    assert not weight[~inside].any()
    assert not weight[inside & ~ndimage.binary_erosion(inside)].any()
    assert weight.max() == 1.0  # a cell's width inside
    steps = np.abs(np.diff(weight, axis=1))
    assert steps.max() <= 0.25 + 1e-6  # no edge is to be seen


def test_what_is_anomalous_is_healed_to_its_edge() -> None:
    scan, cells = prepared(), replaced_cells()
    anomalous = np.zeros(scan.mask.shape, bool)
    anomalous[6:20, 11:29, 11:29] = True  # three voxels from the border of the cells
    _, weight = healed(scan, scan.slices, scan.slices, cells, SPACING, anomalous)
    assert (weight[anomalous] == 1.0).all()
    assert not weight[~in_voxels(cells)].any()
    np.testing.assert_allclose(weight[13, 8:13, 20], [0.0, 0.5, 1.0, 1.0, 1.0])


def test_what_reaches_the_rim_of_the_brain_is_healed_up_to_it() -> None:
    scan, cells = prepared(), np.ones((26, 10, 10), bool)
    _, weight = healed(scan, scan.slices, scan.slices, cells, SPACING)
    np.testing.assert_array_equal(weight, scan.mask.astype(np.float32))


def test_with_nothing_replaced_the_scan_is_its_own_restoration() -> None:
    scan = prepared()
    image, weight = healed(
        scan, scan.slices * 0.0, scan.slices, np.zeros((26, 10, 10), bool), SPACING
    )
    assert not weight.any()
    np.testing.assert_array_equal(image, scan.slices)


def test_healed_tissue_takes_on_the_brightness_and_the_shading_around_it() -> None:
    """A decoder that is too dark, and more so to one side, heals as one that is right."""
    scan, cells = prepared(), replaced_cells()
    slope = np.linspace(-0.8, 0.2, 40)[None, :, None]
    off = np.where(scan.mask, scan.slices + slope, -3.0).astype(np.float32)
    image, weight = healed(scan, off, off, cells, SPACING)
    whole = weight == 1.0
    error, before = (np.abs(one - scan.slices)[whole].mean() for one in (image, off))
    assert error < 0.25 * before


def test_a_smooth_decoder_is_sharpened_to_the_sharpness_of_the_scan() -> None:
    scan, cells = prepared(), replaced_cells()
    blurred = np.where(scan.mask, ndimage.gaussian_filter(scan.slices, 0.8), -3.0)
    blurred = blurred.astype(np.float32)
    image, weight = healed(scan, blurred, blurred, cells, SPACING)
    whole = ndimage.binary_erosion(weight == 1.0)
    wanted = energy(scan.slices, whole)
    assert energy(blurred, whole) < 0.7 * wanted
    assert energy(image, whole) == pytest.approx(wanted, rel=0.35)
    assert image[whole].max() <= scan.slices[scan.mask].max()


def test_only_cells_near_a_larger_anomalous_region_are_healed() -> None:
    brain = np.zeros((26, 10, 10), bool)
    brain[:, 1:9, 1:9] = True
    anomalous = np.zeros((26, 40, 40), bool)
    anomalous[3, 10, 10:14] = True  # 32 microlitres
    assert not larger_regions(anomalous, SPACING).any()
    assert not cells_to_heal(larger_regions(anomalous, SPACING), brain, SPACING).any()
    anomalous[10:14, 20:24, 20:24] = True  # 0.5 ml: cell 5, 5
    found = cells_to_heal(larger_regions(anomalous, SPACING), brain, SPACING)
    expected = np.zeros_like(brain)
    # 4 mm are two voxels in plane, that is the next cell, and two slices up and down.
    expected[8:16, 5, 5] = True
    expected[10:14, 4:7, 4:7] = True
    np.testing.assert_array_equal(found[10:14], expected[10:14])
    assert found[8, 5, 5]
    assert not found[7].any()
    anomalous[10:14, 36:, :] = True  # beyond the brain's cells
    assert not cells_to_heal(anomalous, brain, SPACING)[~brain].any()
