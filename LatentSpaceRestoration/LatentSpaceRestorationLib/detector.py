"""The one way through: a scan in, a detection out.

The module in Slicer, the command line, cohorts and tests all call :meth:`Detector.detect`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .averages import Averages
from .brain import BrainMask, extract_brain, load_network
from .bundle import Bundle, find_bundle, read_bundle
from .calibration import ModeCalibration, PlaceStatistics
from .course import Course, IsCancelled, Progress
from .detection import Detection, Estimate
from .errors import BundleError, InputError
from .estimation import Estimator, Request, Yardstick
from .preprocessing import Grid, Head, Prepared, mask_to_head, prepare, to_head
from .scoring import ModeSettings
from .volume import Volume, check

if TYPE_CHECKING:
    from .inference import Networks, Reading
    from .networks.unet import UNet3D

MODES = ("default", "paper")
METHODS = ("lsr",)
#: The bundle that finds the brain.
BRAIN_BUNDLE = "brain-extraction"


class Detector:
    """A model that is loaded and ready.

    Attributes:
        bundle: the model.
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
        self._networks = networks
        self._brain, self._brain_spacing_mm = brain_network, brain_spacing_mm
        self._warnings = warnings
        grid = bundle.config["grid"]
        self.grid = Grid(int(grid[0]), int(grid[1]), float(bundle.config["spacing_mm"]))

    @property
    def device(self) -> str:
        """The torch device in use: the CPU from when memory ran out on another."""
        return self._networks.placement.device

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

    def threshold_value(
        self, percentile: float, mode: str = "default", restorations: int = 15
    ) -> float:
        """The anomaly-map value that ``percentile`` (0 to 100) of healthy brain voxels stay below.

        Args:
            percentile: above 0 and below 100.
            mode, restorations: that the map was made with.

        Raises:
            ValueError: not between 0 and 100.
        """
        if not 0.0 < percentile < 100.0:
            raise ValueError(
                f"the threshold is a healthy percentile between 0 and 100, not {percentile:g}"
            )
        return self.calibration(mode).at(restorations).voxels.value(percentile)

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
                return self._extract(head, spacing)
            finer = to_head(volume, self._brain_spacing_mm)
            found = self._extract(finer, self._brain_spacing_mm)
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

    def _extract(self, head: Head, spacing_mm: float) -> BrainMask:
        return self._networks.placement.run(
            "brain", lambda _, device: extract_brain(head, spacing_mm, self._brain, device)
        )

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
        time_budget: float | None = None,
        estimate: Callable[[Estimate], None] | None = None,
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
            time_budget: seconds after which no more restorations are begun; None waits for all.
                One is made in any case.
            estimate: called with every estimate, from the first score to the last.
            progress: called with the fraction done and what is being done.
            is_cancelled: asked often; True ends the detection.

        Raises:
            InputError: the scan cannot be used.
            Cancelled: ``is_cancelled`` said so.
            BundleError: the model was not calibrated.
            ValueError: an option is out of range.
            MemoryError: the scan does not fit into memory, however small the pieces.
        """
        for current in self.stream(
            volume,
            brain_mask=brain_mask,
            mode=mode,
            method=method,
            threshold=threshold,
            restorations=restorations,
            seed=seed,
            time_budget=time_budget,
            progress=progress,
            is_cancelled=is_cancelled,
        ):
            if estimate is not None:
                estimate(current)
        if progress is not None:
            progress(0.97, "Bringing the map back to the scan")
        detection = current.detection()
        if progress is not None:
            progress(1.0, "Done")
        return detection

    def stream(
        self,
        volume: Volume,
        *,
        brain_mask: np.ndarray | None = None,
        mode: str = "default",
        method: str = "lsr",
        threshold: float | None = None,
        restorations: int = 15,
        seed: int = 0,
        time_budget: float | None = None,
        progress: Progress | None = None,
        is_cancelled: IsCancelled | None = None,
    ) -> Iterator[Estimate]:
        """Find what is unusual in a scan, a group of restorations at a time.

        Args and errors are those of :meth:`detect`.

        Yields:
            an estimate after 1, 3, 7, 15 restorations, and after every 8 further ones; at least
            one, and the last says that it is.
        """
        if mode not in MODES or method not in METHODS:
            raise ValueError(f"mode is one of {MODES} and method one of {METHODS}")
        if restorations < 1:
            raise ValueError(f"at least one restoration is needed, not {restorations}")
        if time_budget is not None and not time_budget > 0:
            raise ValueError(f"the time budget is in seconds and above 0, not {time_budget:g}")
        calibration = self.calibration(mode)
        settings = ModeSettings.of(self.bundle.config, mode)
        percentile = calibration.threshold_percentile if threshold is None else float(threshold)
        self.threshold_value(percentile, mode)  # refuses what is no percentile, before any work
        places = self.place_statistics(mode) if not settings.paper else {}
        return self._stream(
            volume,
            brain_mask,
            Request(mode, method, percentile, restorations, seed),
            Yardstick(settings, calibration, places),
            Course(progress, is_cancelled, time_budget),
        )

    def _stream(
        self,
        volume: Volume,
        brain_mask: np.ndarray | None,
        request: Request,
        yardstick: Yardstick,
        course: Course,
    ) -> Iterator[Estimate]:
        with course.step("brain", "Finding the brain", 0.1):
            prepared, found = self.prepare(volume, brain_mask)
        reading = self.read(prepared, course)
        warnings = [*self._warnings, *found.warnings]
        if prepared.cropped > 0.01:
            warnings.append(
                f"{100 * prepared.cropped:.0f}% of the brain lies outside the model's field of "
                "view and was not scored"
            )
        estimator = Estimator(
            volume=volume,
            prepared=prepared,
            reading=reading,
            request=request,
            yardstick=yardstick,
            model=self.bundle.name,
            course=course,
            device=lambda: self.device,
            warnings=lambda: (*warnings, *self._networks.placement.warnings),
        )
        for averages, is_last in self.restorations(
            prepared,
            reading,
            yardstick.settings,
            yardstick.calibration.restore_threshold,
            request.restorations,
            request.seed,
            course,
        ):
            with course.step("score", "Scoring", 0.0):
                estimate = estimator.estimate(averages, self.grid.spacing_mm, is_last)
            yield estimate

    def read(self, prepared: Prepared, course: Course | None = None) -> Reading:
        """Codes of a prepared scan and how likely they are."""
        course = course or Course()
        with course.step("encode", "Reading the slices", 0.2) as report:
            return self._networks.read(prepared, report)

    def restorations(
        self,
        prepared: Prepared,
        reading: Reading,
        settings: ModeSettings,
        threshold: float,
        count: int,
        seed: int,
        course: Course | None = None,
        sampler: str = "cached",
    ) -> Iterator[tuple[Averages, bool]]:
        """Restorations of a prepared scan, group by group.

        Args:
            prepared, reading: from :meth:`prepare` and :meth:`read`.
            settings: of the mode.
            threshold: nats; codes of the brain above it are resampled.
            count, seed: as in :meth:`detect`.
            course: takes progress and times, and has the time budget.
            sampler: see :func:`restoration.restore`.

        Yields:
            after each group the averages so far, always the same object, and whether it was the
            last.
        """
        course = course or Course()
        averages = Averages(prepared.slices, settings.sharpness)
        groups = course.groups(count)
        group = next(groups, None)
        while group is not None:
            before, after = group.start / count, group.stop / count
            message = f"Restoring ({group.start} of {count} done)"
            with course.step(
                "restore", message, 0.2 + 0.75 * (0.4 * before + 0.6 * after)
            ) as report:
                grids = self._networks.resample(
                    prepared,
                    reading,
                    threshold=threshold,
                    numbers=group,
                    seed=seed,
                    step=report,
                    is_cancelled=course.is_cancelled,
                    sampler=sampler,
                )
            with course.step("decode", message, 0.2 + 0.75 * after) as report:
                self._networks.decode(
                    prepared, reading, grids, averages, report, course.is_cancelled
                )
            group = next(groups, None)
            yield averages, group is None

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
