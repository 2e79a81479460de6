"""Vector-quantised variational autoencoder: slices to discrete codes and back.

Naval Marimont and Tarroni (ISBI 2021), section 2.1, with the codebook kept healthy: k-means start,
exponential-moving-average updates and dead-key resets in place of a codebook loss (van den Oord et
al. 2017, appendix A.1), since the published codebook collapses.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..model_space import CLIP
from . import distributed
from .layers import channels_last


class GatedResidualBlock(nn.Module):
    """BatchNorm, ELU, conv 3x3, ELU, 2-D dropout, conv 3x3 to 2C, BatchNorm, GLU, add."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(2 * channels)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        out = self.conv1(F.elu(self.norm1(x)))
        out = self.norm2(self.conv2(self.dropout(F.elu(out))))
        value, gate = out.chunk(2, dim=1)  # not F.glu: it is slow on channels_last maps
        return x + value * torch.sigmoid(gate)


def _with_position(x: Tensor, position: Tensor) -> Tensor:
    """Append a constant channel that holds the slice position: (B, C, H, W), (B,) -> C + 1."""
    channel = position.to(x.dtype).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
    return torch.cat([x, channel], 1)


class Encoder(nn.Module):
    """Slice and position -> latents: conv 7x7, then blocks and a stride-2 conv 5x5 per level."""

    def __init__(
        self,
        channels: Sequence[int],
        code_dim: int,
        blocks: int,
        dropout: float,
        position: bool = True,
    ) -> None:
        super().__init__()
        self.position = position
        layers: list[nn.Module] = [
            nn.Conv2d(1 + position, channels[0], 7, padding=3),
            nn.BatchNorm2d(channels[0]),
        ]
        for here, below in itertools.pairwise(channels):
            layers += [GatedResidualBlock(here, dropout) for _ in range(blocks)]
            layers += [nn.Conv2d(here, below, 5, stride=2, padding=2), nn.BatchNorm2d(below)]
        layers.append(GatedResidualBlock(channels[-1], dropout))
        if code_dim != channels[-1]:
            layers.append(nn.Conv2d(channels[-1], code_dim, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, slices: Tensor, position: Tensor) -> Tensor:
        """(B, 1, H, W), (B,) -> (B, code_dim, h, w)."""
        # Outside the brain the value is then 0, that of the convolutions' padding.
        x = slices + CLIP
        return self.layers(_with_position(x, position) if self.position else x)


class Decoder(nn.Module):
    """Latents and position -> slice: conv 3x3, blocks and a transposed conv 6x6 per level."""

    def __init__(self, channels: Sequence[int], code_dim: int, blocks: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(code_dim + 1, channels[-1], 3, padding=1),
            nn.BatchNorm2d(channels[-1]),
        ]
        for here, above in zip(channels[:0:-1], channels[-2::-1], strict=True):
            layers += [GatedResidualBlock(here, dropout) for _ in range(blocks)]
            layers += [
                nn.ConvTranspose2d(here, above, 6, stride=2, padding=2),
                nn.BatchNorm2d(above),
            ]
        layers += [
            GatedResidualBlock(channels[0], dropout),
            nn.ELU(),
            nn.Conv2d(channels[0], 1, 1),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor, position: Tensor) -> Tensor:
        """(B, code_dim, h, w), (B,) -> (B, 1, H, W)."""
        return self.layers(_with_position(latents, position))


class Codebook(nn.Module):
    """K keys; the nearest in L2 stands for a latent.

    In training the keys follow their latents by an exponential moving average, start as the
    k-means centres of the first latents, and a key that nobody uses is moved onto a random latent.
    """

    def __init__(self, codes: int, dim: int, decay: float = 0.99, dead: float = 0.05) -> None:
        super().__init__()
        self.decay, self.dead = decay, dead
        self.keys: Tensor
        self.count: Tensor
        self.sum: Tensor
        self.register_buffer("keys", torch.randn(codes, dim))
        self.register_buffer("count", torch.zeros(codes))
        self.register_buffer("sum", torch.zeros(codes, dim))

    @property
    def started(self) -> bool:
        """Whether the keys were set from data."""
        return bool(self.count.sum() > 0)

    def nearest(self, latents: Tensor) -> Tensor:
        """(..., D) -> (...) int64 index of the nearest key."""
        flat, keys = latents.reshape(-1, latents.shape[-1]).float(), self.keys
        if not self.training and flat.device.type == "cpu":
            # In float32 the order of the sums, which the number of threads decides, would tell
            # near keys apart, some hundred in a scan.
            flat, keys = flat.double(), keys.double()
        # Near keys differ by less than bfloat16 can tell.
        with torch.autocast(flat.device.type, enabled=False):
            distance = keys.square().sum(1) - 2.0 * flat @ keys.t()
        return distance.argmin(1).reshape(latents.shape[:-1])

    @torch.no_grad()
    def start(self, latents: Tensor, generator: torch.Generator, iterations: int = 20) -> None:
        """Set the keys to the k-means centres of (N, D) latents."""
        codes = self.keys.shape[0]
        pick = torch.randperm(len(latents), generator=generator)[:codes]
        self.keys.copy_(latents[pick.to(latents.device)])
        for _ in range(iterations):
            index = self.nearest(latents)
            count = torch.bincount(index, minlength=codes).float()
            total = torch.zeros_like(self.keys).index_add_(0, index, latents)
            alive = count > 0
            self.keys[alive] = total[alive] / count[alive, None]
        self.count.fill_(float(len(latents)) / codes)
        self.sum.copy_(self.keys * self.count[:, None])

    @torch.no_grad()
    def update(self, latents: Tensor, index: Tensor, generator: torch.Generator) -> None:
        """Move the keys towards the (N, D) latents that chose them, in all processes alike."""
        codes = self.keys.shape[0]
        everywhere = len(latents) * distributed.size()
        count = distributed.total(torch.bincount(index, minlength=codes).float())
        total = distributed.total(torch.zeros_like(self.sum).index_add_(0, index, latents))
        self.count.lerp_(count, 1.0 - self.decay)
        self.sum.lerp_(total, 1.0 - self.decay)
        average = everywhere / codes
        dead = torch.nonzero(self.count < self.dead * average).flatten()
        if len(dead):
            pick = torch.randint(everywhere, (len(dead),), generator=generator)
            moved = distributed.gather_rows(latents, pick.to(latents.device))
            # Only as much weight as keeps the key alive until it has shown its use.
            self.count[dead] = 0.2 * average
            self.sum[dead] = moved * self.count[dead, None]
        self.keys.copy_(self.sum / self.count.clamp_min(1e-8)[:, None])


@dataclass(frozen=True)
class VQVAEOutput:
    """One training pass.

    Attributes:
        reconstruction: (B, 1, H, W).
        codes: (B, h, w) int64.
        commitment: mean squared distance of latents to their keys, times beta.
        perplexity: effective number of keys in this batch, 1 to K.
    """

    reconstruction: Tensor
    codes: Tensor
    commitment: Tensor
    perplexity: float


class VQVAE(nn.Module):
    """Encoder, codebook and decoder.

    Args:
        codes: K, number of keys.
        channels: per level, finest first; ``len(channels) - 1`` levels of stride 2.
        code_dim: D, length of a key; 0 stands for ``channels[-1]`` (as published).
        encoder_blocks, decoder_blocks: gated residual blocks per level.
        encoder_position: whether the encoder sees the slice position, as published. Without it a
            structure has the same codes wherever it is, and the background has one but for the
            border of the slice; the decoder and the prior see the position in any case.
        dropout: of the 2-D dropout in the blocks.
        beta: weight of the commitment term.

    The published brain model is ``VQVAE(128, (16, 32, 64, 256), encoder_blocks=2,
    decoder_blocks=2)`` on 160x160 slices (20x20 codes); the abdomen's has ``(16, 32, 64, 128,
    256)`` (10x10 codes).
    """

    def __init__(
        self,
        codes: int = 128,
        channels: Sequence[int] = (16, 32, 64, 256),
        code_dim: int = 0,
        encoder_blocks: int = 2,
        decoder_blocks: int = 2,
        encoder_position: bool = True,
        dropout: float = 0.1,
        beta: float = 0.25,
    ) -> None:
        super().__init__()
        dim = code_dim or channels[-1]
        self.beta = beta
        self.encoder = Encoder(channels, dim, encoder_blocks, dropout, encoder_position)
        self.codebook = Codebook(codes, dim)
        self.decoder = Decoder(channels, dim, decoder_blocks, dropout)

    def encode(self, slices: Tensor, position: Tensor) -> Tensor:
        """(B, 1, H, W) slices in [-3, 3] and (B,) positions -> (B, h, w) int64 codes."""
        latents = self.encoder(slices, position)
        return self.codebook.nearest(latents.permute(0, 2, 3, 1))

    def decode(self, codes: Tensor, position: Tensor) -> Tensor:
        """(B, h, w) codes and (B,) positions -> (B, 1, H, W) slices."""
        return self.decode_latents(self.codebook.keys[codes].permute(0, 3, 1, 2), position)

    def decode_latents(self, latents: Tensor, position: Tensor) -> Tensor:
        """(B, D, h, w) latents, keys or means of keys, and (B,) positions -> (B, 1, H, W)."""
        return self.decoder(latents, position)

    def forward(self, slices: Tensor, position: Tensor, generator: torch.Generator) -> VQVAEOutput:
        """One training pass (equation 1 of the paper, codebook term replaced by the average).

        Until the codebook is started, latents pass unquantised, as in a plain autoencoder: keys
        taken from an untrained encoder collapse within a few steps.

        Args:
            slices: (B, 1, H, W).
            position: (B,).
            generator: for the codebook's resets.
        """
        latents = self.encoder(slices, position).permute(0, 2, 3, 1).float()
        flat = latents.detach().reshape(-1, latents.shape[-1])
        if self.training and not self.codebook.started:
            free = self.decoder(latents.permute(0, 3, 1, 2), position)
            none = torch.zeros(latents.shape[:3], dtype=torch.long, device=latents.device)
            return VQVAEOutput(free, none, 1e-3 * latents.square().mean(), 0.0)
        codes = self.codebook.nearest(latents)
        quantised = self.codebook.keys[codes]
        commitment = self.beta * F.mse_loss(latents, quantised)
        use = torch.bincount(codes.flatten(), minlength=self.codebook.keys.shape[0]).float()
        use = distributed.total(use) if self.training else use
        use = use / use.sum()
        perplexity = float(torch.exp(-(use * (use + 1e-10).log()).sum()))
        straight_through = latents + (quantised - latents).detach()
        reconstruction = self.decoder(straight_through.permute(0, 3, 1, 2), position)
        if self.training:
            self.codebook.update(flat, codes.flatten(), generator)
        return VQVAEOutput(reconstruction, codes, commitment, perplexity)


def folded(vqvae: VQVAE) -> VQVAE:
    """A copy in eval mode, for inference: BatchNorm in the convolutions, maps channels_last.

    It computes the same function within rounding, and the same whatever the batch.
    """
    with torch.inference_mode(False), torch.no_grad():
        copied = copy.deepcopy(vqvae).eval()
        for part in (copied.encoder, copied.decoder):
            part.layers = folded_layers(part.layers)
    return channels_last(copied)


def folded_layers(layers: nn.Sequential) -> nn.Sequential:
    """An encoder's or decoder's layers with every BatchNorm in the convolution before it."""
    kept: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, GatedResidualBlock):
            layer.conv2 = fuse_conv_bn_eval(layer.conv2, layer.norm2)
            layer.norm2 = nn.Identity()  # type: ignore[assignment]
        if isinstance(layer, nn.BatchNorm2d):
            before = kept.pop()
            assert isinstance(before, nn.Conv2d | nn.ConvTranspose2d)
            transposed = isinstance(before, nn.ConvTranspose2d)
            kept.append(fuse_conv_bn_eval(before, layer, transpose=transposed))
        else:
            kept.append(layer)
    return nn.Sequential(*kept)
