"""What ``--method`` offers: ways from a prepared scan to evidence of what is unusual in it.

Each has a file of its own and gives :class:`base.Evidence`; the anomaly map, scores and the way
back to the scan's own grid are the same for all. This module imports no torch.
"""

from __future__ import annotations

from .base import Method

#: Methods by the kind of model that they need.
BY_KIND: dict[str, tuple[str, ...]] = {
    "anomaly": ("lsr", "vqvae-residual", "nll", "intensity"),
    "vae": (
        "vae",
        "vae-kl-gradient",
        "vae-elbo-gradient",
        "vae-projection",
        "vae-ensemble",
        "map-restoration",
    ),
}
#: The model that ships for each kind.
SHIPPED = {"anomaly": "brain-t1", "vae": "brain-t1-vae"}
METHODS = tuple(name for names in BY_KIND.values() for name in names)
#: Of the method ``lsr``: as measured to be best; that with the auto-regressive prior alone, which
#: is the default of a model that has no other; as published.
MODES = ("default", "pixelsnail", "paper")


def shipped_model(method: str) -> str:
    """Name of the model that a method takes unless another is given."""
    return next(SHIPPED[kind] for kind, names in BY_KIND.items() if method in names)


def calibration_key(method: str, mode: str = "default") -> str:
    """Under which a method's healthy figures are kept: ``lsr`` has them by mode."""
    return mode if method == "lsr" else method


def baseline(name: str) -> Method:
    """A method other than ``lsr``, by its name; those need nothing from the calibration."""
    if name == "intensity":
        from .intensity import Intensity

        return Intensity()
    if name == "nll":
        from .nll import CodeLikelihood

        return CodeLikelihood()
    if name == "vqvae-residual":
        from .vqvae_residual import VQVAEResidual

        return VQVAEResidual()
    if name == "vae-projection":
        from .projection import Projection

        return Projection()
    if name == "map-restoration":
        from .map_restoration import MAPRestoration

        return MAPRestoration()
    from . import vae

    return vae.METHODS[name]
