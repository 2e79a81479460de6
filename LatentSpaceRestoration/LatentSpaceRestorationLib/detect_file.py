"""A file in, files out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .detection import Detection, Estimate
from .detector import Detector
from .errors import InputError
from .io.images import read_geometry, read_mask, read_volume, scan_name
from .options import DetectionOptions
from .results.files import SMALLEST_ML, Extra, FileResult, named_files, write_result
from .results.regions import Extent, find_regions
from .runtime.progress import IsCancelled, Progress
from .volume import Volume


def detect_file(
    detector: Detector,
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
        detector: a loaded model.
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
    writers = [extra.prepare(Path(scan), series) for extra in extras]
    volume, geometry = read_volume(scan, series=series), read_geometry(scan)
    mask = None if brain_mask is None else read_mask(brain_mask, volume)
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
    level = calibration.at(detection.restorations)
    figures = {
        "scan": Path(scan).name,
        **detection.to_json(),
        "healthy_scores": [float(f"{score:.6g}") for score in level.sample_scores],
        **_what_is_flagged(volume, detection),
    }
    files = named_files(name or scan_name(scan), folder, extras)
    result = FileResult(Path(scan), volume, detection, figures, files)
    write_result(result, Path(folder), geometry, writers)
    return result


def _what_is_flagged(volume: Volume, detection: Detection) -> dict[str, Any]:
    """How much is flagged, and its regions, for the figures; positions are RAS in mm.

    None of both where the map is not to be trusted.
    """
    voxel_ml = volume.voxel_volume_ml
    brain_ml = round(float((detection.brain_mask > 0).sum()) * voxel_ml, 3)
    if detection.p_value is None:
        return {"flagged_ml": None, "brain_ml": brain_ml, "regions": None}
    regions = find_regions(
        detection.anomaly_map,
        detection.anomaly_mask,
        Extent.of(detection.brain_mask, volume.affine),
        volume.affine,
        SMALLEST_ML,
    )
    return {
        "flagged_ml": round(float((detection.anomaly_mask > 0).sum()) * voxel_ml, 3),
        "brain_ml": brain_ml,
        "regions": [
            {
                "place": region.words,
                "position_mm": [round(mm, 1) for mm in region.position_mm],
                "volume_ml": round(region.volume_ml, 3),
                "peak": float(f"{region.peak:.4g}"),
                "mean": float(f"{region.mean:.4g}"),
            }
            for region in regions
        ],
    }
