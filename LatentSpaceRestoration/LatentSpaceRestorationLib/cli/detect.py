"""``lsr detect``."""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, LSRError
from ..io.files import printable
from .arguments import UNUSABLE_INPUT, add_options, options_of
from .terminal import complain, progress_line

if TYPE_CHECKING:
    from ..detector import Detector
    from ..options import RunOptions
    from ..results.files import Extra, FileResult

#: Regions that a result in words tells of; the files have all.
_MOST_REGIONS = 3


def add_detect(detect: argparse.ArgumentParser) -> None:
    """Add the arguments of ``lsr detect``."""
    detect.description = (
        "Writes for each SCAN into DIR: anomaly map, mask, restoration, spread of the "
        "restorations, a picture and the figures. Nothing is written for a scan that fails."
    )
    add = detect.add_argument
    add("scans", nargs="+", metavar="SCAN", help="T1-weighted scan, or folder of a DICOM series")
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="made if it is missing")
    add("--brain-mask", metavar="FILE", help="brain on the scan's grid, instead of finding it")
    add(
        "--series",
        default="",
        metavar="UID",
        help="of scans that are folders of DICOM series: the SeriesInstanceUID of the one to look "
        "at; default: that of the most slices which is no localizer",
    )
    add_options(detect)
    add("--json", action="store_true", help="print each result's figures, one JSON object a line")
    _add_extras(detect)
    detect.set_defaults(command=_detect)


def _detect(options: argparse.Namespace) -> int:
    from ..bundle.bundle import find_bundle
    from ..detect_file import detect_file
    from ..results.files import check_names, results_folder
    from ..runtime.interruption import stop_requests

    asked = options_of(options)
    extras = _extras_of(options)
    check_names(options.scans, options.output, extras)
    model = find_bundle(asked.model)
    status = 0
    # torch takes seconds to import, in which the first scan can be read.
    with results_folder(options.output) as folder, ThreadPoolExecutor(1) as thread:
        loading = thread.submit(_loaded, model, asked)
        for scan in options.scans:
            try:
                # Ctrl-C in the middle of numpy's or torch's own code can come out as another error.
                with progress_line(Path(scan).name) as line, stop_requests() as is_cancelled:
                    result = detect_file(
                        loading.result,
                        scan,
                        folder,
                        asked,
                        brain_mask=options.brain_mask,
                        estimate=None if line is None else line.estimate,
                        progress=line,
                        is_cancelled=is_cancelled,
                        series=options.series,
                        extras=extras,
                    )
            except InputError as error:
                loading.result()  # a model that cannot do what is asked for is the graver fault
                complain(str(error), options.debug)
                status = UNUSABLE_INPUT
            except MemoryError:
                complain(f"{scan}: does not fit into memory; resample it", options.debug)
                status = UNUSABLE_INPUT
            else:
                figures = json.dumps(result.figures, ensure_ascii=False)
                print(figures if options.json else in_words(result), flush=True)
    return status


def _loaded(model: Path, asked: RunOptions) -> Detector:
    from ..detector import Detector

    detector = Detector.load(model, asked.device, precision=asked.precision)
    detector.model.calibration(asked.mode, asked.method)  # refuses what it cannot do, at once
    return detector


def in_words(result: FileResult) -> str:
    """A result as a few lines for a person."""
    from ..results.files import ENDINGS
    from ..results.regions import most_anomalous_place, score_in_words

    found = result.detection
    place = most_anomalous_place(
        found.anomaly_map, found.anomaly_mask, found.brain_mask, result.volume.affine
    )
    flagged = float((found.anomaly_mask > 0).sum()) * result.volume.voxel_volume_ml
    compared = score_in_words(found.p_value, found.healthy_scans, found.healthy_sites)
    amount = (
        f"{flagged:.1f} ml, {place.volume_ml:.1f} ml of it there (above healthy percentile "
        f"{found.threshold_percentile:g})"
        if found.p_value is not None
        else "nothing, as the note says"
    )
    lines = [
        printable(result.scan),
        f"  score {found.sample_score:.4g}: {compared}",
        f"  most anomalous: {place.words}; RAS {place.position()}",
        f"  flagged: {amount}",
        *(
            f"  region {n}: {region.place}, {region.volume_ml:.1f} ml: {region.evidence.words}"
            for n, region in enumerate((result.record.regions or ())[:_MOST_REGIONS], start=1)
            if region.evidence.words
        ),
        f"  picture: {printable(result.files['anomaly.png'])}",
        *(
            f"  also: {printable(file)}"
            for ending, file in result.files.items()
            if ending not in ENDINGS
        ),
        *(f"  note: {warning}" for warning in found.warnings),
    ]
    return "\n".join(lines)


def _add_extras(parser: argparse.ArgumentParser) -> None:
    """Add an argument for each kind of further files."""
    parser.add_argument(
        "--report",
        action="store_true",
        help="write SCAN_anomaly.html as well: a page in which the scan, its map and its "
        "restoration are scrolled through, in one file and without a network; it shows the head",
    )
    parser.add_argument(
        "--identified",
        action="store_true",
        help="with --report: the page says where the scan lies and, of a DICOM series, whose it "
        "is; otherwise it has the scan's name and hash alone",
    )
    parser.add_argument(
        "--dicom",
        action="store_true",
        help="of scans that are folders of DICOM series: write the mask as a DICOM segmentation "
        "(SCAN_anomaly-mask.dcm) and the map as a parametric map (SCAN_anomaly-map.dcm) as well; "
        "they name the patient as the series does",
    )


def _extras_of(options: argparse.Namespace) -> list[Extra]:
    """The further files that are asked for.

    Raises:
        LSRError: what they need is not installed, or they do not go together.
    """
    from ..results.dicom import dicom_objects
    from ..results.report.scan import scan_report

    if options.identified and not options.report:
        raise LSRError("--identified is of the page that --report writes; give both")
    wanted = []
    if options.report:
        wanted.append(scan_report(options.identified))
    if options.dicom:
        wanted.append(dicom_objects())
    return wanted
