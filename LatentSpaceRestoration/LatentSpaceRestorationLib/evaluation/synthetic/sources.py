"""The scans of an evaluation: healthy ones, what is put into them, and ones with real lesions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...datasets.read import read_subjects
from ...datasets.subjects import Subject
from ...errors import InputError
from ...io.files import content_hash
from ...io.images import files_of, read_mask, read_volume
from ...volume import Volume
from .design import LESION, UNTOUCHED, Case
from .families import Family, family, put_in, seed_of
from .geometry import Healthy
from .strokes import Shape, read_shapes

if TYPE_CHECKING:
    from ...detector import Detector

#: Finds the brain of a scan that has no mask: (I, J, K) bool.
FindBrain = Callable[[Volume], np.ndarray]


def real_lesions(source: Path) -> list[Subject]:
    """Scans with a mask of their lesion, whatever their split.

    Args:
        source: a folder that holds pairs ``<name>_T1w.nii.gz`` and ``<name>_lesion.nii.gz``, or
            anything with lesion masks that ``datasets.read_subjects`` reads.

    Raises:
        InputError: there are none.
    """
    found = []
    for lesion in sorted(source.glob("*_lesion.nii*")) if source.is_dir() else ():
        name, ending = lesion.name.split("_lesion", 1)
        scan = source / f"{name}_T1w{ending}"
        if scan.is_file():
            found.append(Subject(name, "", scan, None, lesion))
    if not found:
        found = [subject for subject in read_subjects(source) if subject.lesion is not None]
    if not found:
        raise InputError(
            f"{source}: has no scans with a lesion mask; give a folder of pairs NAME_T1w.nii.gz "
            "and NAME_lesion.nii.gz, or a subjects table with a column lesion"
        )
    return found


def choose(
    sources: Sequence[Path], splits: Sequence[str], detectors: Sequence[Detector]
) -> list[Subject]:
    """The scans of some splits, by name; where no splits are stated, those that no model has seen.

    Raises:
        InputError: there are none.
    """
    every = read_subjects(*sources)
    source = " and ".join(map(str, sources))
    chosen = [subject for subject in every if subject.split in splits]
    if not any(subject.split for subject in every):
        chosen = [s for s in every if not any(s.name in _seen(d) for d in detectors)]
        if not chosen:
            raise InputError(
                f"{source}: a model was trained or calibrated on every scan; give other scans"
            )
    if not chosen:
        there = ", ".join(sorted({subject.split for subject in every if subject.split}))
        raise InputError(
            f"{source}: has no subjects of split {' or '.join(splits)}; give --split, of: {there}"
        )
    return sorted(chosen, key=lambda subject: subject.name)


def _seen(detector: Detector) -> set[str]:
    return {*detector.bundle.trained_on, *detector.bundle.calibrated_on}


def brain_finder(detector: Detector) -> FindBrain:
    """Finds brains by a detector's own extraction."""

    def find(volume: Volume) -> np.ndarray:
        prepared, _ = detector.prepare(volume)
        brain, _ = prepared.brain_to_native()
        return brain

    return find


def check_unseen(names: Sequence[str], detectors: Sequence[Detector]) -> list[str]:
    """Refuse subjects that a model was trained on.

    Returns:
        notes on subjects that a model was calibrated on.

    Raises:
        InputError: naming them.
    """
    notes = []
    for detector in detectors:
        bundle = detector.bundle
        known = set(names) & bundle.trained_on
        if known:
            raise InputError(
                f"{_some(known)}: model {bundle.name} was trained on these subjects, which it "
                "would do too well on; choose another split"
            )
        known = set(names) & set(bundle.calibrated_on)
        if known:
            notes.append(f"{bundle.name} was calibrated on {_some(known)}: too kind a test")
    return notes


