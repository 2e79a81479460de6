"""What a masked prior makes of code grids: how likely each code is, and holes filled in.

Both look at a code from all sides, where :mod:`restoration` does so in raster order. After MIM-OOD
(Naval Marimont, Siomos and Tarroni 2023); there codes are judged one by one, and a large lesion
vouches for itself. Here whole tiles are hidden at a time, so that what is inside is judged by what
is outside alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.special import softmax
from torch import Tensor
from torch.nn import functional as F

from ..networks.masked import MaskedPrior
from ..runtime.threads import in_pieces
from .gumbel import gumbel_noise

Step = Callable[[float], None]
Arithmetic = Callable[[], AbstractContextManager[Any]]


def tiles(shape: tuple[int, int], size: int) -> Tensor:
    """Four sets of tiles that share out a grid; a set's tiles are ``size`` codes apart.

    Args:
        shape: (h, w) of the grid.
        size: side of a tile in codes.

    Returns:
        (4, h, w) bool; each place is in one of the sets.
    """
    rows, columns = ((torch.arange(n) // size) % 2 for n in shape)
    return torch.stack([(rows[:, None] == r) & (columns == c) for r in range(2) for c in range(2)])


@dataclass(frozen=True)
class OutsideView:
    """What each code should be, judged by the codes outside its tile.

    Attributes:
        nll: (N, h, w) float32, nats, of the code that is there.
        entropy: (N, h, w) float32, nats, what that is on average if the prior is right.
        nll_variance: (N, h, w) float32, squared nats, of that if the prior is right.
        expected: (N, F, h, w) float32, the mean of each value of the codes.
    """

    nll: Tensor
    entropy: Tensor
    nll_variance: Tensor
    expected: Tensor

    def cpu(self) -> OutsideView:
        """The same on the CPU."""
        return OutsideView(*(getattr(self, one.name).cpu() for one in fields(self)))


def outside_view(
    prior: MaskedPrior,
    codes: Tensor,
    position: Tensor,
    values: Tensor,
    *,
    size: int,
    chunk: int = 16,
    step: Step | None = None,
    arithmetic: Arithmetic = nullcontext,
) -> OutsideView:
    """What each code should be, judged by the codes outside its tile.

    Args:
        prior: in evaluation mode.
        codes: (N, h, w) int64, on the prior's device.
        position: (N,) slice positions in [-0.5, 0.5].
        values: (K, F), of each code: what the mean is wanted of.
        size: side of a tile in codes.
        chunk: how many grids are passed together; results do not depend on it.
        step: called with the fraction done.
        arithmetic: gives the context that the prior computes in.
    """
    sets = tiles(prior.shape, size).to(codes.device)

    def look(part: slice) -> tuple[Tensor, ...]:
        grids = codes[part]
        logits = torch.zeros(len(grids), prior.codes, *grids.shape[1:], device=grids.device)
        with arithmetic():
            for hidden in sets:
                masked = torch.where(hidden, prior.mask, grids)
                logits = torch.where(hidden, prior(masked, position[part]).float(), logits)
        logp = logits.log_softmax(1)
        p = logp.exp()
        nll = F.nll_loss(logp, grids, reduction="none")
        entropy = -(p * logp).sum(1)
        variance = ((p * logp**2).sum(1) - entropy**2).clamp(min=0.0)
        return nll, entropy, variance, torch.einsum("nkhw,kf->nfhw", p, values)

    found = in_pieces(look, len(codes), chunk, str(codes.device), step)
    return OutsideView(*(torch.cat(parts) for parts in zip(*found, strict=True)))


@dataclass(frozen=True)
class Holes:
    """Holes in code grids, and what the codes outside all holes say of those in them.

    Attributes:
        codes: (N, h, w) int64, as they are.
        index: (3, n) int64, slice, row and column of each code that is in a hole.
        logits: (n, K) float32, of each.
    """

    codes: np.ndarray
    index: np.ndarray
    logits: np.ndarray

    def fill(self, numbers: Sequence[int], seed: int) -> np.ndarray:
        """Draw the codes of the holes anew.

        Each is drawn given all codes outside the holes, independently of the others in its hole:
        over many restorations, mean and spread at a place are those that the prior gives it.

        Args:
            numbers: of the restorations.
            seed: any integer; the noise is keyed by seed, slice, restoration and place, as that of
                ``restore.restore``.

        Returns:
            (N, len(numbers), h, w) int64; outside the holes the codes as they are.
        """
        slices, rows, columns = self.index
        place = rows * self.codes.shape[2] + columns
        filled = np.repeat(self.codes[:, None], len(numbers), axis=1)
        for column, number in enumerate(numbers):
            noise = gumbel_noise(seed, slices, number, place, self.logits.shape[1])
            filled[slices, column, rows, columns] = (self.logits + noise).argmax(axis=1)
        return filled

    def likeliest(self, depth: float) -> np.ndarray:
        """The codes that are likeliest in the holes, agreed on with the slices beside.

        Args:
            depth: standard deviation, in slices, of the Gaussian over the probabilities of a
                place's codes: slices are looked at one by one, and would else disagree.

        Returns:
            (N, h, w) int64; outside the holes the codes as they are.
        """
        slices, rows, columns = self.index
        probability = np.zeros((*self.codes.shape, self.logits.shape[1]), np.float32)
        probability[slices, rows, columns] = softmax(self.logits, axis=1)
        # The likeliest of a weighted mean is that of a weighted sum.
        agreed = gaussian_filter1d(probability, depth, axis=0, mode="constant")
        filled = self.codes.copy()
        filled[slices, rows, columns] = agreed[slices, rows, columns].argmax(axis=1)
        return filled


def look_into(
    prior: MaskedPrior,
    codes: Tensor,
    position: Tensor,
    holes: Tensor,
    *,
    chunk: int = 16,
    step: Step | None = None,
    arithmetic: Arithmetic = nullcontext,
) -> Holes:
    """What the codes outside the holes of each grid say of those in them.

    Args:
        prior: in evaluation mode.
        codes: (N, h, w) int64, on the prior's device.
        position: (N,) slice positions in [-0.5, 0.5].
        holes: (N, h, w) bool.
        chunk: how many grids are passed together; results do not depend on it.
        step: called with the fraction done.
        arithmetic: gives the context that the prior computes in.
    """
    with_holes = torch.nonzero(holes.flatten(1).any(1)).flatten()

    def look(part: slice) -> Tensor:
        some = with_holes[part]
        hole = holes[some]
        with arithmetic():
            logits = prior(torch.where(hole, prior.mask, codes[some]), position[some]).float()
        return logits.permute(0, 2, 3, 1)[hole].cpu()

    found = in_pieces(look, len(with_holes), chunk, str(codes.device), step)
    index = torch.nonzero(holes).T.cpu().numpy()
    return Holes(
        codes.cpu().numpy(), index, torch.cat([torch.zeros(0, prior.codes), *found]).numpy()
    )
