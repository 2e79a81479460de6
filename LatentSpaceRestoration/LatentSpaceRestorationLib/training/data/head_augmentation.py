"""Heads as strangers bring them: cut, padded, defaced, shaded, noisy, blurred, of other contrast.

A network that has seen every contrast hangs on none (Billot et al., SynthSeg, Medical Image
Analysis 2023). Everything is in tensors of (1, 1, D, H, W): slices from bottom to top, rows to the
back, columns to the left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...preprocessing.brain_extraction import (
    BOX,
    BRIGHTEST,
    COARSE,
    middle_of,
    roughly_scaled,
    scaled,
)

#: A box that a whole head has room in, at half the resolution: 256 mm.
WHOLE = (64, 64, 64)


class _Draw:
    """Random numbers of one copy, and how strong its changes are."""

    def __init__(self, generator: torch.Generator, strength: float) -> None:
        self.generator = generator
        self.strength = strength

    def uniform(self, low: float, high: float) -> float:
        return float(torch.rand((), generator=self.generator)) * (high - low) + low

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def chance(self, p: float) -> bool:
        return self.uniform(0.0, 1.0) < p

    def whole(self, low: int, high: int) -> int:
        """From ``low`` to ``high`` - 1."""
        return min(high - 1, int(self.uniform(low, high)))


def vary(
    head: np.ndarray,
    mask: np.ndarray,
    generator: torch.Generator,
    *,
    coarse: bool = False,
    strength: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """A head as another scanner, person, position or program might have given it.

    Args:
        head: (D, H, W) native intensities.
        mask: (D, H, W) bool.
        generator: source of the randomness.
        coarse: a whole head at half the resolution, not the box about the brain.
        strength: of turns, contrast, shading and noise, above 0 and at most 1; heads are cut all
            the same.

    Returns:
        (1, 1, D, H, W) network input; (1, 1, D, H, W) target in {0, 1}; (1, 1, D, H, W) bool, where
        a lesion was painted.
    """
    draw = _Draw(generator, strength)
    shape = WHOLE if coarse else BOX
    air = float(np.percentile(head, 0.5))
    source = torch.from_numpy(scaled(head, air, float(np.median(head[mask]))))[None, None]
    label = torch.from_numpy(mask.astype(np.float32))[None, None]
    both = torch.cat([source, label], 1)
    where = _random_positions(both.shape[2:], mask, shape, draw, COARSE if coarse else 1)
    if coarse:
        both = F.avg_pool3d(both, COARSE, ceil_mode=True, count_include_pad=False)
    both = F.grid_sample(both, where, mode="bilinear", align_corners=False)
    x, y = both[:, :1].clamp_min(0), (both[:, 1:] > 0.5).float()
    mm = 2 * COARSE if coarse else 2
    painted = torch.zeros_like(y, dtype=torch.bool)
    if draw.chance(0.5 * draw.strength):
        x, painted = _paint_spheres(x, y, draw, mm)
    x = _other_contrast(x, y, draw)
    x = _shade(x, draw)
    x = _blur(x, draw)
    x = _noise(x, draw)
    x, y = _cut(x, y, draw, mm)
    return _as_shown(x, y, draw, coarse), y, painted & (y > 0)


def _random_positions(
    shape: torch.Size, mask: np.ndarray, box: tuple[int, ...], draw: _Draw, step: int
) -> Tensor:
    """Sampling positions (1, *box, 3) for grid_sample: a rotated, scaled, shifted box.

    Args:
        shape: of the head.
        mask: of the head.
        box: shape of what is sampled, of voxels that are ``step`` of the head's.
    """
    most = draw.strength * (30.0 if draw.chance(0.2) else 12.0)
    rotation = np.eye(3)
    for axis in range(3):
        angle = math.radians(draw.uniform(-most, most))
        turn = np.eye(3)
        a, b = [k for k in range(3) if k != axis]
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        rotation = rotation @ turn
    scale = np.diag([draw.uniform(0.85, 1.18) ** draw.strength for _ in range(3)])
    for axis, often in enumerate((0.04, 0.04, 0.5)):  # upside down, back to front, mirrored
        if draw.chance(often if axis == 2 else often * draw.strength):
            scale[axis, axis] *= -1.0
    matrix = step * rotation @ scale  # box voxel offset -> head voxel offset, (D, H, W) order
    # The box lies about the brain as that of detection does, or the head lies anywhere in the scan.
    far = [5.0, 5.0, 4.0] if step == 1 else [30.0, 20.0, 15.0]
    centre = middle_of(mask) + np.array([draw.uniform(-most, most) for most in far])
    axes = [np.arange(n) - n // 2 for n in box]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    size = np.array(shape)
    # (2 (offset @ matrix.T + centre) + 1) / size - 1, last axis first
    turned = torch.from_numpy(((2.0 * matrix / size[:, None]).T[:, ::-1]).astype(np.float32).copy())
    shift = torch.from_numpy(((2.0 * centre + 1.0) / size - 1.0)[::-1].astype(np.float32).copy())
    return (torch.from_numpy(offsets.astype(np.float32)) @ turned + shift)[None]


def _paint_spheres(x: Tensor, y: Tensor, draw: _Draw, mm: int) -> tuple[Tensor, Tensor]:
    """One or two spheres of 6 to 34 mm radius within the brain, and where they are.

    Every other one is as dark as fluid: at the edge of the brain that is easily taken for what lies
    outside. The others have any intensity.
    """
    inside = torch.nonzero(y[0, 0])
    painted = torch.zeros_like(y, dtype=torch.bool)
    for _ in range(draw.whole(1, 3)):
        if not len(inside):
            break
        centre = inside[draw.whole(0, len(inside))]
        axes = [torch.arange(n) - int(c) for n, c in zip(y.shape[2:], centre, strict=True)]
        d, h, w = torch.meshgrid(*axes, indexing="ij")
        radius = draw.uniform(6.0, 34.0) / mm
        sphere = ((d * d + h * h + w * w) < radius**2) & (y[0, 0] > 0)
        brightest = 0.5 if draw.chance(0.5) else 1.8
        x = torch.where(sphere, torch.tensor(draw.uniform(0.0, brightest)), x)
        painted |= sphere
    return x, painted


def _curve(x: Tensor, draw: _Draw, spread: float) -> Tensor:
    """Intensities by a random rising curve from 0 to 0 and from 1 to 1, and beyond."""
    knots = 7  # every half; the third lies at 1
    slopes = torch.exp(draw.strength * spread * draw.normal(knots - 1))
    heights = torch.cat([torch.zeros(1), torch.cumsum(slopes, 0)])
    place = x.clamp(0.0, BRIGHTEST) * ((knots - 1) / BRIGHTEST)
    low = place.floor().clamp(max=knots - 2).long()
    return (heights[low] + (place - low) * slopes[low]) / heights[2]


def _grown(y: Tensor, by: int) -> Tensor:
    """A mask dilated by a cube."""
    return _axis_by_axis(F.max_pool3d, y, by)


def _soft(y: Tensor, by: int) -> Tensor:
    """Means over a cube."""
    return _axis_by_axis(partial(F.avg_pool3d, count_include_pad=False), y, by)


def _axis_by_axis(pool: Callable[..., Tensor], y: Tensor, by: int) -> Tensor:
    """Pooled over a cube: along one axis after the other, which is many times faster."""
    for axis in range(3):
        size, pad = [1, 1, 1], [0, 0, 0]
        size[axis], pad[axis] = 2 * by + 1, by
        y = pool(y, size, 1, pad)
    return y


def _other_contrast(x: Tensor, y: Tensor, draw: _Draw) -> Tensor:
    """Tissues of the brain as bright as another scanner has them, and what is around it otherwise.

    The two go over into each other some millimetres outside of the brain: its outline is drawn by
    anatomy, never by the change itself.
    """
    x = _curve(x, draw, 0.35)
    if draw.chance(0.7):
        far = _soft(_grown(y, 2), 2)
        around = _curve(x, draw, 0.6) * math.exp(draw.strength * draw.uniform(-0.7, 0.7))
        x = far * x + (1.0 - far) * around
    x = x.clamp_min(0).pow(math.exp(draw.strength * draw.uniform(-0.35, 0.35)))
    if draw.chance(0.06 * draw.strength):
        x = torch.where(x > 0.12, (1.9 - x).clamp_min(0), x)  # reversed, as in T2
    return x


def _shade(x: Tensor, draw: _Draw) -> Tensor:
    """A bias field: smooth, or of a coil that lies at one side."""
    size = tuple(x.shape[2:])
    coarse = draw.normal(1, 1, 4, 4, 4) * draw.uniform(0.0, 0.35)
    if draw.chance(0.4):
        ramp = [torch.linspace(-1, 1, 4) * draw.uniform(-0.5, 0.5) for _ in range(3)]
        coarse = coarse + ramp[0][:, None, None] + ramp[1][:, None] + ramp[2]
    field = F.interpolate(draw.strength * coarse, size, mode="trilinear", align_corners=True)
    return x * torch.exp(field)


def _blur(x: Tensor, draw: _Draw) -> Tensor:
    """Voxels up to three times as large, along one axis or all."""
    if not draw.chance(0.4 * draw.strength):
        return x
    size = tuple(x.shape[2:])
    factor = [1.0 / draw.uniform(1.0, 1.6)] * 3 if draw.chance(0.5) else [1.0, 1.0, 1.0]
    factor[draw.whole(0, 3)] = 1.0 / draw.uniform(1.0, 3.0)
    low = F.interpolate(x, scale_factor=factor, mode="trilinear", align_corners=False)
    return F.interpolate(low, size, mode="trilinear", align_corners=False)


def _noise(x: Tensor, draw: _Draw) -> Tensor:
    """Noise as of a magnitude image, in air as well."""
    if draw.chance(0.3):
        return x
    sd = draw.strength * draw.uniform(0.0, 0.12)
    first, second = draw.normal(*x.shape), draw.normal(*x.shape)
    return torch.hypot(x + sd * first, sd * second)


def _cut(x: Tensor, y: Tensor, draw: _Draw, mm: int) -> tuple[Tensor, Tensor]:
    """What programs, and the scanner's field of view, leave out; most of it becomes air.

    Defacing by a slanted plane before the brain, a neck blanked below it, all that is not head,
    all that is not brain, a shorter field of view that may cut the brain, ends of odd values.
    """
    inside = torch.nonzero(y[0, 0]).float()
    if not len(inside):
        return x, y
    low, high = inside.amin(0), inside.amax(0)
    axes = [torch.arange(n, dtype=torch.float32) for n in x.shape[2:]]
    d, h, w = torch.meshgrid(*axes, indexing="ij")
    near = _grown(y, 2)[0, 0] > 0
    beyond = torch.zeros_like(near)
    if draw.chance(0.35):  # the face: rows run to the back, so that it lies at low rows
        angle = math.radians(draw.uniform(0.0, 75.0))
        at = low[1] + draw.uniform(-4.0, 45.0) / mm, low[0] + draw.uniform(-10.0, 45.0) / mm
        beyond |= (h - at[0]) * math.cos(angle) + (d - at[1]) * math.sin(angle) < 0
    if draw.chance(0.1):  # and the ears
        side = draw.uniform(0.0, 12.0) / mm
        lower = d < low[0] + 0.4 * (high[0] - low[0])
        beyond |= lower & ((w < low[2] - side) | (w > high[2] + side))
    if draw.chance(0.3):  # the neck
        tilt = draw.uniform(-0.4, 0.4)
        below = low[0] - draw.uniform(-4.0, 30.0) / mm
        beyond |= d + tilt * (h - (low[1] + high[1]) / 2.0) < below
    keep = draw.chance(0.8)  # most programs leave the brain alone
    removed = beyond & ~near if keep else beyond & ~(y[0, 0] > 0)
    what = 0.0 if draw.chance(0.85) else draw.uniform(0.0, 2.0)
    x = torch.where(removed, torch.tensor(what), x)
    if draw.chance(0.15):
        x = torch.where(x > draw.uniform(0.1, 0.3), x, torch.zeros(()))
    if draw.chance(0.1):  # the skull removed, tightly, loosely, or by this very mask
        grown = (y, _grown(y, 1), _grown(y, 2))[draw.whole(0, 3)]
        x = x * grown + (0.0 if draw.chance(0.6) else draw.uniform(0.0, 0.1)) * (1.0 - grown)
    if draw.chance(0.35):  # a shorter field of view
        for axis in (2, 3, 4):
            size = x.shape[axis]
            for at_end in (False, True):
                if draw.chance(0.7):
                    continue
                room = size - 1 - int(high[axis - 2]) if at_end else int(low[axis - 2])
                cut = int(room * draw.uniform(0.3, 1.0))
                if draw.chance(0.25):  # into the brain
                    cut = min(size // 2, room + int(draw.uniform(0.0, 0.2) * size))
                start = size - cut if at_end else 0
                x.narrow(axis, start, cut).zero_()
                y.narrow(axis, start, cut).zero_()
    if draw.chance(0.04):  # ends of a value that was not found out
        axis, cut = draw.whole(2, 5), draw.whole(2, 8)
        value = draw.uniform(0.0, BRIGHTEST)
        for start in (0, x.shape[axis] - cut):
            x.narrow(axis, start, cut).fill_(value)
            y.narrow(axis, start, cut).zero_()
    return x, y


def _as_shown(x: Tensor, y: Tensor, draw: _Draw, coarse: bool) -> Tensor:
    """Scaled as in detection, where the brain is known roughly by then."""
    values = x[0, 0].numpy()
    brain = values[y[0, 0].numpy() > 0]
    if coarse or brain.size < 1000:
        shown = roughly_scaled(values) * np.float32(math.exp(0.1 * float(draw.normal(1))))
    else:
        air = float(np.percentile(values, 0.5))
        tissue = (float(np.median(brain)) - air) * math.exp(0.06 * float(draw.normal(1)))
        shown = scaled(values, air, air + max(tissue, 1e-3))
    return torch.from_numpy(np.minimum(shown, BRIGHTEST))[None, None]
