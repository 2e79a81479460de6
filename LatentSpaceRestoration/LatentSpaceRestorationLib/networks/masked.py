"""The masked prior: every code of a grid given all the codes that can be seen, before and after.

PixelSNAIL knows a code from the codes before it alone; this network knows it from all sides, and
so can fill in a hole of any shape in one pass. Trained by masking, as MIM-OOD is (Naval Marimont,
Siomos and Tarroni 2023, "MIM-OOD: generative masked image modelling for out-of-distribution
detection in medical images"); the network here is a U-Net of convolutions with attention on its
coarser grids in place of a transformer, which on grids of some 500 codes takes a fraction of the
time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_PLACE_FREQUENCIES = 16
_PLACE_CHANNELS = 64
_GROUPS = 8


class _Block(nn.Module):
    """A residual block of two convolutions, with a gain and a bias by slice position."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(_GROUPS, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.place = nn.Linear(_PLACE_CHANNELS, 2 * channels)
        self.drop = nn.Dropout2d(dropout)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, place: Tensor) -> Tensor:
        hidden = self.norm2(self.conv1(F.silu(self.norm1(x))))
        gain, bias = self.place(place)[:, :, None, None].chunk(2, 1)
        return x + self.conv2(self.drop(F.silu(hidden * (1 + gain) + bias)))


class _Attention(nn.Module):
    """Residual attention of every place to every other."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        parts = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w)
        query, key, value = parts.transpose(-1, -2).unbind(1)
        found = F.scaled_dot_product_attention(query, key, value)
        return x + self.out(found.transpose(-1, -2).reshape(b, c, h, w))


class _Stage(nn.Module):
    """Blocks on one grid, with attention after them or not."""

    def __init__(self, channels: int, blocks: int, attend: bool, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(channels, dropout) for _ in range(blocks))
        self.attention = _Attention(channels) if attend else None

    def forward(self, x: Tensor, place: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, place)
        return x if self.attention is None else self.attention(x)


class MaskedPrior(nn.Module):
    """Logits of every code at every place, given the codes that are not masked.

    Args:
        codes: K, size of the codebook.
        shape: (h, w) of a code grid.
        channels: per level of the U-Net, finest first; multiples of 8.
        blocks: residual blocks per level.
        dropout: of the 2-D dropout in the blocks.

    Attributes:
        mask: the number that stands for a masked code, K.
    """

    frequencies: Tensor

    def __init__(
        self,
        codes: int = 128,
        shape: Sequence[int] = (26, 20),
        channels: Sequence[int] = (96, 160, 192),
        blocks: Sequence[int] = (2, 3, 2),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.codes, self.mask = codes, codes
        self.shape = (int(shape[0]), int(shape[1]))
        first = channels[0]
        self.embedding = nn.Embedding(codes + 1, first)
        self.grid = nn.Parameter(0.02 * torch.randn(1, first, *self.shape))
        angles = math.pi * torch.arange(1.0, _PLACE_FREQUENCIES + 1.0)
        self.register_buffer("frequencies", angles, persistent=False)
        self.place = nn.Sequential(
            nn.Linear(2 * _PLACE_FREQUENCIES, _PLACE_CHANNELS),
            nn.SiLU(),
            nn.Linear(_PLACE_CHANNELS, _PLACE_CHANNELS),
            nn.SiLU(),
        )
        self.stem = nn.Conv2d(first, first, 3, padding=1)
        levels = list(zip(channels, blocks, strict=True))
        pairs = list(pairwise(channels))
        self.down = nn.ModuleList(_Stage(c, n, i > 0, dropout) for i, (c, n) in enumerate(levels))
        self.coarser = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.middle = _Stage(channels[-1], 1, False, dropout)
        self.finer = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairs)
        self.merge = nn.ModuleList(nn.Conv2d(2 * a, a, 1) for a, _ in pairs)
        self.up = nn.ModuleList(
            _Stage(c, n, i > 0, dropout) for i, (c, n) in enumerate(levels[:-1])
        )
        self.norm = nn.GroupNorm(_GROUPS, first)
        self.last = nn.Conv2d(first, codes, 1)

    def forward(self, codes: Tensor, position: Tensor) -> Tensor:
        """Logits of every code at every place, given the codes there that are not masked.

        Args:
            codes: (B, h, w) int64, in [0, codes), or ``mask`` where a code is not to be seen.
            position: (B,) float, the slice position in [-0.5, 0.5].

        Returns:
            (B, codes, h, w).
        """
        if codes.shape[1:] != self.shape:
            raise ValueError(f"code grids of {tuple(codes.shape[1:])}, not {self.shape}")
        angles = position[:, None].float() * self.frequencies
        place = self.place(torch.cat([angles.sin(), angles.cos()], dim=1))
        x = self.stem(self.embedding(codes).permute(0, 3, 1, 2) + self.grid)
        kept = []
        for stage, coarser in zip(self.down, self.coarser, strict=False):
            x = stage(x, place)
            kept.append(x)
            x = coarser(x)
        x = self.middle(self.down[-1](x, place), place)
        for stage, finer, merge in zip(
            reversed(self.up), reversed(self.finer), reversed(self.merge), strict=True
        ):
            beside = kept.pop()
            raised = F.interpolate(finer(x), size=beside.shape[2:])
            x = stage(merge(torch.cat([raised, beside], dim=1)), place)
        return self.last(F.silu(self.norm(x)))
