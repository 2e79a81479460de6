"""What else ``lsr detect`` writes, if it is asked."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .results.files import Extra


def add_extras(parser: argparse.ArgumentParser) -> None:
    """Add an argument for each kind of further files."""
    parser.add_argument(
        "--report",
        action="store_true",
        help="write SCAN_anomaly.html as well: a page to read and print, in one file",
    )
    parser.add_argument(
        "--dicom",
        action="store_true",
        help="of scans that are folders of DICOM series: write the mask as a DICOM segmentation "
        "(SCAN_anomaly-mask.dcm) and the map as a parametric map (SCAN_anomaly-map.dcm) as well; "
        "they name the patient as the series does",
    )


def extras_of(options: argparse.Namespace) -> list[Extra]:
    """The further files that are asked for.

    Raises:
        LSRError: what they need is not installed.
    """
    from .results.dicom import dicom_objects
    from .results.report.scan import scan_report

    wanted = []
    if options.report:
        wanted.append(scan_report())
    if options.dicom:
        wanted.append(dicom_objects())
    return wanted
