"""Which methods of which models are measured."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LSRError
from ..methods.registry import SHIPPED, calibration_key
from ..options import MODES

if TYPE_CHECKING:
    from ..detector import Detector

#: Of ``--method``: ``lsr`` in a mode other than its default.
PAPER = "lsr-paper"
#: Measured if asked for by name alone: what the default was before.
_BY_NAME = ("lsr-pixelsnail",)


@dataclass(frozen=True)
class Candidate:
    """A method of a model, which is to be measured.

    Attributes:
        name: heading of its column, and part of file names.
        detector: the model.
        method, mode: of ``Detector.detect``.
    """

    name: str
    detector: Detector
    method: str = "lsr"
    mode: str = "default"

    @property
    def model_digest(self) -> str:
        """Of the model's settings, which hold the hash of each of its files."""
        return self.detector.bundle.digest

    @property
    def folder(self) -> str:
        """Name of the folder of its results."""
        mark = hashlib.sha256(self.name.encode()).hexdigest()[:4]
        plain = "".join(c if c.isalnum() or c in "-." else "-" for c in self.name)
        return plain if plain == self.name else f"{plain}-{mark}"


def candidates_of(
    detectors: Sequence[Detector], methods: Sequence[str], comparison: str | None = None
) -> tuple[list[Candidate], list[str]]:
    """What is to be measured.

    Args:
        detectors: models.
        methods: names of methods, ``lsr-paper`` among them; none means every one that a model can
            do and is calibrated for, but for ``lsr-pixelsnail``.
        comparison: ``paper`` for LSR as published beside the reconstruction of a VAE; ``beta`` for
            VAEs of several beta.

    Returns:
        candidates, in the order of models; notes on what was left out.

    Raises:
        LSRError: nothing is left, a method that no model can do, or models that do not fit the
            comparison.
    """
    kinds = {detector.bundle.kind for detector in detectors}
    if comparison == "paper" and kinds != {"anomaly", "vae"}:
        raise LSRError(
            "the paper's comparison needs a model of each kind; "
            f"give --model {SHIPPED['anomaly']} --model {SHIPPED['vae']}, or folders of your own"
        )
    if comparison == "beta" and (kinds != {"vae"} or len(detectors) < 2):
        raise LSRError("the beta sweep needs VAEs; give the folders of two or more with --model")
    if comparison == "beta":
        _check_betas(detectors)
    candidates, notes, done = [], [], set()
    for detector in detectors:
        able, uncalibrated = _able(detector)
        alike = sum(d.bundle.kind == detector.bundle.kind for d in detectors) > 1
        if comparison == "paper":
            wanted = methods or [PAPER, "vae"]
        elif comparison == "beta":
            wanted = methods or ["vae", "vae-kl-gradient", "vae-elbo-gradient"]
        else:
            wanted = methods or [name for name in able if name not in _BY_NAME]
        for method in wanted:
            if method in uncalibrated:
                notes.append(
                    f"{method} of {detector.bundle.name} is left out: it is not calibrated "
                    f"(lsr calibrate --methods {method})"
                )
            elif method in able:
                candidates.append(_candidate(detector, method, alike, comparison))
            if method in able or method in uncalibrated:
                done.add(method)
    for method in methods:
        if method not in done:
            known = sorted({m for d in detectors for part in _able(d) for m in part})
            raise LSRError(f"no model given can do {method}; choose from: {', '.join(known)}")
    if not candidates:
        raise LSRError("; ".join(notes) or "there is nothing to evaluate; give a --model")
    return candidates, notes


def _able(detector: Detector) -> tuple[list[str], list[str]]:
    """Methods that a model can do: calibrated ones, and others."""
    names = []
    for method in detector.model.methods():
        modes = detector.model.modes(method)
        names += [method if mode == "default" else f"{method}-{mode}" for mode in modes]
    able = [
        name for name in names if calibration_key(*_method_and_mode(name)) in detector.bundle.modes
    ]
    return able, [name for name in names if name not in able]


def _candidate(detector: Detector, method: str, alike: bool, comparison: str | None) -> Candidate:
    """A method, named with its model where another model of the kind takes part."""
    name = method
    if comparison == "beta":
        name = f"{method} beta={beta_of(detector):g}"
    elif alike:
        name = f"{detector.bundle.name} {method}"
    return Candidate(name, detector, *_method_and_mode(method))


def _method_and_mode(name: str) -> tuple[str, str]:
    mode = name.removeprefix("lsr-")
    return ("lsr", mode) if mode in MODES else (name, "default")


def beta_of(detector: Detector) -> float:
    """Of a VAE, from its settings."""
    return float(detector.bundle.config["vae"].get("beta", 1.0))


def _check_betas(detectors: Sequence[Detector]) -> None:
    folders: dict[float, Path] = {}
    for detector in detectors:
        beta, folder = beta_of(detector), detector.bundle.folder
        if beta in folders:
            raise LSRError(
                f"{folders[beta]} and {folder} both have beta {beta:g}; give one of them"
            )
        folders[beta] = folder
