"""Training of brain extraction: heads at the model's spacing, and a mask of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..brain import brain_probability, largest_piece, network_input
from ..datasets import Subject
from ..errors import InputError
from ..evaluation.overlap import dice
from ..io import read_mask, read_volume
from ..networks import processes
from ..networks.unet import UNet3D
from ..preprocessing import Head, mask_to_head, to_head
from .loop import train
from .run import Run, generator_of

#: Slices, rows and columns of a training crop: a whole head at 2 mm, nearly.
CROP = (96, 112, 96)
#: How many times a voxel of a painted lesion counts: they are few, and they are what is looked for.
_LESION_WEIGHT = 5.0


def load_heads(
    subjects: list[Subject], spacing_mm: float, report: Callable[[str], None] = print
) -> tuple[list[Head], list[np.ndarray]]:
    """Heads and their (slices, rows, columns) bool masks at a spacing.

    A scan that cannot be used, or has no mask to learn from, is reported in a line and left out.

    Raises:
        InputError: no scan can be used.
    """
    heads, masks = [], []
    first = "there are none"
    for subject in subjects:
        try:
            if subject.mask is None:
                raise InputError(f"{subject.scan}: has no brain mask to learn from; give one")
            volume = read_volume(subject.scan)
            head = to_head(volume, spacing_mm)
            mask = mask_to_head(read_mask(subject.mask, volume), volume, head)
        except InputError as error:
            first = str(error) if first == "there are none" else first
            report(f"left out: {subject.name}: {error}")
            continue
        heads.append(head)
        masks.append(mask)
    if not heads:
        raise InputError(f"none of the {len(subjects)} scans can be used; the first: {first}")
    return heads, masks


def vary(
    head: np.ndarray, mask: np.ndarray, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """A head as another scanner, person or position might have given it.

    Rotation, size, place, field of view, contrast curve, bias field, resolution, noise, removal of
    the skull, and spheres painted into the brain (a lesion is still brain).

    Args:
        head: (D, H, W) native intensities.
        mask: (D, H, W) bool.
        generator: source of the randomness.

    Returns:
        (1, 1, *CROP) network input; (1, 1, *CROP) target in {0, 1}; (1, 1, *CROP) bool, where a
        lesion was painted.
    """

    def uniform(low: float, high: float) -> float:
        return float(torch.rand((), generator=generator)) * (high - low) + low

    def chance(p: float) -> bool:
        return uniform(0.0, 1.0) < p

    source = torch.from_numpy(head.astype(np.float32))[None, None]
    source = source / max(float(np.percentile(head, 99)), 1e-6)
    label = torch.from_numpy(mask.astype(np.float32))[None, None]
    both = torch.cat([source, label], 1)
    where = _random_positions(both.shape[2:], mask, uniform, chance)
    both = F.grid_sample(both, where, mode="bilinear", align_corners=False)
    x, y = both[:, :1].clamp_min(0), (both[:, 1:] > 0.5).float()
    painted = torch.zeros_like(y, dtype=torch.bool)
    if chance(0.7):
        x, painted = _paint_spheres(x, y, generator, uniform)
    if chance(0.15):
        removed = F.max_pool3d(y, 3, 1, 1) if chance(0.5) else y
        x = x * removed
    x = x.pow(math.exp(uniform(-0.5, 0.5)))
    if chance(0.15):
        x = torch.where(x > 0.08, (1.4 - x).clamp_min(0), x)  # reversed tissue contrast
    coarse = torch.randn(1, 1, 4, 4, 4, generator=generator) * uniform(0.0, 0.35)
    x = x * torch.exp(F.interpolate(coarse, CROP, mode="trilinear", align_corners=True))
    if chance(0.3):
        factor = [1.0, 1.0, 1.0]
        factor[int(uniform(0, 2.999))] = 1.0 / uniform(1.0, 3.0)
        low = F.interpolate(x, scale_factor=factor, mode="trilinear", align_corners=False)
        x = F.interpolate(low, CROP, mode="trilinear", align_corners=False)
    x = x + uniform(0.0, 0.06) * torch.randn(x.shape, generator=generator)
    if chance(0.3):  # a shorter field of view
        axis = 2 + int(uniform(0, 2.999))
        cut = int(uniform(0.0, 0.25) * x.shape[axis])
        start = 0 if chance(0.5) else x.shape[axis] - cut
        x.narrow(axis, start, cut).zero_()
        y.narrow(axis, start, cut).zero_()
    return torch.from_numpy(network_input(x[0, 0].numpy()))[None, None], y, painted & (y > 0)


def _random_positions(
    shape: torch.Size,
    mask: np.ndarray,
    uniform: Callable[[float, float], float],
    chance: Callable[[float], bool],
) -> Tensor:
    """Sampling positions (1, *CROP, 3) for grid_sample: a rotated, scaled, shifted crop."""
    angles = [math.radians(uniform(-15, 15)) for _ in range(3)]
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        step = np.eye(3)
        a, b = [k for k in range(3) if k != axis]
        step[a, a] = step[b, b] = math.cos(angle)
        step[a, b], step[b, a] = -math.sin(angle), math.sin(angle)
        rotation = rotation @ step
    scale = np.diag([uniform(0.85, 1.18) for _ in range(3)])
    if chance(0.5):
        scale[2, 2] *= -1.0
    matrix = rotation @ scale  # crop voxel offset -> source voxel offset, (D, H, W) order
    extent = [np.flatnonzero(mask.any(axis=tuple(k for k in range(3) if k != a))) for a in range(3)]
    centre = np.array([(e[0] + e[-1]) / 2.0 for e in extent])
    centre += [uniform(-14, 8), uniform(-10, 10), uniform(-8, 8)]
    axes = [np.arange(n) - (n - 1) / 2.0 for n in CROP]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    source = offsets @ matrix.T + centre
    size = np.array(shape)
    normalised = (2.0 * source + 1.0) / size - 1.0
    return torch.from_numpy(normalised[None, ..., ::-1].astype(np.float32).copy())


def _paint_spheres(
    x: Tensor, y: Tensor, generator: torch.Generator, uniform: Callable[[float, float], float]
) -> tuple[Tensor, Tensor]:
    """One or two spheres of 6 to 34 mm radius within the brain, and where they are.

    Every other one is as dark as fluid: at the edge of the brain that is easily taken for what lies
    outside. The others have any intensity.
    """
    inside = torch.nonzero(y[0, 0])
    painted = torch.zeros_like(y, dtype=torch.bool)
    for _ in range(1 + int(uniform(0, 1.999))):
        if not len(inside):
            break
        centre = inside[int(torch.randint(len(inside), (), generator=generator))]
        axes = [torch.arange(n) - int(c) for n, c in zip(CROP, centre, strict=True)]
        d, h, w = torch.meshgrid(*axes, indexing="ij")
        sphere = ((d * d + h * h + w * w) < uniform(3.0, 17.0) ** 2) & (y[0, 0] > 0)
        brightest = 0.4 if uniform(0.0, 1.0) < 0.5 else 1.4
        x = torch.where(sphere, torch.tensor(uniform(0.0, brightest)), x)
        painted |= sphere
    return x, painted


def extraction_dice(
    network: UNet3D, heads: list[Head], masks: list[np.ndarray]
) -> dict[str, float]:
    """Median and least Dice over scans as they are."""
    device = str(network.out.weight.device)
    scores = [
        dice(largest_piece(brain_probability(network, head, device) > 0.5), mask)
        for head, mask in zip(heads, masks, strict=True)
    ]
    return {"dice_median": float(np.median(scores)), "dice_min": float(np.min(scores))}


def train_brain(
    settings: Mapping[str, Any],
    data: tuple[list[Head], list[np.ndarray]],
    held_out: tuple[list[Head], list[np.ndarray]],
    run: Run,
) -> UNet3D:
    """Train the extraction network: binary cross-entropy and soft Dice of each head.

    Args:
        settings: arguments of :class:`UNet3D`.
        data, held_out: from :func:`load_heads`, of different subjects.
        run: how long, where, and whom to tell; a batch of one head is usual.
    """
    schedule = run.schedule
    torch.manual_seed(schedule.seed)
    network = UNet3D(**settings)
    heads, masks = data

    def loss(
        model: nn.Module, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        drawn = torch.randint(
            len(heads), (schedule.batch,), generator=generator_of(schedule.seed + 5, step)
        )
        losses = []
        for item in range(schedule.batch)[processes.part(schedule.batch)]:
            own = generator if item == 0 else generator_of(schedule.seed + 101 * item, step)
            pick = int(drawn[item])
            with torch.autocast("cpu", enabled=False):
                x, y, lesion = vary(heads[pick].array, masks[pick], own)
            weight = (1.0 + (_LESION_WEIGHT - 1.0) * lesion).to(run.device)
            logits = model(x.to(run.device)).float()
            losses.append(_extraction_loss(logits, y.to(run.device), weight))
        cross_entropy, overlap = torch.stack(losses).mean(0)
        return cross_entropy + overlap, {
            "cross_entropy": float(cross_entropy.detach()),
            "1-dice": float(overlap.detach()),
        }

    def validate(model: nn.Module) -> dict[str, float]:
        assert isinstance(model, UNet3D)
        return extraction_dice(model, *held_out)

    averaged = train(network, loss, run, validate=validate, validate_every=250)
    assert isinstance(averaged, UNet3D)
    return averaged


def _extraction_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """(2,) weighted binary cross-entropy, and 1 - soft Dice."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, weight)
    p = torch.sigmoid(logits)
    overlap = 1.0 - (2.0 * (p * target).sum() + 1.0) / (p.sum() + target.sum() + 1.0)
    return torch.stack([cross_entropy, overlap])
