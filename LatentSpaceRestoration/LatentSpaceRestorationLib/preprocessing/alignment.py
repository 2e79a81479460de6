"""How a head lies: what turns it upright, the way the brains that were learned lie on average.

A model sees blocks of voxels, so a head that lies a few degrees or half a voxel otherwise gives
other codes and another map. Here each is turned until its intensities fit the usual ones best, and
its slices are cut from there: however the scan lies, the same brain gives the same slices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ..bundle.schema import PLACE
from ..model_space import CELL_DEPTH_MM, CELL_VOXELS, Grid, normalise
from ..runtime.side_by_side import gaussian_filter
from ..volume import cube_ml, positions
from .slices import MINIMUM_BRAIN_ML, TOP_AREA_MM2, ResampledScan

if TYPE_CHECKING:
    from ..bundle.bundle import Bundle


#: A brain that would have to be turned by more, or that fits less (correlation), is left as it is.
MOST_DEGREES = 30.0
LEAST_FIT = 0.25
#: One that fits less is tried from another start. Measured: 0.55 to 0.87 in 32 healthy scans of 13
#: scanners, 0.28 to 0.43 in three that had been led astray and fit 0.51 to 0.55 from there.
_GOOD_FIT = 0.55
#: Intensities are compared at these widths, first roughly; what is as wide as the second of a pair
#: is not, as bias fields.
_WIDTHS_MM = ((10.0, 30.0), (5.0, 16.0))
#: What is smoothed by so many voxels or more is so on a grid of half as many.
_WIDE_VOXELS = 4.0
#: Turns are counted in mm at this distance, so that all steps are alike.
_RADIUS_MM = 70.0
#: A brain begins where its planes have this area, in mm^2, to the sides.
_SIDE_AREA_MM2 = 100.0
_MOST_STEPS, _LONGEST_STEP_MM, _SHORTEST_STEP_MM = 40, 6.0, 2e-3
#: Room for a brain, mm: half its size, and its middle from the top.
_ROOM_MM, _BELOW_TOP_MM = np.array([70.0, 88.0, 68.0]), 66.0


@dataclass(frozen=True)
class AlignmentAtlas:
    """Where brains were learned to have which intensity, less what is wide.

    Attributes:
        points: (n, 3) mm; x and y from the middle between the brain's sides, z from its top.
        values: (n,) at each of the widths.
    """

    points: np.ndarray
    values: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, atlas: np.ndarray | None, grid: Grid) -> AlignmentAtlas | None:
        """From a model's mean intensities; left and right are made alike.

        Args:
            atlas: (depths, h, w) from :func:`read_atlas`.
            grid: of the model.

        Returns:
            None if there is none, or it is the same all over.
        """
        if atlas is None:
            return None
        points = positions_of(atlas.shape, grid).reshape(-1, 3)
        room = np.linalg.norm((points + [0.0, 0.0, _BELOW_TOP_MM]) / _ROOM_MM, axis=1) <= 1.0
        cell = np.array([CELL_DEPTH_MM, *(2 * [CELL_VOXELS * grid.spacing_mm])])
        mean = (atlas + atlas[:, :, ::-1]) / 2.0
        values = []
        for near, wide in _WIDTHS_MM:
            # The means are over cells already.
            sigma = np.sqrt(np.maximum(near**2 - _WIDTHS_MM[-1][0] ** 2, 0.0)) / cell
            detail = ndimage.gaussian_filter(mean, sigma) - ndimage.gaussian_filter(
                mean, wide / cell
            )
            values.append(detail.ravel()[room])
        if min(float(v.std()) for v in values) < 1e-3:
            return None
        return cls(points[room], tuple(values))


def positions_of(shape: tuple[int, ...], grid: Grid) -> np.ndarray:
    """(depths, h, w, 3) mm of the places of an atlas of a shape.

    To the right and the front from the middle between the brain's sides, and up from its top.
    """

    def to_side(count: int, size: int) -> np.ndarray:
        return (size / 2.0 - (np.arange(count) + 0.5) * CELL_VOXELS) * grid.spacing_mm

    depths, h, w = shape
    z = -np.arange(depths) * CELL_DEPTH_MM
    axes = np.meshgrid(z, to_side(h, grid.rows), to_side(w, grid.columns), indexing="ij")
    return np.stack(axes[::-1], axis=-1)


def read_atlas(bundle: Bundle) -> np.ndarray | None:
    """A model's mean intensity at each place of healthy brains, (depths, h, w).

    Returns:
        None where the model states that heads are taken as they lie. Bundles made before they
        stated it have the mean of their first calibration, if any.
    """
    if "alignment" in bundle.config:
        alignment = bundle.config["alignment"]
        if alignment is None:
            return None
        return np.asarray(bundle.tensors(alignment["atlas"])["mean"].float().numpy())
    if not bundle.has(PLACE):
        return None
    tensors = bundle.tensors(PLACE)
    means = [name for name in sorted(tensors) if name.endswith(".intensity.mean")]
    return np.asarray(tensors[means[0]].float().numpy()) if means else None


def upright(
    head: ResampledScan,
    mask: np.ndarray,
    spacing_mm: float,
    places: AlignmentAtlas,
    start: np.ndarray | None = None,
) -> np.ndarray | None:
    """The rigid transform that lays a head as the brains that were learned lay.

    Args:
        head: a scan along any axes.
        mask: (slices, rows, columns) bool, brain.
        spacing_mm: of both.
        places: what it is to fit.
        start: (3, 3) rotation, RAS -> the head's axes; None if it lies along RAS.

    Returns:
        (4, 4) mm along the head's axes -> mm to the right, the front and the top, from the middle
        between the brain's sides and its top; None if the brain fits nowhere near.
    """
    if mask.sum() * cube_ml(spacing_mm) < MINIMUM_BRAIN_ML:
        return None
    turn = _turn(head, mask, spacing_mm, places, np.eye(3) if start is None else start)
    if turn is None:
        return None
    laid = positions(mask, head.affine) @ turn.T
    ends = [
        _ends(laid[:, axis], spacing_mm, area)
        for axis, area in enumerate((_SIDE_AREA_MM2, _SIDE_AREA_MM2, TOP_AREA_MM2))
    ]
    pose = np.eye(4)
    pose[:3, :3] = turn
    # The last plane that counts lies half a voxel lower, on average, than where the area is met.
    pose[:3, 3] = -sum(ends[0]) / 2.0, -sum(ends[1]) / 2.0, spacing_mm / 2.0 - ends[2][1]
    return pose


def own_axes(affine: np.ndarray) -> np.ndarray:
    """The rotation from RAS to the axes of RAS that a scan's own lie nearest to.

    Args:
        affine: (4, 4), voxel index -> RAS in mm.

    Returns:
        (3, 3); the identity for a scan that is not oblique, or very much so: a head is looked for
        along these axes, and will rather lie along RAS.
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    nearest = np.zeros((3, 3))
    left = np.abs(axes)
    for _ in range(3):
        row, column = np.unravel_index(left.argmax(), left.shape)
        nearest[row, column] = np.sign(axes[row, column])
        left[row], left[:, column] = -1.0, -1.0
    u, _, v = np.linalg.svd(nearest @ axes.T)
    turn = u @ v
    angle = np.degrees(np.arccos(np.clip((np.trace(turn) - 1.0) / 2.0, -1.0, 1.0)))
    oblique = np.linalg.det(turn) > 0 and 1e-4 < angle <= MOST_DEGREES
    return np.asarray(turn) if oblique else np.eye(3)


