"""The one way through: a scan in, a detection out.

The module in Slicer, the command line, cohorts and tests all call :meth:`Detector.detect`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .bundle.bundle import Bundle, find_bundle, read_bundle
from .detection import Detection, Estimate
from .errors import BundleError
from .estimator import Estimator, HealthyReference
from .methods.base import Method, OpenedScan
from .methods.registry import entry
from .model import Model
from .model_space import Grid
from .options import DetectionOptions
from .preprocessing.alignment import read_atlas
from .preprocessing.brain_extraction import BrainNetworks, load_networks
from .preprocessing.pipeline import AlignedScan, BrainFinder, Preprocessing
from .preprocessing.quality import doubts
from .preprocessing.slices import PreparedScan
from .runtime.memory import give_back
from .runtime.progress import IsCancelled, Progress, RunControl
from .volume import Volume, check


class Detector:
    """A model that is loaded and ready.

    Attributes:
        model: what it can do, and what healthy scans give by it.
        preprocessing: how scans come into its space.
    """

    def __init__(
        self,
        model: Model,
        brain_networks: BrainNetworks | None,
        brain_spacing_mm: float,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.model = model
        self._warnings = warnings
        finder = BrainFinder(brain_networks, brain_spacing_mm, lambda: model.placement)
        self._atlas = read_atlas(model.bundle)
        self.preprocessing = Preprocessing.of(model.grid, finder, self._atlas, model.bundle.shading)

    @property
    def bundle(self) -> Bundle:
        """The model on disk."""
        return self.model.bundle

    @property
    def grid(self) -> Grid:
        """The model's grid."""
        return self.preprocessing.grid

    @property
    def device(self) -> str:
        """The torch device in use: the CPU from when memory ran out on another."""
        return self.model.placement.device

    @classmethod
    def load(
        cls,
        model: str | Path = "brain-t1",
        device: str = "auto",
        *,
        search: Sequence[Path] | None = None,
        precision: str = "auto",
    ) -> Detector:
        """Read and verify a model and put it on a device.

        Args:
            model: name of an installed model, or a folder.
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
            search: further folders that hold models.
            precision: as of :class:`options.RunOptions`.

        Raises:
            BundleError: unknown or damaged model.
        """
        from .runtime.device import choose_device

        folders = tuple(search or ())
        bundle = read_bundle(find_bundle(model, folders))
        chosen, warnings = choose_device(device)
        loaded = Model.load(bundle, chosen, precision)
        try:
            brain_folder = find_bundle(bundle.brain_model, folders)
        except BundleError:
            brain, spacing = None, 0.0  # extracted scans, and those with a mask, do without
        else:
            brain_bundle = read_bundle(brain_folder)
            brain = load_networks(brain_bundle)
            spacing = brain_bundle.spacing_mm
        return cls(loaded, brain, spacing, warnings)

    def prepare(
        self, volume: Volume, brain_mask: np.ndarray | None = None
    ) -> tuple[PreparedScan, AlignedScan]:
        """Bring a scan into model space.

        Args:
            volume: (I, J, K) scan.
            brain_mask: (I, J, K), above 0 is brain; None finds it.

        Raises:
            InputError: the scan cannot be used.
        """
        check(volume)
        return self.preprocessing(volume, brain_mask)

    def open(self, volume: Volume, brain_mask: np.ndarray | None = None) -> OpenedScan:
        """Find the brain, for several methods to go on from; args and errors as of :meth:`prepare`.

        Returns:
            the scan, to be given to :meth:`detect` in place of the volume.
        """
        prepared, laid = self.prepare(volume, brain_mask)
        unfit = doubts(laid.part.volume, prepared, self.grid.spacing_mm, self._atlas)
        warnings = [*volume.notes, *unfit, *laid.found.warnings]
        if prepared.cropped > 0.01:
            warnings.append(
                f"{100 * prepared.cropped:.0f}% of the brain lies outside the model's field of "
                "view and was not scored"
            )
        return OpenedScan(volume, prepared, tuple(warnings))

    def detect(
        self,
        volume: Volume | OpenedScan,
        options: DetectionOptions | None = None,
        *,
        brain_mask: np.ndarray | None = None,
        estimate: Callable[[Estimate], None] | None = None,
        progress: Progress | None = None,
        is_cancelled: IsCancelled | None = None,
        **named: Any,
    ) -> Detection:
        """Find what is unusual in a scan.

        Args:
            volume: (I, J, K) T1-weighted head or brain, any orientation and spacing, or what
                :meth:`open` of this detector made of it.
            options: how; None takes the defaults.
            brain_mask: (I, J, K), above 0 is brain; None finds it.
            estimate: called with every estimate, from the first score to the last.
            progress: called with the fraction done and what is being done.
            is_cancelled: asked often; True ends the detection.
            named: single options in place of those in ``options``, by their names in
                :class:`DetectionOptions`.

        Raises:
            InputError: the scan cannot be used.
            Cancelled: ``is_cancelled`` said so.
            BundleError: the model cannot do the method, or was not calibrated for it.
            ValueError: an option is out of range.
            TypeError: there is no such option.
            MemoryError: the scan does not fit into memory, however small the pieces.
        """
        for current in self.stream(
            volume,
            options,
            brain_mask=brain_mask,
            progress=progress,
            is_cancelled=is_cancelled,
            **named,
        ):
            if estimate is not None:
                estimate(current)
        if progress is not None:
            progress(0.97, "Bringing the map back to the scan")
        give_back()  # the images of a fine scan want it
        detection = current.detection()
        if progress is not None:
            progress(1.0, "Done")
        return detection

    def stream(
        self,
        volume: Volume | OpenedScan,
        options: DetectionOptions | None = None,
        *,
        brain_mask: np.ndarray | None = None,
        progress: Progress | None = None,
        is_cancelled: IsCancelled | None = None,
        **named: Any,
    ) -> Iterator[Estimate]:
        """Find what is unusual in a scan, a group of restorations at a time.

        Args and errors are those of :meth:`detect`.

        Yields:
            an estimate after 1, 3, 7, 15 restorations, and after every 8 further ones, of methods
            that restore one after the other; before them, of those whose maps need no restoration,
            one after none, with score and map. At least one, and the last says that it is.
        """
        asked = replace(options or DetectionOptions(), **named)
        mode, method = asked.mode, asked.method
        entry(method)  # refuses what is none, whatever the model
        calibration = self.model.calibration(mode, method)
        if asked.threshold is None:
            asked = replace(asked, threshold=calibration.threshold_percentile)
        way = self.model.method(method, mode, calibration)
        reference = HealthyReference(
            way.rule, calibration, self.model.normative(mode, method), self.model.sites
        )
        control = RunControl(progress, is_cancelled, asked.time_budget)
        return self._stream(volume, brain_mask, asked, way, reference, control)

    def _stream(
        self,
        volume: Volume | OpenedScan,
        brain_mask: np.ndarray | None,
        options: DetectionOptions,
        way: Method,
        reference: HealthyReference,
        control: RunControl,
    ) -> Iterator[Estimate]:
        with control.step("brain", "Finding the brain", 0.1):
            scan = volume if isinstance(volume, OpenedScan) else self.open(volume, brain_mask)
        warnings = (*self._warnings, *scan.warnings)
        estimator = Estimator(
            volume=scan.volume,
            prepared=scan.prepared,
            options=options,
            reference=reference,
            model=self.bundle.name,
            control=control,
            place=lambda: (self.device, self.model.placement.precision),
            warnings=lambda: (*warnings, *self.model.placement.warnings),
        )
        context = self.model.context(
            scan.prepared,
            options.restorations,
            options.seed,
            control,
            scan.known,
            partial(estimator.anomalous, spacing_mm=self.grid.spacing_mm),
        )
        for evidence in way.evidence(context):
            with control.step("score", "Scoring", 0.0):
                estimate = estimator.estimate(evidence, self.grid.spacing_mm)
            yield estimate
