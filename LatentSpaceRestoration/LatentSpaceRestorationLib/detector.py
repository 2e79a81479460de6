"""The one way through: a scan in, a detection out.

The module in Slicer, the command line, cohorts and tests all call :meth:`Detector.detect`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .bundle.bundle import Bundle, find_bundle, read_bundle
from .bundle.schema import BRAIN_BUNDLE
from .calibration.levels import ModeCalibration
from .calibration.normative import Usual, read_usual
from .detection import Detection, Estimate
from .errors import BundleError
from .estimator import Estimator, Request, Yardstick
from .methods import BY_KIND, METHODS, MODES, baseline, calibration_key
from .methods.base import Case, Known, Method, Opened
from .methods.lsr import LatentSpaceRestoration
from .methods.masked import MaskedRestoration
from .methods.settings import ModeSettings
from .model_space import Grid
from .preprocessing.alignment import read_atlas
from .preprocessing.brain_extraction import BrainNetworks, load_networks
from .preprocessing.pipeline import BrainFinder, LaidScan, Preprocessing
from .preprocessing.quality import doubts
from .preprocessing.slices import Prepared
from .runtime.progress import Course, IsCancelled, Progress
from .volume import Volume, check

if TYPE_CHECKING:
    from .inference.latent_model import Networks
    from .inference.vae_model import VAENetworks


class Detector:
    """A model that is loaded and ready.

    Attributes:
        bundle: the model.
        preprocessing: how scans come into its space.
    """

    def __init__(
        self,
        bundle: Bundle,
        networks: Networks | VAENetworks,
        brain_networks: BrainNetworks | None,
        brain_spacing_mm: float,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.bundle = bundle
        self._networks = networks
        self._warnings = warnings
        rows, columns = map(int, bundle.config["grid"])
        grid = Grid(rows, columns, float(bundle.config["spacing_mm"]))
        finder = BrainFinder(brain_networks, brain_spacing_mm, lambda: networks.placement)
        self._atlas = read_atlas(bundle)
        shading = int(bundle.config.get("intensity", {}).get("shading", 0))
        self.preprocessing = Preprocessing.of(grid, finder, self._atlas, shading)

    @property
    def grid(self) -> Grid:
        """The model's grid."""
        return self.preprocessing.grid

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
        from .runtime.device import choose_device

        folders = tuple(search or ())
        bundle = read_bundle(find_bundle(model, folders))
        if bundle.kind not in BY_KIND:
            raise BundleError(
                f"model {bundle.name} does not find anomalies but is for "
                f"{bundle.kind}; choose another"
            )
        chosen, warnings = choose_device(device)
        networks = _load_networks(bundle, chosen)
        try:
            brain_folder = find_bundle(bundle.config.get("brain_model", BRAIN_BUNDLE), folders)
        except BundleError:
            brain, spacing = None, 0.0  # extracted scans, and those with a mask, do without
        else:
            brain_bundle = read_bundle(brain_folder)
            brain = load_networks(brain_bundle)
            spacing = float(brain_bundle.config["spacing_mm"])
        return cls(bundle, networks, brain, spacing, warnings)

    def methods(self) -> tuple[str, ...]:
        """Methods that a model of this kind can do, be it calibrated for them or not."""
        return BY_KIND[self.bundle.kind]

    @property
    def has_masked_prior(self) -> bool:
        """Whether the model has a prior that looks at codes from all sides."""
        return "masked" in self.bundle.config

    def modes(self, method: str = "lsr") -> tuple[str, ...]:
        """Modes of a method that differ in a model like this."""
        if method != "lsr":
            return ("default",)
        return tuple(m for m in MODES if m != "pixelsnail" or self.has_masked_prior)

    def calibration(self, mode: str = "default", method: str = "lsr") -> ModeCalibration:
        """What healthy scans give, by a method and, of ``lsr``, in a mode.

        Raises:
            BundleError: the model cannot do that, or was not calibrated for it.
        """
        if method not in self.methods():
            raise BundleError(
                f"model {self.bundle.name} cannot do method {method!r}; choose another model, or "
                f"one of its methods: {', '.join(self.methods())}"
            )
        if mode not in self.modes(method):
            raise BundleError(
                f"model {self.bundle.name} has no mode {mode!r} of {method}; choose from: "
                f"{', '.join(self.modes(method))}"
            )
        modes = self.bundle.calibration.get("modes", {})
        key = calibration_key(method, mode)
        if key not in modes:
            what = f"mode {mode!r}" if method == "lsr" else f"method {method!r}"
            raise BundleError(
                f"model {self.bundle.name} was not calibrated for {what}; "
                "calibrate it on healthy scans"
            )
        return ModeCalibration.from_json(modes[key])

    def threshold_value(
        self,
        percentile: float,
        mode: str = "default",
        restorations: int = 15,
        method: str = "lsr",
    ) -> float:
        """The anomaly-map value that ``percentile`` (0 to 100) of healthy brain voxels stay below.

        Args:
            percentile: above 0 and below 100.
            mode, restorations, method: that the map was made with.

        Raises:
            ValueError: not between 0 and 100.
        """
        if not 0.0 < percentile < 100.0:
            raise ValueError(
                f"the threshold is a healthy percentile between 0 and 100, not {percentile:g}"
            )
        return self.calibration(mode, method).at(restorations).voxels.value(percentile)

    def prepare(
        self, volume: Volume, brain_mask: np.ndarray | None = None
    ) -> tuple[Prepared, LaidScan]:
        """Bring a scan into model space.

        Args:
            volume: (I, J, K) scan.
            brain_mask: (I, J, K), above 0 is brain; None finds it.

        Raises:
            InputError: the scan cannot be used.
        """
        check(volume)
        return self.preprocessing(volume, brain_mask)

    def open(self, volume: Volume, brain_mask: np.ndarray | None = None) -> Opened:
        """Find the brain, for several methods to go on from; args and errors as of :meth:`prepare`.

        Returns:
            the scan, to be given to :meth:`detect` in place of the volume.
        """
        prepared, laid = self.prepare(volume, brain_mask)
        unfit = doubts(laid.part.volume, prepared, self.grid.spacing_mm, self._atlas)
        warnings = [*unfit, *laid.found.warnings]
        if prepared.cropped > 0.01:
            warnings.append(
                f"{100 * prepared.cropped:.0f}% of the brain lies outside the model's field of "
                "view and was not scored"
            )
        return Opened(volume, prepared, tuple(warnings))

    def detect(
        self,
        volume: Volume | Opened,
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
            volume: (I, J, K) T1-weighted head or brain, any orientation and spacing, or what
                :meth:`open` of this detector made of it.
            brain_mask: (I, J, K), above 0 is brain; None finds it.
            mode: of the method ``lsr``: ``default``; ``pixelsnail`` for the auto-regressive prior
                in a model that has a masked one as well; ``paper`` for the published equations.
            method: ``lsr``, or another of :meth:`methods`, each beside which it can be judged.
            threshold: percentile of healthy brain voxels at which the mask is cut, between 0 and
                100; None takes the model's.
            restorations: S, at least 1; some methods make fewer, or none.
            seed: of the restorations: the same seed gives the same result.
            time_budget: seconds after which no more restorations are begun; None waits for all.
                One is made in any case.
            estimate: called with every estimate, from the first score to the last.
            progress: called with the fraction done and what is being done.
            is_cancelled: asked often; True ends the detection.

        Raises:
            InputError: the scan cannot be used.
            Cancelled: ``is_cancelled`` said so.
            BundleError: the model cannot do the method, or was not calibrated for it.
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
        volume: Volume | Opened,
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
            an estimate after 1, 3, 7, 15 restorations, and after every 8 further ones, of methods
            that restore one after the other; at least one, and the last says that it is.
        """
        if mode not in MODES or method not in METHODS:
            raise ValueError(f"mode is one of {MODES} and method one of {METHODS}")
        if mode != "default" and method != "lsr":
            raise ValueError(f"mode {mode} is of method lsr, not of {method}")
        if restorations < 1:
            raise ValueError(f"at least one restoration is needed, not {restorations}")
        if time_budget is not None and not time_budget > 0:
            raise ValueError(f"the time budget is in seconds and above 0, not {time_budget:g}")
        calibration = self.calibration(mode, method)
        percentile = calibration.threshold_percentile if threshold is None else float(threshold)
        self.threshold_value(percentile, mode, method=method)  # refuses what is no percentile
        way = self.method(method, mode, calibration)
        return self._stream(
            volume,
            brain_mask,
            Request(mode, method, percentile, restorations, seed),
            way,
            Yardstick(
                way.rule,
                calibration,
                self.usual(mode, method),
                len(self.bundle.calibration.get("sites", ())),
            ),
            Course(progress, is_cancelled, time_budget),
        )

    def _stream(
        self,
        volume: Volume | Opened,
        brain_mask: np.ndarray | None,
        request: Request,
        way: Method,
        yardstick: Yardstick,
        course: Course,
    ) -> Iterator[Estimate]:
        with course.step("brain", "Finding the brain", 0.1):
            scan = volume if isinstance(volume, Opened) else self.open(volume, brain_mask)
        warnings = (*self._warnings, *scan.warnings)
        estimator = Estimator(
            volume=scan.volume,
            prepared=scan.prepared,
            request=request,
            yardstick=yardstick,
            model=self.bundle.name,
            course=course,
            device=lambda: self.device,
            warnings=lambda: (*warnings, *self._networks.placement.warnings),
        )
        case = self.case(scan.prepared, request.restorations, request.seed, course, scan.known)
        for evidence in way.evidence(case):
            with course.step("score", "Scoring", 0.0):
                estimate = estimator.estimate(evidence, self.grid.spacing_mm)
            yield estimate

    def case(
        self,
        prepared: Prepared,
        restorations: int = 15,
        seed: int = 0,
        course: Course | None = None,
        known: Known | None = None,
    ) -> Case:
        """A prepared scan and this model, for a method.

        Args:
            prepared: from :meth:`prepare`.
            restorations, seed: as in :meth:`detect`.
            course: takes progress and times, and has the time budget.
            known: what the networks have read in it so far.
        """
        networks: Any = self._networks
        return Case(
            prepared,
            self.grid.spacing_mm,
            networks=networks if self.bundle.kind == "anomaly" else None,
            vae=networks if self.bundle.kind == "vae" else None,
            restorations=restorations,
            seed=seed,
            course=course or Course(),
            known=known or Known(),
        )

    def method(self, method: str, mode: str, calibration: ModeCalibration) -> Method:
        """A method, ready to be given a :meth:`case`.

        Args:
            method, mode: as in :meth:`detect`.
            calibration: for the thresholds of ``lsr``, and what its codes stand for.

        Raises:
            BundleError: the calibration lacks that.
        """
        if method != "lsr":
            return baseline(method)
        settings = ModeSettings.of(self.bundle.config, mode)
        if mode == "default" and self.has_masked_prior:
            if calibration.codes is None:
                raise BundleError(
                    f"model {self.bundle.name} does not say what its codes stand for; calibrate it "
                    "again on healthy scans"
                )
            return MaskedRestoration(settings, calibration.restore_threshold, calibration.codes)
        return LatentSpaceRestoration(
            settings,
            calibration.restore_threshold,
            calibration.slice_threshold,
        )

    def usual(self, mode: str = "default", method: str = "lsr") -> dict[str, Usual]:
        """What is usual of each map, from the bundle; nothing in paper mode.

        Raises:
            BundleError: the bundle has none for the method.
        """
        return {} if mode == "paper" else read_usual(self.bundle, calibration_key(method, mode))


def _load_networks(bundle: Bundle, device: str) -> Networks | VAENetworks:
    if bundle.kind == "vae":
        from .inference.vae_model import VAENetworks

        return VAENetworks.load(bundle, device)
    from .inference.latent_model import Networks

    return Networks.load(bundle, device)
