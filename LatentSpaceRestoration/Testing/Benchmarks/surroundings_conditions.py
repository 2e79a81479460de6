"""What programs and archives put around a head, or take away; each is one value that they put in.

Each function takes and returns a scan and its brain, (I, J, K) voxels on one grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import nibabel as nib
import numpy as np
from brain_conditions import Change, Condition
from LatentSpaceRestorationLib.evaluation.synthetic.geometry import Healthy
from LatentSpaceRestorationLib.volume import Volume
from nibabel.processing import conform
from scipy import ndimage


def padded(mm: float = 0.0, voxels: int = 0, value: float | None = None) -> Change:
    """Wider all round, by mm or by voxels, filled with a value or the scan's least."""

    def change(scan: Healthy) -> Healthy:
        counts = [voxels or round(mm / float(s)) for s in scan.volume.spacing]
        pads = [(n, n) for n in counts]
        fill = float(scan.volume.array.min()) if value is None else value
        affine = scan.volume.affine.copy()
        affine[:3, 3] -= affine[:3, :3] @ np.array(counts, float)
        array = np.pad(scan.volume.array.astype(np.float32), pads, constant_values=fill)
        return Healthy(replace(scan.volume, array=array, affine=affine), np.pad(scan.brain, pads))

    return change


def conformed(scan: Healthy) -> Healthy:
    """256 cubed at 1 mm in 8 bits, as FreeSurfer and FastSurfer have it."""
    shape = (256, 256, 256)
    array = scan.volume.array.astype(np.float32)
    low, high = np.percentile(array, (0.0, 99.9))
    scaled = np.clip((array - low) * (255.0 / (high - low)), 0, 255)
    head = conform(nib.Nifti1Image(scaled, scan.volume.affine), shape, orientation="LIA")
    mask = nib.Nifti1Image(scan.brain.astype(np.float32), scan.volume.affine)
    brain = conform(mask, shape, orientation="LIA", order=1)
    values = np.clip(np.round(head.get_fdata(dtype=np.float32)), 0, 255).astype(np.uint8)
    return Healthy(Volume(values, head.affine, scan.volume.name), brain.get_fdata() >= 0.5)


