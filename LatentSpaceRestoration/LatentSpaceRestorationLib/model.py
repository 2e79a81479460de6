"""A model that is loaded: what it can do, and what healthy scans give by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .bundle.bundle import Bundle
from .calibration.levels import ModeCalibration
from .calibration.normative import NormativeMap, read_normative
from .errors import BundleError
from .methods.base import Anomalous, Known, Method, ScanContext, Setup
from .methods.registry import calibration_key, entry, kinds, of_kind
from .model_space import Grid
from .options import MODES, check_percentile
from .preprocessing.slices import PreparedScan
from .runtime.progress import RunControl

if TYPE_CHECKING:
    from .inference.latent_model import LatentModel
    from .inference.vae_model import VAEModel
    from .runtime.placement import Placement


class Model:
    """A bundle and its networks.

    Attributes:
        bundle: settings and calibration.
    """

    def __init__(self, bundle: Bundle, networks: LatentModel | VAEModel) -> None:
        self.bundle = bundle
        self._networks = networks

    @classmethod
    def load(cls, bundle: Bundle, device: str = "cpu", precision: str = "float32") -> Model:
        """Put the networks of a bundle on a torch device, to compute in a precision.

        Raises:
            BundleError: it finds no anomalies, or its weights do not fit its settings.
        """
        if bundle.kind not in kinds():
            raise BundleError(
                f"model {bundle.name} does not find anomalies but is for "
                f"{bundle.kind}; choose another"
            )
        if bundle.kind == "vae":
            from .inference.vae_model import VAEModel

            return cls(bundle, VAEModel.load(bundle, device))
        from .inference.latent_model import LatentModel

        return cls(bundle, LatentModel.load(bundle, device, precision))

    @property
    def grid(self) -> Grid:
        """The model's grid."""
        return self.bundle.grid

    @property
    def placement(self) -> Placement:
        """Where the networks run."""
        return self._networks.placement

    @property
    def sites(self) -> int:
        """How many sites the healthy scans are from; 0 if that is not known."""
        return len(self.bundle.sites)

    def methods(self) -> tuple[str, ...]:
        """Methods that a model of this kind can do, be it calibrated for them or not."""
        return of_kind(self.bundle.kind)

    def modes(self, method: str = "lsr") -> tuple[str, ...]:
        """Modes of a method that differ in a model like this."""
        if method != "lsr":
            return ("default",)
        return tuple(m for m in MODES if m != "pixelsnail" or self.bundle.has_network("masked"))

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
        key = calibration_key(method, mode)
        if key not in self.bundle.modes:
            what = f"mode {mode!r}" if method == "lsr" else f"method {method!r}"
            raise BundleError(
                f"model {self.bundle.name} was not calibrated for {what}; "
                "calibrate it on healthy scans"
            )
        return ModeCalibration.from_json(self.bundle.modes[key])

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
        check_percentile(percentile)
        return self.calibration(mode, method).at(restorations).voxels.value(percentile)

    def setup(self, mode: str, calibration: ModeCalibration) -> Setup:
        """What a method of this model is made of."""
        return Setup(self.bundle.name, self.bundle.config, mode, calibration)

    def method(self, method: str, mode: str, calibration: ModeCalibration) -> Method:
        """A method, ready to be given a :meth:`context`.

        Args:
            method, mode: as in ``Detector.detect``.
            calibration: for the thresholds of ``lsr``, and what its codes stand for.

        Raises:
            BundleError: the calibration lacks that.
        """
        return entry(method).make(self.setup(mode, calibration))

    def normative(self, mode: str = "default", method: str = "lsr") -> dict[str, NormativeMap]:
        """Normative values of each map, from the bundle; nothing in paper mode.

        Raises:
            BundleError: the bundle has none for the method.
        """
        return {} if mode == "paper" else read_normative(self.bundle, calibration_key(method, mode))

    def context(
        self,
        prepared: PreparedScan,
        restorations: int = 15,
        seed: int = 0,
        control: RunControl | None = None,
        known: Known | None = None,
        anomalous: Anomalous | None = None,
    ) -> ScanContext:
        """A prepared scan and this model, for a method.

        Args:
            prepared: the scan in model space.
            restorations, seed: as in ``Detector.detect``.
            control: takes progress and times, and has the time budget.
            known: what the networks have read in it so far.
            anomalous: see :class:`ScanContext`.
        """
        return ScanContext(
            prepared,
            self.grid.spacing_mm,
            self._networks,
            restorations,
            seed,
            control or RunControl(),
            known or Known(),
            anomalous,
        )
