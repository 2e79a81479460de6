"""The parts of PixelSNAIL: causal convolutions, gated residual blocks, causal attention.

Every map is (batch, channels, rows, columns). "Before" means earlier in raster order: an earlier
row, or the same row and an earlier column.
"""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def fold_weight_norm(module: ModuleT) -> ModuleT:
    """A copy of ``module`` in eval mode whose weight-normalised weights are plain parameters.

    The copy computes the same function, faster, and its state dict holds ``weight`` where the
    original's holds ``parametrizations.weight.original0`` and ``original1``. Model bundles store
    folded weights. A module that is folded already is copied as it is.
    """
    # Not remove_parametrizations: a deep copy shares its class with the original, and that function
    # would take the weight out of the class, and so out of the original too. Inference mode is
    # left, since its tensors cannot become parameters.
    with torch.inference_mode(False), torch.no_grad():
        folded = copy.deepcopy(module).eval()
        for part in folded.modules():
            if parametrize.is_parametrized(part, "weight"):
                weight = part.weight
                assert isinstance(weight, Tensor)
                part.__class__ = parametrize.type_before_parametrizations(part)
                del part.parametrizations
                part.register_parameter("weight", nn.Parameter(weight.detach().clone()))
    return folded


def channels_last(module: ModuleT) -> ModuleT:
    """The same module, its weights in the layout in which convolutions are fastest on a CPU."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class MaskedConv2d(nn.Module):
    """A square convolution with only the taps before (type A) or up to (type B) the centre.

    The rows below the centre are not stored, so that the kernel is (size // 2 + 1, size) and only
    the right end of its last row is masked.

    Args:
        in_channels, out_channels: channels of the input and the output.
        size: the odd width of the kernel.
        mask_type: "A" excludes the centre tap, "B" includes it.
        stride: step in both directions; output (r, c) is centred on input (r * stride, c * stride).
        active_inputs: how many inputs differ from 0 under the kernel, for the scale of the initial
            weights; all of them by default, one a tap where the input is one-hot.
    """

    mask: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        mask_type: str,
        stride: int = 1,
        bias: bool = True,
        active_inputs: int | None = None,
    ) -> None:
        super().__init__()
        if size % 2 == 0 or mask_type not in ("A", "B"):
            raise ValueError(f"an odd size and type A or B are needed, not {size}, {mask_type!r}")
        reach = size // 2
        mask = torch.ones(reach + 1, size)
        mask[reach, reach + (mask_type == "B") :] = 0
        self.reach, self.stride = reach, stride
        self.register_buffer("mask", mask, persistent=False)
        taps = reach * size + reach + (mask_type == "B")
        fan_in = active_inputs or taps * in_channels
        self.weight = nn.Parameter(
            torch.randn(out_channels, in_channels, reach + 1, size) / math.sqrt(fan_in)
        )
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, ceil(H / stride), ceil(W / stride))."""
        rows = x.shape[2]
        # Padding below is needed by the convolution call alone; those output rows are cut off.
        x = F.conv2d(
            x,
            self.weight * self.mask,
            self.bias,
            stride=self.stride,
            padding=(self.reach, self.reach),
        )
        return x[:, :, : (rows - 1) // self.stride + 1]


class GatedBlock(nn.Module):
    """Gated residual block: x + GLU(conv(dropout(ELU(conv(ELU(x)) + aux + position)))).

    Kernels of even height or width reach upwards and to the left only: (2, 3) sees the row above
    and its own row, (2, 2) also only the columns up to its own.
    """

    def __init__(
        self,
        channels: int,
        kernel: tuple[int, int] = (1, 1),
        aux: bool = False,
        position_channels: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.kernel = kernel
        self.conv1 = weight_norm(nn.Conv2d(channels, channels, kernel, padding=padding))
        self.conv2 = weight_norm(nn.Conv2d(channels, 2 * channels, kernel, padding=padding))
        self.aux = weight_norm(nn.Conv2d(channels, channels, 1, bias=False)) if aux else None
        self.position = (
            nn.Linear(position_channels, channels, bias=False) if position_channels else None
        )
        self.dropout = nn.Dropout2d(dropout)

    def _crop(self, x: Tensor) -> Tensor:
        if self.kernel[0] % 2 == 0:
            x = x[:, :, :-1]
        if self.kernel[1] % 2 == 0:
            x = x[:, :, :, :-1]
        return x

    def forward(
        self, x: Tensor, aux: Tensor | None = None, position: Tensor | None = None
    ) -> Tensor:
        """``x``, ``aux`` and the result (B, channels, H, W), ``position`` (B, its channels)."""
        out = self._crop(self.conv1(F.elu(x)))
        if self.aux is not None:
            if aux is None:
                raise ValueError("this block needs an auxiliary input")
            out = out + self.aux(F.elu(aux))
        if self.position is not None:
            if position is None:
                raise ValueError("this block needs the slice position")
            out = out + self.position(position)[:, :, None, None]
        out = self._crop(self.conv2(self.dropout(F.elu(out))))
        value, gate = out.chunk(2, dim=1)  # not F.glu: its backward is slow on channels_last maps
        return x + value * torch.sigmoid(gate)


class PositionEmbedding(nn.Module):
    """The scalar slice position, in [-0.5, 0.5], as Fourier features through a small perceptron."""

    frequencies: Tensor

    def __init__(self, channels: int = 32, octaves: int = 5) -> None:
        super().__init__()
        self.register_buffer(
            "frequencies", math.pi * 2.0 ** torch.arange(octaves), persistent=False
        )
        self.net = nn.Sequential(
            nn.Linear(2 * octaves + 1, channels), nn.ELU(), nn.Linear(channels, channels), nn.ELU()
        )

    def forward(self, position: Tensor) -> Tensor:
        """(B,) to (B, channels)."""
        position = position.to(self.frequencies.dtype)[:, None]
        angle = position * self.frequencies
        return self.net(torch.cat([position, angle.sin(), angle.cos()], dim=1))


def down_shift(x: Tensor) -> Tensor:
    """Row r of the result is row r - 1 of ``x``; row 0 is zero."""
    return F.pad(x[:, :, :-1], (0, 0, 1, 0))


class CausalAttention(nn.Module):
    """Single-head attention in which a position sees only the positions before it.

    The first position sees nothing: its output is zero. Logits and softmax are in float32 at least,
    also under autocast.
    """

    mask: Tensor

    def __init__(self, channels: int, key_size: int, value_size: int, positions: int) -> None:
        super().__init__()
        self.key_size = key_size
        self.query_block, self.key_block, self.value_block = (
            GatedBlock(channels),
            GatedBlock(channels),
            GatedBlock(channels),
        )
        self.to_query = weight_norm(nn.Conv2d(channels, key_size, 1))
        self.to_key = weight_norm(nn.Conv2d(channels, key_size, 1))
        self.to_value = weight_norm(nn.Conv2d(channels, value_size, 1))
        hidden = torch.ones(positions, positions, dtype=torch.bool).triu()
        hidden[0, 0] = False  # a softmax over nothing is undefined; its result is zeroed instead
        self.register_buffer("mask", hidden, persistent=False)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """``query`` and ``key`` (B, channels, H, W); (B, value_size, H, W), in their type."""
        height, width = key.shape[2:]
        q = self.to_query(self.query_block(query)).flatten(2)
        k = self.to_key(self.key_block(key)).flatten(2)
        v = self.to_value(self.value_block(key)).flatten(2)
        with torch.autocast(key.device.type, enabled=False):
            precise = torch.promote_types(q.dtype, torch.float32)
            logits = torch.matmul(q.to(precise).transpose(1, 2), k.to(precise))
            logits = (logits / math.sqrt(self.key_size)).masked_fill(self.mask, -math.inf)
            out = torch.matmul(v.to(precise), logits.softmax(dim=2).transpose(1, 2))
            first = torch.arange(out.shape[2], device=out.device) == 0
            out = out.masked_fill(first, 0.0)
        return out.unflatten(2, (height, width)).to(v.dtype)
