"""Training of the prior on the codes of the frozen encoder."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks import processes
from ..networks.pixelsnail import PixelSNAIL
from ..networks.vqvae import VQVAE
from .augmentation import Augmentation, augment
from .checkpoint import write_whole
from .loop import Pictures, train
from .run import Run, generator_of
from .slices import Slices


@dataclass(frozen=True)
class Codes:
    """Code grids of slices: (N, h, w) uint8 or int16 codes and (N,) float32 positions."""

    values: np.ndarray
    position: np.ndarray

    def save(self, file: Path) -> None:
        """Write as a compressed ``.npz``."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, values=self.values, position=self.position)
        write_whole(file, buffer.getbuffer())

    @classmethod
    def load(cls, file: Path) -> Codes:
        """Read what :meth:`save` wrote."""
        with np.load(file, allow_pickle=False) as data:
            return cls(data["values"], data["position"])


def encode_slices(
    network: VQVAE,
    data: Slices,
    copies: int,
    augmentation: Augmentation | None = None,
    *,
    seed: int = 0,
    device: str = "cpu",
    batch: int = 32,
    report: Callable[[str], None] = print,
) -> Codes:
    """Codes of slices, once as they are (``copies`` 0) or of several augmented copies.

    Args:
        network: in evaluation mode.
        data: prepared slices.
        copies: augmented copies of each slice.
        augmentation: None for the usual one.
        seed: of the augmentation.
        device: torch device.
        batch: slices at a time.
        report: takes a line of text.

    Returns:
        the codes of all copies, copy by copy.
    """
    augmentation = augmentation or Augmentation()
    codes: list[np.ndarray] = []
    kind = np.uint8 if network.codebook.keys.shape[0] <= 256 else np.int16
    with torch.inference_mode():
        for copy in range(max(1, copies)):
            for start in range(0, len(data), batch):
                x, p = data.take(torch.arange(start, min(start + batch, len(data))))
                if copies:
                    generator = generator_of(seed + 31 * copy + 1, start)
                    x, _ = augment(x, augmentation, generator, is_share=False)
                grid = network.encode(x.to(device), p.to(device))
                codes.append(grid.cpu().numpy().astype(kind))
            report(f"encoded copy {copy + 1} of {max(1, copies)}")
    return Codes(np.concatenate(codes), np.tile(data.position, max(1, copies)))


def code_nll(network: nn.Module, codes: Codes, limit: int = 256) -> dict[str, float]:
    """Mean NLL in nats a code over up to ``limit`` grids, and over the codes that carry most of it.

    Returns:
        ``nll`` over all codes; codes outside the brain cost next to nothing and are counted.
    """
    pick = torch.linspace(0, len(codes.values) - 1, min(limit, len(codes.values))).long()
    device = next(network.parameters()).device
    grids = torch.from_numpy(codes.values)[pick].long().to(device)
    position = torch.from_numpy(codes.position)[pick].to(device)
    total = 0.0
    with torch.inference_mode():
        for grid, place in zip(grids.split(32), position.split(32), strict=True):
            total += float(F.cross_entropy(network(grid, place).float(), grid, reduction="sum"))
    return {"nll": total / grids.numel()}


def train_prior(
    settings: Mapping[str, Any],
    data: Codes,
    held_out: Codes,
    run: Run,
    *,
    code_dropout: float = 0.0,
    pictures: Pictures | None = None,
) -> PixelSNAIL:
    """Train the prior by the cross-entropy of each code given those before it.

    Args:
        settings: arguments of :class:`PixelSNAIL`.
        data, held_out: codes of different subjects.
        run: how long, where, and whom to tell.
        code_dropout: share of input codes replaced by random ones, so that the prior is not thrown
            by a lesion among the codes before; the targets stay.
        pictures: see :func:`loop.train`.
    """
    torch.manual_seed(run.schedule.seed)
    network = PixelSNAIL(**settings)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    values = torch.from_numpy(data.values)
    position = torch.from_numpy(data.position)
    keys = int(settings["codes"])

    def loss(
        model: nn.Module, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        index = run.batch(len(values), step)
        grid = values[index].long()
        given = grid
        if code_dropout > 0.0:
            whole = (len(grid) * processes.size(), *grid.shape[1:])
            part = processes.part(whole[0])
            wrong = torch.randint(keys, whole, generator=generator)[part]
            is_wrong = torch.rand(whole, generator=generator)[part] < code_dropout
            given = torch.where(is_wrong, wrong, grid)
        logits = model(given.to(run.device), position[index].to(run.device)).float()
        value = F.cross_entropy(logits, grid.to(run.device))
        return value, {"nll": float(value.detach())}

    averaged = train(
        network,
        loss,
        run,
        validate=lambda model: code_nll(model, held_out),
        validate_every=400,
        pictures=pictures,
    )
    assert isinstance(averaged, PixelSNAIL)
    return averaged
