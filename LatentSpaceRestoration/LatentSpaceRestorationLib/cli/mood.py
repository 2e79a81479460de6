"""``lsr mood``: what the MOOD challenge asks of a container, as its scripts and evaluation have it.

``pixel`` writes an image of the same name and grid for each image of a folder, ``sample`` a text
file with one number, named after the image with ``.txt`` behind its whole name. Numbers lie in
[0, 1], since the evaluation clips them there; it reads images as float16, pools the voxels of all
files, and takes a missing file for zeros (MIC-DKFZ/mood, ``docker_example`` and
``scripts/evalresults.py``).
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, LSRError
from ..io.files import reason, written_whole
from ..options import DetectionOptions
from .arguments import UNUSABLE_INPUT, add_options, options_of

if TYPE_CHECKING:
    import numpy as np

    from ..detector import Detector
    from ..runtime.progress import IsCancelled

TASKS = ("pixel", "sample")
_ENDINGS = (".nii", ".nii.gz")


def add_mood(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``lsr mood``."""
    parser.description = (
        "For each NIfTI file of DIR_IN, as the containers of the MOOD challenge do. pixel: writes "
        "an image of the same name and grid into DIR_OUT, 0 to 1, higher is more anomalous; "
        "sample: writes NAME.nii.gz.txt with one such number."
    )
    add = parser.add_argument
    add("task", choices=TASKS, help="what is scored: voxels, or whole scans")
    add("-i", "--input", type=Path, required=True, metavar="DIR_IN")
    add("-o", "--output", type=Path, required=True, metavar="DIR_OUT", help="made if missing")
    # One number for all scans is asked for: no mask is cut, and none may be hurried.
    add_options(parser, without=("threshold", "time_budget"))
    parser.set_defaults(command=mood)


def mood(options: argparse.Namespace) -> int:
    """Run the command; the exit status is 0, or 3 if scans were left out."""
    from ..bundle.bundle import find_bundle
    from ..results.files import results_folder
    from ..runtime.interruption import stop_requests

    scans = _scans(options.input, options.output)
    asked = options_of(options)
    model = find_bundle(asked.model)
    status = 0
    with results_folder(options.output) as folder:
        from ..detector import Detector

        task = Task(Detector.load(model, asked.device, precision=asked.precision), asked)
        score = task.pixel if options.task == "pixel" else task.sample
        for scan in scans:
            try:
                with stop_requests() as is_cancelled:
                    print(f"{scan.name}: {score(scan, folder, is_cancelled)}", flush=True)
            except (InputError, MemoryError) as error:
                what = "does not fit into memory" if isinstance(error, MemoryError) else error
                line = str(what) if str(what).startswith(str(scan)) else f"{scan}: {what}"
                print(f"lsr: error: {line}", file=sys.stderr, flush=True)
                status = UNUSABLE_INPUT
    return status


def bounded(values: np.ndarray, typical: float) -> np.ndarray:
    """Values from 0 brought into [0, 1), in the same order: one half where they are ``typical``.

    Nothing is cut off, and float16 still tells high values apart to about a hundredth of them.

    Args:
        values: of any shape; negative counts as 0.
        typical: above 0, the same for all scans, since all are ranked together.
    """
    import numpy as np

    above = np.maximum(values, 0.0)
    return np.asarray(above / (above + typical))


@dataclass(frozen=True)
class Task:
    """How scans are looked at.

    Attributes:
        detector: a loaded model.
        options: of every detection.
    """

    detector: Detector
    options: DetectionOptions

    def pixel(self, scan: Path, folder: Path, is_cancelled: IsCancelled | None = None) -> str:
        """Write the map of a scan; the highest value, in words.

        Raises:
            InputError, OutputError, Cancelled: as ``detect_file`` does.
        """
        from ..io.images import read_geometry, read_volume, write_volume
        from ..volume import Volume

        volume, geometry = read_volume(scan), read_geometry(scan)
        found = self.detector.detect(volume, self.options, is_cancelled=is_cancelled)
        values = bounded(found.anomaly_map, max(found.threshold, 1e-6)).astype("float32")
        write_volume(folder / scan.name, Volume(values, volume.affine, volume.name), like=geometry)
        return f"voxels up to {values.max():.4f}"

    def sample(self, scan: Path, folder: Path, is_cancelled: IsCancelled | None = None) -> str:
        """Write the score of a scan; the same in words.

        Raises:
            InputError, OutputError, Cancelled: as ``detect_file`` does.
        """
        import numpy as np

        from ..io.images import read_volume

        volume = read_volume(scan)
        for estimate in self.detector.stream(volume, self.options, is_cancelled=is_cancelled):
            last = estimate
        calibration = self.detector.model.calibration(self.options.mode, self.options.method)
        level = calibration.at(last.restorations)
        typical = max(float(np.median(level.sample_scores)), 1e-6)
        score = f"{float(bounded(np.array(last.sample_score), typical)):.9g}"
        target = folder / f"{scan.name}.txt"
        with written_whole(target, "choose a folder that can be written and has room") as beside:
            beside.write_text(f"{score}\n", encoding="ascii")
        return score


def _scans(source: Path, target: Path) -> list[Path]:
    """The images of a folder, by name; hidden files are none.

    Raises:
        LSRError: there are none, or the results would replace them.
    """
    try:
        files = sorted(file for file in source.iterdir() if not file.name.startswith("."))
    except OSError as error:
        raise LSRError(
            f"{source}: cannot be read ({reason(error)}); give a folder of NIfTI files"
        ) from error
    scans = [file for file in files if file.name.lower().endswith(_ENDINGS)]
    if not scans:
        raise LSRError(f"{source}: holds no NIfTI file; give a folder of .nii.gz files")
    if os.path.realpath(source) == os.path.realpath(target):
        raise LSRError(f"{target}: the results would replace the scans; give another folder")
    return scans
