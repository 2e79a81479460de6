"""What a masked prior is trained on: which codes are hidden from it, and which are made wrong.

At work it fills in tiles, boxes and irregular holes beside tissue that may itself be a lesion. So
holes of all of these kinds are made, and part of the codes that it sees is wrong.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def draw_masks(count: int, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Holes: tiles in a regular or a random pattern, one to three boxes, or blobs.

    Args:
        count: how many grids.
        shape: (h, w) of a grid.
        generator: of the draws.

    Returns:
        (count, h, w) bool, True where a code is hidden; at least one in each grid.
    """
    masks = torch.zeros(count, *shape, dtype=torch.bool)
    kinds = torch.rand(count, generator=generator).tolist()
    for mask, kind in zip(masks, kinds, strict=True):
        if kind < 0.45:
            _tiles(mask, kind, generator)
        elif kind < 0.75:
            _boxes(mask, generator)
        else:
            _blobs(mask, generator)
        if not mask.any():
            mask[_whole(0, shape[0] - 1, generator), _whole(0, shape[1] - 1, generator)] = True
    return masks


def spoil(codes: Tensor, keys: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Replace the codes of a box, in about half of the grids, by wrong ones.

    By one code, by codes at random, by those of another grid at the same or at another place; or
    single codes anywhere by codes at random.

    Args:
        codes: (B, h, w) int64.
        keys: size of the codebook.
        generator: of the draws.

    Returns:
        (B, h, w) codes; (B, h, w) bool, where they are other than before.
    """
    count, h, w = codes.shape
    given = codes.clone()
    for number in range(count):
        kind = float(torch.rand(1, generator=generator))
        if kind < 0.45:
            continue
        a, b = _whole(1, 6, generator), _whole(1, 6, generator)
        y, x = _whole(1, h - 2, generator), _whole(1, w - 2, generator)
        box = given[number, y : y + a, x : x + b]
        if kind < 0.6:
            box.fill_(_whole(0, keys - 1, generator))
        elif kind < 0.7:
            box.copy_(torch.randint(keys, box.shape, generator=generator))
        elif kind < 0.85:
            box.copy_(codes[_whole(0, count - 1, generator), y : y + a, x : x + b])
        elif kind < 0.95:
            other = codes[_whole(0, count - 1, generator)]
            y, x = _whole(0, max(0, h - a), generator), _whole(0, max(0, w - b), generator)
            box.copy_(other[y : y + box.shape[0], x : x + box.shape[1]])
        else:
            wrong = torch.rand(h, w, generator=generator) < 0.1
            drawn = torch.randint(keys, (int(wrong.sum()),), generator=generator)
            given[number][wrong] = drawn
    return given, given != codes


def _tiles(mask: Tensor, kind: float, generator: torch.Generator) -> None:
    h, w = mask.shape
    high = _whole(2, 7, generator)
    wide = _whole(2, 7, generator) if kind < 0.15 else high
    down, along = _whole(0, 2 * high - 1, generator), _whole(0, 2 * wide - 1, generator)
    if kind < 0.3:  # every fourth, as at work
        rows = ((torch.arange(h) + down) // high) % 2 == 0
        columns = ((torch.arange(w) + along) // wide) % 2 == 0
        mask |= rows[:, None] & columns
    else:
        grid = ((h + 2 * high) // high + 1, (w + 2 * wide) // wide + 1)
        tiles = torch.rand(grid, generator=generator) < 0.25
        whole = tiles.repeat_interleave(high, 0).repeat_interleave(wide, 1)
        mask |= whole[down : down + h, along : along + w]


def _boxes(mask: Tensor, generator: torch.Generator) -> None:
    h, w = mask.shape
    for _ in range(_whole(1, 3, generator)):
        high, wide = _whole(3, 10, generator), _whole(3, 10, generator)
        y, x = _whole(-2, h - 3, generator), _whole(-2, w - 3, generator)
        mask[max(0, y) : y + high, max(0, x) : x + wide] = True


def _blobs(mask: Tensor, generator: torch.Generator) -> None:
    """A twentieth to half of the grid: where a smooth random field is high."""
    h, w = mask.shape
    size = _whole(2, 5, generator)
    coarse = torch.randn(1, 1, h // size + 3, w // size + 3, generator=generator)
    field = F.interpolate(coarse, scale_factor=size, mode="bicubic")[0, 0]
    field = field[size : size + h, size : size + w]
    share = 0.05 + 0.5 * float(torch.rand(1, generator=generator))
    mask |= field > torch.quantile(field, 1 - share)


def _whole(low: int, high: int, generator: torch.Generator) -> int:
    """A whole number from ``low`` to ``high``, both included."""
    return int(torch.randint(low, high + 1, (1,), generator=generator))
