"""Time and memory of one detection from a cold start: ``python whole_scan.py [SCAN]``.

Prints the seconds of every step, the total from the start of the process, and the peak memory.
Without a scan, the MNI152 template is used (needs the ``demo`` extra).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

STARTED = time.perf_counter()


def peak_memory_gb() -> float:
    """Largest resident memory of this process so far, in GB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def main() -> None:
    """Detect once and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", type=Path, nargs="?")
    parser.add_argument("--model", default="brain-t1")
    parser.add_argument("--mode", default="default")
    parser.add_argument("--restorations", type=int, default=15)
    options = parser.parse_args()

    import torch
    from LatentSpaceRestorationLib.demo import load_template
    from LatentSpaceRestorationLib.detector import Detector
    from LatentSpaceRestorationLib.io import read_volume

    volume = read_volume(options.scan) if options.scan else load_template()
    detector = Detector.load(options.model, "cpu")
    found = detector.detect(volume, mode=options.mode, restorations=options.restorations)
    figures = {
        "scan": list(volume.shape),
        "spacing_mm": [round(float(s), 3) for s in volume.spacing],
        "slices": len(found.slice_scores),
        "mode": options.mode,
        "restorations": options.restorations,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "seconds": {step: round(s, 2) for step, s in found.seconds.items()},
        "total_seconds": round(time.perf_counter() - STARTED, 1),
        "peak_memory_gb": round(peak_memory_gb(), 2),
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
