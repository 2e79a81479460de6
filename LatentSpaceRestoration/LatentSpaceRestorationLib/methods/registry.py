"""What ``--method`` offers: a new method is one file of this package and one line here.

Its file has what makes it (a class without arguments, or a function of a :class:`base.Setup`) and,
if it must know more of healthy scans than how its maps look in them, a function that finds that
out. Everything else follows from the line: which models can do it, what is read before it is
calibrated, where its healthy figures are kept, what the command line offers. No torch is imported
before a method is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..options import MODES

if TYPE_CHECKING:
    from ..calibration.levels import ModeCalibration
    from .base import Method, Setup

#: The model that ships for each kind.
SHIPPED = {"anomaly": "brain-t1", "vae": "brain-t1-vae"}


@dataclass(frozen=True)
class Entry:
    """One method.

    Attributes:
        name: as it is called.
        kind: of the models that can do it.
        made_by: ``file:name``, in this package: takes nothing, or, of a method that
            ``needs_calibration``, a :class:`base.Setup`.
        label: what it is, in a few words.
        reads_codes: whether it looks at the codes of a VQ-VAE.
        needs_calibration: whether it must know something of healthy scans before it can look at
            one; then ``file:calibrated`` finds that out.
    """

    name: str
    kind: str
    made_by: str
    label: str
    reads_codes: bool = False
    needs_calibration: bool = False

    @property
    def file(self) -> str:
        """Name of its file in this package."""
        return self.made_by.split(":")[0]

    def make(self, setup: Setup) -> Method:
        """The method, ready to look at scans.

        Raises:
            BundleError: the calibration lacks what it needs.
        """
        made: Method = self._named(self.made_by.split(":")[1])(
            *([setup] if self.needs_calibration else [])
        )
        return made

    def before_calibration(self) -> Callable[..., ModeCalibration] | None:
        """What finds out what it must know first; None if that is nothing."""
        return self._named("calibrated") if self.needs_calibration else None

    def _named(self, name: str) -> Any:
        return getattr(import_module(f"{__package__}.{self.file}"), name)


#: All methods, in the order in which they are shown.
ENTRIES = [
    Entry("lsr", "anomaly", "lsr:latent_space_restoration", "latent space restoration", True, True),
    Entry(
        "vqvae-residual",
        "anomaly",
        "vqvae_residual:VQVAEResidual",
        "what the VQ-VAE cannot reproduce",
        reads_codes=True,
    ),
    Entry("nll", "anomaly", "nll:CodeLikelihood", "how unlikely the codes are", reads_codes=True),
    Entry("intensity", "anomaly", "intensity:Intensity", "intensity by place, without a network"),
    Entry("vae", "vae", "vae:Reconstruction", "residual of the VAE"),
    Entry("vae-kl-gradient", "vae", "vae:KLGradient", "gradient of the VAE's divergence"),
    Entry("vae-elbo-gradient", "vae", "vae:ELBOGradient", "gradient of the VAE's loss"),
    Entry("vae-projection", "vae", "projection:Projection", "iterative projection"),
    Entry("vae-ensemble", "vae", "vae:Ensemble", "residual and gradients of the VAE together"),
    Entry("map-restoration", "vae", "map_restoration:MAPRestoration", "MAP restoration"),
]


def names() -> tuple[str, ...]:
    """All methods."""
    return tuple(entry.name for entry in ENTRIES)


def kinds() -> frozenset[str]:
    """Kinds of models that find anomalies."""
    return frozenset(entry.kind for entry in ENTRIES)


def of_kind(kind: str) -> tuple[str, ...]:
    """Methods of a kind of model."""
    return tuple(entry.name for entry in ENTRIES if entry.kind == kind)


def entry(name: str) -> Entry:
    """A method by its name.

    Raises:
        ValueError: there is none of that name.
    """
    for each in ENTRIES:
        if each.name == name:
            return each
    raise ValueError(f"mode is one of {MODES} and method one of {names()}")


def shipped_model(method: str) -> str:
    """Name of the model that a method takes unless another is given."""
    return SHIPPED[entry(method).kind]


def calibration_key(method: str, mode: str = "default") -> str:
    """Under which a method's healthy figures are kept: ``lsr`` has them by mode."""
    return mode if method == "lsr" else method
