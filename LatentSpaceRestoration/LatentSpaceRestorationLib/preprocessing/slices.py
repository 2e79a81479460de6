"""From a native scan to the model's slices, and back.

Training and inference use these same functions: one foreground rule, one intensity rule, one
position formula (the published code had two of each).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError
from ..model_space import CLIP, Grid, normalise, slice_position
from ..runtime.side_by_side import side_by_side, slabs
from ..volume import Box, Volume, box_of, cube_ml
from .resampling import at_places, covered, low_passed, resample, world_grid

#: A slice counts as the top of the brain when the brain covers at least this much of it, in mm^2.
TOP_AREA_MM2 = 400.0
#: Less brain than this, in ml, cannot be scored.
MINIMUM_BRAIN_ML = 100.0
#: Less than this share of a voxel says nothing of it.
_LEAST_SHARE = 0.05


@dataclass(frozen=True)
class ResampledScan:
    """A scan on the patient's axes at the model's spacing, uncropped.

    Attributes:
        array: (slices, rows, columns) float32, native intensities; the scan's least one where
            ``inside`` is False.
        inside: (slices, rows, columns) bool, within the native field of view.
        affine: (4, 4) (slice, row, column) -> RAS in mm.
    """

    array: np.ndarray
    inside: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True)
class NativePart:
    """The brain in a part of a scan's own grid, and what model space has there.

    Attributes:
        box: the part.
        brain: bool, in the box.
        places: (3, n) where those voxels lie in model space, in its voxels.
        share: (n,) of brain around each of them there.
        arrays: in model space, 0 outside the brain.
    """

    box: Box
    brain: np.ndarray
    places: np.ndarray
    share: np.ndarray
    arrays: Sequence[np.ndarray]

    def values(self, number: int, some: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Means of an array, by its number, over the brain around its voxels here, or some."""
        return at_places(self.arrays[number], self.places[:, some]) / self.share[some]

    def nearest(self, array: np.ndarray, some: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Values of any array of model space at the nearest voxel."""
        index = np.rint(self.places[:, some]).astype(np.intp)
        i, j, k = (np.clip(x, 0, n - 1) for x, n in zip(index, array.shape, strict=True))
        return np.asarray(array[i, j, k])


@dataclass(frozen=True)
class PreparedScan:
    """A scan in model space, with the record that undoes the way there.

    Attributes:
        slices: (N, rows, columns) float32 in [-CLIP, CLIP], -CLIP outside the brain.
        mask: (N, rows, columns) bool, brain.
        position: (N,) float32 in [-0.5, 0.5], slice position relative to the top of the brain.
        position_mm: (N,) RAS superior coordinate of the slice centres; of what lies oblique, of the
            middle of each slice.
        affine: (4, 4) (slice, row, column) -> RAS in mm.
        centre, scale: native intensity = centre + scale * value.
        native_shape, native_affine: the scan's own grid.
        cropped: share of the brain that lies outside the model's field of view.
        is_aligned: whether it lies as the model's atlas does; None where there is no atlas.
        native_mask: (I, J, K) bool, brain on the scan's own grid, where that was given.
        shading: (N, rows, columns) float32, what the scan's intensities were divided by, less
            ``dark``; None where they were taken as they are.
        dark: the intensity that was left as it is.
    """

    slices: np.ndarray
    mask: np.ndarray
    position: np.ndarray
    position_mm: np.ndarray
    affine: np.ndarray
    centre: float
    scale: float
    native_shape: tuple[int, int, int]
    native_affine: np.ndarray
    cropped: float
    is_aligned: bool | None = None
    native_mask: np.ndarray | None = None
    shading: np.ndarray | None = None
    dark: float = 0.0

    def to_intensity(self, values: np.ndarray) -> np.ndarray:
        """(N, rows, columns) values as the scan's own intensities, float32, shaded as it is."""
        plain = values * np.float32(self.scale) + np.float32(self.centre)
        if self.shading is None:
            return np.asarray(plain, np.float32)
        return np.asarray(self.dark + (plain - self.dark) * self.shading, np.float32)

    def to_spread(self, sd: np.ndarray) -> np.ndarray:
        """(N, rows, columns) standard deviations of values as those of intensities."""
        shading = np.float32(1.0) if self.shading is None else self.shading
        return np.asarray(sd * np.float32(self.scale) * shading, np.float32)

    def moved(self, transform: np.ndarray) -> PreparedScan:
        """The same, where a scan lies that a rigid transform, (4, 4) in RAS mm, was applied to."""
        affine = transform @ self.affine
        middle = (np.array(self.slices.shape[1:]) - 1) / 2.0
        first = float(affine[2, 1:3] @ middle + affine[2, 3])
        return replace(
            self,
            affine=affine,
            native_affine=transform @ self.native_affine,
            position_mm=first + affine[2, 0] * np.arange(len(self.slices)),
        )

    def some(self, numbers: np.ndarray) -> PreparedScan:
        """Some of the slices, by their numbers; the way back is not that of a scan."""
        return replace(
            self,
            slices=self.slices[numbers],
            mask=self.mask[numbers],
            position=self.position[numbers],
            position_mm=self.position_mm[numbers],
        )

    def mirrored(self) -> PreparedScan:
        """Slices and brain with left and right exchanged; the way back is not that of a scan."""
        return replace(self, slices=_flipped(self.slices), mask=_flipped(self.mask))

    def brain_to_native(self, *arrays: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Bring the brain, and values in it, to the scan's own grid.

        What lies outside the brain does not count: each value is a mean over voxels of the brain,
        and so is not damped at its border. A brain that was given on that grid comes back as it
        was, as far as the model saw it.

        Args:
            arrays: each (N, rows, columns), values in model space.

        Returns:
            (I, J, K) bool, the brain; for each array (I, J, K) float32, 0 outside the brain.
        """
        brain = np.zeros(self.native_shape, bool)
        values = [np.zeros(self.native_shape, np.float32) for _ in arrays]

        def place(part: NativePart) -> None:
            brain[part.box] = part.brain
            for number, whole in enumerate(values):
                whole[part.box][part.brain] = part.values(number)

        self.over_brain(place, *arrays)
        return brain, values

    def over_brain(self, take: Callable[[NativePart], None], *arrays: np.ndarray) -> None:
        """What :meth:`brain_to_native` gives, slab by slab: of a fine scan each is large.

        Args:
            take: called, in any thread, with each part that can have brain.
            arrays: each (N, rows, columns).
        """
        (rows, *others), affine = self._native_box()
        # What is coarser than the model is smoothed as ``resample`` does, once.
        to_index = np.round(np.linalg.inv(self.affine) @ affine, 9)
        extent = np.sqrt((to_index[:3, :3] ** 2).sum(axis=1))
        shares = low_passed(self.mask.astype(np.float32), extent)
        smooth = [
            low_passed(np.where(self.mask, a, 0.0).astype(np.float32), extent) for a in arrays
        ]

        def some(part: slice) -> None:
            first = rows.start + part.start
            box = (slice(first, first + part.stop - part.start), others[0], others[1])
            shape = [one.stop - one.start for one in box]
            grid = affine.copy()
            grid[:3, 3] += affine[:3, 0] * part.start
            moved = to_index[:3, 3] + to_index[:3, 0] * part.start

            def places_of(mask: np.ndarray) -> np.ndarray:
                return np.asarray(to_index[:3, :3] @ np.array(np.nonzero(mask)) + moved[:, None])

            if self.native_mask is None:
                share = resample(Volume(shares, self.affine), shape, grid, antialias=False)
                brain = share >= 0.5
                share, places = share[brain], places_of(brain)
            else:
                brain = self.native_mask[box].copy()
                places = places_of(brain)
                share = at_places(shares, places, fill=0.0)
                seen = share >= _LEAST_SHARE
                brain[brain] = seen
                share, places = share[seen], places[:, seen]

            take(NativePart(box, brain, places, share, smooth))

        side_by_side(some, slabs([one.stop - one.start for one in (rows, *others)]))

    def _native_box(self) -> tuple[Box, np.ndarray]:
        """The part of the scan's grid that can have brain, and the affine of that part's grid.

        The rest need not be resampled: most of a head, and of its time.
        """
        ends = np.array([(part.start - 1.0, part.stop) for part in box_of(self.mask)])
        corners = np.array(np.meshgrid(*ends, indexing="ij")).reshape(3, -1)
        to_index = np.linalg.inv(self.native_affine) @ self.affine
        places = to_index[:3, :3] @ corners + to_index[:3, 3:]
        low = np.maximum(np.floor(places.min(axis=1)), 0).astype(int)
        size = np.array(self.native_shape)
        high = np.minimum(np.ceil(places.max(axis=1)) + 1, size).astype(int)
        low = np.minimum(low, size - 1)
        high = np.maximum(high, low + 1)
        affine = self.native_affine.copy()
        affine[:3, 3] += affine[:3, :3] @ low
        box = (*(slice(int(a), int(b)) for a, b in zip(low, high, strict=True)),)
        return (box[0], box[1], box[2]), affine


def _flipped(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array[:, :, ::-1])


def at_resolution(volume: Volume, spacing_mm: float) -> Volume:
    """A scan on its own grid, at the resolution of a coarser one of cubes."""
    array = np.asarray(volume.array, np.float32)
    return replace(volume, array=low_passed(array, spacing_mm / volume.spacing))


def to_head(
    volume: Volume,
    spacing_mm: float,
    *,
    through: Sequence[float] | None = None,
    order: int = 1,
    antialias: bool = True,
) -> ResampledScan:
    """Resample a scan onto the patient's axes at an isotropic spacing.

    Args:
        volume: (I, J, K) scan, any orientation, obliquity and spacing.
        spacing_mm: the model's spacing.
        through: RAS in mm of a point that the grid is to pass through; None takes the scan's own
            voxels, so that a scan that lies on such a grid is not interpolated.
        order: spline order.
        antialias: off for a scan from :func:`at_resolution`.
    """
    shape, affine = world_grid(volume, spacing_mm, through)
    # (left, back, head) -> (slice, row, column)
    affine = affine[:, [2, 1, 0, 3]]
    shape = (shape[2], shape[1], shape[0])
    fill = float(np.min(volume.array))
    array = resample(volume, shape, affine, order=order, fill=fill, antialias=antialias)
    inside = np.broadcast_to(covered(volume, shape, affine), shape).copy()
    return ResampledScan(array, inside, affine)


def mask_to_head(mask: np.ndarray, volume: Volume, head: ResampledScan) -> np.ndarray:
    """A native (I, J, K) mask on the head's grid, (slices, rows, columns) bool."""
    source = Volume(np.asarray(mask, np.float32), volume.affine)
    return resample(source, head.array.shape, head.affine) >= 0.5


def prepare(
    volume: Volume,
    head: ResampledScan,
    mask: np.ndarray,
    grid: Grid,
    origin: np.ndarray | None = None,
) -> PreparedScan:
    """Crop to the brain, normalise, and cut into axial slices: every slice that has brain.

    Args:
        volume: the native scan, for its grid.
        head: the scan from :func:`to_head` at ``grid.spacing_mm``.
        mask: (slices, rows, columns) bool, brain on the head's grid.
        grid: the model's grid.
        origin: (3,) RAS in mm of the middle between the brain's sides and of its top; None takes
            them from the mask, in whole voxels.

    Raises:
        InputError: too little brain, or no contrast in it.
    """
    mask = mask & head.inside
    found = float(mask.sum()) * cube_ml(grid.spacing_mm)
    if found < MINIMUM_BRAIN_ML:
        raise InputError(
            f"only {found:.0f} ml of brain found (at least {MINIMUM_BRAIN_ML:.0f} ml are needed); "
            "check that this is a T1-weighted head scan, or give a brain mask"
        )
    values, centre, scale = normalise(head.array, mask)
    area = mask.sum(axis=(1, 2)) * grid.spacing_mm**2
    occupied = np.flatnonzero(area > 0)
    first, last = int(occupied[0]), int(occupied[-1])
    if last == first:
        raise InputError("the brain lies in a single slice; give a volume with several slices")
    full = np.flatnonzero(area >= min(TOP_AREA_MM2, 0.5 * float(area.max())))
    start = [first]
    for axis, size in ((1, grid.rows), (2, grid.columns)):
        extent = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        twice = int(extent[0] + extent[-1] + 1)
        if origin is not None:
            twice = round(2.0 * float((np.linalg.inv(head.affine) @ [*origin, 1.0])[axis])) + 1
        start.append((twice - size) // 2)
    shape = (last - first + 1, grid.rows, grid.columns)
    slices, _, _ = crop(values, start, shape, -CLIP)
    inside, _, _ = crop(mask, start, shape, False)
    affine = head.affine.copy()
    affine[:3, 3] = head.affine[:3, :3] @ start + head.affine[:3, 3]
    position_mm = affine[2, 3] + affine[2, 0] * np.arange(shape[0])
    top_mm = float(head.affine[2, 3] + head.affine[2, 0] * full[-1])
    if origin is not None:
        top_mm = float(origin[2])
    return PreparedScan(
        slices=slices,
        mask=inside,
        position=slice_position(position_mm, top_mm),
        position_mm=position_mm,
        affine=affine,
        centre=centre,
        scale=scale,
        native_shape=volume.shape,
        native_affine=volume.affine,
        cropped=1.0 - float(inside.sum()) / float(mask.sum()),
    )


def cut_like(
    array: np.ndarray,
    head: ResampledScan,
    prepared: PreparedScan,
    fill: float,
    turn: np.ndarray | None = None,
) -> np.ndarray:
    """Values on the grid of a head, cut as its slices were.

    Args:
        array: (slices, rows, columns).
        head: that ``prepared`` was made from by :func:`prepare`.
        prepared: the slices.
        fill: beyond the head.
        turn: (4, 4) whose inverse the slices were moved by since; None if they were not.
    """
    first = prepared.affine[:, 3] if turn is None else turn @ prepared.affine[:, 3]
    start = np.linalg.inv(head.affine) @ first
    return crop(array, [round(float(s)) for s in start[:3]], prepared.slices.shape, fill)[0]


def crop(
    array: np.ndarray, start: Sequence[int], shape: Sequence[int], fill: float | bool
) -> tuple[np.ndarray, tuple[slice, ...], tuple[slice, ...]]:
    """A box of an array, whatever of it lies beyond.

    Args:
        array: (D, H, W).
        start: first voxel of the box; may be negative, or beyond the array.
        shape: of the box.
        fill: beyond the array.

    Returns:
        the box; where in it the array lies; and where in the array that is.
    """
    result = np.full(tuple(shape), fill, dtype=array.dtype)
    there = tuple(
        slice(max(s, 0), max(min(s + n, size), 0))
        for s, n, size in zip(start, shape, array.shape, strict=True)
    )
    here = tuple(
        slice(cut.start - s, max(cut.stop - s, cut.start - s))
        for cut, s in zip(there, start, strict=True)
    )
    result[here] = array[there]
    return result, here, there
