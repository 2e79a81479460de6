"""Where the mask of the default mode is best cut: ``python thresholds.py EVALUATION``.

Reads the results of single cases that ``lsr evaluate -o EVALUATION`` has kept, and says for a
ladder of healthy percentiles how well the mask fits each family's anomalies, and how much of an
untouched brain it flags. Writes results/thresholds.md and results/thresholds.json.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from LatentSpaceRestorationLib.bundle.bundle import find_bundle, read_bundle
from LatentSpaceRestorationLib.calibration.levels import ModeCalibration
from LatentSpaceRestorationLib.evaluation import store
from LatentSpaceRestorationLib.evaluation.metrics.histograms import Histogram
from LatentSpaceRestorationLib.evaluation.synthetic.design import UNTOUCHED
from LatentSpaceRestorationLib.evaluation.synthetic.families import family
from LatentSpaceRestorationLib.methods.registry import SHIPPED

RESULTS = Path(__file__).parent / "results"
PERCENTILES = (98.0, 99.0, 99.3, 99.5, 99.7, 99.8, 99.9, 99.95)


def overlap(voxels: Histogram, threshold: float) -> float:
    """Dice of what reaches a threshold with what is anomalous."""
    above = voxels.scores >= threshold
    hit, false = voxels.anomalous[above].sum(), voxels.normal[above].sum()
    return float(2.0 * hit / (voxels.anomalous.sum() + hit + false))


def figures(folder: Path, thresholds: list[float]) -> dict[str, np.ndarray]:
    """By family, (cases, thresholds): Dice, or of untouched scans the share of the brain flagged.

    Args:
        folder: with a file a case.
        thresholds: values of the anomaly map.
    """
    found: dict[str, list[list[float]]] = defaultdict(list)
    for path in sorted(folder.glob("*.npz")):
        kind = path.stem.split("_")[1]
        if (kept := store.read(path)) is None or kind == "real-lesion":
            continue
        voxels = kept[1].voxels
        if kind == UNTOUCHED:
            brain = voxels.normal[voxels.scores > 0].sum()  # outside the brain the map is 0
            shares = [voxels.normal[voxels.scores >= t].sum() / brain for t in thresholds]
            found[kind].append([float(share) for share in shares])
        elif voxels.anomalous.any() and not family(kind).held_out:
            found[kind].append([overlap(voxels, t) for t in thresholds])
    return {kind: np.array(rows) for kind, rows in found.items()}


def table(found: dict[str, np.ndarray], thresholds: list[float]) -> str:
    """Markdown."""
    lines = [
        "# Where the mask is cut",
        "",
        "Dice of the mask with synthetic anomalies, mean over scans, and the share of the brain "
        "that is flagged in untouched scans (median), by the percentile of healthy voxels. Made "
        "by `thresholds.py` from the results of `lsr evaluate`.",
        "",
        "| healthy percentile | " + " | ".join(f"{p:g}" for p in PERCENTILES) + " |",
        "|---" * (1 + len(PERCENTILES)) + "|",
        "| value of the map | " + " | ".join(f"{t:.2f}" for t in thresholds) + " |",
    ]
    for kind, rows in found.items():
        if kind != UNTOUCHED:
            cells = " | ".join(f"{value:.2f}" for value in rows.mean(axis=0))
            lines.append(f"| {kind} ({len(rows)} scans) | {cells} |")
    if UNTOUCHED in found:
        rows = found[UNTOUCHED]
        cells = " | ".join(f"{100 * value:.2f}%" for value in np.median(rows, axis=0))
        lines.append(f"| flagged in untouched scans ({len(rows)}) | {cells} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("evaluation", type=Path, metavar="EVALUATION")
    parser.add_argument("--model", default=SHIPPED["anomaly"])
    options = parser.parse_args()
    bundle = read_bundle(find_bundle(options.model))
    # The map of the default mode hardly depends on the number of restorations.
    voxels = ModeCalibration.from_json(bundle.calibration["modes"]["default"]).at(15).voxels
    thresholds = [voxels.value(p) for p in PERCENTILES]
    found = figures(options.evaluation / "cases" / "lsr", thresholds)
    text = table(found, thresholds)
    told = {
        "percentiles": PERCENTILES,
        "thresholds": thresholds,
        "figures": {kind: rows.tolist() for kind, rows in found.items()},
    }
    (RESULTS / "thresholds.md").write_text(text, encoding="utf-8")
    (RESULTS / "thresholds.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
