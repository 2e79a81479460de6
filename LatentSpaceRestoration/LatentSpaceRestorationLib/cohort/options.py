"""How the scans of a cohort are looked at, and what tells one way from another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..options import RunOptions

if TYPE_CHECKING:
    from ..detector import Detector


def check_options(options: RunOptions, detector: Detector) -> None:
    """Refuse, before there is work, what the model cannot do.

    Raises:
        LSRError: in one line.
    """
    detector.model.calibration(options.mode, options.method)


def digest_of(options: RunOptions, detector: Detector) -> str:
    """Of everything but the scan that a result depends on: options, model and program."""
    from ..bundle.bundle import digest_of_models
    from ..results.provenance import key_of

    return key_of(
        detector.bundle.kind, model=digest_of_models(detector.bundle), **options.of_detection
    )
