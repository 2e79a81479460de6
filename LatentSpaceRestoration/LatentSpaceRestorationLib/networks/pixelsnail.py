"""PixelSNAIL: the prior over code grids (Chen et al. 2018; Naval Marimont and Tarroni 2021).

The factorisation is in raster order: p(codes) = prod_i p(code_i | codes before i, slice position).
Against the published network, the slice position is added to each gated block as a bias made from a
shared embedding in place of a constant channel, which saves the arithmetic of that channel and
lets the samplers compute it once a slice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from .layers import (
    CausalAttention,
    GatedBlock,
    MaskedConv2d,
    PositionEmbedding,
    down_shift,
    fold_weight_norm,
)

POSITION_CHANNELS = 32


class PixelBlock(nn.Module):
    """Pairs of vertical and horizontal gated blocks, then causal attention on a coarser grid.

    Every feature at a position depends on the codes before that position alone, for the inputs, the
    horizontal features and the output; the vertical features of a row also depend on codes of that
    same row, which is why the horizontal ones take them shifted down by a row.
    """

    background: Tensor

    def __init__(
        self,
        shape: tuple[int, int],
        channels: int,
        pairs: int,
        attention_stride: int,
        key_size: int,
        value_size: int,
        dropout: float,
        position_channels: int,
    ) -> None:
        super().__init__()
        self.vertical = nn.ModuleList(
            GatedBlock(channels, (2, 3), False, position_channels, dropout) for _ in range(pairs)
        )
        self.horizontal = nn.ModuleList(
            GatedBlock(channels, (2, 2), True, position_channels, dropout) for _ in range(pairs)
        )
        rows, columns = shape
        stride = attention_stride
        self.key_input = MaskedConv2d(channels, channels, 5, "B", stride, bias=False)
        self.key_output = MaskedConv2d(channels, channels, 5, "B", stride)
        self.query_output = MaskedConv2d(channels, channels, 5, "B", stride)
        # The coordinates are the same for every slice: one small convolution gives their share of
        # the key and the query, instead of two more channels on maps of the whole batch.
        self.key_background = MaskedConv2d(2, channels, 5, "B", stride, bias=False)
        self.query_background = MaskedConv2d(2, channels, 5, "B", stride, bias=False)
        row = (torch.arange(rows) / rows - 0.5)[:, None].expand(rows, columns)
        column = (torch.arange(columns) / columns - 0.5)[None, :].expand(rows, columns)
        self.register_buffer("background", torch.stack([row, column])[None], persistent=False)
        self.attention = CausalAttention(
            channels, key_size, value_size, (rows // stride) * (columns // stride)
        )
        self.upsample = nn.ConvTranspose2d(value_size, channels, stride, stride=stride)
        self.merge = GatedBlock(channels, aux=True, dropout=dropout)

    def forward(self, x: Tensor, position: Tensor | None) -> Tensor:
        """``x`` and the result (B, channels, H, W), ``position`` (B, its channels) or None."""
        vertical = horizontal = x
        for v_block, h_block in zip(self.vertical, self.horizontal, strict=True):
            vertical = v_block(vertical, position=position)
            horizontal = h_block(horizontal, down_shift(vertical), position)
        key = self.key_input(x) + self.key_output(horizontal)
        key = F.elu(key + self.key_background(self.background))
        query = F.elu(self.query_output(horizontal) + self.query_background(self.background))
        attention = self.upsample(F.elu(self.attention(query, key)))
        return self.merge(horizontal, attention)


class PixelSNAIL(nn.Module):
    """The prior over code grids.

    Args:
        codes: how many codes there are.
        shape: (rows, columns) of the grid, both divisible by ``attention_stride``.
        channels: channels of the features.
        blocks: how many blocks.
        pairs: pairs of gated blocks in a block.
        attention_stride: the step of the attention's grid.
        key_size, value_size: sizes of the attention's keys and values.
        dropout: share of channels dropped in training.
        position: whether the slice position is a condition.

    The published brain prior is ``codes=128, shape=(20, 20), channels=128, blocks=4, pairs=4,
    attention_stride=2, value_size=128``; the abdomen's has ``shape=(10, 10), attention_stride=1``.

    Raises ValueError if ``shape`` is not divisible by ``attention_stride``.
    """

    def __init__(
        self,
        codes: int = 128,
        shape: tuple[int, int] = (24, 20),
        channels: int = 64,
        blocks: int = 3,
        pairs: int = 2,
        attention_stride: int = 2,
        key_size: int = 16,
        value_size: int = 64,
        dropout: float = 0.1,
        position: bool = True,
    ) -> None:
        super().__init__()
        rows, columns = (int(n) for n in shape)
        if rows % attention_stride or columns % attention_stride:
            raise ValueError(
                f"a grid of {rows} x {columns} codes is not divisible by the attention stride "
                f"{attention_stride}"
            )
        self.codes, self.shape, self.channels = codes, (rows, columns), channels
        self.attention_stride = attention_stride
        self.embedding = PositionEmbedding(POSITION_CHANNELS) if position else None
        self.first = MaskedConv2d(codes, channels, 7, "A", active_inputs=24)
        self.blocks = nn.ModuleList(
            PixelBlock(
                (rows, columns),
                channels,
                pairs,
                attention_stride,
                key_size,
                value_size,
                dropout,
                POSITION_CHANNELS if position else 0,
            )
            for _ in range(blocks)
        )
        self.last = weight_norm(nn.Conv2d(channels, codes, 1))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], **kwargs: Any) -> PixelSNAIL:
        """The prior of ``kwargs`` with a state dict, folded or not, ready for inference.

        Raises RuntimeError if names or shapes do not match.
        """
        prior = cls(**kwargs)
        if any("parametrizations" in name for name in tensors):
            prior.load_state_dict(dict(tensors))
            return fold_weight_norm(prior)
        folded = fold_weight_norm(prior)
        folded.load_state_dict(dict(tensors))
        return folded

    def forward(self, codes: Tensor, position: Tensor | None = None) -> Tensor:
        """Logits of every code at every place, given the codes before it.

        Args:
            codes: (B, H, W) int64, in [0, codes).
            position: (B,) float, the slice position in [-0.5, 0.5]; not used, and may be None, if
                the prior was made without position.

        Returns:
            (B, codes, H, W), float32 also under autocast; [b, :, r, c] depends on the codes[b]
            before (r, c) alone.
        """
        if codes.shape[1:] != self.shape:
            raise ValueError(f"code grids of {tuple(codes.shape[1:])}, not {self.shape}")
        condition = None
        if self.embedding is not None:
            if position is None:
                raise ValueError("this prior needs the slice position")
            condition = self.embedding(position)
        one_hot = F.one_hot(codes, self.codes).permute(0, 3, 1, 2).to(self.first.weight.dtype)
        x = self.first(one_hot)
        for block in self.blocks:
            x = block(x, condition)
        with torch.autocast(x.device.type, enabled=False):
            return self.last(F.elu(x.to(self.first.weight.dtype)))
