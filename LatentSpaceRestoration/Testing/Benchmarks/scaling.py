"""What ``lsr detect`` costs of finer scans, and on more cores: ``python scaling.py [SCAN]``.

One scan is brought to several spacings, with noise, as integers; each is a command of its own, with
15 restorations and all files, as a user runs it. Cores: a warm detection with as many threads;
those that the machine does not have are told by Amdahl's law from the two that it has. Prints the
figures as JSON. Without a scan, the MNI152 template is used (needs the ``demo`` extra).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from cases import scan_of
from LatentSpaceRestorationLib.preprocessing.resampling import resample, world_grid
from LatentSpaceRestorationLib.volume import Volume
from machine import child_environment

SPACINGS_MM = (2.0, 1.0, 0.5)
#: Threads that are told of, measured or by Amdahl's law.
THREADS = (1, 2, 8)
#: Standard deviation of the noise, as a share of the 99th percentile.
_NOISE = 0.03
_COMMAND = """
import sys
from LatentSpaceRestorationLib.cli.main import main
status = main(sys.argv[1:])
from machine import peak_memory_gb
print(peak_memory_gb())
sys.exit(status)
"""


@dataclass(frozen=True)
class Size:
    """One scan by the command.

    Attributes:
        spacing_mm, shape: of the scan.
        wall_seconds: of the command, cold.
        first_score: seconds from when the scan was read.
        peak_gb: of the process.
    """

    spacing_mm: float
    shape: tuple[int, ...]
    wall_seconds: float
    first_score: float
    peak_gb: float


@dataclass(frozen=True)
class Cores:
    """A warm detection on some cores.

    Attributes:
        threads: how many.
        first_score, final_map: seconds.
        measured: or told by Amdahl's law.
    """

    threads: int
    first_score: float
    final_map: float
    measured: bool


def brought_to(volume: Volume, spacing_mm: float) -> Volume:
    """A scan at another spacing, int16, with noise wherever there is something."""
    shape, affine = world_grid(volume, spacing_mm)
    array = resample(volume, shape, affine)
    array *= 1000.0 / float(np.percentile(array, 99))
    noise = np.random.default_rng(0).standard_normal(shape, np.float32)
    array = np.where(array > 0, np.maximum(array + 1000.0 * _NOISE * noise, 0.0), array)
    return Volume(np.round(array).astype(np.int16), affine)


def sizes(
    model: str,
    scan: Volume,
    spacings_mm: Sequence[float] = SPACINGS_MM,
    restorations: int = 15,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
) -> list[Size]:
    """The command's cost at each spacing, the coarsest first."""
    found = []
    for spacing in spacings_mm:
        say(f"a scan of {spacing:g} mm")
        brought = brought_to(scan, spacing)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "scan.nii.gz"
            nibabel.save(nibabel.Nifti1Image(brought.array, brought.affine), file)
            options = ["detect", str(file), "-o", folder, "--json", "--model", model]
            options += ["--device", device, "--restorations", str(restorations)]
            environment = child_environment()
            environment["PYTHONPATH"] += f":{Path(__file__).resolve().parent}"
            started = time.perf_counter()
            command = [sys.executable, "-c", _COMMAND, *options]
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            seconds = time.perf_counter() - started
        if done.returncode != 0:
            raise RuntimeError(f"lsr detect: {done.stderr.strip()}")
        figures, peak = done.stdout.strip().splitlines()
        first = float(json.loads(figures)["seconds"]["first_score"])
        found.append(Size(spacing, brought.shape, seconds, first, float(peak)))
    return found


def cores(warm_by_threads: Sequence[tuple[int, dict[str, Any]]]) -> list[Cores]:
    """Measured ones, and those of :data:`THREADS` beyond them by Amdahl's law.

    Args:
        warm_by_threads: threads, ascending, and the figures of ``whole_scan.Times``.
    """
    names = ("first_score", "final_map")
    found = [
        Cores(threads, *(float(warm[name]) for name in names), measured=True)
        for threads, warm in warm_by_threads
    ]
    if len(found) < 2:
        return found
    few, many = found[0], found[-1]

    def told(threads: int, one: float, other: float) -> float:
        # one = serial + shared / few, other = serial + shared / many
        shared = (one - other) / (1.0 / few.threads - 1.0 / many.threads)
        return other - shared / many.threads + shared / threads

    beyond = [threads for threads in THREADS if threads > many.threads]
    return found + [
        Cores(
            threads,
            *(told(threads, getattr(few, name), getattr(many, name)) for name in names),
            measured=False,
        )
        for threads in beyond
    ]


def main() -> None:
    """Measure the sizes and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", type=Path, nargs="?")
    parser.add_argument("--model", default="brain-t1", help="a model's name or folder")
    options = parser.parse_args()
    scan = scan_of(options.scan)
    found = sizes(options.model, scan, say=lambda line: print(line, file=sys.stderr))
    print(json.dumps([asdict(size) for size in found], indent=1))


if __name__ == "__main__":
    main()
