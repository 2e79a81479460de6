"""A lesion painted into a real brain, and found again.

The brain is the MNI152 T1 template, brain-extracted, that comes inside the nilearn package; nothing
is downloaded.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .detect import in_words
from .terminal import progress_line

if TYPE_CHECKING:
    from ..results.files import FileResult


def add_demo(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``lsr demo``."""
    parser.add_argument("-o", "--output", type=Path, default=Path("lsr-demo"), metavar="DIR")
    parser.set_defaults(command=_demo)


def _demo(options: argparse.Namespace) -> int:
    from ..results.files import results_folder

    with results_folder(options.output) as folder, progress_line("demo") as line:
        report = run(folder, line)
    print(in_words(report.result))
    print(report.in_words())
    return 0


@dataclass(frozen=True)
class Report:
    """What the demo found.

    Attributes:
        result: of the painted scan.
        lesion_ml: volume of the painted lesion.
        dice: overlap of the lesion and what was flagged, 0 to 1.
    """

    result: FileResult
    lesion_ml: float
    dice: float

    def in_words(self) -> str:
        """Two lines for a person."""
        from ..evaluation.synthetic.painted_lesion import LESION_MM

        x, y, z = LESION_MM
        return (
            f"  painted: a dark lesion of {self.lesion_ml:.1f} ml at RAS "
            f"({x:+.0f}, {y:+.0f}, {z:+.0f}) mm\n"
            f"  Dice of what was flagged and what was painted: {self.dice:.2f}"
        )


def run(folder: str | Path, progress: Callable[[float, str], None] | None = None) -> Report:
    """Paint a lesion into the template, write it to a folder, and detect it from there.

    Args:
        folder: gets ``demo.nii.gz``, ``demo-lesion.nii.gz`` and the results; it exists.
        progress: as for ``Detector.detect``.

    Raises:
        LSRError: if nilearn is missing, or as ``Detector.load`` and ``detect_file`` do.
    """
    from ..detect_file import detect_file
    from ..detector import Detector
    from ..evaluation.synthetic.painted_lesion import painted_template
    from ..io.images import write_volume
    from ..results.report.scan import scan_report
    from ..volume import Volume, dice

    folder = Path(folder)
    detector = Detector.load()
    painted, lesion = painted_template()
    scan = folder / "demo.nii.gz"
    write_volume(scan, painted)
    write_volume(folder / "demo-lesion.nii.gz", Volume(lesion, painted.affine))
    result = detect_file(detector, scan, folder, progress=progress, extras=[scan_report()])
    lesion_ml = float(lesion.sum()) * painted.voxel_volume_ml
    return Report(result, lesion_ml, dice(result.detection.anomaly_mask, lesion))
