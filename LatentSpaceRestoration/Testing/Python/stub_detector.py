"""A detector for tests that is no model: quick, exact and observable.

Its map is |intensity - 100|, its threshold value is the percentile itself, and the "restoration" is
100 everywhere in the brain.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from LatentSpaceRestorationLib.detection import Detection, SliceScore
from LatentSpaceRestorationLib.errors import Cancelled
from LatentSpaceRestorationLib.volume import Volume


class StubDetector:
    """Stands for ``LatentSpaceRestorationLib.detector.Detector``.

    Attributes:
        asked: the volume and options of each call.
        steps: how many steps a detection takes; each asks whether it is cancelled.
        before_step: called on the worker's thread before each step, with its number.
        fault: raised in the last step, if it is not None.
    """

    def __init__(self) -> None:
        self.asked: list[SimpleNamespace] = []
        self.steps = 4
        self.before_step: Callable[[int], None] = lambda number: None
        self.fault: Exception | None = None
        self.warnings: tuple[str, ...] = ()
        self.threads: list[str] = []

    def load(self, model: str, device: str) -> StubDetector:
        """In place of ``Detector.load``."""
        self.model, self.device = model, device
        return self

    def threshold_value(self, percentile: float, mode: str = "default") -> float:
        return percentile

    def detect(
        self,
        volume: Volume,
        *,
        brain_mask: np.ndarray | None = None,
        threshold: float | None = None,
        progress: Callable[[float, str], None] | None = None,
        is_cancelled: Callable[[], bool] | None = None,
        **options: Any,
    ) -> Detection:
        self.asked.append(SimpleNamespace(volume=volume, brain_mask=brain_mask, **options))
        self.threads.append(threading.current_thread().name)
        for number in range(self.steps):
            self.before_step(number)
            if is_cancelled is not None and is_cancelled():
                raise Cancelled("cancelled")
            if progress is not None:
                progress((number + 1) / self.steps, f"Step {number + 1}")
        if self.fault is not None:
            raise self.fault
        scan = np.asarray(volume.array, dtype=np.float32)
        brain = np.asarray(scan > 0 if brain_mask is None else brain_mask > 0)
        values = np.where(brain, np.abs(scan - 100.0), 0.0).astype(np.float32)
        cut = 50.0 if threshold is None else float(threshold)
        heights = volume.affine[2, 3] + volume.affine[2, 2] * np.arange(scan.shape[2])
        return Detection(
            anomaly_map=values,
            anomaly_mask=((values >= cut) & brain).astype(np.uint8),
            restoration=np.where(brain, 100.0, scan).astype(np.float32),
            restoration_sd=np.zeros_like(values),
            brain_mask=brain.astype(np.uint8),
            sample_score=float(values.max()),
            percentile=100.0 * 19 / 21,
            p_value=2 / 21,
            threshold=cut,
            threshold_percentile=cut,
            slice_scores=tuple(
                SliceScore(float(z), float(values[:, :, k].max())) for k, z in enumerate(heights)
            ),
            healthy_scans=20,
            model="stub",
            mode=options.get("mode", "default"),
            method="lsr",
            restorations=options.get("restorations", 15),
            seed=options.get("seed", 0),
            device="cpu",
            warnings=self.warnings,
            seconds={"all": 0.25},
            version="0",
        )


class NothingMissing:
    """Stands for ``installation.Packages`` where nothing needs to be installed."""

    def missing(self) -> list[str]:
        return []

    def check(self) -> None:
        """All is there."""

    def ensure(self) -> None:
        """All is there."""
