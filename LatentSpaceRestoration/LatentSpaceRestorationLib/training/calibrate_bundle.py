"""Calibration of a bundle on a set of healthy scans: which may be used, and what they give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..bundle.bundle import Bundle, find_bundle, read_bundle
from ..bundle.write import add_calibration
from ..datasets.read import read_subjects
from ..datasets.subjects import Subject
from ..detector import Detector
from ..errors import InputError, OutputError
from ..io.files import content_hash
from ..io.images import files_of, read_mask, read_volume
from ..preprocessing.slices import PreparedScan
from ..volume import Volume
from .calibrate import FEWEST, PRECISION, HealthyScan, added_to, calibrate, to_files
from .export import is_adapted, write_adapted

#: Fewer healthy scans than this give percentiles that are too coarse to rely on.
ENOUGH = 20

Report = Callable[[str], None]


def calibrate_bundle(
    model: str | Path,
    *sources: Path,
    adapted: Path | None = None,
    methods: Sequence[str] | None = None,
    modes: Sequence[str] | None = None,
    restorations: int = 15,
    seed: int = 0,
    device: str = "auto",
    report: Report = print,
) -> Bundle:
    """Calibrate a model and write what was found into its bundle, or into one of its own.

    Args:
        model: name or folder.
        sources: tables or folders of healthy scans; where they have sets, ``calibrate`` is used.
        adapted: folder of a new model of the same weights, which knows these scans as healthy and
            no others; None calibrates the model itself.
        methods, modes: to calibrate; None for all that the model can do.
        restorations, seed, device: as of ``Detector``.
        report: takes a line of text.

    Raises:
        InputError: the model was trained on one of the scans, or fewer than five can be used.
        BundleError: the model cannot be used, or cannot do one of the methods or modes.
        OutputError: there is something else, or nothing can be written.
    """
    bundle = read_bundle(find_bundle(model))
    if adapted is not None and adapted.exists() and not is_adapted(adapted, bundle):
        raise OutputError(
            f"{adapted}: is there, and is not {bundle.name} adapted to other scans; choose another "
            "name"
        )
    source = " and ".join(map(str, sources))
    subjects = _unseen(bundle, read_subjects(*sources), source)
    _enough(len(subjects), source)
    detector = Detector.load(
        bundle.folder, device, search=[bundle.folder.parent], precision=PRECISION
    )
    scans = _read(detector, subjects, source, report)
    if len(scans) < ENOUGH:
        report(
            f"note: {len(scans)} scans are few: a percentile is known to "
            f"{100.0 / (len(scans) + 1):.0f} points; {ENOUGH} or more are better"
        )
    found = calibrate(
        detector,
        scans,
        methods,
        modes=modes,
        restorations=restorations,
        seed=seed,
        report=report,
    )
    if adapted is not None:
        return write_adapted(adapted, bundle, *to_files(*found))
    return add_calibration(bundle.folder, *added_to(bundle, *to_files(*found)))


def _unseen(bundle: Bundle, subjects: list[Subject], source: str) -> list[Subject]:
    """The scans to calibrate on; none of them was trained on."""
    if any(subject.split for subject in subjects):
        subjects = [subject for subject in subjects if subject.split == "calibrate"]
    training: dict[str, Any] = bundle.config.get("training", {})
    names = {*training.get("subjects", ()), *training.get("people", ())}
    hashes = set(training.get("sha256", ()))
    seen = [
        subject.name
        for subject in subjects
        if names & {subject.name, subject.owner}
        or content_hash(files_of(subject.scan, subject.series)) in hashes
    ]
    if seen:
        others = f" and {len(seen) - 1} more of these scans" if len(seen) > 1 else ""
        raise InputError(
            f"{source}: model {bundle.name} was trained on {seen[0]}{others}; calibrate on people "
            "it has not seen (if these are others of the same names, rename them)"
        )
    return subjects


def _enough(scans: int, source: str) -> None:
    if scans < FEWEST:
        raise InputError(
            f"{source}: {scans} healthy scans are too few to calibrate; give at least {FEWEST}, "
            f"better {ENOUGH}"
        )


def _read(
    detector: Detector, subjects: list[Subject], source: str, report: Report
) -> list[HealthyScan]:
    scans = []
    for subject in subjects:
        try:
            volume = read_volume(subject.scan)
            prepared = _prepare(detector, subject, volume, report)
        except InputError as error:
            report(f"left out: {subject.name}: {error}")
            continue
        scans.append(HealthyScan(subject.name, prepared, subject.site))
        report(f"read {subject.name} ({len(scans)} of {len(subjects)})")
    _enough(len(scans), source)
    return scans


def _prepare(detector: Detector, subject: Subject, volume: Volume, report: Report) -> PreparedScan:
    """The scan in model space, with the brain that is found, as of the scans that will come."""
    try:
        return detector.prepare(volume)[0]
    except InputError:
        if subject.mask is None:
            raise
        report(f"{subject.name}: no brain was found; its own mask is used")
        return detector.prepare(volume, read_mask(subject.mask, volume))[0]
