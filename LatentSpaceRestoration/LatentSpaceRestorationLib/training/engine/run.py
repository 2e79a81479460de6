"""What every training is given besides its data: how long, where, and whom it tells."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from ...networks import distributed
from ...runtime.device import fastest_precision

#: Of a training.
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        steps: optimiser steps in all.
        batch: items per step, over all processes.
        learning_rate: peak, reached after ``warmup`` steps, then a cosine down to 2%.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        average: decay of the averaged weights, which are the ones that are kept.
        seed: of the first weights, the order of the data and the augmentation.
        precision: of the arithmetic: ``auto`` takes bfloat16 where the hardware has instructions
            for it, float16 on CUDA without them, and float32 elsewhere.
        checkpoint_minutes: between checkpoints.
    """

    steps: int
    batch: int = 32
    learning_rate: float = 1e-3
    warmup: int = 50
    weight_decay: float = 1e-4
    clip: float = 1.0
    average: float = 0.995
    seed: int = 0
    precision: str = "auto"
    checkpoint_minutes: float = 2.0

    def rate(self, step: int) -> float:
        """Learning rate at a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * done)))


@dataclass(frozen=True)
class Run:
    """One training: what :func:`loop.train` and the trainings of the networks are given.

    In a training by ``torchrun`` each process has a Run of its own; the first one alone reports and
    writes (see :mod:`networks.processes`).

    Attributes:
        schedule: see there.
        checkpoint: file to go on from and to write.
        device: torch device of the network.
        minutes: time budget of this call.
        report: takes a line of text.
        report_every: steps between reports of the losses.
        progress: whether to draw a progress bar on standard error.
        tensorboard: folder for TensorBoard's logs; None for none.
        identity: what a checkpoint must have been made with to be gone on from: settings that can
            be written as JSON.
    """

    schedule: Schedule
    checkpoint: Path
    device: str = "cpu"
    minutes: float = math.inf
    report: Callable[[str], None] = print
    report_every: int = 50
    progress: bool = False
    tensorboard: Path | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)

    def batch(self, length: int, step: int) -> Tensor:
        """(batch / processes,) indices of this process's items of a step, of ``length`` in all.

        Raises:
            InputError: there are fewer items than a batch of several processes needs.
        """
        index = order_of(length, self.schedule.batch, step, self.schedule.seed)
        try:
            return index[distributed.part(len(index))]
        except ValueError as error:
            raise InputError(f"{error}; change batch, or the number of processes") from error

    def precision(self) -> torch.dtype:
        """The type that matrix products are computed in."""
        wanted = self.schedule.precision
        return fastest_precision(self.device) if wanted == "auto" else getattr(torch, wanted)


def generator_of(seed: int, step: int) -> torch.Generator:
    """The randomness of one step: a resumed training draws what an unbroken one would have."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % (2**63 - 1))


def order_of(length: int, batch: int, step: int, seed: int) -> Tensor:
    """(batch,) indices of a step's items: every item once per epoch, in a new order each time.

    What is left of ``length`` after whole batches is left out of an epoch, another part each time.
    """
    per_epoch = max(1, length // batch)
    epoch, place = divmod(step, per_epoch)
    shuffled = torch.randperm(length, generator=generator_of(seed + 17, epoch))
    return shuffled[place * batch : (place + 1) * batch]
