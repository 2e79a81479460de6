"""How the scans of a cohort are looked at, and what tells one way from another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import LSRError

if TYPE_CHECKING:
    from ..detector import Detector


@dataclass(frozen=True)
class Settings:
    """Options of every detection; see ``Detector.detect``.

    Attributes:
        model: name or folder; on every machine that works, it must be the same model.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``. Results do not depend on it.
    """

    model: str = "brain-t1"
    mode: str = "default"
    method: str = "lsr"
    threshold: float | None = None
    restorations: int = 15
    seed: int = 0
    time_budget: float | None = None
    device: str = "auto"

    def check(self, detector: Detector) -> None:
        """Refuse, before there is work, what the model cannot do.

        Raises:
            LSRError: in one line.
        """
        if self.mode != "default" and self.method != "lsr":
            raise LSRError(f"mode {self.mode} is of method lsr, not of {self.method}")
        detector.calibration(self.mode, self.method)

    def digest(self, detector: Detector) -> str:
        """Of everything but the scan that a result depends on: settings, model and program."""
        from ..bundle.bundle import digest_of_models
        from ..evaluation.store import key_of

        return key_of(
            detector.bundle.kind,
            model=digest_of_models(detector.bundle),
            mode=self.mode,
            method=self.method,
            threshold=self.threshold,
            restorations=self.restorations,
            seed=self.seed,
            time_budget=self.time_budget,
        )
