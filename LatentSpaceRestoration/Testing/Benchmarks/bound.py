"""The arithmetic bound: the multiply-adds that an exact sampler needs, and the time they take.

An exact sampler that keeps everything it has computed evaluates the layers of the prior once for
each place of each distinct sequence of codes. With C channels, key size k, value size v and K
codes, one block then needs, a place:

- a pair of gated blocks: the vertical one has 2x3 taps, conv1 from C to C channels (6 C^2) and
  conv2 from C to 2 C (12 C^2); the horizontal one has 2x2 taps, conv1 (4 C^2), its auxiliary 1x1
  input (C^2) and conv2 (8 C^2);
- at the places of the attention's grid (every stride-th row and column): the 13 taps of a 5x5
  kernel of type B for the key from the block's input, the key from its output, and the query (39
  C^2); a 1x1 gated block, C^2 + 2 C^2, for each of key, value and query (9 C^2); their projections
  (C (2 k + v)); scores and weighted values over the n places before (n (k + v));
- the attention brought back up (v C) and the merging gated block: conv1, auxiliary input and conv2
  (C^2 + C^2 + 2 C^2).

The last layer needs C K. The first convolution is a table look-up, since its input is one-hot, and
counts nothing; nor do biases, activations, softmax, sampling and memory traffic. A tap that falls
outside the grid counts nothing either. The upsampling and merging of the last block are needed only
where logits are.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from LatentSpaceRestorationLib.networks.pixelsnail import PixelSNAIL
from machine import synchronise
from numpy.typing import NDArray

Taps = list[tuple[int, int]]
_VERTICAL: Taps = [(r, c) for r in (-1, 0) for c in (-1, 0, 1)]
_HORIZONTAL: Taps = [(r, c) for r in (-1, 0) for c in (-1, 0)]
_ATTENTION: Taps = [(r, c) for r in (-2, -1, 0) for c in range(-2, 3) if (r, c) <= (0, 0)]
_TRIAL_SECONDS = 0.03


@dataclass(frozen=True)
class PriorSize:
    """The hyperparameters that the arithmetic depends on."""

    codes: int
    shape: tuple[int, int]
    channels: int
    blocks: int
    pairs: int
    stride: int
    key_size: int
    value_size: int

    @classmethod
    def of(cls, prior: PixelSNAIL) -> PriorSize:
        """Those of a prior."""
        block = prior.blocks[0]
        return cls(
            prior.codes,
            prior.shape,
            prior.channels,
            len(prior.blocks),
            len(block.vertical),  # type: ignore[arg-type]
            prior.attention_stride,
            block.attention.to_key.out_channels,  # type: ignore[arg-type, union-attr]
            block.attention.to_value.out_channels,  # type: ignore[arg-type, union-attr]
        )


@dataclass(frozen=True)
class PlaceCosts:
    """Multiply-adds a place.

    Attributes:
        vertical: (H, W) int64, the vertical blocks, which only the rows below ask for.
        other: (H, W) int64, what later places need besides.
        logits: the end of the last block and the last layer.
    """

    vertical: NDArray[np.int64]
    other: NDArray[np.int64]
    logits: int

    @classmethod
    def of(cls, size: PriorSize) -> PlaceCosts:
        """See the module's text."""
        c2, values = size.channels**2, size.value_size * size.channels
        rows, columns = size.shape
        vertical = size.blocks * size.pairs * 3 * c2 * _inside(_VERTICAL, size.shape)
        pair = 3 * c2 * _inside(_HORIZONTAL, size.shape)
        pair[1:] += c2  # the first row has no row above
        attention = 3 * c2 * _inside(_ATTENTION, size.shape)
        attention += 9 * c2 + 2 * size.key_size * size.channels + values
        low = np.arange(rows * columns // size.stride**2).reshape(
            rows // size.stride, columns // size.stride
        )
        attention[:: size.stride, :: size.stride] += low * (size.key_size + size.value_size)
        at_centre = np.zeros(size.shape, dtype=np.int64)
        at_centre[:: size.stride, :: size.stride] = 1
        merge = values + 4 * c2
        return cls(
            vertical,
            size.blocks * (size.pairs * pair + at_centre * attention) + (size.blocks - 1) * merge,
            merge + size.channels * size.codes,
        )

    def needed(self, is_open: NDArray[np.bool_], first_row: int, last: int | None = None) -> int:
        """Multiply-adds for one sequence of codes, once all before ``first_row`` is known.

        Args:
            is_open: (H, W) bool, the places that need logits.
            first_row: where to begin; earlier open places are ignored.
            last: the last raster place that is needed; by default the last open one.
        """
        rows, columns = is_open.shape
        wanted = is_open.flatten() & (np.arange(rows * columns) >= first_row * columns)
        if last is None:
            last = int(np.flatnonzero(wanted).max(initial=-1))
        begin = first_row * columns
        other = int(self.other.flatten()[begin : last + 1].sum())
        vertical = int(self.vertical[first_row : max(first_row, last // columns)].sum())
        return other + vertical + self.logits * int(wanted.sum())


def _inside(taps: Taps, shape: tuple[int, int]) -> NDArray[np.int64]:
    """(H, W): how many taps of a kernel fall on the grid, for each place of its centre."""
    count = np.zeros(shape, dtype=np.int64)
    row, column = np.indices(shape)
    for r, c in taps:
        count += (row + r >= 0) & (column + c >= 0) & (column + c < shape[1])
    return count


@dataclass(frozen=True)
class Bound:
    """Multiply-adds that restorations need, in three parts.

    Attributes:
        scan: one pass a slice, which finds the codes that could be replaced.
        shared: once a slice, the rows before the first such code.
        own: each restoration, from that row to the last place that could change.
    """

    scan: int
    shared: int
    own: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.scan + self.shared + self.own

    @classmethod
    def of(
        cls,
        size: PriorSize,
        finite: NDArray[np.bool_],
        first: NDArray[np.int64],
        restorations: int,
    ) -> Bound:
        """The bound of one call of ``restore``.

        Args:
            size: of the prior.
            finite: (N, H, W) bool, where the threshold is finite, so that a code could change.
            first: (N,) the raster place of each slice's first code that could be replaced, -1 if
                it has none: then it costs no more than its scan.
            restorations: S.
        """
        costs = PlaceCosts.of(size)
        columns = size.shape[1]
        scan = sum(costs.needed(is_open, 0) for is_open in finite)
        shared = own = 0
        for is_open, place in zip(finite, first, strict=True):
            if place < 0:
                continue
            row = int(place) // columns
            could = is_open & (np.arange(is_open.size).reshape(is_open.shape) >= place)
            # The vertical features of the row above the first are the slice's own, too.
            shared += costs.needed(np.zeros_like(is_open), 0, row * columns - 1) if row else 0
            shared += int(costs.vertical[row - 1].sum()) if row else 0
            own += restorations * costs.needed(could, row)
        return cls(scan, shared, own)


def matrix_product_rate(
    channels: int, device: str = "cpu", rows: tuple[int, ...] = (240, 960), trials: int = 8
) -> float:
    """Multiply-adds a second of float32 products (rows, C) x (C, 2 C), the samplers' usual shape.

    Args:
        channels: C.
        device: on a CPU one thread is used and a second is one of CPU time; elsewhere all of the
            device, and a second is one of wall time.
        rows: how many are tried; fewer than some two hundred are slower.
        trials: of some hundredths of a second, for each number of rows.

    Returns:
        The best of all trials: what the machine can do, so that the bound is one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return max(_rate(count, channels, device, trials) for count in rows)
    finally:
        torch.set_num_threads(threads)


def _rate(rows: int, channels: int, device: str, trials: int) -> float:
    left = torch.randn(rows, channels, device=device)
    right = torch.randn(channels, 2 * channels, device=device)
    out = torch.empty(rows, 2 * channels, device=device)
    clock = time.thread_time if device == "cpu" else time.perf_counter

    def seconds(repeats: int) -> float:
        synchronise(device)
        started = clock()
        for _ in range(repeats):
            torch.mm(left, right, out=out)
        synchronise(device)
        return clock() - started

    repeats = 8
    while seconds(repeats) < _TRIAL_SECONDS:
        repeats *= 2
    best = min(seconds(repeats) for _ in range(trials))
    return repeats * rows * channels * 2 * channels / best
