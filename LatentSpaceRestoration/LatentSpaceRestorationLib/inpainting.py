"""What a masked prior makes of code grids: how likely each code is, and holes filled in.

Both look at a code from all sides, where :mod:`restoration` does so in raster order. After MIM-OOD
(Naval Marimont, Siomos and Tarroni 2023); there codes are judged one by one, and a large lesion
vouches for itself. Here whole tiles are hidden at a time, so that what is inside is judged by what
is outside alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import Cancelled
from .keyed_noise import gumbel_noise
from .networks.masked import MaskedPrior

#: Parities of row and column in the order in which holes are filled: neighbours after one another,
#: so that each fits those before.
PASSES = ((0, 0), (1, 1), (0, 1), (1, 0))

Step = Callable[[float], None]


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


def outside_view(
    prior: MaskedPrior,
    codes: Tensor,
    position: Tensor,
    keys: Tensor,
    *,
    size: int,
    chunk: int = 64,
    step: Step | None = None,
) -> tuple[Tensor, Tensor]:
    """What each code should be, judged by the codes outside its tile.

    Args:
        prior: in evaluation mode.
        codes: (N, h, w) int64, on the prior's device.
        position: (N,) slice positions in [-0.5, 0.5].
        keys: (K, D), the codebook.
        size: side of a tile in codes.
        chunk: how many grids are passed together; results do not depend on it.
        step: called with the fraction done.

    Returns:
        (N, h, w) float32, NLL of each code in nats; (N, D, h, w) float32, the expected latents.
    """
    likelihoods = torch.zeros(codes.shape, device=codes.device)
    latents = torch.zeros(len(codes), keys.shape[1], *codes.shape[1:], device=codes.device)
    sets = tiles(prior.shape, size).to(codes.device)
    done = 0
    with torch.inference_mode():
        for part in _parts(len(codes), chunk):
            grids = codes[part]
            for hidden in sets:
                masked = torch.where(hidden, prior.mask, grids)
                logits = prior(masked, position[part]).float()
                found = F.cross_entropy(logits, grids, reduction="none")
                likelihoods[part] = torch.where(hidden, found, likelihoods[part])
                mean = torch.einsum("nkhw,kd->ndhw", logits.softmax(1), keys)
                latents[part] = torch.where(hidden, mean, latents[part])
                done += len(grids)
                if step is not None:
                    step(done / (len(sets) * len(codes)))
    return likelihoods, latents


def inpaint(
    prior: MaskedPrior,
    codes: Tensor,
    position: Tensor,
    holes: Tensor,
    *,
    numbers: Sequence[int],
    seed: int,
    slice_ids: Sequence[int] | None = None,
    chunk: int = 64,
    step: Step | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Tensor:
    """Draw the codes of holes from the prior, in four passes whatever the holes' size.

    A code is drawn given all codes outside the holes, and those of the holes from earlier passes.
    The noise is keyed by seed, slice, restoration and place, as that of ``restoration.restore``.

    Args:
        prior: in evaluation mode.
        codes: (N, h, w) int64, on the prior's device.
        position: (N,) slice positions in [-0.5, 0.5].
        holes: (N, h, w) bool.
        numbers: of the restorations.
        seed: any integer.
        slice_ids: (N,) integers that tell slices apart in the noise; 0 to N - 1 by default.
        chunk: how many grids are passed together; results do not depend on it.
        step: called with the fraction done.
        is_cancelled: asked before each pass.

    Returns:
        (N, len(numbers), h, w) int64; outside the holes the codes as they are.

    Raises:
        Cancelled: ``is_cancelled`` said so.
    """
    result = codes[:, None].repeat(1, len(numbers), 1, 1)
    names = np.arange(len(codes)) if slice_ids is None else np.asarray(slice_ids)
    with_holes = torch.nonzero(holes.flatten(1).any(1)).flatten().tolist()
    jobs = [(i, s) for i in with_holes for s in range(len(numbers))]
    done = 0
    with torch.inference_mode():
        for part in _parts(len(jobs), chunk):
            slices, draws = (list(column) for column in zip(*jobs[part], strict=True))
            hole, place = holes[slices], position[slices]
            grids = torch.where(hole, prior.mask, codes[slices])
            for row, column in PASSES:
                if is_cancelled is not None and is_cancelled():
                    raise Cancelled("cancelled")
                now = torch.zeros_like(hole)
                now[:, row::2, column::2] = hole[:, row::2, column::2]
                which, r, c = (index.cpu() for index in torch.nonzero(now, as_tuple=True))
                if len(which):
                    logits = prior(grids, place).float()
                    logits = logits.permute(0, 2, 3, 1)[now]
                    noise = gumbel_noise(
                        seed,
                        names[slices][which],
                        np.asarray(numbers)[draws][which],
                        (r * prior.shape[1] + c).numpy(),
                        prior.codes,
                    )
                    grids[now] = (logits + torch.from_numpy(noise).to(logits.device)).argmax(1)
            result[slices, draws] = grids
            done += len(slices)
            if step is not None:
                step(done / len(jobs))
    return result


def _parts(count: int, chunk: int) -> Iterator[slice]:
    for start in range(0, count, chunk):
        yield slice(start, min(count, start + chunk))
