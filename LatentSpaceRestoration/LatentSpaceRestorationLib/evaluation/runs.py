"""Running methods over cases, and going on where an earlier run ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..bundle.bundle import digest_of_models
from ..errors import InputError
from ..methods.base import OpenedScan
from ..options import DetectionOptions
from ..results.provenance import key_of
from ..volume import Volume
from . import store
from .candidates import Candidate
from .metrics.measures import CaseResult, Measured, measure
from .panes import draw_case
from .synthetic.design import Case
from .synthetic.sources import Source

if TYPE_CHECKING:
    from ..detector import Detector

Report = Callable[[str], None]


def run(
    cases: Sequence[Case],
    candidates: Sequence[Candidate],
    source: Source,
    folder: Path,
    options: DetectionOptions,
    report: Report,
    *,
    afresh: bool = False,
) -> tuple[list[CaseResult], list[str]]:
    """Look at every case with every candidate.

    Args:
        cases: what to look at.
        candidates: by what.
        source: makes the cases.
        folder: keeps the results, one file each, from one run to the next.
        options: of the detections; method and mode are the candidate's.
        report: takes a line of text after each.
        afresh: whether results of earlier runs are made again.

    Returns:
        results, in the order of cases; lines on the scans that could not be used, which are left
        out.

    Raises:
        OutputError: results cannot be written.
        BundleError: a candidate cannot be run.
    """
    models = {c.name: digest_of_models(c.detector.bundle) for c in candidates}
    pace = _Pace(len(cases) * len(candidates), [candidate.name for candidate in candidates])
    results, troubles = [], []
    unusable: set[str] = set()
    for case in cases:
        made = _Made(case, source)
        try:
            for candidate in candidates:
                if case.subject in unusable:
                    pace.skip(candidate.name)
                    continue
                key = key_of(
                    candidate.detector.bundle.kind,
                    scan=source.digest(case),
                    case=[case.subject, case.family, case.size, case.contrast, source.seed],
                    model=models[candidate.name],
                    method=[candidate.method, candidate.mode],
                    restorations=options.restorations,
                    seed=options.seed,
                )
                path = folder / candidate.folder / f"{case.name}.npz"
                measured = None if afresh else store.load(path, key)
                if measured is None:
                    measured = _look(made, candidate, options, path, key)
                    report(pace.line(case, candidate.name, measured))
                else:
                    pace.skip(candidate.name)
                picture, site = path.with_suffix(".webp"), source.site(case)
                results.append(CaseResult(case, candidate.name, measured, picture, site))
        except InputError as error:
            if case.subject not in unusable:
                unusable.add(case.subject)
                troubles.append(f"{case.subject}: {error}; left out")
                report(troubles[-1])
    return [result for result in results if result.case.subject not in unusable], troubles


class _Made:
    """A case, made and opened when a candidate first asks for it."""

    def __init__(self, case: Case, source: Source) -> None:
        self._case, self._source = case, source
        self._opened: dict[int, OpenedScan] = {}

    @cached_property
    def volume_and_label(self) -> tuple[Volume, np.ndarray]:
        """The scan and its (I, J, K) bool label."""
        return self._source.make(self._case)

    def opened(self, detector: Detector) -> OpenedScan:
        """The scan as a detector sees it: what one of its methods read, the next has at hand."""
        if id(detector) not in self._opened:
            self._opened[id(detector)] = detector.open(self.volume_and_label[0])
        return self._opened[id(detector)]


def _look(
    made: _Made, candidate: Candidate, options: DetectionOptions, path: Path, key: str
) -> Measured:
    volume, label = made.volume_and_label
    found = candidate.detector.detect(
        made.opened(candidate.detector),
        replace(options, method=candidate.method, mode=candidate.mode),
    )
    measured = measure(found, label, volume.affine)
    store.save(path, key, measured, draw_case(volume, found, label))
    return measured


class _Pace:
    """How far a run is and how long it will take, from each candidate's own mean."""

    def __init__(self, total: int, candidates: Sequence[str]) -> None:
        self._total, self._done = total, 0
        self._left = dict.fromkeys(candidates, total // max(1, len(candidates)))
        self._spent: dict[str, list[float]] = {name: [] for name in candidates}
        self._last = time.monotonic()

    def skip(self, candidate: str) -> None:
        """One that needs no time."""
        self._done += 1
        self._left[candidate] -= 1
        self._last = time.monotonic()

    def line(self, case: Case, candidate: str, measured: Measured) -> str:
        """What is reported after one that was made."""
        now = time.monotonic()
        self._spent[candidate].append(now - self._last)
        seconds = now - self._last
        self.skip(candidate)
        means = {name: sum(s) / len(s) for name, s in self._spent.items() if s}
        mean = sum(means.values()) / len(means)
        left = sum(n * means.get(name, mean) for name, n in self._left.items())
        numbers = measured.numbers
        ap = f", AP {numbers['ap']:.2f}" if "ap" in numbers else ""
        return (
            f"{self._done} of {self._total}: {case.name}, {candidate}: score "
            f"{numbers['sample_score']:.3g}{ap} ({seconds:.0f} s); about {_in_words(left)} left"
        )


def _in_words(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
