"""The one way through: a scan in, a detection out.

The module in Slicer, the command line, cohorts and tests all call :meth:`Detector.detect`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import __version__
from .brain import BrainMask, extract_brain, load_network
from .bundle import Bundle, find_bundle, read_bundle
from .calibration import ModeCalibration, PlaceStatistics, p_value
from .detection import Detection, SliceScore
from .errors import BundleError, Cancelled, InputError
from .preprocessing import Grid, Head, Prepared, mask_to_head, prepare, to_head
from .scoring import ModeSettings, anomaly_map, feature_maps, sample_score, slice_scores
from .volume import Volume, check

if TYPE_CHECKING:
    from .inference import Networks, Reading, Restorations
    from .networks.unet import UNet3D

MODES = ("default", "paper")
METHODS = ("lsr",)
#: The bundle that finds the brain.
BRAIN_BUNDLE = "brain-extraction"

Progress = Callable[[float, str], None]
IsCancelled = Callable[[], bool]


class Course:
    """Progress, cancelling and timing of one detection."""

    def __init__(self, progress: Progress | None, is_cancelled: IsCancelled | None) -> None:
        self._progress, self.is_cancelled = progress, is_cancelled
        self.seconds: dict[str, float] = {}

    def check(self) -> None:
        """Raise Cancelled if the caller wants to stop."""
        if self.is_cancelled is not None and self.is_cancelled():
            raise Cancelled("cancelled")

    @contextmanager
    def step(
        self, name: str, message: str, begin: float, end: float
    ) -> Iterator[Callable[[float], None]]:
        """A step that takes progress from ``begin`` to ``end``; yields a report of its share."""

        def report(done: float) -> None:
            self.check()
            if self._progress is not None:
                self._progress(begin + (end - begin) * min(1.0, done), message)

        report(0.0)
        started = time.perf_counter()
        yield report
        self.seconds[name] = time.perf_counter() - started
        report(1.0)


class Detector:
    """A model that is loaded and ready.

    Attributes:
        bundle: the model.
        device: the torch device in use.
    """

    def __init__(
        self,
        bundle: Bundle,
        networks: Networks,
        brain_network: UNet3D | None,
        brain_spacing_mm: float,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.bundle = bundle
        self.device = networks.device
        self._networks = networks
        self._brain, self._brain_spacing_mm = brain_network, brain_spacing_mm
        self._warnings = warnings
        grid = bundle.config["grid"]
        self.grid = Grid(int(grid[0]), int(grid[1]), float(bundle.config["spacing_mm"]))

    @classmethod
    def load(
        cls,
        model: str | Path = "brain-t1",
        device: str = "auto",
        *,
        search: Sequence[Path] | None = None,
    ) -> Detector:
        """Read and verify a model and put it on a device.

        Args:
            model: name of an installed model, or a folder.
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
            search: further folders that hold models.

        Raises:
            BundleError: unknown or damaged model.
        """
        from .device import choose_device
        from .inference import Networks

        folders = tuple(search or ())
        bundle = read_bundle(find_bundle(model, folders))
        if bundle.kind != "anomaly":
            raise BundleError(
                f"model {bundle.name} does not find anomalies but is for "
                f"{bundle.kind}; choose another"
            )
        chosen, warnings = choose_device(device)
        networks = Networks.load(bundle, chosen)
        try:
            brain_folder = find_bundle(BRAIN_BUNDLE, folders)
        except BundleError:
            brain, spacing = None, 0.0  # extracted scans, and those with a mask, do without
        else:
            brain_bundle = read_bundle(brain_folder)
            brain = load_network(brain_bundle)
            spacing = float(brain_bundle.config["spacing_mm"])
        return cls(bundle, networks, brain, spacing, warnings)

    def calibration(self, mode: str = "default") -> ModeCalibration:
        """What healthy scans give in a mode.

        Raises:
            BundleError: the model was not calibrated for it.
        """
        modes = self.bundle.calibration.get("modes", {})
        if mode not in modes:
            raise BundleError(
                f"model {self.bundle.name} was not calibrated for mode {mode!r}; "
                "calibrate it on healthy scans"
            )
        return ModeCalibration.from_json(modes[mode])

    def threshold_value(self, percentile: float, mode: str = "default") -> float:
        """The anomaly-map value that ``percentile`` (0 to 100) of healthy brain voxels stay below.

        Raises:
            ValueError: not between 0 and 100.
        """
        if not 0.0 < percentile < 100.0:
            raise ValueError(
                f"the threshold is a healthy percentile between 0 and 100, not {percentile:g}"
            )
        return self.calibration(mode).voxels.value(percentile)

    def prepare(
        self, volume: Volume, brain_mask: np.ndarray | None = None
    ) -> tuple[Prepared, BrainMask]:
        """Bring a scan into model space.

        Args:
            volume: (I, J, K) scan.
            brain_mask: (I, J, K), above 0 is brain; None finds it.

        Raises:
            InputError: the scan cannot be used.
        """
        check(volume)
        head = to_head(volume, self.grid.spacing_mm)
        found = self._find_brain(volume, head, brain_mask)
        return prepare(volume, head, found.mask, self.grid), found

    def _find_brain(self, volume: Volume, head: Head, brain_mask: np.ndarray | None) -> BrainMask:
        spacing = self.grid.spacing_mm
        if brain_mask is None:
            if self._brain is None or self._brain_spacing_mm == spacing:
                return extract_brain(head, spacing, self._brain, self.device)
            finer = to_head(volume, self._brain_spacing_mm)
            found = extract_brain(finer, self._brain_spacing_mm, self._brain, self.device)
            return replace(
                found, mask=mask_to_head(found.mask, Volume(finer.array, finer.affine), head)
            )
        if brain_mask.shape != volume.shape:
            raise InputError(
                f"the brain mask has {brain_mask.shape} voxels and the scan {volume.shape}; "
                "give a mask on the scan's own grid"
            )
        mask = mask_to_head(np.asarray(brain_mask) > 0, volume, head)
        if not mask.any():
            raise InputError("the brain mask is empty; give one that marks the brain")
        return BrainMask(mask, "given")

    def detect(
        self,
        volume: Volume,
        *,
        brain_mask: np.ndarray | None = None,
        mode: str = "default",
        method: str = "lsr",
        threshold: float | None = None,
        restorations: int = 15,
        seed: int = 0,
        progress: Progress | None = None,
        is_cancelled: IsCancelled | None = None,
    ) -> Detection:
        """Find what is unusual in a scan.

        Args:
            volume: (I, J, K) T1-weighted head or brain, any orientation and spacing.
            brain_mask: (I, J, K), above 0 is brain; None finds it.
            mode: ``default``, or ``paper`` for the published equations.
            method: ``lsr``.
            threshold: percentile of healthy brain voxels at which the mask is cut, between 0 and
                100; None takes the model's.
            restorations: S, at least 1.
            seed: of the restorations: the same seed gives the same result.
            progress: called with the fraction done and what is being done.
            is_cancelled: asked often; True ends the detection.

        Raises:
            InputError: the scan cannot be used.
            Cancelled: ``is_cancelled`` said so.
            BundleError: the model was not calibrated.
            ValueError: an option is out of range.
        """
        if mode not in MODES or method not in METHODS:
            raise ValueError(f"mode is one of {MODES} and method one of {METHODS}")
        if restorations < 1:
            raise ValueError(f"at least one restoration is needed, not {restorations}")
        calibration = self.calibration(mode)
        settings = ModeSettings.of(self.bundle.config, mode)
        percentile = calibration.threshold_percentile if threshold is None else threshold
        cut = self.threshold_value(percentile, mode)
        places = self.place_statistics(mode) if not settings.paper else {}
        course = Course(progress, is_cancelled)
        with course.step("brain", "Finding the brain", 0.0, 0.1):
            prepared, found = self.prepare(volume, brain_mask)
        reading = self.read(prepared, course)
        restored = self.restore(
            prepared, reading, calibration.restore_threshold, restorations, seed, course
        )
        with course.step("score", "Scoring", 0.92, 0.97):
            maps = feature_maps(prepared, restored, settings, self.grid.spacing_mm)
            values = anomaly_map(prepared, maps, settings, places)
            score = sample_score(
                values,
                prepared.mask,
                reading.nll,
                calibration.slice_threshold,
                settings,
                self.grid.spacing_mm,
            )
            by_slice = slice_scores(values, reading.nll, calibration.slice_threshold, settings)
        with course.step("undo", "Bringing the map back to the scan", 0.97, 1.0):
            images = _to_native(volume, prepared, restored, values, cut)
        p = p_value(score, calibration.sample_scores)
        warnings = [*self._warnings, *found.warnings]
        if prepared.cropped > 0.01:
            warnings.append(
                f"{100 * prepared.cropped:.0f}% of the brain lies outside the model's field of "
                "view and was not scored"
            )
        return Detection(
            *images,
            sample_score=float(score),
            percentile=100.0 * (1.0 - p),
            p_value=p,
            threshold=cut,
            threshold_percentile=float(percentile),
            slice_scores=tuple(
                SliceScore(round(float(z), 3), float(s))
                for z, s in zip(prepared.position_mm, by_slice, strict=True)
            ),
            healthy_scans=len(calibration.sample_scores),
            model=self.bundle.name,
            mode=mode,
            method=method,
            restorations=restorations,
            seed=seed,
            device=self.device,
            warnings=tuple(warnings),
            seconds=course.seconds,
            version=__version__,
        )

    def read(self, prepared: Prepared, course: Course | None = None) -> Reading:
        """Codes of a prepared scan and how likely they are."""
        course = course or Course(None, None)
        with course.step("encode", "Reading the slices", 0.1, 0.2) as report:
            return self._networks.read(prepared, report)

    def restore(
        self,
        prepared: Prepared,
        reading: Reading,
        threshold: float,
        restorations: int,
        seed: int,
        course: Course | None = None,
    ) -> Restorations:
        """Restorations of a prepared scan.

        Args:
            prepared, reading: from :meth:`prepare` and :meth:`read`.
            threshold: nats; codes of the brain above it are resampled.
            restorations, seed: as in :meth:`detect`.
            course: takes progress and times.
        """
        course = course or Course(None, None)
        with course.step("restore", "Restoring", 0.2, 0.92) as report:
            return self._networks.restore(
                prepared,
                reading,
                threshold=threshold,
                restorations=restorations,
                seed=seed,
                step=report,
                is_cancelled=course.is_cancelled,
            )

    def place_statistics(self, mode: str) -> dict[str, PlaceStatistics]:
        """What is usual at each place of the brain, by feature map, from the bundle.

        Raises:
            BundleError: the bundle has none for the mode.
        """
        tensors = self.bundle.tensors("place.safetensors")
        names = [key.split(".")[1] for key in tensors if key.startswith(f"{mode}.")]
        if not names:
            raise BundleError(
                f"model {self.bundle.name} has no usual values of mode {mode!r}; "
                "calibrate it on healthy scans"
            )
        return {
            name: PlaceStatistics(
                tensors[f"{mode}.{name}.mean"].float().numpy(),
                tensors[f"{mode}.{name}.sd"].float().numpy(),
            )
            for name in names
        }


def _to_native(
    volume: Volume, prepared: Prepared, restored: Restorations, values: np.ndarray, cut: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Map, mask, restoration, its spread and the brain mask, on the scan's own grid."""
    mean, sd = restored.restored.mean(axis=1), restored.restored.std(axis=1)
    brain, (signed, healthy, spread) = prepared.brain_to_native(values, mean, sd)
    native_map = np.maximum(signed, 0.0)
    mask = ((native_map >= cut) & brain).astype(np.uint8)
    healthy = healthy * prepared.scale + prepared.centre
    restoration = np.where(brain, healthy, volume.array).astype(np.float32)
    spread = spread * np.float32(prepared.scale)
    return native_map, mask, restoration, spread, brain.astype(np.uint8)
