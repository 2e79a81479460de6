"""A small 3-D U-Net (Çiçek et al., MICCAI 2016) for brain extraction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Block(nn.Module):
    """Two times conv 3x3x3, instance norm, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = nn.InstanceNorm3d(outputs, affine=True)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.InstanceNorm3d(outputs, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.norm1(self.conv1(x)), 0.01)
        return F.leaky_relu(self.norm2(self.conv2(x)), 0.01)


class UNet3D(nn.Module):
    """Encoder and decoder with skip connections.

    The finest level works on space folded into channels (2x2x2 voxels are 8 channels), which costs
    an eighth of convolutions at full resolution; the output is unfolded again (Shi et al., CVPR
    2016).

    Args:
        channels: per level, finest (4 mm at 2 mm input) first.
    """

    def __init__(self, channels: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        self.multiple = 2 ** len(channels)
        self.down = nn.ModuleList()
        inputs = 8
        for count in channels:
            self.down.append(_Block(inputs, count))
            inputs = count
        self.up = nn.ModuleList(
            _Block(below + here, here)
            for here, below in zip(channels[-2::-1], channels[:0:-1], strict=True)
        )
        self.out = nn.Conv3d(channels[0], 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, D, H, W) intensities, sides multiples of ``multiple`` -> logits, same shape."""
        features = _fold(x)
        kept: list[Tensor] = []
        for level, block in enumerate(self.down):
            if level:
                features = F.max_pool3d(features, 2)
            features = block(features)
            kept.append(features)
        kept.pop()
        for block in self.up:
            larger = F.interpolate(features, scale_factor=2.0, mode="nearest")
            features = block(torch.cat([larger, kept.pop()], 1))
        return _unfold(self.out(features))


def _fold(x: Tensor) -> Tensor:
    """(B, 1, D, H, W) -> (B, 8, D/2, H/2, W/2)."""
    b, _, d, h, w = x.shape
    x = x.view(b, d // 2, 2, h // 2, 2, w // 2, 2)
    return x.permute(0, 2, 4, 6, 1, 3, 5).reshape(b, 8, d // 2, h // 2, w // 2)


def _unfold(x: Tensor) -> Tensor:
    """(B, 8, D, H, W) -> (B, 1, 2D, 2H, 2W)."""
    b, _, d, h, w = x.shape
    x = x.view(b, 2, 2, 2, d, h, w).permute(0, 4, 1, 5, 2, 6, 3)
    return x.reshape(b, 1, 2 * d, 2 * h, 2 * w)
