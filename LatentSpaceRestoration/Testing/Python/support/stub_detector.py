"""A detector for tests that is no model: quick, exact and observable.

Its map is |intensity - 100|, its threshold value is the percentile itself, and the "restoration" is
100 everywhere in the brain. While restorations are missing, the map is too high.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from LatentSpaceRestorationLib.calibration.levels import HealthyLevel, ModeCalibration
from LatentSpaceRestorationLib.calibration.quantiles import Quantiles
from LatentSpaceRestorationLib.detection import Detection, Estimate, SliceScore
from LatentSpaceRestorationLib.errors import Cancelled, is_distrusted
from LatentSpaceRestorationLib.options import DetectionOptions
from LatentSpaceRestorationLib.volume import Volume

#: By how much the map is too high, where it is not 0, while all restorations are missing.
EXCESS = 20.0


class StubDetector:
    """Stands for ``LatentSpaceRestorationLib.detector.Detector``.

    Attributes:
        asked: the volume and options of each call.
        steps: how many steps a detection takes; each asks whether it is cancelled, and the last of
            them end with an estimate each.
        before_step: called on the worker's thread before each step, with its number.
        fault: raised in the last step, if it is not None.
        in_time: how many restorations are made if there is a time budget.
        before_images: called before an estimate's images are made, with its restorations.
        images_made: of how many restorations, on which thread, for each time that this was done.
        calibrations_asked: mode and method of each call.
    """

    def __init__(self) -> None:
        self.asked: list[SimpleNamespace] = []
        self.steps = 4
        self.before_step: Callable[[int], None] = lambda number: None
        self.fault: Exception | None = None
        self.in_time = 3
        self.warnings: tuple[str, ...] = ()
        self.threads: list[str] = []
        self.before_images: Callable[[int], None] = lambda made: None
        self.images_made: list[tuple[int, str]] = []
        self.calibrations_asked: list[tuple[str, str]] = []

    def load(self, model: str, device: str) -> StubDetector:
        """In place of ``Detector.load``."""
        self.asked_model, self.device = model, device
        return self

    @property
    def model(self) -> StubDetector:
        """In place of the loaded model."""
        return self

    def calibration(self, mode: str = "default", method: str = "lsr") -> ModeCalibration:
        """A map value is its own percentile, and of 20 healthy scans 19 score below 100.

        The lowest of them scores as many as there are restorations.
        """
        self.calibrations_asked.append((mode, method))
        voxels = Quantiles(np.array([0.0, 100.0]), np.array([0.0, 100.0]))
        others = (*(30.0 + 2.0 * n for n in range(18)), 105.0)
        return ModeCalibration(
            restore_threshold=0.0,
            slice_threshold=0.0,
            levels=tuple(
                HealthyLevel(made, voxels, (float(made), *others)) for made in range(1, 16)
            ),
            threshold_percentile=50.0,
        )

    def detect(
        self,
        volume: Volume,
        options: DetectionOptions | None = None,
        *,
        brain_mask: np.ndarray | None = None,
        estimate: Callable[[Estimate], None] | None = None,
        progress: Callable[[float, str], None] | None = None,
        is_cancelled: Callable[[], bool] | None = None,
        **named: Any,
    ) -> Detection:
        """In place of ``Detector.detect``."""
        wanted = replace(options or DetectionOptions(), **named)
        asked = wanted.of_detection
        self.asked.append(SimpleNamespace(volume=volume, brain_mask=brain_mask, **asked))
        restorations, time_budget = wanted.restorations, wanted.time_budget
        self.threads.append(threading.current_thread().name)
        last = restorations if time_budget is None else min(self.in_time, restorations)
        groups = [*(made for made in (1, 3, 7) if made < last), last]
        groups = [0] * (self.steps - len(groups)) + groups[-self.steps :]

        def detection(made: int) -> Detection:
            return self._detection(volume, brain_mask, made / restorations, made, wanted)

        for number, made in enumerate(groups):
            self.before_step(number)
            if is_cancelled is not None and is_cancelled():
                raise Cancelled("cancelled")
            if progress is not None:
                progress((number + 1) / self.steps, f"Step {number + 1}")
            if estimate is not None and made > 0:
                estimate(self._estimate(detection, made, restorations, made == last))
        if self.fault is not None:
            raise self.fault
        return detection(last)

    def _estimate(
        self, detection: Callable[[int], Detection], made: int, wanted: int, is_last: bool
    ) -> Estimate:
        now = detection(made)

        def images() -> Detection:
            self.before_images(made)
            self.images_made.append((made, threading.current_thread().name))
            return now

        return Estimate(
            restorations=made,
            wanted=wanted,
            sample_score=now.sample_score,
            percentile=now.percentile,
            p_value=now.p_value,
            slice_scores=now.slice_scores,
            seconds=0.1 * made,
            is_last=is_last,
            _detection=images,
        )

    def _detection(
        self,
        volume: Volume,
        brain_mask: np.ndarray | None,
        share: float,
        made: int,
        options: DetectionOptions,
    ) -> Detection:
        scan = np.asarray(volume.array, dtype=np.float32)
        brain = np.asarray(scan > 0 if brain_mask is None else brain_mask > 0)
        values = np.where(brain, np.abs(scan - 100.0), 0.0).astype(np.float32)
        values += EXCESS * np.float32(1.0 - share) * (values > 0)
        cut = 50.0 if options.threshold is None else float(options.threshold)
        trusted = not is_distrusted(self.warnings)
        heights = volume.affine[2, 3] + volume.affine[2, 2] * np.arange(scan.shape[2])
        return Detection(
            anomaly_map=values,
            anomaly_mask=((values >= cut) & brain & trusted).astype(np.uint8),
            restoration=np.where(brain, 100.0, scan).astype(np.float32),
            restoration_sd=np.zeros_like(values),
            brain_mask=brain.astype(np.uint8),
            signs=np.where(values > 0, np.where(scan > 100.0, 2, 1), 0).astype(np.uint8),
            sample_score=float(values.max()),
            percentile=100.0 * 19 / 21 if trusted else None,
            p_value=2 / 21 if trusted else None,
            threshold=cut,
            threshold_percentile=cut,
            slice_scores=tuple(
                SliceScore(float(z), float(values[:, :, k].max())) for k, z in enumerate(heights)
            ),
            healthy_scans=20,
            model="stub",
            mode=options.mode,
            method=options.method,
            restorations=made,
            seed=options.seed,
            device="cpu",
            warnings=self.warnings,
            seconds={"all": 0.25, "first_score": 0.1},
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
