"""Likelihoods of codes under the prior, and restorations: unlikely codes drawn anew.

Section 2.3 of Naval Marimont and Tarroni (2021): in raster order, a code whose negative
log-likelihood (NLL), given the codes before it as they now stand, exceeds a threshold is replaced
by a draw from the prior. Three samplers do this, and give the same codes:

- ``loop``, as published: a pass of the whole prior for every place of the grid. The oracle.
- ``skip-ahead``: a pass, then on to the first code that is replaced, then another pass.
- ``cached``: the arithmetic of one pass in all. The default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from ..errors import Cancelled
from ..networks.layers import channels_last, fold_weight_norm
from ..networks.pixelsnail import PixelSNAIL
from ..runtime.threads import run_jobs, worker_count
from .cached import cached
from .rule import Decider, Sequences

SAMPLERS = ("cached", "skip-ahead", "loop")
_NLL_CHUNK = 64


def _full_precision() -> AbstractContextManager[None]:
    """Convolutions in true float32: TF32, a GPU's default for them, is off by 1e-3."""
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=False, allow_tf32=False
    )


def _ready(prior: PixelSNAIL) -> PixelSNAIL:
    return channels_last(fold_weight_norm(prior))


def _parts(count: int, chunk: int, multiple: int = 1) -> list[slice]:
    """Even parts of ``range(count)`` of at most ``chunk``, so many that ``multiple`` divides it."""
    number = -(-count // chunk)
    number = min(count, -(-number // multiple) * multiple)
    bounds = [i * count // number for i in range(number + 1)] if number else []
    return [slice(low, high) for low, high in pairwise(bounds)]


def _nll(prior: PixelSNAIL, codes: Tensor, position: Tensor, chunk: int) -> Tensor:
    result = position.new_zeros(codes.shape)
    workers = worker_count(codes.device)

    def job(part: slice) -> Iterator[int]:
        logits = prior(codes[part], position[part])
        result[part] = F.cross_entropy(logits, codes[part], reduction="none")
        yield len(logits)

    run_jobs([job(part) for part in _parts(len(codes), chunk, workers)], workers)
    return result


def nll(prior: PixelSNAIL, codes: Tensor, position: Tensor, chunk: int = _NLL_CHUNK) -> Tensor:
    """Negative log-likelihood of every code given the codes before it.

    Args:
        prior: the prior; it is not changed.
        codes: (N, H, W) int64, on the prior's device.
        position: (N,) slice positions in [-0.5, 0.5].
        chunk: how many grids are passed together.

    Returns:
        (N, H, W) float32, in nats.
    """
    with torch.inference_mode(), _full_precision():
        result = _nll(_ready(prior), codes, position.to(codes.device), chunk)
    return result.clone()


def restore(
    prior: PixelSNAIL,
    codes: Tensor,
    position: Tensor,
    *,
    thresholds: ArrayLike | Tensor,
    restorations: int,
    seed: int,
    first_restoration: int = 0,
    slice_ids: ArrayLike | None = None,
    known_nll: Tensor | None = None,
    sampler: str = "cached",
    temperature: float = 1.0,
    chunk: int = 256,
    progress: Callable[[float], None] | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Tensor:
    """Replace unlikely codes, in raster order, by draws from the prior.

    A code whose NLL, given the codes before it as they now stand, exceeds its threshold becomes
    argmax(logits / temperature + noise). The noise is Gumbel noise keyed by (seed, slice,
    restoration, place, code), so that restoration s of a slice is the same draw whatever else is
    restored, in whatever order, with whichever sampler (``decision`` says how far that holds).

    Args:
        prior: the prior; it is not changed.
        codes: (N, H, W) int64, on the prior's device.
        position: (N,) slice positions in [-0.5, 0.5].
        thresholds: in nats, broadcastable to (N, H, W); infinity where a code is to stay, which
            also saves work.
        restorations: how many of each slice, S.
        seed: any integer.
        first_restoration: number of the first; restorations 0 to 14 are the same draws in one call
            as in several.
        slice_ids: (N,) integers that tell slices apart in the noise; 0 to N - 1 by default.
        known_nll: (N, H, W), what ``nll`` gives for the codes, if it is known already.
        sampler: "cached", "skip-ahead" or "loop".
        temperature: above 0; logits are divided by it for the draw, not for the NLL.
        chunk: the most sequences evaluated together; memory grows with it, results do not change.
        progress: called with the share done, in [0, 1].
        is_cancelled: asked between steps.

    Returns:
        (N, S, H, W) int64 on the codes' device.

    Raises:
        Cancelled: ``is_cancelled`` answered True.
        ValueError: an option or a shape that does not fit.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler {sampler!r} is not one of {', '.join(SAMPLERS)}")
    if restorations < 1 or chunk < 1 or not temperature > 0:
        raise ValueError("restorations and chunk must be at least 1, and temperature above 0")
    if (
        codes.ndim != 3
        or tuple(codes.shape[1:]) != prior.shape
        or position.shape != codes.shape[:1]
    ):
        raise ValueError(
            f"codes {tuple(codes.shape)} and positions {tuple(position.shape)} do not fit a prior "
            f"over grids of {prior.shape[0]} x {prior.shape[1]} codes"
        )
    count = len(codes)
    ids = np.arange(count) if slice_ids is None else np.asarray(slice_ids, dtype=np.int64)
    if ids.shape != (count,):
        raise ValueError(f"slice_ids of shape {ids.shape} for {count} slices")
    limits = thresholds.detach().cpu().numpy() if isinstance(thresholds, Tensor) else thresholds
    limits = np.broadcast_to(np.asarray(limits, dtype=np.float64), tuple(codes.shape))
    limits = np.array(limits).reshape(count, prior.shape[0] * prior.shape[1])

    def report(share: float) -> None:
        if progress is not None:
            progress(share)
        if is_cancelled is not None and is_cancelled():
            raise Cancelled("The restoration was cancelled.")

    with torch.inference_mode(), _full_precision():
        ready = _ready(prior)
        position = position.to(codes.device, torch.float32)
        decider = Decider(ready, codes, position, limits, ids, seed, temperature)
        if sampler == "cached":
            once = Sequences(np.arange(count), np.zeros(count, dtype=np.int64))
            if known_nll is None:
                known_nll = _nll(ready, codes, position, min(chunk, _NLL_CHUNK))
            flags = decider.possible_flags(known_nll.to(codes.device).flatten(1), once)
            first = _first_true(flags).cpu().numpy()
            numbers = np.arange(first_restoration, first_restoration + restorations)
            result = cached(ready, decider, codes, position, first, numbers, chunk, report)
        else:
            result = codes.repeat_interleave(restorations, dim=0)
            step = _loop if sampler == "loop" else _skip_ahead
            for part in _parts(len(result), chunk):
                every = np.arange(part.start, part.stop)
                sequences = Sequences(
                    every // restorations, first_restoration + every % restorations
                )
                before, share = part.start / len(result), len(every) / len(result)

                def report_part(done: float, before: float = before, share: float = share) -> None:
                    report(before + share * done)

                result[part] = step(
                    ready, decider, result[part], position[sequences.index], sequences, report_part
                )
        report(1.0)
    return result.clone().unflatten(0, (count, restorations))


def _first_true(flags: Tensor) -> Tensor:
    """(n, places) bool to (n,): the first place that is True, -1 if none is."""
    first = flags.to(torch.uint8).argmax(dim=1)
    return torch.where(flags.any(dim=1), first, -1)


def _loop(
    prior: PixelSNAIL,
    decider: Decider,
    grids: Tensor,
    position: Tensor,
    sequences: Sequences,
    report: Callable[[float], None],
) -> Tensor:
    """As published: for every place, a pass of the whole prior over the grids (n, H, W)."""
    rows, columns = prior.shape
    for place in range(rows * columns):
        row, column = divmod(place, columns)
        logits = prior(grids, position)[:, :, row, column]
        places = np.full(len(grids), place)
        grids[:, row, column] = decider.decide(
            logits, grids[:, row, column], sequences, places, grids
        )
        report((place + 1) / (rows * columns))
    return grids


def _skip_ahead(
    prior: PixelSNAIL,
    decider: Decider,
    grids: Tensor,
    position: Tensor,
    sequences: Sequences,
    report: Callable[[float], None],
) -> Tensor:
    """A pass is right up to the first code that is replaced: decide there, then pass again."""
    rows, columns = prior.shape
    flat = grids.flatten(1)
    places = torch.arange(rows * columns, device=grids.device)
    active: NDArray[np.int64] = np.arange(len(grids))
    cursor = torch.zeros(len(grids), dtype=torch.int64, device=grids.device)
    while len(active):
        at = torch.from_numpy(active).to(grids.device)
        logits = prior(flat[at].unflatten(1, (rows, columns)), position[at]).flatten(2)
        cost = F.cross_entropy(logits, flat[at], reduction="none")
        possible = decider.possible_flags(cost, sequences[active]) & (places >= cursor[at, None])
        first = _first_true(possible)
        on = (first >= 0).nonzero()[:, 0]
        active, at, first = active[on.cpu().numpy()], at[on], first[on]
        flat[at, first] = decider.decide(
            logits[on, :, first],
            flat[at, first],
            sequences[active],
            first.cpu().numpy(),
            flat[at].unflatten(1, (rows, columns)),
        )
        cursor[at] = first + 1
        left = 1.0 - float(cursor[at].float().mean()) / (rows * columns) if len(active) else 0.0
        report(1.0 - left * len(active) / max(1, len(grids)))
    return flat.unflatten(1, (rows, columns))
