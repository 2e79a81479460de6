"""Which anomalies are put into which scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import lcm

import numpy as np

from .families import Family, seed_of

#: Scans as they are, which every family is compared with.
UNTOUCHED = "untouched"
#: Scans with a real lesion and a mask of it.
LESION = "real-lesion"


@dataclass(frozen=True)
class Case:
    """One scan to look at.

    Attributes:
        subject: name of the scan.
        family: of the anomaly that is put in, or ``untouched``, or ``real-lesion``.
        size, contrast: in the family's units; 0 where nothing is put in.
    """

    subject: str
    family: str
    size: float = 0.0
    contrast: float = 0.0

    @property
    def name(self) -> str:
        """Of files."""
        if self.family in (UNTOUCHED, LESION):
            return f"{self.subject}_{self.family}"
        return f"{self.subject}_{self.family}_{self.size:g}_{self.contrast:g}"


def design(
    subjects: Sequence[str], families: Sequence[Family], *, seed: int = 0, full: bool = False
) -> list[Case]:
    """The cases of a benchmark: every subject as it is, and with an anomaly of each family.

    Sizes and contrasts rotate over the subjects as in a Latin square, so that with as many subjects
    as there are sizes each size is there, and with sizes times contrasts every pair is. The order
    of the rotation is drawn for each family.

    Args:
        subjects: names; their order does not matter.
        families: kinds of anomaly.
        seed: of the rotations.
        full: every subject with every size and contrast instead.

    Returns:
        by subject, the untouched scan first.
    """
    names = sorted(subjects)
    cases = {name: [Case(name, UNTOUCHED)] for name in names}
    for kind in families:
        generator = np.random.default_rng(seed_of(seed, "design", kind.name))
        sizes = [kind.sizes[i] for i in generator.permutation(len(kind.sizes))]
        contrasts = [kind.contrasts[i] for i in generator.permutation(len(kind.contrasts))]
        for number, name in enumerate(names):
            pairs = [(sizes[number % len(sizes)], _turned(contrasts, number, len(sizes)))]
            for size, contrast in product(kind.sizes, kind.contrasts) if full else pairs:
                cases[name].append(Case(name, kind.name, size, contrast))
    return [case for name in names for case in cases[name]]


def _turned(contrasts: Sequence[float], number: int, sizes: int) -> float:
    """The contrast of a subject: one on at each, and one more when pairs would come again."""
    return contrasts[(number + number // lcm(sizes, len(contrasts))) % len(contrasts)]
