"""DICOM series: which of a folder is read, and where its slices lie.

SimpleITK gives the pixels of each file and its header; where slices lie, and that they make a
volume at all, is settled here, from positions and orientations alone (DICOM PS3.3 C.7.6.2):
thickness and stated spacing are no positions. A regular grid is represented exactly, be it sheared,
as that of a tilted gantry is; one that is not regular is refused.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..volume import Volume
from .dicom_slices import READER, Series, Slice, identity_in, readable_series
from .nrrd import TO_RAS, to_volume
from .simple_itk import simple_itk

#: Places of slices may differ from even ones by this share of their distance: positions in headers
#: are rounded, and a missing slice makes it a whole.
_UNEVEN = 0.05
#: Slices of one scan are parallel up to rounding; those that differ by more than the second are of
#: another scan, such as a scout. Cosines' differences.
_PARALLEL, _ANOTHER = 1e-3, 0.1
_AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def read_series(folder: Path, name: str, wanted: str = "") -> Volume:
    """Read a series of a folder.

    Args:
        folder: that its files lie in.
        name: of the volume.
        wanted: UID of the series; empty takes that of the most slices which is no localizer.

    Returns:
        (I, J, K) float32 voxels, in the numbers that slope and intercept of each slice say, with
        notes on what was chosen and on what the headers leave unsaid.

    Raises:
        InputError: naming the folder, if SimpleITK is missing, there is no such series, its slices
            do not say where they lie, or make no regular grid.
    """
    slices, notes = chosen(folder, wanted)
    itk = simple_itk(folder)
    try:
        if slices[0].frames > 1 or len(slices) == 1:
            return to_volume(folder, itk.ReadImage(slices[0].file), name, notes)
        affine = affine_of(folder, slices)
        array = _pixels(folder, itk, slices)
    except (RuntimeError, MemoryError) as error:
        raise InputError(
            f"{folder}: is damaged, or not an image that can be read; copy or export it again"
        ) from error
    return Volume(array, affine, name, notes)


def chosen(folder: Path, wanted: str = "") -> tuple[list[Slice], tuple[str, ...]]:
    """The files that :func:`read_series` reads, in the order of the slices, and notes on that.

    Args and errors are those of :func:`read_series`.
    """
    series, unreadable = readable_series(folder)
    there = [one for one in series if not wanted or one.uid == wanted]
    if not there:
        what = f"the DICOM series {wanted}" if wanted else "a DICOM series"
        raise InputError(
            f"{folder}: is a folder without {what}; give an image file, or a folder of a series"
        )
    taken = max(there, key=_weight)
    notes = []
    if unreadable:
        files = (
            "a DICOM file of the folder holds"
            if unreadable == 1
            else f"{unreadable} DICOM files of the folder hold"
        )
        notes.append(f"{files} no image that can be read, and counted for nothing")
    if len(there) > 1:
        others = ", ".join(_words(one) for one in there if one is not taken)
        notes.append(
            f"the folder holds {len(there)} DICOM series: {_words(taken)} was taken; also there: "
            f"{others}"
        )
    found, more = _of_one_scan(folder, list(taken.slices))
    return found, (*notes, *more)


def identity_of(folder: Path, series: str = "") -> dict[str, str]:
    """Whose series it is that :func:`read_series` reads, and when it was made, as its header says.

    Returns:
        texts by what they are called; those that are empty are left out.
    """
    return identity_in(chosen(folder, series)[0][0].file)


def affine_of(folder: Path, slices: Sequence[Slice]) -> np.ndarray:
    """Where the slices of a series say that their voxels lie.

    Args:
        folder: for messages.
        slices: of one scan, in order; at least two.

    Returns:
        (4, 4) index (column, row, slice) -> RAS in mm.

    Raises:
        InputError: they are not evenly spaced, or shifted against each other.
    """
    places = np.array([one.position for one in slices])
    steps = np.arange(len(slices))[:, None]
    step = (places[-1] - places[0]) / (len(slices) - 1)
    first = places[0]
    off = places - (first + steps * step)
    across, down = np.array(slices[0].orientation).reshape(2, 3)
    normal = np.cross(across, down)
    gap = abs(float(step @ normal))
    along = off @ normal
    if np.abs(along).max() > _UNEVEN * gap:
        raise InputError(
            f"{folder}: the slices of the series are not evenly spaced, or some are missing; "
            "export it again"
        )
    between_rows, between_columns = np.array(slices[0].spacing)
    if np.linalg.norm(off - along[:, None] * normal, axis=1).max() > 0.25 * between_columns:
        raise InputError(
            f"{folder}: the slices of the series are shifted against each other unevenly; export "
            "it again"
        )
    return affine_at(first, step, across * between_columns, down * between_rows)


def affine_at(
    first: np.ndarray, slice_step: np.ndarray, column_step: np.ndarray, row_step: np.ndarray
) -> np.ndarray:
    """(4, 4) index (column, row, slice) -> RAS in mm, of the first voxel and steps in LPS mm."""
    affine = np.eye(4)
    affine[:3] = TO_RAS @ np.column_stack([column_step, row_step, slice_step, first])
    return affine


def _of_one_scan(folder: Path, slices: list[Slice]) -> tuple[list[Slice], tuple[str, ...]]:
    """The slices of the largest scan in a series, in order, and what else was in it."""
    notes = []
    once = {one.uid or one.file: one for one in slices}
    if len(once) < len(slices):
        copies = len(slices) - len(once)
        what = (
            "a file of the series is a copy of another"
            if copies == 1
            else (f"{copies} files of the series are copies of others")
        )
        notes.append(f"{what}, and counted once")
    slices = list(once.values())
    volumes = [one for one in slices if one.frames > 1]
    if volumes or len(slices) == 1:
        return [max(volumes or slices, key=lambda one: one.frames)], tuple(notes)
    turned = [one for one in slices if one.orientation is not None]
    if not turned:
        notes.append(
            "the slices do not say how they are turned (ImageOrientationPatient): axial is assumed,"
            " and left and right may be wrong"
        )
        turned = [replace(one, orientation=np.array(_AXIAL)) for one in slices]
    groups: list[list[Slice]] = []
    for one in turned:
        for group in groups:
            if _alike(group[0], one):
                group.append(one)
                break
        else:
            groups.append([one])
    groups.sort(key=lambda group: (-len(group), group[0].echo))
    taken = groups[0]
    _refuse_turned(folder, groups)
    left = len(slices) - len(taken)
    if left:
        echo = f" echo {taken[0].echo}," if taken[0].echo else ""
        notes.append(
            f"the series holds more than one scan:{echo} {len(taken)} of its {len(slices)} images "
            "were taken"
        )
    return _in_order(folder, taken), tuple(notes)


def _in_order(folder: Path, slices: list[Slice]) -> list[Slice]:
    if any(one.position is None or one.spacing is None for one in slices):
        raise InputError(
            f"{folder}: the slices do not say where they lie (ImagePositionPatient, PixelSpacing); "
            "export the series again"
        )
    across, down = np.array(slices[0].orientation).reshape(2, 3)
    normal = np.cross(across, down)
    height = np.array([float(np.asarray(one.position) @ normal) for one in slices])
    order = np.argsort(height, kind="stable")
    gaps = np.diff(height[order])
    if len(gaps) and gaps.min() <= 0.01 * max(float(np.median(gaps)), 1e-3):
        raise InputError(
            f"{folder}: several slices of the series lie at the same place (ImagePositionPatient); "
            "export its scans one by one"
        )
    return [slices[number] for number in order]


def _refuse_turned(folder: Path, groups: Sequence[Sequence[Slice]]) -> None:
    """Refuse slices that are turned a little against each other: they are of one scan."""
    first = groups[0][0]
    for group in groups[1:]:
        difference = np.abs(np.array(group[0].orientation) - np.array(first.orientation)).max()
        if group[0].shape == first.shape and _PARALLEL < difference < _ANOTHER:
            raise InputError(
                f"{folder}: the slices of the series are not parallel to each other; export the "
                "parts of one orientation one by one"
            )


def _alike(one: Slice, other: Slice) -> bool:
    """Whether two slices can be of one scan."""
    turn = np.abs(np.array(one.orientation) - np.array(other.orientation)).max()
    spacing = (
        np.ones(2)
        if one.spacing is None or other.spacing is None
        else (one.spacing / other.spacing)
    )
    return (
        one.shape == other.shape
        and bool(turn <= _PARALLEL)
        and one.echo == other.echo
        and bool(np.allclose(spacing, 1.0, rtol=1e-3))
    )


def _weight(series: Series) -> tuple[bool, bool, int]:
    """By which a series is chosen: no localizer, nothing derived, the most slices."""
    kind = series.slices[0].kind
    is_scout = "LOCALIZER" in kind or "SCOUT" in kind
    return not is_scout, "DERIVED" not in kind, sum(one.frames for one in series.slices)


def _words(series: Series) -> str:
    count = sum(one.frames for one in series.slices)
    number = f" {series.number}" if series.number else ""
    description = series.slices[0].description
    described = f" ({description})" if description else ""
    return f"series{number}{described} of {count} images"


def _pixels(folder: Path, itk: Any, slices: Sequence[Slice]) -> np.ndarray:
    """(columns, rows, slices) float32, as slope and intercept of each file have them."""
    # A reader of series takes what its first file says for all; several of them run side by side.
    alike = len({one.numbers for one in slices}) == 1
    length = math.ceil(len(slices) / (os.cpu_count() or 1)) if alike else 1
    runs = [slices[first : first + length] for first in range(0, len(slices), length)]
    array = np.empty((*slices[0].shape[::-1], len(slices)), np.float32)

    def fill(number: int) -> None:
        reader = itk.ImageSeriesReader()
        reader.SetImageIO(READER)
        reader.SetFileNames([one.file for one in runs[number]])
        image = reader.Execute()
        if image.GetNumberOfComponentsPerPixel() != 1:
            raise InputError(
                f"{folder}: gives several numbers a voxel; give one real value a voxel"
            )
        view = itk.GetArrayViewFromImage(image)
        view = view.reshape(-1, *view.shape[-2:])
        array[:, :, number * length : number * length + len(view)] = view.transpose(2, 1, 0)

    with ThreadPoolExecutor(len(runs) if alike else None) as pool:
        list(pool.map(fill, range(len(runs))))
    return array
