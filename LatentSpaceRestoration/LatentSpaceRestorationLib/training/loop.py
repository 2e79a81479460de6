"""One training loop: warm-up and decay, gradient clipping, averaged weights, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        steps: optimiser steps in all.
        batch: items per step.
        learning_rate: peak, reached after ``warmup`` steps, then a cosine down to 2%.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        average: decay of the averaged weights, which are the ones that are kept.
        checkpoint_minutes: between checkpoints.
        seed: of the order of the data and of the augmentation.
        bf16: None uses bfloat16 autocast where the processor has instructions for it.
    """

    steps: int
    batch: int = 32
    learning_rate: float = 1e-3
    warmup: int = 50
    weight_decay: float = 1e-4
    clip: float = 1.0
    average: float = 0.995
    checkpoint_minutes: float = 2.0
    seed: int = 0
    bf16: bool | None = None

    def rate(self, step: int) -> float:
        """Learning rate at a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * done)))


def bf16_is_fast(device: str) -> bool:
    """Whether bfloat16 matrix products have instructions here (they are emulated otherwise)."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported()
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and "avx512_bf16" in flags.read_text()


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


def train(
    network: nn.Module,
    loss: Callable[[nn.Module, int, torch.Generator], tuple[Tensor, dict[str, float]]],
    schedule: Schedule,
    checkpoint: Path,
    *,
    device: str = "cpu",
    minutes: float = math.inf,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    validate_every: int = 200,
    report: Callable[[str], None] = print,
) -> nn.Module:
    """Train until ``schedule.steps``, or ``minutes`` are over, going on from the checkpoint.

    Args:
        network: to be trained in place.
        loss: (network, step, generator) -> loss and figures to log; called under autocast.
        schedule: see there.
        checkpoint: file to go on from and to write; written beside and renamed.
        device: where the network is.
        minutes: time budget of this call.
        validate: figures of the averaged network, every ``validate_every`` steps.
        report: takes a line of text.

    Returns:
        the averaged network, in evaluation mode.
    """
    network = network.to(device)
    averaged = deepcopy(network)
    optimiser = torch.optim.AdamW(
        network.parameters(), schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    step = 0
    if checkpoint.is_file():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        averaged.load_state_dict(state["averaged"])
        optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
        report(f"resumed at step {step}")

    def save() -> None:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        part = checkpoint.with_suffix(".part")
        torch.save(
            {
                "network": network.state_dict(),
                "averaged": averaged.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": step,
            },
            part,
        )
        part.replace(checkpoint)

    bf16 = bf16_is_fast(device) if schedule.bf16 is None else schedule.bf16
    began = saved = time.monotonic()
    sums: dict[str, float] = {}
    summed = 0
    try:
        while step < schedule.steps and time.monotonic() - began < minutes * 60.0:
            network.train()
            for group in optimiser.param_groups:
                group["lr"] = schedule.rate(step)
            torch.manual_seed(schedule.seed * 7919 + step)  # dropout
            with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=bf16):
                value, figures = loss(network, step, generator_of(schedule.seed, step))
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            norm = nn.utils.clip_grad_norm_(network.parameters(), schedule.clip)
            if torch.isfinite(norm):
                optimiser.step()
            step += 1
            _average(averaged, network, min(schedule.average, step / (step + 9.0)))
            for key, figure in figures.items():
                sums[key] = sums.get(key, 0.0) + figure
            summed += 1
            if step % 50 == 0:
                means = "  ".join(f"{key} {total / summed:.4f}" for key, total in sums.items())
                pace = (time.monotonic() - began) / 60.0
                report(f"step {step}/{schedule.steps}  {pace:.1f} min  {means}")
                sums, summed = {}, 0
            if validate is not None and step % validate_every == 0:
                averaged.eval()
                shown = "  ".join(f"{k} {v:.4f}" for k, v in validate(averaged).items())
                report(f"step {step}  held out: {shown}")
            if time.monotonic() - saved > schedule.checkpoint_minutes * 60.0:
                save()
                saved = time.monotonic()
    except KeyboardInterrupt:
        report(f"interrupted at step {step}; the checkpoint is kept")
        save()
        raise
    save()
    return averaged.eval()


def _average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the network's; buffers are taken over."""
    with torch.no_grad():
        pairs: Iterable[tuple[Tensor, Tensor]] = zip(
            averaged.parameters(), network.parameters(), strict=True
        )
        for mean, value in pairs:
            mean.lerp_(value, 1.0 - decay)
        for kept, value in zip(averaged.buffers(), network.buffers(), strict=True):
            kept.copy_(value)