def _some(names: set[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return ", ".join(ordered[:3]) + more


@dataclass(frozen=True)
class Source:
    """Makes the cases of an evaluation.

    Attributes:
        healthy: subjects that anomalies are put into.
        lesions: subjects with a mask of their lesion.
        shapes_folder: lesion shapes to paint, if there are some.
        seed: of the anomalies.
        find_brain: for subjects without a brain mask.
    """

    healthy: Sequence[Subject]
    lesions: Sequence[Subject]
    shapes_folder: Path | None
    seed: int
    find_brain: FindBrain
    _digests: dict[Path, str] = field(default_factory=dict)

    @cached_property
    def shapes(self) -> list[Shape]:
        """Lesion shapes; none where there is no folder of them."""
        return read_shapes(self.shapes_folder) if self.shapes_folder else []

    def missing(self, kind: Family) -> str:
        """Why a family cannot be made; empty if it can."""
        if kind.needs == "shapes" and not self.shapes:
            return "there are no lesion shapes (give their folder with --shapes)"
        if kind.needs == "donor" and len(self.healthy) < 2:
            return "it needs a second healthy scan"
        return ""

    def make(self, case: Case) -> tuple[Volume, np.ndarray]:
        """The scan of a case and its (I, J, K) bool label.

        Raises:
            InputError: a file cannot be used.
        """
        if case.family == LESION:
            patient = self._patient(case.subject)
            volume = read_volume(patient.scan)
            assert patient.lesion is not None
            return volume, read_mask(patient.lesion, volume)
        scan = self._healthy(case.subject)
        if case.family == UNTOUCHED:
            return scan.volume, np.zeros(scan.volume.shape, bool)
        kind = family(case.family)
        return put_in(
            kind,
            scan,
            size=case.size,
            contrast=case.contrast,
            seed=seed_of(self.seed, case.subject, case.family),
            donor=self._healthy(self._donor(case.subject)) if kind.needs == "donor" else None,
            shapes=self.shapes,
        )

    def digest(self, case: Case) -> str:
        """What the files of a case contain; another digest is another case.

        Raises:
            InputError: a file cannot be read.
        """
        if case.family == LESION:
            patient = self._patient(case.subject)
            return self._of(patient.scan, patient.lesion)
        subject = self._subject(case.subject)
        if case.family == UNTOUCHED:
            return self._of(subject.scan)
        files = [subject.scan, subject.mask]
        kind = family(case.family)
        if kind.needs == "donor":
            donor = self._subject(self._donor(case.subject))
            files += [donor.scan, donor.mask]
        if kind.needs == "shapes" and self.shapes_folder is not None:
            files.append(self.shapes_folder / "shapes.tsv")
        return self._of(*files)

    def _of(self, *files: Path | None) -> str:
        for file in files:
            if file is not None and file not in self._digests:
                self._digests[file] = content_hash(files_of(file))
        return " ".join(self._digests[file] if file is not None else "-" for file in files)

    def site(self, case: Case) -> str:
        """Where a case's scan was made; empty if that is not known."""
        lies = self._patient if case.family == LESION else self._subject
        return lies(case.subject).site

    def _donor(self, name: str) -> str:
        """The next healthy subject of the site in order of names, or of all if it has no other."""
        site = self._subject(name).site
        names = sorted(subject.name for subject in self.healthy if subject.site == site)
        if len(names) < 2:
            names = sorted(subject.name for subject in self.healthy)
        return names[(names.index(name) + 1) % len(names)]

    def _subject(self, name: str) -> Subject:
        return next(subject for subject in self.healthy if subject.name == name)

    def _patient(self, name: str) -> Subject:
        return next(patient for patient in self.lesions if patient.name == name)

    def _healthy(self, name: str) -> Healthy:
        subject = self._subject(name)
        return _read_healthy(subject.scan, subject.mask, self.find_brain)


@lru_cache(maxsize=2)  # a scan and its donor
def _read_healthy(scan: Path, mask: Path | None, find_brain: FindBrain) -> Healthy:
    volume = read_volume(scan)
    try:
        brain = read_mask(mask, volume) if mask is not None else find_brain(volume)
    except InputError as error:
        text = str(error)
        raise InputError(text if str(mask) in text else f"{scan}: {text}") from error
    return Healthy(volume, brain)
