"""How well painted anomalies are healed, and what else a restoration changes.

    python restoration.py SUBJECTS.tsv SHAPES --keep FOLDER [--subjects N] [--before JSON]

Takes healthy scans of split `tune`, which the model was not trained on: each as it is, with a
uniform sphere, and with an anomaly in the shape of a real stroke. FOLDER keeps the figures of each
case, and a picture: the scan before it was painted into, as it is then, and restored. Cases that
are in it are not done again. Writes results/restoration.md and results/restoration.json; `--before`
sets the figures of another version beside them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.evaluation.synthetic.design import UNTOUCHED, Case, design
from LatentSpaceRestorationLib.evaluation.synthetic.families import family
from LatentSpaceRestorationLib.evaluation.synthetic.sources import Source, brain_finder, choose
from LatentSpaceRestorationLib.volume import Volume
from nibabel.orientations import apply_orientation, io_orientation
from PIL import Image

RESULTS = Path(__file__).parent / "results"
FAMILIES = ("uniform-sphere", "stroke-shape")
#: Fewer voxels than this say nothing of texture.
_LEAST_VOXELS = 20
#: Voxels shown to each side of the middle of an anomaly, and pixels a voxel.
_HALF, _ZOOM = 34, 3


@dataclass(frozen=True)
class Figures:
    """One case.

    Attributes:
        case: its name.
        family: what was painted in.
        error: mean absolute error of the restoration in the anomaly, beside the scan before it was
            painted into, as a share of what the scan itself has there.
        roughness: mean absolute difference of slices that are neighbours from head to foot, where
            the anomaly was replaced, over that of the healthy tissue there.
        sharpness: mean squared gradient there, over that of the healthy tissue.
        unchanged: share of the brain's voxels that are the scan's own, bit by bit.
        spread_elsewhere: the largest spread where nothing was replaced.
        seconds, first_score: of the detection, and to its first score.
    """

    case: str
    family: str
    error: float | None
    roughness: float | None
    sharpness: float | None
    unchanged: float
    spread_elsewhere: float
    seconds: float
    first_score: float


@dataclass(frozen=True)
class Row:
    """A figure that is asked for."""

    words: str
    name: str
    asked: str
    untouched: bool = False


ROWS = (
    Row("error in the anomaly, share of the anomaly's own", "error", "at most 0.45"),
    Row("roughness between slices, over healthy tissue's", "roughness", "at most 1.3"),
    Row("gradient energy, over healthy tissue's", "sharpness", "at least 0.6"),
    Row("brain voxels unchanged, untouched scans", "unchanged", "at least 0.85", untouched=True),
    Row("largest spread where nothing was replaced", "spread_elsewhere", "0"),
)


def look(
    case: Case, detector: Detector, scan: Volume, healthy: np.ndarray, label: np.ndarray
) -> tuple[Figures, np.ndarray]:
    """Detect, and see what became of a case.

    Args:
        case: which.
        detector: the model.
        scan: the scan.
        healthy: (I, J, K), the scan before it was painted into.
        label: (I, J, K) bool, where it was.

    Returns:
        the figures, and the restoration.
    """
    started = time.perf_counter()
    found = detector.detect(scan)
    seconds = time.perf_counter() - started
    brain = found.brain_mask > 0
    replaced = found.restoration != scan.array.astype(np.float32)
    restored, before = found.restoration.astype(float), healthy.astype(float)
    painted = label & brain
    error = roughness = sharpness = None
    if painted.any():
        own = np.abs(scan.array - before)[painted].mean()
        error = float(np.abs(restored - before)[painted].mean() / own)
    inside = painted & replaced
    if inside.sum() >= _LEAST_VOXELS:
        axis = int(np.abs(scan.affine[2, :3]).argmax())
        pairs = np.moveaxis(inside, axis, 0)
        pairs = pairs[1:] & pairs[:-1]
        steps = [np.abs(np.diff(np.moveaxis(x, axis, 0), axis=0)) for x in (restored, before)]
        roughness = float(steps[0][pairs].mean() / steps[1][pairs].mean())
        energy = [sum(g**2 for g in np.gradient(x)) for x in (restored, before)]
        sharpness = float(energy[0][inside].mean() / energy[1][inside].mean())
    measured = Figures(
        case.name,
        case.family,
        error,
        roughness,
        sharpness,
        float((~replaced[brain]).mean()),
        float(found.restoration_sd[~replaced].max()),
        seconds,
        found.seconds["first_score"],
    )
    return measured, found.restoration


def picture(scan: Volume, images: Sequence[np.ndarray], label: np.ndarray) -> Image.Image:
    """Three planes through the middle of an anomaly, or of the scan; a row a plane.

    Args:
        scan: for the axes and the grey scale.
        images: (I, J, K) each, one a column.
        label: (I, J, K) bool, the anomaly.
    """
    orientation = io_orientation(scan.affine)
    turned = [apply_orientation(np.asarray(image, np.float32), orientation) for image in images]
    where = np.argwhere(apply_orientation(label, orientation))
    middle = where.mean(axis=0) if len(where) else np.array(turned[0].shape) / 2
    box = [slice(max(int(m) - _HALF, 0), int(m) + _HALF) for m in middle]
    top = float(np.percentile(images[0], 99.5))
    rows = []
    for axis in range(3):
        cut = tuple(int(middle[axis]) if a == axis else box[a] for a in range(3))
        panes = []
        for image in turned:
            plane = image[cut]
            full = np.zeros((2 * _HALF, 2 * _HALF), np.float32)
            full[: plane.shape[0], : plane.shape[1]] = plane
            panes.append(np.flip(full, (0, 1)).T)
        rows.append(np.concatenate(panes, axis=1))
    grey = np.clip(np.concatenate(rows) / top * 255.0, 0.0, 255.0).astype(np.uint8)
    drawn = Image.fromarray(grey)
    return drawn.resize((drawn.width * _ZOOM, drawn.height * _ZOOM), Image.Resampling.BICUBIC)


def summary(cases: Sequence[Figures]) -> dict[str, float]:
    """The median of each row's figure over the cases that have it; of the spread the largest."""
    found = {}
    for row in ROWS:
        some = [one for one in cases if one.family == UNTOUCHED or not row.untouched]
        values = [v for one in some if (v := getattr(one, row.name)) is not None]
        found[row.name] = float(np.max(values) if row.asked == "0" else np.median(values))
    found["seconds"] = float(np.median([one.seconds for one in cases]))
    found["first_score"] = float(np.median([one.first_score for one in cases]))
    return found


