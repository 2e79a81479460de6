"""A cohort one by one and on a local cluster: ``python cohort.py [--scans 40] [--jobs 2]``.

Generates scans (smooth noise in an ellipsoid: no anatomy, but the work is that of a brain as high),
runs ``lsr cohort`` over them in each way, compares the scores, and writes ``cohort.json`` and
``cohort.md``. Needs the extra ``cohort``; not on Windows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from LatentSpaceRestorationLib.cohort.scores import read_scores
from LatentSpaceRestorationLib.datasets.subjects import Subject, write_table
from LatentSpaceRestorationLib.io.images import write_volume
from LatentSpaceRestorationLib.volume import Volume
from machine import child_environment, describe
from report import seconds, table
from scipy import ndimage

_HERE = Path(__file__).resolve().parent
#: Half axes of the ellipsoid to the right and to the front, in mm.
_RADII_MM = (66.0, 84.0)
_SPACING_MM = 2.0


@dataclass(frozen=True)
class Way:
    """One way to run the cohort.

    Attributes:
        name: of it.
        jobs: worker processes; 0 does one scan after the other.
        threads: of PyTorch in each process.
    """

    name: str
    jobs: int
    threads: int


@dataclass(frozen=True)
class Cost:
    """What a way took, program start included.

    Attributes:
        wall, cpu: seconds, of all its processes.
        scan_seconds: mean wall time of a scan, as ``scores.tsv`` has it.
        load: the machine's when it began, other programs included.
    """

    wall: float
    cpu: float
    scan_seconds: float
    load: float


def main() -> int:
    """Run the benchmark; 1 if scores differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, default=40)
    parser.add_argument("--height", type=float, default=54.0, help="half of the brain's, in mm")
    parser.add_argument("--model", default="brain-t1")
    parser.add_argument("--restorations", type=int, default=15)
    parser.add_argument("--jobs", type=int, default=2, help="workers, and threads of one process")
    parser.add_argument("--results", type=Path, default=_HERE / "results")
    options = parser.parse_args()
    jobs = options.jobs
    ways = [
        Way("one by one, one thread", 0, 1),
        Way(f"one by one, {jobs} threads", 0, jobs),
        Way(f"{jobs} workers, one thread each", jobs, 1),
    ]
    with tempfile.TemporaryDirectory() as work:
        scans = generate(Path(work) / "scans", options.scans, options.height)
        costs, tables = {}, {}
        for way in ways:
            costs[way.name], tables[way.name] = run(way, scans, Path(work), options)
    results = {
        "machine": describe(jobs, "cpu"),
        "options": {**vars(options), "results": options.results.name},
        "ways": [
            {
                **asdict(way),
                **asdict(costs[way.name]),
                "difference": difference(tables[ways[0].name], tables[way.name]),
            }
            for way in ways
        ],
    }
    options.results.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1) + "\n"
    (options.results / "cohort.json").write_text(text, encoding="utf-8")
    report = markdown(results)
    (options.results / "cohort.md").write_text(report, encoding="utf-8")
    print(report)
    return 0 if all(way["difference"] == 0.0 for way in results["ways"]) else 1


def difference(scores: Sequence[str], others: Sequence[str]) -> float:
    """The largest difference of scores, relative to the first; 0 if they are the same digits."""
    pairs = [(float(a), float(b)) for a, b in zip(scores, others, strict=True)]
    return max(abs(a - b) / abs(a) for a, b in pairs)


def generate(folder: Path, count: int, height: float) -> Path:
    """Write scans with their brain masks, and a table of them; gives the table."""
    folder.mkdir()
    subjects = []
    for number in range(count):
        brain = generated(height, number)
        mask = Volume((brain.array > 0).astype(np.uint8), brain.affine)
        files = (folder / f"scan{number:03}.nii.gz", folder / f"mask{number:03}.nii.gz")
        for file, volume in zip(files, (brain, mask), strict=True):
            write_volume(file, volume)
        subjects.append(Subject(f"scan{number:03}", "", *files))
    write_table(folder / "scans.tsv", subjects)
    return folder / "scans.tsv"


def generated(height: float, seed: int) -> Volume:
    """A brain-extracted "scan" at 2 mm.

    Args:
        height: half of the ellipsoid's, in mm.
        seed: of its noise.
    """
    radii = np.array([*_RADII_MM, height])
    shape = np.ceil(2 * radii / _SPACING_MM).astype(int) + 8
    affine = np.diag([_SPACING_MM, _SPACING_MM, _SPACING_MM, 1.0])
    affine[:3, 3] = -_SPACING_MM * (shape - 1) / 2.0
    offset = np.moveaxis(np.indices(shape), 0, -1) * _SPACING_MM + affine[:3, 3]
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3.0)
    tissue = np.clip(100.0 + 30.0 * smooth / smooth.std(), 20, 200)
    inside = np.square(offset / radii).sum(axis=-1) <= 1.0
    return Volume(np.where(inside, tissue, 0.0).astype(np.float32), affine)


def run(way: Way, scans: Path, work: Path, options: argparse.Namespace) -> tuple[Cost, list[str]]:
    """Run the command in one way; gives what it took, and the scores as text."""
    folder = work / way.name.replace(" ", "-")
    command = [sys.executable, "-m", "LatentSpaceRestorationLib", "cohort", folder, scans]
    command += ["--model", options.model, "--restorations", options.restorations]
    command += ["--device", "cpu", "--jobs", way.jobs]
    environment = {**child_environment(count_work_only=True), "OMP_NUM_THREADS": str(way.threads)}
    load, started = os.getloadavg()[0], time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], env=environment)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{way.name}: ended with status {process.returncode}")
    rows = read_scores(folder)
    mean = float(np.mean([float(row["seconds"]) for row in rows]))
    cost = Cost(wall, used.ru_utime + used.ru_stime, mean, round(load, 1))
    return cost, [row["score"] for row in rows]


def markdown(results: Mapping[str, Any]) -> str:
    """The figures as a page."""
    machine, options, ways = results["machine"], results["options"], results["ways"]
    first = ways[0]
    head = ["way", "wall time", "CPU time", "cores kept busy", "times faster", "scores differ by"]
    head += ["load before"]
    lines: list[Sequence[str]] = [
        [
            way["name"],
            seconds(way["wall"]),
            seconds(way["cpu"]),
            f"{way['cpu'] / way['wall']:.2f}",
            f"{first['wall'] / way['wall']:.2f}",
            f"{way['difference']:.1g}",
            f"{way['load']:g}",
        ]
        for way in ways
    ]
    parts = [
        "# A cohort on one machine",
        f"{options['scans']} generated scans (no anatomy; {2 * options['height']:g} mm high, "
        f"2 mm), model {options['model']}, {options['restorations']} restorations. "
        f"{machine['processor']}, {machine['cores']} cores; PyTorch {machine['torch']}, Python "
        f"{machine['python']}, {machine['system']}; {machine['date']}.",
        table(head, lines),
        "How: each way is `lsr cohort` once, from a cold start; CPU time is that of all its "
        "processes, and includes loading PyTorch and the model in each of them. Threads that wait "
        "for each other sleep, so that CPU time is work done. *Cores kept busy* is CPU time over "
        "wall time. Scores are compared with those of the first way, relatively. Where the load "
        "was above the number of cores before it began, other programs had their share of the "
        "machine, and wall times say little; CPU times say more.",
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
