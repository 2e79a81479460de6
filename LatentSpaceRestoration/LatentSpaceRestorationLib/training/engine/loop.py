"""One training loop: warm-up and decay, gradient clipping, averaged weights, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import Cancelled
from ...networks import distributed
from ...runtime.interruption import stop_requests
from .checkpoint import read_checkpoint, write_checkpoint
from .log import Log
from .run import Run, generator_of

#: (network, step, generator) -> loss of this process's share, and figures to log.
Loss = Callable[[nn.Module, int, torch.Generator], tuple[Tensor, dict[str, float]]]
#: Batches that the averaged network gets its statistics from: at its end, and to be looked at.
_BATCHES, _FEW_BATCHES = 64, 12
#: Steps of their own, which no training makes.
_BEYOND = 1_000_000
#: Figures of the averaged network.
Validate = Callable[[nn.Module], dict[str, float]]
#: (1, H, W) pictures in [0, 1] by the averaged network.
Pictures = Callable[[nn.Module], Mapping[str, Tensor]]


def train(
    network: nn.Module,
    loss: Loss,
    run: Run,
    *,
    validate: Validate | None = None,
    validate_every: int = 200,
    pictures: Pictures | None = None,
) -> nn.Module:
    """Train until the schedule's last step, or the time is over, going on from the checkpoint.

    A training that was interrupted and goes on makes the same steps as an unbroken one, bit for
    bit: every step's randomness comes from the seed and its number.

    Args:
        network: to be trained in place.
        loss: called under autocast; its network may be wrapped (see :func:`distributed.bare`).
        run: how long, where, and whom to tell.
        validate: called every ``validate_every`` steps, in the first process.
        pictures: called as often, if there is a TensorBoard to show them on.

    Returns:
        the averaged network, in evaluation mode.

    Raises:
        Cancelled: Ctrl-C or SIGTERM; the checkpoint holds every step made.
        ConfigError: the checkpoint is of another training.
        OutputError: a checkpoint cannot be written; the one before it is kept.
    """
    state = _State(network.to(run.device), run)
    log = Log(run, state.step)
    if state.step:
        log.line(f"resumed at step {state.step}")
    began = saved = time.monotonic()
    try:
        with stop_requests() as stopping:
            while state.step < run.schedule.steps:
                out_of_time = time.monotonic() - began >= run.minutes * 60.0
                stopped = distributed.is_any(stopping())
                if stopped or distributed.is_any(out_of_time):
                    break
                figures = state.advance(loss)
                log.step(state.step, figures, run.schedule.rate(state.step - 1))
                if state.step % validate_every == 0:
                    state.settle(loss, _FEW_BATCHES)
                    _validate(state, log, validate, pictures)
                if time.monotonic() - saved > run.schedule.checkpoint_minutes * 60.0:
                    state.save()
                    saved = time.monotonic()
            else:
                stopped = False
            state.save()
    finally:
        log.close()
    if stopped:
        raise Cancelled(
            f"stopped at step {state.step} of {run.schedule.steps}, kept in {run.checkpoint}; the "
            "same command goes on from there"
        )
    state.settle(loss, _BATCHES)
    return state.averaged


def _validate(
    state: _State, log: Log, validate: Validate | None, pictures: Pictures | None
) -> None:
    if validate is None or distributed.rank() > 0:
        return
    shown = pictures(state.averaged) if pictures is not None and log.wants_pictures else {}
    log.held_out(state.step, validate(state.averaged), shown)


def _scaler(device: str, enabled: bool) -> Any:
    """Of the losses; torch 2.2, the last for Macs with Intel, has it for CUDA alone."""
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device, enabled=enabled)
    return torch.cuda.amp.GradScaler(enabled=enabled)


class _State:
    """Everything that changes from step to step."""

    def __init__(self, network: nn.Module, run: Run) -> None:
        self._run = run
        self._precision = run.precision()
        if distributed.are_several():
            distributed.share_batch_norm(network)
        self.network, self.averaged = network, deepcopy(network)
        self._optimiser = torch.optim.AdamW(
            network.parameters(), run.schedule.learning_rate, weight_decay=run.schedule.weight_decay
        )
        # float16 has so few exponents that small gradients vanish unless they are scaled.
        self._scaler = _scaler(run.device.split(":")[0], self._precision == torch.float16)
        self.step = 0
        kept = read_checkpoint(run.checkpoint, run.device, run.identity)
        if kept is not None:
            self._load(kept)
        # Buffers are the same in all processes by construction: nothing to send.
        self._model = (
            nn.parallel.DistributedDataParallel(network, broadcast_buffers=False)
            if distributed.are_several()
            else network
        )

    def advance(self, loss: Loss) -> dict[str, float]:
        """Make one step, and give its figures."""
        schedule, step = self._run.schedule, self.step
        self._model.train()
        for group in self._optimiser.param_groups:
            group["lr"] = schedule.rate(step)
        torch.manual_seed(schedule.seed * 7919 + step + 104_729 * distributed.rank())  # dropout
        with self._autocast():
            value, figures = loss(self._model, step, generator_of(schedule.seed, step))
        self._optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(value).backward()
        self._scaler.unscale_(self._optimiser)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), schedule.clip)
        if self._scaler.is_enabled() or torch.isfinite(norm):
            self._scaler.step(self._optimiser)
        self._scaler.update()
        self.step += 1
        _average(self.averaged, self.network, min(schedule.average, self.step / (self.step + 9.0)))
        return figures

    def settle(self, loss: Loss, batches: int) -> None:
        """Put the averaged network into evaluation mode, with statistics of its own.

        Those that batch normalisation has gathered are of the network as it was step by step; to
        the mean of its weights they do not belong (Izmailov and others 2018, "Averaging weights
        leads to wider optima and better generalization", section 3.2). They are gathered anew.
        """
        self.averaged.eval()
        norms = [
            module
            for module in self.averaged.modules()
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
        ]
        if not norms:
            return
        momentum = norms[0].momentum
        for norm in norms:
            norm.train()
        with torch.no_grad(), self._autocast():
            for number in range(batches):
                for norm in norms:
                    norm.momentum = 1.0 / (number + 1)  # the mean of all
                step = _BEYOND + number
                loss(self.averaged, step, generator_of(self._run.schedule.seed, step))
        for norm in norms:
            norm.momentum = momentum
            norm.eval()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self._run.device.split(":")[0],
            self._precision if self._precision != torch.float32 else None,
            enabled=self._precision != torch.float32,
        )

    def save(self) -> None:
        """Write the checkpoint, in the first process."""
        if distributed.rank() == 0:
            state = {
                "network": self.network.state_dict(),
                "averaged": self.averaged.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "scaler": self._scaler.state_dict(),
                "step": self.step,
            }
            write_checkpoint(self._run.checkpoint, state, self._run.identity)

    def _load(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._scaler.load_state_dict(state["scaler"])
        self.step = state["step"]


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