def table(cases: Sequence[Figures], before: Sequence[Figures]) -> str:
    """Markdown."""
    painted = [one for one in cases if one.family != UNTOUCHED]
    now, then = summary(cases), summary(before) if before else {}
    lines = [
        "# What a restoration heals, and what it leaves alone",
        "",
        f"{len(painted)} painted anomalies ({', '.join(FAMILIES)}) and "
        f"{len(cases) - len(painted)} untouched scans; medians. Synthetic anomalies in healthy "
        "scans that the model was not trained on. Made by `restoration.py`.",
        "",
        "| | asked | before | now |",
        "|---|---|---|---|",
    ]
    for row in ROWS:
        old = f"{then[row.name]:.3g}" if then else "n/a"
        lines.append(f"| {row.words} | {row.asked} | {old} | {now[row.name]:.3g} |")
    lines += [
        "",
        "| case | error | roughness | gradient energy | unchanged |",
        "|---|---|---|---|---|",
    ]
    for one in cases:
        cells = (one.error, one.roughness, one.sharpness, one.unchanged)
        told = " | ".join("n/a" if value is None else f"{value:.2f}" for value in cells)
        lines.append(f"| {one.case} | {told} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("subjects_table", type=Path, metavar="SUBJECTS.tsv")
    parser.add_argument("shapes", type=Path, metavar="SHAPES")
    parser.add_argument("--keep", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--subjects", type=int, default=10)
    parser.add_argument("--before", type=Path, metavar="JSON")
    parser.add_argument("--model", default="brain-t1")
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    detector = Detector.load(options.model)
    chosen = choose([options.subjects_table], ["tune"], [detector])[: options.subjects]
    source = Source(chosen, [], options.shapes, 0, brain_finder(detector))
    cases = []
    for case in design([one.name for one in chosen], [family(name) for name in FAMILIES]):
        kept = options.keep / f"{case.name}.json"
        if not kept.exists():
            scan, label = source.make(case)
            healthy = source.make(Case(case.subject, UNTOUCHED))[0].array
            found, restored = look(case, detector, scan, healthy, label)
            picture(scan, [healthy, scan.array, restored], label).save(kept.with_suffix(".png"))
            kept.write_text(json.dumps(asdict(found)), encoding="utf-8")
            print(found, flush=True)
        cases.append(Figures(**json.loads(kept.read_text(encoding="utf-8"))))
    before = []
    if options.before:
        before = [Figures(**one) for one in json.loads(options.before.read_text("utf-8"))["cases"]]
    text = table(cases, before)
    told = {"summary": summary(cases), "cases": [asdict(one) for one in cases]}
    (RESULTS / "restoration.md").write_text(text, encoding="utf-8")
    (RESULTS / "restoration.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
