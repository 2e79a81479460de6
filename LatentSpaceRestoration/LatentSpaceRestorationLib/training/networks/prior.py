"""Training of the priors on the codes of the frozen encoder."""

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

from ...io.files import write_whole
from ...networks import distributed
from ...networks.layers import channels_last
from ...networks.masked import MaskedPrior
from ...networks.pixelsnail import PixelSNAIL
from ...networks.vqvae import VQVAE
from ...sampling.masked import outside_view
from ..data.augmentation import Augmentation, augment
from ..data.masking import draw_masks, spoil
from ..data.slices import Slices
from ..engine.loop import Pictures, train
from ..engine.run import Run, generator_of, order_of

#: Weight in the loss of codes that are seen and right, which a masked prior has but to repeat.
_SEEN_WEIGHT = 0.1


@dataclass(frozen=True)
class Codes:
    """Code grids of slices: (N, h, w) uint8 or int16 codes and (N,) float32 positions."""

    values: np.ndarray
    position: np.ndarray

    def some(self, limit: int) -> tuple[Tensor, Tensor]:
        """Up to ``limit`` grids, (n, h, w) int64, evenly spread, and their (n,) positions."""
        pick = torch.linspace(0, len(self.values) - 1, min(limit, len(self.values))).long()
        return torch.from_numpy(self.values)[pick].long(), torch.from_numpy(self.position)[pick]

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
                index = torch.arange(start, min(start + batch, len(data)))
                x, p = data.take(index)
                if copies:
                    generator = generator_of(seed + 31 * copy + 1, start)
                    tissue = data.tissue_of(index)
                    x, _ = augment(x, augmentation, generator, tissue=tissue, is_share=False)
                grid = network.encode(x.to(device), p.to(device))
                codes.append(grid.cpu().numpy().astype(kind))
            report(f"encoded copy {copy + 1} of {max(1, copies)}")
    return Codes(np.concatenate(codes), np.tile(data.position, max(1, copies)))


def code_nll(network: nn.Module, codes: Codes, limit: int = 256) -> dict[str, float]:
    """Mean NLL in nats a code over up to ``limit`` grids, and over the codes that carry most of it.

    Returns:
        ``nll`` over all codes; codes outside the brain cost next to nothing and are counted.
    """
    device = next(network.parameters()).device
    grids, position = (tensor.to(device) for tensor in codes.some(limit))
    total = 0.0
    with torch.inference_mode():
        for grid, place in zip(grids.split(32), position.split(32), strict=True):
            total += float(F.cross_entropy(network(grid, place).float(), grid, reduction="sum"))
    return {"nll": total / grids.numel()}


def outside_nll(network: nn.Module, codes: Codes, tile: int = 3, limit: int = 256) -> float:
    """Mean NLL in nats of a code given those outside its tile, over up to ``limit`` grids."""
    bare = distributed.bare(network)
    assert isinstance(bare, MaskedPrior)
    grids, position = codes.some(limit)
    device = bare.grid.device
    view = outside_view(
        bare,
        grids.to(device),
        position.to(device),
        torch.zeros(bare.codes, 1, device=device),
        size=tile,
        chunk=32,
    )
    return float(view.nll.mean())


def train_masked(
    settings: Mapping[str, Any], data: Codes, held_out: Codes, run: Run
) -> MaskedPrior:
    """Train a masked prior to tell the codes that it does not see, or that are wrong.

    Args:
        settings: arguments of :class:`MaskedPrior`.
        data, held_out: codes of different subjects.
        run: how long, where, and whom to tell.
    """
    torch.manual_seed(run.schedule.seed)
    network = channels_last(MaskedPrior(**settings))
    values, position = torch.from_numpy(data.values), torch.from_numpy(data.position)

    def loss(
        model: nn.Module, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        mine = run.batch(len(values), step)
        # Drawn for the whole batch in every process, so that several make what one would.
        whole = order_of(len(values), run.schedule.batch, step, run.schedule.seed)
        grids = values[whole].long()
        hidden = draw_masks(len(whole), network.shape, generator)
        given, is_wrong = spoil(grids, network.codes, generator)
        part = distributed.part(len(whole))
        grid, hidden, given, is_wrong = (t[part] for t in (grids, hidden, given, is_wrong))
        seen = torch.where(hidden, network.mask, given)
        logits = model(seen.to(run.device), position[mine].to(run.device)).float()
        nll = F.cross_entropy(logits, grid.to(run.device), reduction="none")
        weight = torch.where(hidden | is_wrong, 1.0, _SEEN_WEIGHT).to(run.device)
        value = (nll * weight).sum() / weight.sum()
        return value, {"hidden nll": float(nll.detach().cpu()[hidden].mean())}

    averaged = train(
        network,
        loss,
        run,
        validate=lambda model: {"outside nll": outside_nll(model, held_out)},
        validate_every=400,
    )
    assert isinstance(averaged, MaskedPrior)
    return averaged


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
    channels_last(network)
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
            whole = (len(grid) * distributed.size(), *grid.shape[1:])
            part = distributed.part(whole[0])
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
