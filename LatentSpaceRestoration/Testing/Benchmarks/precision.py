"""What bfloat16 changes beside float32.

    python precision.py SUBJECTS.tsv SHAPES [--painted N]

The healthy scans of split `calibrate` are looked at in both, and scans of split `tune` with an
anomaly painted in. Told are how many ranks among healthy scans the scores lie apart, and the Dice
overlap of the masks of the painted ones. A machine without instructions for bfloat16 computes the
same, more slowly. Writes results/precision.md and results/precision.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from LatentSpaceRestorationLib.datasets.read import read_subjects
from LatentSpaceRestorationLib.detection import Detection
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.evaluation.synthetic.design import UNTOUCHED, design
from LatentSpaceRestorationLib.evaluation.synthetic.families import family
from LatentSpaceRestorationLib.evaluation.synthetic.sources import Source, brain_finder, choose
from LatentSpaceRestorationLib.io.images import read_volume
from LatentSpaceRestorationLib.volume import Volume, dice
from machine import describe
from report import table

RESULTS = Path(__file__).parent / "results"
FAMILIES = ("uniform-sphere", "stroke-shape")


@dataclass(frozen=True)
class Pair:
    """One scan in both.

    Attributes:
        case: its name.
        painted: whether an anomaly was painted in.
        scores: in float32 and in bfloat16.
        ranks: how many of the healthy scans score lower, in each.
        dice: of the two masks; None where both are empty.
        flagged_ml: in each.
        farthest: largest difference of the maps, over the threshold.
    """

    case: str
    painted: bool
    scores: tuple[float, float]
    ranks: tuple[int, int]
    dice: float | None
    flagged_ml: tuple[float, float]
    farthest: float


def look(case: str, painted: bool, scan: Volume, detectors: Sequence[Detector]) -> Pair:
    """The first estimate of a scan in both: restorations change neither map nor score."""
    opened = detectors[0].open(scan)
    found: list[Detection] = []
    for detector in detectors:
        opened.known.expected.clear()
        found.append(next(detector.stream(opened)).detection())
    one, other = found
    level = detectors[0].model.calibration().at(0)
    flagged = [float((each.anomaly_mask > 0).sum()) * scan.voxel_volume_ml for each in found]
    ranks = [sum(s < each.sample_score for s in level.sample_scores) for each in found]
    overlap = dice(one.anomaly_mask, other.anomaly_mask)
    return Pair(
        case,
        painted,
        (one.sample_score, other.sample_score),
        (ranks[0], ranks[1]),
        overlap if max(flagged) else None,
        (flagged[0], flagged[1]),
        float(np.abs(one.anomaly_map - other.anomaly_map).max() / one.threshold),
    )


def summary(pairs: Sequence[Pair]) -> dict[str, float]:
    """What is asked for."""
    healthy = [pair for pair in pairs if not pair.painted]
    overlaps = [pair.dice for pair in pairs if pair.painted and pair.dice is not None]
    return {
        "healthy": len(healthy),
        "ranks apart, at most": max(abs(pair.ranks[0] - pair.ranks[1]) for pair in healthy),
        "scores apart, at most": max(abs(pair.scores[0] - pair.scores[1]) for pair in healthy),
        "painted": len(overlaps),
        "Dice, least": min(overlaps),
        "Dice, median": float(np.median(overlaps)),
    }


def markdown(pairs: Sequence[Pair], machine: dict[str, Any]) -> str:
    """The report."""
    told = summary(pairs)
    rows = [
        [
            pair.case,
            *(f"{score:.3f}" for score in pair.scores),
            *(str(rank) for rank in pair.ranks),
            "n/a" if pair.dice is None else f"{pair.dice:.3f}",
            *(f"{ml:.2f}" for ml in pair.flagged_ml),
            f"{pair.farthest:.3f}",
        ]
        for pair in pairs
    ]
    head = ["scan", "score, float32", "bfloat16", "rank, float32", "bfloat16", "Dice of the masks"]
    head += ["flagged ml, float32", "bfloat16", "maps apart, in thresholds"]
    return "\n\n".join(
        [
            "# What bfloat16 changes",
            f"{machine['processor']}, PyTorch {machine['torch']}. Of {told['healthy']} healthy "
            f"scans the scores are at most {told['scores apart, at most']:.3f} apart, which is "
            f"{told['ranks apart, at most']} ranks among healthy ones; of {told['painted']} scans "
            "with a painted anomaly, which is synthetic, the masks overlap with a Dice of at least "
            f"{told['Dice, least']:.3f}, {told['Dice, median']:.3f} in the median. Codes are the "
            "same by construction: the encoder computes in float32. Made by `precision.py`.",
            table(head, rows),
        ]
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", type=Path, metavar="SUBJECTS.tsv")
    parser.add_argument("shapes", type=Path, metavar="SHAPES")
    parser.add_argument("--painted", type=int, default=5, help="scans that are painted into")
    parser.add_argument("--model", default="brain-t1", help="a model's name or folder")
    options = parser.parse_args()
    detectors = [
        Detector.load(options.model, "cpu", precision=precision)
        for precision in ("float32", "bfloat16")
    ]
    pairs = []

    def add(pair: Pair) -> None:
        pairs.append(pair)
        print(pair, file=sys.stderr, flush=True)

    for subject in read_subjects(options.subjects):
        if subject.split == "calibrate":
            add(look(subject.name, False, read_volume(subject.scan), detectors))
    chosen = choose([options.subjects], ["tune"], detectors[:1])[: options.painted]
    source = Source(chosen, [], options.shapes, 0, brain_finder(detectors[0]))
    for case in design([one.name for one in chosen], [family(name) for name in FAMILIES]):
        if case.family != UNTOUCHED:
            add(look(case.name, True, source.make(case)[0], detectors))
    machine = describe(torch.get_num_threads(), "cpu")
    told = {"machine": machine, "summary": summary(pairs), "scans": [asdict(p) for p in pairs]}
    (RESULTS / "precision.md").write_text(markdown(pairs, machine) + "\n", encoding="utf-8")
    (RESULTS / "precision.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(markdown(pairs, machine))


if __name__ == "__main__":
    main()