def cropped_close(scan: Healthy) -> Healthy:
    """The scan ends 6 mm from the brain on all sides."""
    index = np.argwhere(scan.brain)
    room = np.round(6.0 / scan.volume.spacing).astype(int)
    low = np.maximum(index.min(axis=0) - room, 0)
    high = np.minimum(index.max(axis=0) + 1 + room, scan.brain.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    affine = scan.volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    volume = replace(scan.volume, array=scan.volume.array[box].copy(), affine=affine)
    return Healthy(volume, scan.brain[box].copy())


def defaced(behind_mm: float, above_mm: float) -> Change:
    """Blank before and below a plane at 45 degrees, but for the brain and 6 mm about it.

    Args:
        behind_mm, above_mm: where the plane cuts, from the brain's front and from its bottom.
    """

    def change(scan: Healthy) -> Healthy:
        _, y, z = _world(scan)
        low, high = _ends(scan)
        cut = (y - (high[1] - behind_mm)) - (z - (low[2] + above_mm)) > 0
        return _blanked(scan, cut & ~_about_brain(scan))

    return change


def neck_blanked(below_mm: float) -> Change:
    """Blank from so far below the brain."""

    def change(scan: Healthy) -> Healthy:
        return _blanked(scan, _world(scan)[2] < _ends(scan)[0][2] - below_mm)

    return change


def neck_cut(below_mm: float) -> Change:
    """The scan ends so far below the brain."""

    def change(scan: Healthy) -> Healthy:
        along = scan.volume.affine[2, :3]
        axis = int(np.abs(along).argmax())
        z = np.moveaxis(_world(scan)[2], axis, 0).mean(axis=(1, 2))
        kept = np.flatnonzero(z >= _ends(scan)[0][2] - below_mm)
        box = [slice(None)] * 3
        box[axis] = slice(int(kept[0]), int(kept[-1]) + 1)
        affine = scan.volume.affine.copy()
        affine[:3, 3] += affine[:3, axis] * kept[0]
        array = scan.volume.array[tuple(box)].copy()
        return Healthy(replace(scan.volume, array=array, affine=affine), scan.brain[tuple(box)])

    return change


def outside_cylinder(value: Callable[[Healthy], float]) -> Change:
    """The corners that no scanner measures, about the axis from bottom to top, have a value."""

    def change(scan: Healthy) -> Healthy:
        x, y, _ = _world(scan)
        middle = [(c.min() + c.max()) / 2.0 for c in (x, y)]
        radius = 1.02 * max(c.max() - m for c, m in zip((x, y), middle, strict=True))
        outside = np.hypot(x - middle[0], y - middle[1]) > radius
        return _blanked(scan, outside & ~_about_brain(scan), value(scan))

    return change


def framed(value: Callable[[Healthy], float]) -> Change:
    """A frame of 16 mm with a value."""
    return lambda scan: padded(mm=16.0, value=value(scan))(scan)


def extracted(value: Callable[[Healthy], float]) -> Change:
    """Nothing but the brain, on a background."""
    return lambda scan: _blanked(scan, ~scan.brain, value(scan))


def _always(value: float) -> Callable[[Healthy], float]:
    return lambda scan: value


def _times_maximum(factor: float) -> Callable[[Healthy], float]:
    return lambda scan: factor * float(scan.volume.array.max())


ODD_VALUES = {
    **{f"{value:g}": _always(value) for value in (-50.0, -1024.0, -2048.0, -32768.0)},
    "the maximum": _times_maximum(1.0),
    "32767": _always(32767.0),
}
#: What is removed in these is removed by the brain that is found in the scan as it is.
EXTRACTED = tuple(
    Condition(f"extracted, background {name}", extracted(value))
    for name, value in (
        ("0", _always(0.0)),
        ("-5000", _always(-5000.0)),
        ("1.5 times the maximum", _times_maximum(1.5)),
        ("32767", _always(32767.0)),
    )
)
HEADS = (
    Condition("as it is", lambda scan: scan),
    Condition("padded by 5 voxels", padded(voxels=5)),
    Condition("padded by 20 mm", padded(mm=20.0)),
    Condition("padded by 40 mm", padded(mm=40.0)),
    Condition("padded by 60 mm", padded(mm=60.0)),
    Condition("256 cubed, 8 bits", conformed),
    Condition("cropped close", cropped_close),
    Condition("defaced a little", defaced(25.0, 10.0)),
    Condition("defaced", defaced(35.0, 25.0)),
    Condition("defaced a lot", defaced(45.0, 35.0)),
    Condition("neck blanked at -5 mm", neck_blanked(5.0)),
    Condition("neck blanked at -20 mm", neck_blanked(20.0)),
    Condition("neck cut at -5 mm", neck_cut(5.0)),
    Condition("neck cut at -20 mm", neck_cut(20.0)),
    *(Condition(f"frame of {name}", framed(value)) for name, value in ODD_VALUES.items()),
    *(
        Condition(f"{name} outside a cylinder", outside_cylinder(value))
        for name, value in ODD_VALUES.items()
    ),
)


def _world(scan: Healthy) -> np.ndarray:
    """(3, I, J, K) RAS of the voxels, in mm."""
    affine = scan.volume.affine
    index = np.indices(scan.volume.shape).reshape(3, -1)
    return (affine[:3, :3] @ index + affine[:3, 3:]).reshape(3, *scan.volume.shape)


def _ends(scan: Healthy) -> tuple[np.ndarray, np.ndarray]:
    """(3,) RAS of the brain's ends, in mm."""
    places = _world(scan)[:, scan.brain]
    return places.min(axis=1), places.max(axis=1)


def _about_brain(scan: Healthy) -> np.ndarray:
    """The brain and 6 mm about it."""
    return ndimage.distance_transform_edt(~scan.brain, sampling=scan.volume.spacing) <= 6.0


def _blanked(scan: Healthy, where: np.ndarray, value: float = 0.0) -> Healthy:
    array = np.where(where, np.float32(value), scan.volume.array.astype(np.float32))
    return replace(scan, volume=replace(scan.volume, array=array))
