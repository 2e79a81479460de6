"""The atlas that heads are aligned with: the mean of the training scans, group-wise.

The mean of the heads as they lie comes first; each is aligned with it, and the mean is made anew,
until it no longer moves (unbiased templates; Joshi et al., NeuroImage 2004, with rigid transforms).
Shading stays in: what all scans share of it is part of what is usual, and would drift if each
round took out some of it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np

from ...calibration.atlas import PlaceStatistics, PlaceSums
from ...datasets.subjects import Subject
from ...errors import InputError
from ...io.files import content_hash, write_whole
from ...io.images import files_of
from ...model_space import CLIP, Grid
from ...preprocessing.alignment import AlignmentAtlas
from .slice_cache import VERSION, Brains, Report, hashed, laid_scan

#: The mean no longer moves when it changes by less than this share of its own spread over places.
STILL = 0.02
MOST_ROUNDS = 6


def make_atlas(
    subjects: list[Subject],
    grid: Grid,
    cache: Path,
    brains: Brains,
    *,
    report: Report = print,
    progress: Callable[[list[Subject]], Iterable[Subject]] = iter,
) -> np.ndarray | None:
    """The mean intensity at each place of the brains of a set, made once and kept.

    Args:
        subjects: of the training set; those that cannot be used are left out.
        grid: the model's.
        cache: folder of prepared slices.
        brains: finds masks.
        report: takes a line of text.
        progress: goes through the subjects, and may tell how far it is.

    Returns:
        (depths, h, w) float32; None if no head can be aligned with it, since it is alike all over.

    Raises:
        InputError: no scan can be used.
        OutputError: it cannot be kept.
    """
    usable, hashes = [], []
    for subject in subjects:
        try:
            scan = content_hash(files_of(subject.scan, subject.series))
            hashes.append([scan, brains.key(subject)])
        except InputError:
            continue  # where its slices are made, it is reported
        usable.append(subject)
    key = hashed(hashes + [asdict(grid), CLIP, VERSION, STILL, MOST_ROUNDS])
    file = cache / f"atlas-{key}.npy"
    if not file.is_file():
        mean = _group_mean(usable, grid, brains, report, progress)
        buffer = io.BytesIO()
        np.save(buffer, mean, allow_pickle=False)
        write_whole(file, buffer.getbuffer())
    mean = np.load(file, allow_pickle=False)
    return mean if AlignmentAtlas.of(mean, grid) is not None else None


def _group_mean(
    subjects: list[Subject],
    grid: Grid,
    brains: Brains,
    report: Report,
    progress: Callable[[list[Subject]], Iterable[Subject]],
) -> np.ndarray:
    mean: np.ndarray | None = None
    # The networks that find brains take all cores by themselves.
    at_once = os.cpu_count() or 1 if all(s.mask is not None for s in subjects) else 1
    for turn in range(MOST_ROUNDS + 1):

        def sums_of(subject: Subject, atlas: np.ndarray | None = mean) -> PlaceSums | None:
            try:
                prepared = laid_scan(subject, grid, brains, atlas)[0].prepared()
            except InputError:
                return None  # is reported when its slices are prepared
            return PlaceSums.of(prepared.slices, prepared.mask, prepared.position)

        with ThreadPoolExecutor(at_once) as pool:
            found = zip(progress(subjects), pool.map(sums_of, subjects), strict=True)
            sums = [made for _, made in found if made is not None]
        if not sums:
            raise InputError(f"none of the {len(subjects)} scans can be used to make an atlas")
        new = PlaceStatistics.from_sums(reduce(add, sums)).symmetric().mean
        if mean is not None:
            change = float(np.std(new - mean) / max(float(np.std(mean)), 1e-6))
            report(f"atlas: round {turn}, it moved by {100 * change:.1f}%")
            if change < STILL:
                return new
        mean = new
        if AlignmentAtlas.of(mean, grid) is None:
            break  # there is nothing to align with
    assert mean is not None
    return mean
