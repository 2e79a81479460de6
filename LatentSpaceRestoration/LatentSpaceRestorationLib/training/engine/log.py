"""What a training says while it runs: lines, a progress bar, TensorBoard."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...errors import ConfigError
from ...networks import distributed
from .run import Run


class Log:
    """Means of the figures of a training's steps, told every so often by the first process."""

    def __init__(self, run: Run, step: int) -> None:
        self._run = run
        self._began, self._first = time.monotonic(), step
        self._sums: dict[str, float] = {}
        self._count = 0
        speaks = distributed.rank() == 0
        self._bar = _progress_bar(run, step) if run.progress and speaks else None
        self._board = _board(run) if run.tensorboard is not None and speaks else None
        self._speaks = speaks

    def line(self, text: str) -> None:
        """Say something."""
        if self._bar is not None:
            self._bar.clear()
        if self._speaks:
            self._run.report(text)

    def step(self, step: int, figures: Mapping[str, float], rate: float) -> None:
        """Take the figures of the step that was just made, the ``step``-th."""
        for key, figure in figures.items():
            self._sums[key] = self._sums.get(key, 0.0) + figure
        self._count += 1
        if self._bar is not None:
            self._bar.update()
        if step % self._run.report_every and step < self._run.schedule.steps:
            return
        means = {key: distributed.mean(total / self._count) for key, total in self._sums.items()}
        self._sums, self._count = {}, 0
        words = "  ".join(f"{key} {value:.4f}" for key, value in means.items())
        if self._bar is not None:
            self._bar.set_postfix_str(words)
        else:
            of = f"{self._run.schedule.steps} of {self._run.checkpoint.stem}"
            self.line(f"step {step}/{of}  {self._left(step)}  {words}")
        if self._board is not None:
            for key, value in {**means, "learning rate": rate}.items():
                self._board.add_scalar(f"training/{key}", value, step)

    def held_out(
        self, step: int, figures: Mapping[str, float], pictures: Mapping[str, Tensor]
    ) -> None:
        """Take figures and (1, H, W) pictures in [0, 1] of the averaged network."""
        words = "  ".join(f"{key} {value:.4f}" for key, value in figures.items())
        self.line(f"step {step}  held out: {words}")
        if self._board is not None:
            for key, value in figures.items():
                self._board.add_scalar(f"held out/{key}", value, step)
            for key, picture in pictures.items():
                self._board.add_image(key, picture, step)
            self._board.flush()

    @property
    def wants_pictures(self) -> bool:
        """Whether there is anything to show pictures on."""
        return self._board is not None

    def close(self) -> None:
        """End the bar and the logs."""
        if self._bar is not None:
            self._bar.close()
        if self._board is not None:
            self._board.close()

    def _left(self, step: int) -> str:
        pace = (time.monotonic() - self._began) / max(1, step - self._first)
        seconds = min(pace * (self._run.schedule.steps - step), self._run.minutes * 60.0)
        return f"{math.ceil(seconds / 60.0)} min left" if seconds >= 60 else f"{seconds:.0f} s left"


def _progress_bar(run: Run, step: int) -> Any:
    from tqdm import tqdm

    return tqdm(
        total=run.schedule.steps,
        initial=step,
        desc=run.checkpoint.stem,
        unit="step",
        dynamic_ncols=True,
        smoothing=0.05,
    )


def _board(run: Run) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            'TensorBoard is not installed; install the extra "training", or leave out its logs'
        ) from error
    return SummaryWriter(str(run.tensorboard))
