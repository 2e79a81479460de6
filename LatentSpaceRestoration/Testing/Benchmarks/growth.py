"""How the cost of a scan grows with its slices and its restorations: ``python growth.py [SCAN]``.

Each point is one detection, after its brain was found, on slices that are evenly spread over the
scan's. Prints all points and their straight-line fits as JSON, and draws them. Without a scan, the
MNI152 template is used (needs the ``demo`` extra; drawing needs the ``evaluation`` extra).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from cases import scan_of
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.preprocessing.pipeline import AlignedScan
from LatentSpaceRestorationLib.preprocessing.slices import PreparedScan
from LatentSpaceRestorationLib.volume import Volume
from machine import synchronise

SLICES = (16, 32, 48, 64)
RESTORATIONS = (1, 3, 7, 15, 30, 60)
#: Restorations where the slices vary.
USUAL = 15
#: What is fitted and drawn: label and colour.
SERIES = {
    "cpu_seconds": ("CPU time of all cores", "#0072B2"),
    "wall_seconds": ("time to the final map", "#D55E00"),
    "first_score": ("time to the first score", "#009E73"),
}


@dataclass(frozen=True)
class Point:
    """One detection, from when its brain was found to its last estimate."""

    slices: int
    restorations: int
    cpu_seconds: float
    wall_seconds: float
    first_score: float


@dataclass(frozen=True)
class Line:
    """A least-squares line; ``r_squared`` is the share of the variance that it explains."""

    slope: float
    intercept: float
    r_squared: float


@dataclass(frozen=True)
class Growth:
    """Points along each axis, and a line for each of ``SERIES``."""

    by_slices: list[Point]
    by_restorations: list[Point]
    slices_lines: dict[str, Line]
    restorations_lines: dict[str, Line]


class _Preset(Detector):
    """A detector that begins with what it is given."""

    given: tuple[PreparedScan, AlignedScan]

    def prepare(
        self, volume: Volume, brain_mask: np.ndarray | None = None
    ) -> tuple[PreparedScan, AlignedScan]:
        """What was given."""
        return self.given


def some_slices(prepared: PreparedScan, count: int) -> PreparedScan:
    """A prepared scan of ``count`` of its slices, from the first to the last evenly spread.

    They are not evenly spaced any more in general, so it cannot be brought back to the scan's grid.
    """
    keep = np.linspace(0, len(prepared.slices) - 1, count).round().astype(int)
    return prepared.some(keep)


def fit(x: Sequence[float], y: Sequence[float]) -> Line:
    """The least-squares line through at least two points."""
    slope, intercept = np.polyfit(x, y, 1)
    rest = np.asarray(y) - (slope * np.asarray(x) + intercept)
    variance = float(np.var(y))
    explained = 1.0 - float(np.mean(rest**2)) / variance if variance else 1.0
    return Line(float(slope), float(intercept), explained)


def lines(points: list[Point], axis: str) -> dict[str, Line]:
    """A line for each of ``SERIES`` against an attribute of the points."""
    x = [getattr(point, axis) for point in points]
    return {name: fit(x, [getattr(point, name) for point in points]) for name in SERIES}


def measure(
    model: str,
    scan: Volume,
    slices: Sequence[int] = SLICES,
    restorations: Sequence[int] = RESTORATIONS,
    device: str = "cpu",
    usual: int = USUAL,
    say: Callable[[str], None] = lambda line: None,
) -> Growth:
    """Detect once for every point.

    Args:
        model: name or folder.
        scan: that is looked at.
        slices: how many; all of them are added, and numbers that reach them left out.
        restorations: how many, with all slices.
        device: "cpu", "cuda" or "mps".
        usual: restorations where the slices vary.
        say: called with what is being done.
    """
    detector = _Preset.load(model, device)
    assert isinstance(detector, _Preset)
    prepared, found = Detector.prepare(detector, scan)
    every = len(prepared.slices)

    def point(count: int, wanted: int) -> Point:
        say(f"growth: {count} slices, {wanted} restorations")
        detector.given = (some_slices(prepared, count), found)
        synchronise(device)
        wall, cpu, first = time.perf_counter(), time.process_time(), 0.0
        for _ in detector.stream(scan, restorations=wanted):
            first = first or time.perf_counter() - wall
        synchronise(device)
        return Point(count, wanted, time.process_time() - cpu, time.perf_counter() - wall, first)

    point(min(8, every), 1)  # what the first call sets up belongs to no point
    counts = [*(n for n in slices if n < every), every]
    by_slices = [point(count, usual) for count in counts]
    by_restorations = [
        by_slices[-1] if wanted == usual else point(every, wanted) for wanted in restorations
    ]
    return Growth(
        by_slices,
        by_restorations,
        lines(by_slices, "slices"),
        lines(by_restorations, "restorations"),
    )


def draw(growth: Growth, path: Path) -> None:
    """Draw both axes of growth as one PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    last = growth.by_slices[-1]
    panels = (
        (
            "slices",
            growth.by_slices,
            growth.slices_lines,
            _number(last.restorations, "restorations"),
        ),
        (
            "restorations",
            growth.by_restorations,
            growth.restorations_lines,
            _number(last.slices, "slices"),
        ),
    )
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for ax, (axis, points, fits, fixed) in zip(axes, panels, strict=True):
        x = np.array([getattr(point, axis) for point in points], dtype=float)
        for name, (label, colour) in SERIES.items():
            line = fits[name]
            unit = axis.removesuffix("s")
            text = (
                f"{label}:\n{line.intercept:.1f} s + {line.slope:.2g} s a {unit}, "
                f"R² = {line.r_squared:.4f}"
            )
            if name == "first_score" and axis == "restorations":
                text = f"{label}: {np.median([p.first_score for p in points]):.1f} s"
            along = np.array([0.0, x.max()])
            ax.plot(along, line.intercept + line.slope * along, color=colour, linewidth=1)
            ax.plot(
                x, [getattr(p, name) for p in points], "o", color=colour, markersize=6, label=text
            )
        ax.set_xlabel(f"Number of {axis}")
        ax.set_ylabel("Seconds")
        ax.set_title(f"By {axis} ({fixed})", loc="left")
        ax.set_xlim(left=0)
        ax.set_ylim(0, 1.2 * max(getattr(p, name) for p in points for name in SERIES))
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _number(count: int, things: str) -> str:
    return f"{count} {things if count != 1 else things.removesuffix('s')}"


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", type=Path, nargs="?")
    parser.add_argument("--model", default="brain-t1", help="a model's name or folder")
    parser.add_argument("--slices", type=int, nargs="+", default=SLICES)
    parser.add_argument("--restorations", type=int, nargs="+", default=RESTORATIONS)
    parser.add_argument("--threads", type=int, help="of torch on the CPU; by default its own")
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu")
    parser.add_argument("--picture", type=Path, default=Path("growth.png"))
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    growth = measure(
        options.model,
        scan_of(options.scan),
        options.slices,
        options.restorations,
        options.device,
        say=lambda line: print(line, file=sys.stderr),
    )
    draw(growth, options.picture)
    print(json.dumps(asdict(growth), indent=1))


if __name__ == "__main__":
    main()
