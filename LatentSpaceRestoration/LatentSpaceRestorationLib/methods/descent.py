"""Gradient descent in the pixels of slices, each at a pace of its own, and the map of where it led.

Dehaene et al. (ICLR 2020) and Chen et al. (Medical Image Analysis 2020) descend on other energies;
what they do with the end of it is the same.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..inference.vae_model import Piece
from ..model_space import CLIP
from ..runtime.progress import Step
from .base import Evidence, ScanContext

#: (B, 1, rows, columns) -> energies (B,), and directions to walk against, shaped as the slices.
Energy = Callable[[Tensor], tuple[Tensor, Tensor]]
#: Kinks of absolute values are rounded over this, in robust standard deviations: at a kink,
#: descent would rattle from side to side.
ROUNDING = 0.02
_FASTER, _SLOWER = 1.3, 0.4


def rounded_abs(values: Tensor) -> Tensor:
    """sqrt(v^2 + r^2) - r: |v|, but smooth at 0."""
    return (values.square() + ROUNDING**2).sqrt() - ROUNDING


def with_gradient(
    energy: Callable[[Tensor], tuple[Tensor, Tensor]], slices: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Energies of slices, and their gradients with respect to the slices' own pixels.

    Args:
        energy: (B, 1, rows, columns) -> (B,) energies, where no slice changes another's, and
            whatever else came of computing them.
        slices: (B, 1, rows, columns).

    Returns:
        (B,), (B, 1, rows, columns), and what else came of it; none of them carries a graph.
    """
    with torch.enable_grad():
        at = slices.detach().clone().requires_grad_(True)
        value, further = energy(at)
        (gradient,) = torch.autograd.grad(value.sum(), at)
    return value.detach(), gradient, further.detach()


def descend(
    energy: Energy,
    start: Tensor,
    free: Tensor,
    *,
    steps: int,
    rate: float,
    report: Step,
) -> tuple[Tensor, Tensor]:
    """Walk downhill: a step that would raise a slice's energy is not made, and the next is shorter.

    What happens to a slice does not depend on those beside it.

    Args:
        energy: what is to become small.
        start: (B, 1, rows, columns).
        free: bool of the same shape, pixels that may change, within +-CLIP.
        steps: how many are tried.
        rate: length of the first step, per unit of direction.
        report: called with the fraction done.

    Returns:
        (B, 1, rows, columns), and (B,) its energies.
    """
    at = start.detach().clone()
    value, direction = energy(at)
    pace = torch.full_like(value, rate)
    for number in range(steps):
        trial = at - pace.view(-1, 1, 1, 1) * direction
        trial = torch.where(free, trial.clamp(-CLIP, CLIP), at)
        there, onwards = energy(trial)
        lower = there < value
        better = lower.view(-1, 1, 1, 1)
        at = torch.where(better, trial, at)
        direction = torch.where(better, onwards, direction)
        value = torch.where(lower, there, value)
        pace = torch.where(lower, _FASTER * pace, _SLOWER * pace)
        report((number + 1) / steps)
    return at, value


def difference_evidence(
    context: ScanContext,
    step: str,
    message: str,
    descended: Callable[[Piece], Tensor],
    *,
    every: int,
    sigma_mm: float,
) -> Evidence:
    """|scan - where the descent ended|, smoothed: the evidence of a method that descends.

    Args:
        context: the scan, and a VAE.
        step, message: what it is called, in timings and to the user.
        descended: (B, 1, rows, columns) ends of the slices of a piece.
        every: n; every n-th slice descends, and what lies between follows.
        sigma_mm: standard deviation of the Gaussian.
    """
    prepared = context.prepared
    with context.control.step(step, message, 0.9) as report:
        (changed,) = context.vae_model().by_pieces(
            prepared, lambda piece: ((piece.slices - descended(piece))[:, 0],), report, every
        )
    maps = context.smoothed({"difference": np.abs(changed)}, sigma_mm)
    return Evidence.of_one(maps, prepared.slices - changed)
