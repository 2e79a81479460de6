"""A file in, files out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .detection import Estimate
from .detector import Detector
from .errors import InputError
from .io.images import read_geometry, read_mask, read_volume, scan_name
from .options import DetectionOptions
from .results.files import Extra, FileResult, named_files, write_result
from .results.record import DetectionRecord
from .runtime.progress import IsCancelled, Progress

#: Bytes, in every file system of use.
_LONGEST_NAME = 255


def detect_file(
    detector: Detector | Callable[[], Detector],
    scan: str | Path,
    folder: str | Path,
    options: DetectionOptions | None = None,
    *,
    brain_mask: str | Path | None = None,
    estimate: Callable[[Estimate], None] | None = None,
    progress: Progress | None = None,
    is_cancelled: IsCancelled | None = None,
    name: str | None = None,
    series: str = "",
    extras: Sequence[Extra] = (),
    **named: Any,
) -> FileResult:
    """Read a scan, find what is unusual in it, and write the results.

    Args:
        detector: a loaded model, or what waits for one that is being loaded meanwhile.
        scan: image file, or folder of a DICOM series.
        folder: where the results go; it is made if it is missing.
        brain_mask: image file on the scan's grid.
        options, estimate, progress, is_cancelled, named: as for ``Detector.detect``.
        name: of the results; None takes the scan's.
        series: UID of the series, of a folder with several; empty takes the longest.
        extras: what else is to be written.

    Raises:
        InputError: the scan or the mask cannot be used; the line names the file.
        OutputError: the results cannot be written.
        Cancelled: ``is_cancelled`` said so.
    """
    files = named_files(name or scan_name(scan), folder, extras)
    _refuse_long(scan, files)
    writers = [extra.prepare(Path(scan), series) for extra in extras]
    volume = read_volume(scan, series=series, keep_small_integers=True)
    geometry = read_geometry(scan)
    mask = None if brain_mask is None else read_mask(brain_mask, volume)
    if callable(detector):
        detector = detector()
    try:
        detection = detector.detect(
            volume,
            options,
            brain_mask=mask,
            estimate=estimate,
            progress=progress,
            is_cancelled=is_cancelled,
            **named,
        )
    except InputError as error:
        raise InputError(f"{scan}: {error}") from error
    calibration = detector.model.calibration(detection.mode, detection.method)
    record = DetectionRecord.of(detection, calibration).with_regions(detection, volume)
    healthy = calibration.at(detection.restorations).voxels
    result = FileResult(Path(scan), volume, detection, record, healthy, files)
    write_result(result, Path(folder), geometry, writers)
    return result


def _refuse_long(scan: str | Path, files: Mapping[str, Path]) -> None:
    """Refuse, before there is work, names of results that no file can have."""
    longest = max(len(os.fsencode(file.name)) for file in files.values())
    if longest > _LONGEST_NAME:
        raise InputError(
            f"{scan}: its results would have names of up to {longest} bytes, and a file's name has "
            f"{_LONGEST_NAME} at most; rename the scan"
        )
