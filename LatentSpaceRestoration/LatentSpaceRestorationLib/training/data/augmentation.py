"""Changes to slices that leave them healthy: those between people, and those between scanners.

A slice has one style, drawn for it as a whole: a network can read it off the slice, and is
surprised only by what does not fit (after Billot et al., SynthSeg, Medical Image Analysis 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...model_space import CLIP
from ...networks import distributed
from ..engine.run import Run
from .slices import Slices


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes; each is drawn anew for every slice.

    Attributes:
        rotation_deg, scale, shift: in-plane, +-degrees, +-share, +-share of the field of view.
        elastic: amplitude of a smooth displacement, share of the field of view.
        contrast, brightness: z -> (1 +- contrast) z +- brightness, inside the brain.
        bend: strength of a smooth monotonic change of the intensity curve.
        curve: standard deviation of the logarithms of the slopes of a random rising curve, in
            steps of ``_KNOT``; where tissue lies in between stays where it was.
        tissue: standard deviation of what is added to each tissue, where there is a map of them.
        bias: amplitude of a smooth additive field (robust standard deviations).
        noise: largest standard deviation of white noise, added to the input only.
        blur: probability of a 3x3 smoothing of the input.
        rim: probability of a brain whose outermost voxels were cut off.
    """

    rotation_deg: float = 8.0
    scale: float = 0.07
    shift: float = 0.03
    elastic: float = 0.012
    contrast: float = 0.12
    brightness: float = 0.12
    bend: float = 0.1
    curve: float = 0.0
    tissue: float = 0.0
    bias: float = 0.15
    noise: float = 0.12
    blur: float = 0.15
    rim: float = 0.0


#: Intensities between the knots of a random curve, in robust standard deviations.
_KNOT = 0.75
#: Tissues of a map, with 0 for none.
TISSUES = 9


def augment(
    slices: Tensor,
    settings: Augmentation,
    generator: torch.Generator,
    *,
    tissue: Tensor | None = None,
    is_share: bool = True,
) -> tuple[Tensor, Tensor]:
    """Change a batch of slices.

    Args:
        slices: (B, 1, H, W) float32 in [-CLIP, CLIP], -CLIP outside the brain.
        settings: ranges.
        generator: source of the randomness.
        tissue: (B, 1, H, W) uint8 below ``TISSUES``, 0 where it is not known.
        is_share: whether the slices are this process's share of a batch. The randomness is then
            drawn for the whole batch: a slice is changed in the same way by however many processes
            the batch is shared.

    Returns:
        input and target, each (B, 1, H, W): the target has the geometric and intensity changes,
        the input has noise and blur besides.
    """
    batch, _, height, width = slices.shape
    whole = batch * distributed.size() if is_share else batch
    part = distributed.part(whole) if is_share else slice(None)

    def chance(*shape: int) -> Tensor:
        return torch.rand(whole, *shape, generator=generator)[part]

    def uniform(*shape: int) -> Tensor:
        return chance(*shape) * 2.0 - 1.0

    angle = uniform() * math.radians(settings.rotation_deg)
    zoom = 1.0 + uniform() * settings.scale
    flip = torch.where(chance() < 0.5, -1.0, 1.0)
    aspect = height / width
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0] = zoom * torch.cos(angle) * flip
    theta[:, 0, 1] = -zoom * torch.sin(angle) * aspect
    theta[:, 1, 0] = zoom * torch.sin(angle) / aspect * flip
    theta[:, 1, 1] = zoom * torch.cos(angle)
    theta[:, :, 2] = uniform(2) * 2.0 * settings.shift
    where = F.affine_grid(theta, [batch, 1, height, width], align_corners=False)
    if settings.elastic > 0:
        coarse = uniform(2, 5, 4) * 2.0 * settings.elastic
        warp = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
        where = where + warp.permute(0, 2, 3, 1)
    # Shifted so that the padding of grid_sample, zero, is the value outside the brain.
    moved = F.grid_sample(slices + CLIP, where, mode="bilinear", align_corners=False)
    brain = (moved > 0.05).float()
    if settings.rim > 0:
        tight = -F.max_pool2d(F.pad(-brain, (1, 1, 1, 1)), 3, 1)
        brain = torch.where(chance(1, 1, 1) < settings.rim, tight, brain)
    value = moved - CLIP
    value = value * (1.0 + settings.contrast * uniform(1, 1, 1))
    value = value + settings.brightness * uniform(1, 1, 1)
    value = value + settings.bend * uniform(1, 1, 1) * (value.square() - 1.0) * 0.5
    if settings.curve > 0:
        knots = round(2.0 * CLIP / _KNOT)
        steps = torch.randn(whole, knots, generator=generator)[part]
        value = _along_curves(value, torch.exp(settings.curve * steps))
    if settings.tissue > 0:
        offsets = settings.tissue * torch.randn(whole, TISSUES, generator=generator)[part]
        offsets[:, 0] = 0.0
        if tissue is not None:
            value = value + _by_tissue(tissue, offsets, where)
    field = F.interpolate(uniform(1, 4, 3), (height, width), mode="bicubic", align_corners=True)
    value = value + settings.bias * field
    target = (value.clamp(-CLIP, CLIP) + CLIP) * brain - CLIP
    noisy = target
    blurred = chance(1, 1, 1) < settings.blur
    smooth = F.avg_pool2d(F.pad(target, (1, 1, 1, 1), mode="replicate"), 3, 1)
    smooth = (smooth + CLIP) * brain - CLIP  # a mask's edge is always sharp
    noisy = torch.where(blurred, smooth, noisy)
    level = settings.noise * chance(1, 1, 1)
    white = torch.randn(whole, 1, height, width, generator=generator)[part]
    noisy = noisy + level * white * brain
    return noisy.clamp(-CLIP, CLIP), target


