"""What a healthy head scan is made into, to see where brain extraction holds; all of it synthetic.

Each function takes and returns a scan and its brain, (I, J, K) voxels on one grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from LatentSpaceRestorationLib.evaluation.synthetic.artefacts import bias_field
from LatentSpaceRestorationLib.evaluation.synthetic.geometry import Healthy
from LatentSpaceRestorationLib.evaluation.synthetic.spheres import uniform_sphere
from LatentSpaceRestorationLib.preprocessing.resampling import resample
from LatentSpaceRestorationLib.volume import Volume, positions
from scipy import ndimage

Change = Callable[[Healthy], Healthy]


@dataclass(frozen=True)
class Condition:
    """A change, by the name of its row."""

    name: str
    change: Change


def stripped(scan: Healthy) -> Healthy:
    """Nothing but the brain."""
    return _with(scan, np.where(scan.brain, scan.volume.array, 0.0))


def cropped(axis: int, sign: int, share: float) -> Change:
    """The scan ends within the brain.

    Args:
        axis: of RAS, 0 to 2.
        sign: 1 cuts the end to the right, front or top, -1 the other.
        share: of the brain's length that is cut off.
    """

    def change(scan: Healthy) -> Healthy:
        along = scan.volume.affine[axis, :3]
        own = int(np.abs(along).argmax())
        low, high = _ends(scan.brain, own)
        cut = round(share * (high - low))
        size = scan.brain.shape[own]
        keep = slice(0, high - cut) if along[own] * sign > 0 else slice(low + cut, size)
        return _part(scan, own, keep)

    return change


def with_neck(longer_mm: float) -> Change:
    """The lowest slice goes on downwards, as a neck or shoulders would."""

    def change(scan: Healthy) -> Healthy:
        volume = scan.volume
        along = volume.affine[2, :3]
        own = int(np.abs(along).argmax())
        count = round(longer_mm / float(volume.spacing[own]))
        upwards = along[own] > 0
        pads = [(0, 0)] * 3
        pads[own] = (count, 0) if upwards else (0, count)
        affine = volume.affine.copy()
        if upwards:
            affine[:3, 3] -= count * affine[:3, own]
        array = np.pad(volume.array, pads, mode="edge")
        return Healthy(replace(volume, array=array, affine=affine), np.pad(scan.brain, pads))

    return change


def resampled(*spacing_mm: float) -> Change:
    """Other voxels, along the scan's own axes."""

    def change(scan: Healthy) -> Healthy:
        volume = scan.volume
        wanted = np.broadcast_to(np.array(spacing_mm), 3)
        factor = wanted / volume.spacing
        shape = [max(2, int(n)) for n in np.array(volume.shape) / factor]
        affine = volume.affine @ np.diag([*factor, 1.0])
        affine[:3, 3] += volume.affine[:3, :3] @ ((factor - 1.0) / 2.0)
        brain = resample(replace(volume, array=scan.brain.astype(np.float32)), shape, affine)
        array = resample(volume, shape, affine)
        return Healthy(Volume(array, affine, volume.name), brain >= 0.5)

    return change


def shaded(contrast: float, seed: int = 0) -> Change:
    """A bias field of factors from exp(-contrast) to exp(contrast), over some 250 mm."""
    return lambda scan: _with(scan, bias_field(scan, np.zeros(3), 250.0, contrast, seed))


def with_contrast_agent(scan: Healthy) -> Healthy:
    """What takes up contrast agent is brighter.

    A coat of 4 mm about the brain, for the meninges and sinuses, is as bright as the brightest
    tissue; what is outside of it is brighter by half, for mucosa, muscle and scalp.
    """
    array = scan.volume.array.astype(np.float32)
    distance = ndimage.distance_transform_edt(~scan.brain, sampling=scan.volume.spacing)
    bright = float(np.percentile(array[scan.brain], 99))
    coat = (distance > 0) & (distance <= 4.0)
    return _with(scan, np.where(coat, bright, np.where(distance > 4.0, 1.5 * array, array)))


