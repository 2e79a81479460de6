"""Healthy scans that lie beside the repository, for tests that need real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from LatentSpaceRestorationLib.datasets.read import read_subjects
from LatentSpaceRestorationLib.datasets.subjects import Subject, of_split

DATA = Path(__file__).parents[5] / "shared" / "data" / "t1-healthy-2mm" / "subjects.tsv"


def tune_subjects() -> list[Subject]:
    """Those of the set ``tune``; skips the test where there are none."""
    if not DATA.is_file():
        pytest.skip(f"needs the healthy scans of {DATA.parent.name}, which are not here")
    return list(of_split(read_subjects(DATA), "tune"))
