"""The cached sampler: every place of every sequence is evaluated once, instead of the whole prior.

Slices without a code that could be replaced cost nothing more than the pass that says so. For the
others, the rows before the first such code are evaluated once a slice, and their caches copied to
all its restorations; places whose threshold is infinite get no logits; rows after the last place
that could change are left out. Sequences are worked on in chunks of slices that start alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..networks.pixelsnail import PixelSNAIL
from ..runtime.threads import run_jobs, worker_count
from .packed_prior import PackedPrior
from .row_engine import RowEngine
from .rule import Decider, Sequences


@dataclass(frozen=True)
class _Chunk:
    """Sequences that are advanced together."""

    items: NDArray[np.int64]  # where they stand among all sequences, slice * S + s
    sequences: Sequences
    first_row: int
    open: NDArray[np.bool_]  # (H, W): where a code of any of them could change

    @property
    def last_row(self) -> int:
        return int(np.flatnonzero(self.open.any(axis=1))[-1])

    @property
    def work(self) -> int:
        return len(self.items) * (self.last_row + 1 - self.first_row)


def _plan(
    first: NDArray[np.int64],
    thresholds: NDArray[np.float64],
    shape: tuple[int, int],
    restorations: NDArray[np.int64],
    size: int,
    workers: int,
) -> list[_Chunk]:
    """Even chunks of at most ``size`` sequences, as many as keep all workers busy.

    ``first`` (N,) is the place of each slice's first code that could be replaced, -1 if none;
    ``restorations`` (S,) are their numbers.
    """
    slices = np.flatnonzero(first >= 0)
    slices = slices[np.argsort(first[slices], kind="stable")]
    index = np.repeat(slices, len(restorations))
    which = np.tile(np.arange(len(restorations)), len(slices))
    if len(index) == 0:
        return []
    count = -(-len(index) // size)
    count = min(-(-count // workers) * workers, len(index))
    chunks = []
    for part in np.array_split(np.arange(len(index)), count):
        mine = np.unique(index[part])
        places = np.arange(thresholds.shape[1])
        could = (thresholds[mine] < np.inf) & (places >= first[mine, None])
        is_open: NDArray[np.bool_] = np.any(could, axis=0).reshape(shape)
        chunks.append(
            _Chunk(
                items=index[part] * len(restorations) + which[part],
                sequences=Sequences(index[part], restorations[which[part]]),
                first_row=int(np.flatnonzero(is_open.any(axis=1))[0]),
                open=is_open,
            )
        )
    return chunks


def _runs(is_open: NDArray[np.bool_], to_the_end: bool) -> Iterator[tuple[int, int, bool]]:
    """A row as runs (low, high, open): a run ends where a code could change, at high - 1."""
    low = 0
    for column in np.flatnonzero(is_open):
        yield low, int(column) + 1, True
        low = int(column) + 1
    if low < len(is_open) and to_the_end:
        yield low, len(is_open), False


def _rows(
    chunk: _Chunk,
    packed: PackedPrior,
    decider: Decider,
    codes: Tensor,
    condition: Tensor | None,
    result: Tensor,
) -> Iterator[int]:
    """Restore a chunk, yielding after each row the work it was. Needs inference mode.

    ``codes`` (N, H, W) and ``condition`` (N, channels) are of all slices; the chunk's entries of
    ``result`` (N * S, H, W) are filled in.
    """
    width = packed.shape[1]
    slices, inverse = np.unique(chunk.sequences.index, return_inverse=True)
    mine = torch.from_numpy(slices).to(codes.device)
    engine = RowEngine(packed, codes[mine], None if condition is None else condition[mine])
    for _ in range(chunk.first_row):
        engine.start_row()
        engine.advance(0, width, logits=False)
        yield 0
    engine = engine.repeated(torch.from_numpy(inverse).to(codes.device))
    for row in range(chunk.first_row, chunk.last_row + 1):
        engine.start_row()
        for low, high, is_open in _runs(chunk.open[row], to_the_end=row < chunk.last_row):
            logits = engine.advance(low, high, logits=is_open)
            if logits is not None:
                places = np.full(engine.n, row * width + high - 1)
                grids = engine.codes
                current = grids[:, row, high - 1]
                decided = decider.decide(logits, current, chunk.sequences, places, grids)
                engine.set_codes(high - 1, decided)
        yield len(chunk.items)
    result[torch.from_numpy(chunk.items).to(result.device)] = engine.codes


def cached(
    prior: PixelSNAIL,
    decider: Decider,
    codes: Tensor,
    position: Tensor,
    first: NDArray[np.int64],
    restorations: NDArray[np.int64],
    chunk: int,
    report: Callable[[float], None],
) -> Tensor:
    """Restorations (N * S, H, W) of ``codes`` (N, H, W).

    Args:
        prior: folded and in eval mode, on the device of ``codes`` and ``position`` (N,).
        decider: the rule.
        first: (N,) the place of each slice's first code that could be replaced, -1 if none.
        restorations: (S,) the numbers of those that are made of each slice.
        chunk: the most sequences that are worked on together, by one thread.
        report: called from the calling thread with the share done; what it raises ends the work.
    """
    workers = worker_count(codes.device)
    chunks = _plan(first, decider.thresholds, prior.shape, restorations, chunk, workers)
    result = codes.repeat_interleave(len(restorations), dim=0)
    with torch.inference_mode():
        packed = PackedPrior.of(prior)
        condition = None if prior.embedding is None else prior.embedding(position)
    total = sum(part.work for part in chunks)
    jobs = [_rows(part, packed, decider, codes, condition, result) for part in chunks]
    run_jobs(jobs, workers, lambda done: report(done / total))
    return result
