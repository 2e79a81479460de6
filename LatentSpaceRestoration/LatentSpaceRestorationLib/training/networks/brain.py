"""Training of brain extraction: heads at the model's spacing, and a mask of each.

Two networks. The first finds where the brain is, in a whole scan at half the resolution; the second
draws its outline in a box of fixed size about that place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...datasets.subjects import Subject
from ...errors import InputError
from ...io.images import read_mask, read_volume
from ...networks import distributed
from ...networks.unet import UNet3D
from ...preprocessing.brain_extraction import BrainNetworks, brain_found
from ...preprocessing.field_of_view import measured_part
from ...preprocessing.slices import ResampledScan, mask_to_head, to_head
from ...volume import dice
from ..data.head_augmentation import vary
from ..engine.loop import train
from ..engine.run import Run, generator_of

#: How many times a voxel of a painted lesion counts: they are few, and they are what is looked for.
_LESION_WEIGHT = 5.0
#: After this share of the steps, all of strong changes, so many copies are changed less: most scans
#: are not so strange, and their outlines are to be exact.
_ALL_STRONG, _MILD, _MILD_STRENGTH = 0.3, 0.5, 0.3


@dataclass(frozen=True)
class Heads:
    """Heads to learn from.

    Attributes:
        heads: at the model's spacing.
        masks: (slices, rows, columns) bool, brain, of each.
        sites: where each comes from; empty where it is not known.
    """

    heads: list[ResampledScan]
    masks: list[np.ndarray]
    sites: list[str]

    @property
    def weights(self) -> Tensor:
        """(n,) float, how often each is drawn: a scan of a site of few is worth more."""
        count = Counter(self.sites)
        return torch.tensor([count[site] ** -0.5 for site in self.sites])


def load_heads(
    subjects: list[Subject], spacing_mm: float, report: Callable[[str], None] = print
) -> Heads:
    """Heads and their masks at a spacing.

    A scan that cannot be used, or has no mask to learn from, is reported in a line and left out.

    Raises:
        InputError: no scan can be used.
    """
    heads, masks, sites = [], [], []
    first = "there are none"
    for subject in subjects:
        try:
            if subject.mask is None:
                raise InputError(f"{subject.scan}: has no brain mask to learn from; give one")
            volume = read_volume(subject.scan)
            mask = read_mask(subject.mask, volume)
            part = measured_part(volume)
            head = to_head(part.volume, spacing_mm)
            on_head = mask_to_head(part.cut(mask), part.volume, head)
        except InputError as error:
            first = str(error) if first == "there are none" else first
            report(f"left out: {subject.name}: {error}")
            continue
        heads.append(head)
        masks.append(on_head)
        sites.append(subject.site)
    if not heads:
        raise InputError(f"none of the {len(subjects)} scans can be used; the first: {first}")
    return Heads(heads, masks, sites)


def train_brain(
    settings: Mapping[str, Any], data: Heads, held_out: Heads, run: Run, *, coarse: bool = False
) -> UNet3D:
    """Train one of the two networks: binary cross-entropy and soft Dice of each head.

    Args:
        settings: arguments of :class:`UNet3D`.
        data, held_out: from :func:`load_heads`, of different subjects.
        run: how long, where, and whom to tell; a batch of one head is usual.
        coarse: the network that finds where the brain is; otherwise the one of its outline.
    """
    schedule = run.schedule
    torch.manual_seed(schedule.seed)
    network = UNet3D(**settings)

    def loss(
        model: nn.Module, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        drawn = torch.multinomial(
            data.weights,
            schedule.batch,
            replacement=True,
            generator=generator_of(schedule.seed + 5, step),
        )
        losses = []
        for item in range(schedule.batch)[distributed.part(schedule.batch)]:
            own = generator if item == 0 else generator_of(schedule.seed + 101 * item, step)
            pick = int(drawn[item])
            is_mild = step >= _ALL_STRONG * schedule.steps and not coarse
            is_mild = is_mild and bool(torch.rand((), generator=own) < _MILD)
            with torch.autocast("cpu", enabled=False):
                x, y, lesion = vary(
                    data.heads[pick].array,
                    data.masks[pick],
                    own,
                    coarse=coarse,
                    strength=_MILD_STRENGTH if is_mild else 1.0,
                )
            weight = (1.0 + (_LESION_WEIGHT - 1.0) * lesion).to(run.device)
            logits = model(x.to(run.device)).float()
            losses.append(_extraction_loss(logits, y.to(run.device), weight))
        cross_entropy, overlap = torch.stack(losses).mean(0)
        return cross_entropy + overlap, {
            "cross_entropy": float(cross_entropy.detach()),
            "1-dice": float(overlap.detach()),
        }

    def validate(model: nn.Module) -> dict[str, float]:
        return varied_dice(model, held_out, run.device, coarse=coarse)

    averaged = train(network, loss, run, validate=validate, validate_every=250)
    assert isinstance(averaged, UNet3D)
    return averaged


def extraction_dice(networks: BrainNetworks, data: Heads, device: str = "cpu") -> dict[str, float]:
    """Median and least Dice over scans as they are."""
    scores = [
        dice(brain_found(networks, head, device), mask)
        for head, mask in zip(data.heads, data.masks, strict=True)
    ]
    return {"dice_median": float(np.median(scores)), "dice_min": float(np.min(scores))}


@torch.inference_mode()
def varied_dice(
    network: nn.Module, data: Heads, device: str, *, coarse: bool = False
) -> dict[str, float]:
    """Median and least Dice over heads that are varied as in training, the same way each time."""
    scores = []
    for number, (head, mask) in enumerate(zip(data.heads, data.masks, strict=True)):
        x, y, _ = vary(head.array, mask, generator_of(977, number), coarse=coarse)
        found = network(x.to(device)).float().cpu() > 0
        scores.append(dice(found.numpy(), y.numpy() > 0))
    return {"dice_median": float(np.median(scores)), "dice_min": float(np.min(scores))}


def _extraction_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """(2,) weighted binary cross-entropy, and 1 - soft Dice."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, weight)
    p = torch.sigmoid(logits)
    overlap = 1.0 - (2.0 * (p * target).sum() + 1.0) / (p.sum() + target.sum() + 1.0)
    return torch.stack([cross_entropy, overlap])