def _turn(
    head: ResampledScan,
    mask: np.ndarray,
    spacing_mm: float,
    places: AlignmentAtlas,
    start: np.ndarray,
) -> np.ndarray | None:
    """(3, 3) rotation, to upright: the one of the highest correlation, by Gauss and Newton."""
    values = np.where(mask, normalise(head.array, mask)[0], 0.0)
    to_index = np.linalg.inv(head.affine)
    points = positions(mask, head.affine) @ start
    low, high = points.min(axis=0), points.max(axis=0)
    middle = places.points.mean(axis=0)
    arms = places.points - middle
    # As in ``prepare``: in the middle between the sides, and at the top.
    centre = start @ (np.array([*(low + high)[:2] / 2.0, high[2]]) + middle)
    levels = [
        _Level.of(values, to_index, theirs, near / spacing_mm, wide / spacing_mm)
        for (near, wide), theirs in zip(_WIDTHS_MM, places.values, strict=True)
    ]
    first = Rotation.from_matrix(start)
    turn, fit = _climb(levels, first, centre, arms)
    if fit < _GOOD_FIT:
        # What is rough may be alike in brains that are not, and lead astray.
        other, better = _climb(levels[1:], first, centre, arms)
        turn, fit = (other, better) if better > fit else (turn, fit)
    found = np.asarray(turn.as_matrix())
    by = Rotation.from_matrix(found @ start.T).magnitude()
    return found.T if fit >= LEAST_FIT and np.degrees(by) <= MOST_DEGREES else None


