"""Detects anomalies without a window, and checks what comes out. In Slicer, or on the host:

    Slicer --no-splash --no-main-window --testing \\
        --additional-module-paths LatentSpaceRestoration \\
        --python-script LatentSpaceRestoration/Testing/Python/run_headless.py [OPTIONS]

Prints one line of JSON. Raises, so that Slicer ends with a status other than 0, if anything fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np
import slicer
from LatentSpaceRestorationLib.errors import Cancelled
from LatentSpaceRestorationSlicer.sample_data import loadSample


def parse() -> argparse.Namespace:
    """The script's own options."""
    parser = argparse.ArgumentParser(prog="run_headless.py")
    parser.add_argument("--scan", help="image file; a brain is generated if none is given")
    parser.add_argument("--model", default="brain-t1", help="name or folder of a model")
    parser.add_argument("--restorations", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", help="write the scene to this .mrb file")
    return parser.parse_args(sys.argv[1:])


def check(condition: bool, message: str) -> None:
    """Fail with a message."""
    if not condition:
        raise AssertionError(message)


def node_ids() -> set[str]:
    """IDs of all nodes of the scene."""
    scene = slicer.mrmlScene
    return {scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes())}


def main() -> None:
    """Detect, check, and say what was found."""
    options = parse()
    logic = slicer.util.getModuleLogic("LatentSpaceRestoration")
    missing = logic.packages.missing()
    if missing:
        print(json.dumps({"skipped": f"not installed: {', '.join(missing)}"}))
        return
    volume = slicer.util.loadVolume(options.scan, {}) if options.scan else loadSample()
    chosen = {"model": options.model, "restorations": options.restorations, "seed": options.seed}

    before = node_ids()
    try:
        logic.detect(volume, isCancelled=lambda: True, **chosen)
    except Cancelled:
        check(node_ids() == before, "a cancelled detection left nodes behind")
    else:
        raise AssertionError("it could not be cancelled")

    started = time.perf_counter()
    reports: list[float] = []
    result = logic.detect(
        volume, progress=lambda fraction, message: reports.append(fraction), **chosen
    )
    seconds = time.perf_counter() - started
    values = slicer.util.arrayFromVolume(result.anomalyMap)
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(result.segmentation, "Anomaly", volume)
    compare = slicer.modules.volumes.logic().CompareVolumeGeometry
    for node in (result.anomalyMap, result.restoration):
        check(compare(volume, node) == "", f"{node.GetName()} does not lie on the scan")
    check(bool(np.isfinite(values).all() and values.min() >= 0), "the map has wrong values")
    check(
        bool(((mask > 0) <= (values >= result.detection.threshold)).all()),
        "the segment reaches below the threshold",
    )
    check(reports[-1] == 1.0 and reports == sorted(reports), "progress went astray")
    check(len(result.sliceScores) > 0, "there are no slice scores")
    if options.save:
        check(slicer.util.saveScene(options.save, {}), f"{options.save} was not written")
    print(
        json.dumps(
            {
                "scan": volume.GetName(),
                "sample_score": result.sampleScore,
                "percentile": result.percentile,
                "flagged_voxels": int(mask.sum()),
                "nodes": [node.GetName() for node in result.nodes()],
                "warnings": list(result.warnings),
                "seconds": round(seconds, 1),
            }
        )
    )


main()
