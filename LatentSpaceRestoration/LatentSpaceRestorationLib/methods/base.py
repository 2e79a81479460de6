"""What a method is given, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import numpy as np

from ..runtime.progress import RunControl
from ..scoring.filters import SMOOTHING_MM, masked_smooth

if TYPE_CHECKING:
    from ..calibration.code_values import CodeValues
    from ..calibration.levels import ModeCalibration
    from ..inference.latent_model import LatentModel
    from ..inference.readings import Expected, Reading, ReadingPlan
    from ..inference.vae_model import VAEModel
    from ..preprocessing.slices import PreparedScan
    from ..scoring.anomaly_map import MapRule
    from ..volume import Volume

#: Of a method's maps, each (N, rows, columns): where they are anomalous, bool of that shape.
Anomalous = Callable[[Mapping[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Evidence:
    """What a method knows of a scan, after some or all of its work.

    All arrays are in model space, (N, rows, columns) float32.

    Attributes:
        maps: what the anomaly map is made of by the method's rule, 0 outside the brain.
        restoration: the scan as it would be if it were healthy; the scan itself where a method
            restores nothing.
        sd: spread of the restorations.
        restorations: how many that is over; 0 where a method restores nothing, or has not yet.
        wanted: how many it will be over in the end.
        is_last: whether nothing further comes.
        slice_scores: (N,), where a method scores slices, and by their sum the scan, by other means
            than the map.
        unlikely: share of the brain's codes that are unlikely, and the same of healthy scans, of
            methods that know it.
        replaced: how far the restoration stands in the place of the scan, 0 to 1: elsewhere the
            scan stays as it is. None where a method draws the whole brain anew.
    """

    maps: Mapping[str, np.ndarray]
    restoration: np.ndarray
    sd: np.ndarray
    restorations: int
    wanted: int
    is_last: bool = True
    slice_scores: np.ndarray | None = None
    unlikely: tuple[float, float] | None = None
    replaced: np.ndarray | None = None

    @classmethod
    def of_one(cls, maps: Mapping[str, np.ndarray], image: np.ndarray) -> Evidence:
        """Of a method that gives one image, which has no spread, and gives it at once."""
        return cls(maps, image, np.zeros_like(image), 1, 1)

    @classmethod
    def of_maps(cls, maps: Mapping[str, np.ndarray], slices: np.ndarray) -> Evidence:
        """Of a method that restores nothing in the slices of a scan."""
        nothing = np.zeros_like(slices)
        return cls(maps, slices, nothing, 0, 0, replaced=nothing)


@dataclass
class Known:
    """What networks have read in a scan, kept for the next method that asks for it.

    Attributes:
        reading: codes and likelihoods, once they are known.
        expected: what a masked prior expects, by how it reads.
    """

    reading: Reading | None = None
    expected: dict[ReadingPlan, Expected] = field(default_factory=dict)


@dataclass(frozen=True)
class ScanContext:
    """A prepared scan, and what there is to examine it with.

    Attributes:
        prepared: the scan in model space.
        spacing_mm: of the model's grid.
        model: networks of the kind that the method is of.
        restorations: how many are wanted, of methods that draw.
        seed: of the draws.
        control: takes progress and times, and says when to stop.
        known: what the networks have read in it so far.
        anomalous: says where the anomaly map of a method's maps is above what nearly all healthy
            voxels have; None while healthy scans are not known.
    """

    prepared: PreparedScan
    spacing_mm: float
    model: LatentModel | VAEModel
    restorations: int = 15
    seed: int = 0
    control: RunControl = field(default_factory=RunControl)
    known: Known = field(default_factory=Known)
    anomalous: Anomalous | None = None

    def read(self) -> tuple[LatentModel, Reading]:
        """VQ-VAE and prior, and what they read in the scan."""
        networks = self.latent_model()
        if self.known.reading is None:
            with self.control.step("encode", "Reading the slices", 0.2) as report:
                self.known.reading = networks.read(self.prepared, report)
        return networks, self.known.reading

    def smoothed(
        self,
        maps: Mapping[str, np.ndarray],
        sigma_mm: float = SMOOTHING_MM,
        known: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Gaussian means of (N, rows, columns) maps over the brain, 0 outside it.

        Args:
            known: (N,) bool, slices whose values count; None counts all.
        """
        with self.control.step("score", "Scoring", 0.95):
            sigma, mask = sigma_mm / self.spacing_mm, self.prepared.mask
            return {name: masked_smooth(m, mask, sigma, known) for name, m in maps.items()}

    def expect(self, plan: ReadingPlan, values: CodeValues) -> tuple[LatentModel, Expected]:
        """VQ-VAE and priors, and what the masked one expects.

        Args:
            plan: which slices are read, and how.
            values: what the codes stand for, always the same of a model.
        """
        networks = self.latent_model()
        if plan not in self.known.expected:
            with self.control.step("encode", "Reading the slices", 0.35) as report:
                self.known.expected[plan] = networks.expect(self.prepared, plan, values, report)
        return networks, self.known.expected[plan]

    def latent_model(self) -> LatentModel:
        """VQ-VAE and priors."""
        return cast("LatentModel", self.model)

    def vae_model(self) -> VAEModel:
        """The VAE."""
        return cast("VAEModel", self.model)


@dataclass(frozen=True)
class Setup:
    """What a method is made of.

    Attributes:
        model: name of the model, for messages.
        config: of its bundle.
        mode: of ``lsr``.
        calibration: what healthy scans give, as far as it is known.
    """

    model: str
    config: Mapping[str, Any]
    mode: str
    calibration: ModeCalibration


class Method(Protocol):
    """One way to find what is unusual.

    Attributes:
        rule: how the anomaly map and the sample score come from the maps.
        draws_maps: whether its maps depend on what is drawn: those of healthy scans are then asked
            for after each number of restorations.
    """

    draws_maps: ClassVar[bool]

    @property
    def rule(self) -> MapRule: ...

    def evidence(self, context: ScanContext) -> Iterator[Evidence]:
        """What is known, once or several times, each time better; at least once.

        Raises:
            Cancelled: ``context.control`` said so.
        """
        ...


@dataclass(frozen=True)
class OpenedScan:
    """A scan that a detector has found the brain of, and what its networks read in it.

    Attributes:
        volume: the scan.
        prepared: the scan in model space.
        warnings: what the user should know of it.
        known: what the networks have read so far; a second method goes on from there.
    """

    volume: Volume
    prepared: PreparedScan
    warnings: tuple[str, ...]
    known: Known = field(default_factory=Known)
