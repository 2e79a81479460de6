"""Scans of which everything is known: a ball of brain in waves, and an anomaly in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from LatentSpaceRestorationLib.model_space import Grid
from LatentSpaceRestorationLib.preprocessing.slices import (
    PreparedScan,
    mask_to_head,
    prepare,
    to_head,
)
from LatentSpaceRestorationLib.volume import Volume
from scan_grids import ScanGrid

#: Room for the ball, however it is turned.
SMALL = Grid(rows=44, columns=40, spacing_mm=2.0)
#: Radius of the ball, 125 ml: hardly more than the least that can be scored.
RADIUS_MM = 31.0
#: By how much an anomaly is brighter; with the waves, well within what is not clipped.
BRIGHTER = 15.0


def little_brain(grid: ScanGrid, seed: int) -> tuple[Volume, np.ndarray]:
    """Waves of 100 +- 10 everywhere, and the ball as a native mask."""
    offset = grid.positions() - grid.centre
    direction = np.random.default_rng(seed).normal(size=3)
    waves = 100.0 + 10.0 * np.sin(offset @ (direction / np.linalg.norm(direction)) / 5.0)
    ball = np.linalg.norm(offset, axis=-1) <= RADIUS_MM
    return Volume(waves.astype(np.float32), grid.affine), ball


def prepared_with(volume: Volume, mask: np.ndarray, grid: Grid = SMALL) -> PreparedScan:
    """The scan in model space with a given native brain mask."""
    head = to_head(volume, grid.spacing_mm)
    return prepare(volume, head, mask_to_head(mask, volume, head), grid)


def native_intensities(prepared: PreparedScan) -> np.ndarray:
    """The model's slices, in the scan's own intensities."""
    return prepared.slices * prepared.scale + prepared.centre


@dataclass(frozen=True)
class Block:
    """A box of voxels.

    Attributes:
        first, last: (3,) int, its first and last voxel.
    """

    first: np.ndarray
    last: np.ndarray

    @property
    def box(self) -> tuple[slice, ...]:
        """Its voxels as an index."""
        return tuple(slice(a, b + 1) for a, b in zip(self.first, self.last, strict=True))

    @property
    def middle(self) -> np.ndarray:
        """(3,) fractional voxel index."""
        return (self.first + self.last) / 2.0

    def beyond(self, grid: ScanGrid) -> np.ndarray:
        """(I, J, K, 3) how far voxel centres lie outside its faces by axis in mm; inside, below 0.

        Of a grid whose axes are at right angles.
        """
        spacing = np.linalg.norm(grid.affine[:3, :3], axis=0)
        index = np.moveaxis(np.indices(grid.shape), 0, -1)
        half = (self.last - self.first + 1) / 2.0
        return (np.abs(index - self.middle) - half) * spacing


def block_at(grid: ScanGrid, offset_mm: np.ndarray, half_mm: float) -> Block:
    """The voxels within some mm, along the grid's axes, of a place; at least one.

    Args:
        grid: of the scan.
        offset_mm: (3,) RAS of the place from the grid's centre.
        half_mm: half of the box's length.
    """
    to_index = np.linalg.inv(grid.affine[:3, :3])
    centre = np.round(to_index @ (grid.centre + offset_mm - grid.affine[:3, 3])).astype(int)
    half = np.floor(half_mm / np.linalg.norm(grid.affine[:3, :3], axis=0)).astype(int)
    return Block(centre - half, centre + half)


def with_block(scan: Volume, block: Block) -> Volume:
    """The scan with an anomaly in it."""
    array = scan.array.copy()
    array[block.box] += BRIGHTER
    return Volume(array, scan.affine, scan.name)


def what_changed(before: Volume, after: Volume, mask: np.ndarray) -> np.ndarray:
    """(I, J, K) what the model sees of the difference of two scans, brought back to their grid."""
    one, other = prepared_with(before, mask), prepared_with(after, mask)
    _, (back,) = other.brain_to_native(native_intensities(other) - native_intensities(one))
    return back


def middle_of(values: np.ndarray) -> np.ndarray:
    """(3,) fractional voxel index of the mean of what is high."""
    weight = np.where(np.abs(values) > 0.03 * np.abs(values).max(), values, 0.0)
    index = np.moveaxis(np.indices(values.shape), 0, -1)
    return np.tensordot(weight, index, axes=3) / weight.sum()