def _along_curves(value: Tensor, slopes: Tensor) -> Tensor:
    """Intensities by rising curves that leave the middle of tissue, and its spread, as they are.

    Args:
        value: (B, 1, H, W).
        slopes: (B, K) of each curve, from -CLIP to CLIP.
    """
    batch, knots = slopes.shape
    # Between the quartiles of a normal distribution, in units of its standard deviation.
    quartile = 0.6745
    heights = F.pad(torch.cumsum(slopes, 1), (1, 0)) * (2.0 * CLIP / knots)

    def along(values: Tensor) -> Tensor:
        place = (values.reshape(batch, -1).clamp(-CLIP, CLIP) + CLIP) * (knots / (2.0 * CLIP))
        low = place.floor().clamp(max=knots - 1).long()
        rise = slopes.gather(1, low) * (place - low) * (2.0 * CLIP / knots)
        return (heights.gather(1, low) + rise).reshape(values.shape)

    low, middle, high = along(torch.tensor([[-quartile, 0.0, quartile]]).expand(batch, 3)).T
    spread = ((high - low) / (2.0 * quartile)).view(-1, 1, 1, 1)
    return (along(value) - middle.view(-1, 1, 1, 1)) / spread


def _by_tissue(tissue: Tensor, offsets: Tensor, where: Tensor) -> Tensor:
    """(B, 1, H, W), what is added at each voxel, gently from tissue to tissue.

    Args:
        tissue: (B, 1, H, W) uint8.
        offsets: (B, TISSUES).
        where: (B, H, W, 2) positions of ``grid_sample``.
    """
    added = offsets.gather(1, tissue.flatten(1).long()).reshape(tissue.shape)
    added = F.avg_pool2d(added, 3, 1, 1)
    return F.grid_sample(added, where, mode="bilinear", align_corners=False)


def augmented_batch(
    data: Slices, run: Run, step: int, settings: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """This process's share of a step's batch, changed, on the training's device.

    Returns:
        input (channels_last) and target of :func:`augment`, and (B,) positions.
    """
    index = run.batch(len(data), step)
    images, position = data.take(index)
    with torch.autocast("cpu", enabled=False):
        x, target = augment(images, settings, generator, tissue=data.tissue_of(index))
    x = x.to(run.device).contiguous(memory_format=torch.channels_last)
    return x, target.to(run.device), position.to(run.device)
