"""A prior's weights rearranged for the cached sampler: each tap of each convolution a plain matrix.

Matrices are (in, out), so that features (m, in) times a matrix are one GEMM.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ..networks.layers import GatedBlock, MaskedConv2d
    from ..networks.pixelsnail import PixelBlock, PixelSNAIL

Taps = list[list[Tensor]]
"""Taps[row][column] is the (in, out) matrix of one tap of a kernel."""


def _taps(weight: Tensor) -> Taps:
    """Convolution weights (out, in, rows, columns) as matrices."""
    return [[tap.contiguous() for tap in row] for row in weight.permute(2, 3, 1, 0)]


def _bias(layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _matrix(layer: nn.Conv2d) -> Tensor:
    """The (in, out) matrix of a 1x1 convolution."""
    return layer.weight[:, :, 0, 0].t().contiguous()


@dataclass(frozen=True)
class PackedGate:
    """A gated residual block."""

    taps1: Taps
    bias1: Tensor
    taps2: Taps
    bias2: Tensor
    aux: Tensor | None
    position: Tensor | None  # (position channels, channels)

    @classmethod
    def of(cls, block: GatedBlock) -> PackedGate:
        return cls(
            taps1=_taps(block.conv1.weight),
            bias1=_bias(block.conv1),
            taps2=_taps(block.conv2.weight),
            bias2=_bias(block.conv2),
            aux=None if block.aux is None else _matrix(block.aux),
            position=None if block.position is None else block.position.weight.t().contiguous(),
        )

    def offset(self, condition: Tensor | None) -> Tensor:
        """Bias of the first convolution with the position's share: (channels,) or (n, channels)."""
        if self.position is None or condition is None:
            return self.bias1
        return torch.addmm(self.bias1, condition, self.position)


@dataclass(frozen=True)
class PackedBlock:
    """One PixelBlock. ``*_background`` are (rows, columns, channels) on the attention's grid."""

    vertical: list[PackedGate]
    horizontal: list[PackedGate]
    key_input: Taps
    key_output: Taps
    key_background: Tensor
    query_output: Taps
    query_background: Tensor
    key_gate: PackedGate
    value_gate: PackedGate
    query_gate: PackedGate
    to_key: Tensor
    key_bias: Tensor
    to_value: Tensor
    value_bias: Tensor
    to_query: Tensor  # with the attention's 1 / sqrt(key size) in it
    query_bias: Tensor
    upsample: Taps
    upsample_bias: Tensor
    merge: PackedGate
    merge_aux: Tensor

    @classmethod
    def of(cls, block: PixelBlock) -> PackedBlock:
        def masked(layer: MaskedConv2d) -> Taps:
            return _taps(layer.weight * layer.mask)

        def background(layer: MaskedConv2d, other: MaskedConv2d) -> Tensor:
            assert other.bias is not None
            return (layer(block.background)[0] + other.bias[:, None, None]).permute(1, 2, 0)

        attention = block.attention
        scale = 1 / math.sqrt(attention.key_size)
        merge = PackedGate.of(block.merge)
        assert merge.aux is not None
        return cls(
            vertical=[PackedGate.of(gate) for gate in block.vertical],  # type: ignore[arg-type]
            horizontal=[PackedGate.of(gate) for gate in block.horizontal],  # type: ignore[arg-type]
            key_input=masked(block.key_input),
            key_output=masked(block.key_output),
            key_background=background(block.key_background, block.key_output).contiguous(),
            query_output=masked(block.query_output),
            query_background=background(block.query_background, block.query_output).contiguous(),
            key_gate=PackedGate.of(attention.key_block),
            value_gate=PackedGate.of(attention.value_block),
            query_gate=PackedGate.of(attention.query_block),
            to_key=_matrix(attention.to_key),
            key_bias=_bias(attention.to_key),
            to_value=_matrix(attention.to_value),
            value_bias=_bias(attention.to_value),
            to_query=_matrix(attention.to_query) * scale,
            query_bias=_bias(attention.to_query) * scale,
            # A transposed convolution keeps its weights as (in, out, rows, columns).
            upsample=_taps(block.upsample.weight.transpose(0, 1)),
            upsample_bias=_bias(block.upsample),
            merge=merge,
            merge_aux=merge.aux,
        )


@dataclass(frozen=True)
class PackedPrior:
    """A whole prior. ``table`` replaces the first convolution, whose input is one-hot: entry
    tap * (codes + 1) + code is what a code under that tap adds, and code number ``codes`` stands
    for "outside the grid". The taps are the three rows above, seven each, then three to the left.
    """

    codes: int
    shape: tuple[int, int]
    channels: int
    stride: int
    table: Tensor  # (24 * (codes + 1), channels)
    blocks: list[PackedBlock]
    last: Tensor
    last_bias: Tensor

    @classmethod
    @torch.inference_mode()
    def of(cls, prior: PixelSNAIL) -> PackedPrior:
        """Pack a prior whose weight norm is folded (``fold_weight_norm``)."""
        weight = prior.first.weight.permute(2, 3, 1, 0).flatten(0, 1)[:24]  # (tap, code, channel)
        assert prior.first.bias is not None
        table = weight.new_zeros(24, prior.codes + 1, prior.channels)
        table[:, : prior.codes] = weight
        table[0] += prior.first.bias  # every place has exactly one code, or none, under tap 0
        return cls(
            codes=prior.codes,
            shape=prior.shape,
            channels=prior.channels,
            stride=prior.attention_stride,
            table=table.flatten(0, 1),
            blocks=[PackedBlock.of(block) for block in prior.blocks],  # type: ignore[arg-type]
            last=_matrix(prior.last),
            last_bias=_bias(prior.last),
        )
