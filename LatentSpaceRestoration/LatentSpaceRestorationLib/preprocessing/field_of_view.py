"""What of a volume was measured, and what was put around it.

Programs pad volumes, cut faces and necks away, blank what lies outside of a scanner's field of view
or outside of the brain, each with a value of its own. None of that is a measurement, and neither
percentiles, nor interpolation, nor a network should see it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from ..volume import Box, Volume, box_of
from .resampling import reduced

#: A value that was put in holds at least this share of the volume's six faces in one solid piece.
_FACE_SHARE = 0.02
#: Fewer voxels than this cannot be all that was measured.
_FEWEST = 1000
#: Values that are looked at, the most frequent on the faces first.
_MOST_VALUES = 4
#: Percentile of what was measured that stands for air, and how many voxels tell it.
_AIR_PERCENTILE, _ENOUGH_VOXELS = 0.1, 500_000
#: What lies at the seam of a frame, and by this share of the measured range beyond it, is a mixture
#: of the two. The rim of an extracted brain is darker than the brain, by less.
_BEYOND = 0.25


@dataclass(frozen=True)
class MeasuredPart:
    """The part of a volume that was measured, as a volume of its own.

    Attributes:
        volume: the box that holds all that was measured; what was put in has ``air`` for a value.
        measured: bool of the same shape, False where a value was put in.
        box: where the part lies in the whole volume.
        air: the value of air, or the least that there is.
    """

    volume: Volume
    measured: np.ndarray
    box: Box
    air: float

    def cut(self, array: np.ndarray) -> np.ndarray:
        """The part's own voxels of an array that has the whole volume's shape."""
        return array[self.box]


def measured_part(volume: Volume) -> MeasuredPart:
    """Tell what was measured from what was put around it.

    Planes of one value at the ends are left off. Regions of one value that are solid, three voxels
    thick at least, and reach the ends over a fiftieth of their surface are no measurements either,
    whatever the value: padding, blanked air, what defacing removed, what lies outside a cylinder.

    Args:
        volume: (I, J, K), finite.

    Returns:
        what was measured; never less than a thousand voxels, if the volume has as many.
    """
    box = _without_flat_ends(volume.array)
    part = volume.array[box]
    measured = np.ones(part.shape, dtype=bool)
    for value in _frequent_on_faces(part):
        left = measured & ~_put_in(part, value)
        if left.sum() >= _FEWEST:  # of a mask, the one of its two values is kept
            measured = left
    beside = _beside(measured)
    # The same voxels tell it, however much was padded.
    step = max(1, round((part.size / _ENOUGH_VOXELS) ** (1.0 / 3.0)))
    some = (slice(None, None, step),) * 3
    few = part[some][(measured & ~beside)[some]]
    if not few.size:
        few = part[measured]
    low, air, high = np.percentile(few.astype(float), (0.1, _AIR_PERCENTILE, 99.9))
    room = _BEYOND * (high - low)
    # What interpolation has mixed with a frame. Magnitudes are not negative, and may well be 0.
    least = low - room if few.min() < 0 else min(low - room, 0.0)
    measured &= ~(beside & ((part < least) | (part > high + room)))
    if not measured.all():
        part = np.where(measured, part, np.float32(air))
    return MeasuredPart(replace(volume.cut(box), array=part), measured, box, air)


def reduced_part(part: MeasuredPart, volume: Volume, spacing_mm: float) -> MeasuredPart:
    """The same on the grid of :func:`resampling.reduced`, by the means of what was measured alone.

    Args:
        part: of ``volume``.
        volume: (I, J, K).
        spacing_mm: of the model's grid.

    Returns:
        in it a voxel counts as measured when half of it was.
    """
    measured = np.zeros(volume.shape, dtype=bool)
    measured[part.box] = part.measured
    share = reduced(replace(volume, array=measured), spacing_mm).array
    total = reduced(replace(volume, array=np.where(measured, volume.array, 0)), spacing_mm)
    known = share >= 0.5
    box = box_of(known)
    values = np.where(known, total.array / np.maximum(share, 0.5), np.float32(part.air))
    return MeasuredPart(replace(total, array=values).cut(box), known[box], box, part.air)


def _without_flat_ends(array: np.ndarray) -> Box:
    """The box that is left without planes of one value at the ends; all of it, if none is."""
    whole = tuple(slice(0, size) for size in array.shape)
    box = list(whole)
    while True:
        before = list(box)
        for axis in range(3):
            planes = np.moveaxis(array[tuple(box)], axis, 0)
            first, last = 0, len(planes)
            while first < last and _is_flat(planes[first]):
                first += 1
            while last > first and _is_flat(planes[last - 1]):
                last -= 1
            if last - first < 2:
                return whole[0], whole[1], whole[2]
            box[axis] = slice(box[axis].start + first, box[axis].start + last)
        if box == before:  # a frame within a frame is flat once the outer one is off
            return box[0], box[1], box[2]


def _is_flat(plane: np.ndarray) -> bool:
    return bool((plane == plane.flat[0]).all())


def _faces(array: np.ndarray, planes: int = 1) -> Iterator[np.ndarray]:
    """So many planes from each of the six faces inwards."""
    for axis in range(3):
        across = np.moveaxis(array, axis, 0)
        yield across[:planes]
        yield across[::-1][:planes]


def _frequent_on_faces(array: np.ndarray) -> list[float]:
    """Values that hold enough of the faces to have been put there, the most frequent first."""
    values, counts = np.unique(
        np.concatenate([face.ravel() for face in _faces(array)]), return_counts=True
    )
    order = np.argsort(-counts, kind="stable")[:_MOST_VALUES]
    return [values[n] for n in order if counts[n] >= _FACE_SHARE * counts.sum()]


def _put_in(array: np.ndarray, value: float) -> np.ndarray:
    """Regions of a value that are solid, three voxels thick, far along the faces."""
    same = array == value
    # What is solid a voxel further in is solid at the face as well.
    solid = [_eroded(face)[0] for face in _faces(same, 2)]
    least = 0.5 * _FACE_SHARE * sum(face.size for face in solid)
    if sum(int(face.sum()) for face in solid) < least:
        return np.zeros(array.shape, dtype=bool)
    # With all that hangs together with it, however thin: slits between folds of a bare brain.
    labels, count = ndimage.label(same)
    at_faces = [face[0][where] for face, where in zip(_faces(labels), solid, strict=True)]
    on_face = np.bincount(np.concatenate(at_faces), minlength=count + 1)
    return (on_face >= least)[labels] & same


def _eroded(mask: np.ndarray) -> np.ndarray:
    """By a cube of three voxels; beyond the ends all is as it is there."""
    return ~_dilated(~mask)


def _dilated(mask: np.ndarray) -> np.ndarray:
    """By a cube of three voxels. Axis by axis, which is many times faster than a structure."""
    for axis in range(3):
        planes = np.moveaxis(mask, axis, 0)
        wide = planes.copy()
        wide[1:] |= planes[:-1]
        wide[:-1] |= planes[1:]
        mask = np.moveaxis(wide, 0, axis)
    return mask


def _beside(measured: np.ndarray) -> np.ndarray:
    """What lies within two voxels of the ends, or of what was put in."""
    beside = np.ones(measured.shape, dtype=bool)
    beside[tuple(slice(2, max(2, size - 2)) for size in measured.shape)] = False
    if measured.all():
        return beside
    return beside | _dilated(_dilated(~measured))