@dataclass(frozen=True)
class _Level:
    """A brain at one width: its intensities, their slopes by index, and what they are to fit."""

    field: np.ndarray
    slopes: list[np.ndarray]
    to_index: np.ndarray
    unit: np.ndarray

    @classmethod
    def of(
        cls,
        values: np.ndarray,
        to_index: np.ndarray,
        theirs: np.ndarray,
        near: float,
        wide: float,
    ) -> _Level:
        if near >= _WIDE_VOXELS:
            values = _halved(values)
            to_index = np.diag([0.5, 0.5, 0.5, 1.0]) @ to_index
            to_index[:3, 3] -= 0.25
            near, wide = near / 2.0, wide / 2.0
        smooth = [gaussian_filter(values, width, truncate=3.0) for width in (near, wide)]
        field = smooth[0] - smooth[1]
        unit = theirs - theirs.mean()
        return cls(field, np.gradient(field), to_index, unit / np.linalg.norm(unit))


def _halved(values: np.ndarray) -> np.ndarray:
    """Means of blocks of two voxels along each axis; beyond the array all is 0."""
    even = np.pad(values, [(0, size % 2) for size in values.shape])
    for axis in range(3):
        planes = np.moveaxis(even, axis, 0)
        even = np.moveaxis((planes[::2] + planes[1::2]) / np.float32(2.0), 0, axis)
    return np.ascontiguousarray(even)


def _climb(
    levels: list[_Level],
    turn: Rotation,
    centre: np.ndarray,
    arms: np.ndarray,
) -> tuple[Rotation, float]:
    """The rotation, from upright, of the highest correlation near by, and that correlation."""
    shift, fit = np.zeros(3), 0.0
    for level in levels:
        to_index = level.to_index
        for _ in range(_MOST_STEPS):
            turned = turn.apply(arms)
            where = (turned + centre + shift) @ to_index[:3, :3].T + to_index[:3, 3]
            looked_at = (level.field, *level.slopes)
            mine, *slope = (ndimage.map_coordinates(a, where.T, order=1) for a in looked_at)
            mine = mine - mine.mean()
            length = max(float(np.linalg.norm(mine)), 1e-12)
            mine = mine / length
            by_mm = np.stack(slope, axis=1) @ to_index[:3, :3]
            change = np.hstack([np.cross(turned, by_mm) / _RADIUS_MM, by_mm])
            change = change - change.mean(axis=0)
            change = (change - np.outer(mine, mine @ change)) / length
            fit = float(mine @ level.unit)
            step = np.linalg.lstsq(change, level.unit - mine, rcond=None)[0]
            longest = float(np.abs(step).max())
            step *= min(1.0, _LONGEST_STEP_MM / max(longest, 1e-12))
            turn = Rotation.from_rotvec(step[:3] / _RADIUS_MM) * turn
            shift = shift + step[3:]
            if longest < _SHORTEST_STEP_MM:
                break
    return turn, fit


def _ends(along: np.ndarray, spacing_mm: float, area_mm2: float) -> tuple[float, float]:
    """Where a brain begins and ends along an axis, to less than a voxel.

    Args:
        along: (n,) mm, of the brain's voxels.
        spacing_mm: of the voxels.
        area_mm2: a plane's, from which on it counts; half of the largest, if that is less.
    """
    middle = float(along.mean())
    # Each voxel is shared out between the two planes that it lies between.
    place = (along - middle) / spacing_mm
    low = np.floor(place).astype(int)
    first = int(low.min())
    upper = place - low
    size = int(low.max()) - first + 2
    planes = np.bincount(low - first, 1.0 - upper, size) + np.bincount(low - first + 1, upper, size)
    area = ndimage.gaussian_filter1d(np.pad(planes, 4) * spacing_mm**2, 1.0)
    least = min(area_mm2, 0.5 * float(area.max()))
    inside = np.flatnonzero(area >= least)

    def crossing(outer: int, inner: int) -> float:
        share = (least - area[outer]) / (area[inner] - area[outer])
        return middle + (outer + share * (inner - outer) + first - 4) * spacing_mm

    return crossing(inside[0] - 1, inside[0]), crossing(inside[-1] + 1, inside[-1])