def with_gamma(power: float) -> Change:
    """Another contrast of tissues: intensities, from darkest to brightest, to a power."""

    def change(scan: Healthy) -> Healthy:
        array = scan.volume.array.astype(np.float32)
        low, high = float(array.min()), float(array.max())
        return _with(scan, low + (high - low) * ((array - low) / (high - low)) ** power)

    return change


def noisy(share: float) -> Change:
    """Rician noise of a share of the brain's mean intensity."""

    def change(scan: Healthy) -> Healthy:
        array = scan.volume.array
        generator = np.random.default_rng(0)
        sd = share * float(array[scan.brain].mean())
        first, second = (generator.normal(0.0, sd, array.shape) for _ in range(2))
        return _with(scan, np.hypot(array + first, second))

    return change


def turned(degrees: float) -> Change:
    """The head lies turned about the axis from front to back, by its header."""

    def change(scan: Healthy) -> Healthy:
        angle, turn = np.radians(degrees), np.eye(4)
        turn[0, 0] = turn[2, 2] = np.cos(angle)
        turn[0, 2], turn[2, 0] = np.sin(angle), -np.sin(angle)
        return replace(scan, volume=replace(scan.volume, affine=turn @ scan.volume.affine))

    return change


def with_lesion(radius_mm: float, contrast: float) -> Change:
    """A sphere of one intensity, its centre a third of its radius within the brain's right edge.

    Args:
        radius_mm: of the sphere.
        contrast: from the brain's median, in robust standard deviations.
    """

    def change(scan: Healthy) -> Healthy:
        places = positions(scan.brain, scan.volume.affine)
        middle = np.median(places, axis=0)
        near = np.abs(places[:, 1:] - middle[1:]).max(axis=1) < 5.0
        edge = places[near][places[near][:, 0].argmax()]
        centre = edge - np.array([radius_mm / 3.0, 0.0, 0.0])
        return _with(scan, uniform_sphere(scan, centre, radius_mm, contrast, 0))

    return change


CONDITIONS = (
    Condition("as it is", lambda scan: scan),
    Condition("stripped", stripped),
    Condition("top 15% of the brain cut off", cropped(2, 1, 0.15)),
    Condition("lower 30% cut off", cropped(2, -1, 0.3)),
    Condition("front 20% cut off", cropped(1, 1, 0.2)),
    Condition("right half cut off", cropped(0, 1, 0.5)),
    Condition("80 mm more of neck", with_neck(80.0)),
    Condition("0.7 mm", resampled(0.7)),
    Condition("1 mm", resampled(1.0)),
    Condition("3 mm", resampled(3.0)),
    Condition("4 mm", resampled(4.0)),
    Condition("5 mm", resampled(5.0)),
    Condition("1 x 1 x 5 mm", resampled(1.0, 1.0, 5.0)),
    Condition("bias field, factors 0.5 to 2", shaded(0.7)),
    Condition("bias field, factors 0.3 to 3", shaded(1.1)),
    Condition("contrast agent", with_contrast_agent),
    Condition("flat contrast (power 0.6)", with_gamma(0.6)),
    Condition("steep contrast (power 1.6)", with_gamma(1.6)),
    Condition("noise of 10%", noisy(0.1)),
    Condition("lesion of 25 mm radius at the edge, as dark as fluid", with_lesion(25.0, -2.5)),
    Condition("lesion of 25 mm radius at the edge, bright", with_lesion(25.0, 1.5)),
    Condition("turned by 15 degrees", turned(15.0)),
    Condition("turned by 40 degrees", turned(40.0)),
)


def _with(scan: Healthy, array: np.ndarray) -> Healthy:
    return replace(scan, volume=replace(scan.volume, array=array.astype(np.float32)))


def _ends(brain: np.ndarray, axis: int) -> tuple[int, int]:
    there = np.flatnonzero(brain.any(axis=tuple(a for a in range(3) if a != axis)))
    return int(there[0]), int(there[-1]) + 1


def _part(scan: Healthy, axis: int, keep: slice) -> Healthy:
    box = tuple(keep if a == axis else slice(None) for a in range(3))
    affine = scan.volume.affine.copy()
    affine[:3, 3] += affine[:3, axis] * keep.start
    volume = replace(scan.volume, array=scan.volume.array[box].copy(), affine=affine)
    return Healthy(volume, scan.brain[box].copy())
