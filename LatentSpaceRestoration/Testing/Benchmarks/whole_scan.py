"""From a scan to its map, from a cold start and then warm: ``python whole_scan.py [SCAN]``.

Cold, all counts from this program's first line: importing torch, reading and checking the model,
reading the scan. Warm, in the same process, all counts from the call that starts the detection.
Prints the seconds until the first score, the first restoration's images and the final map, the
seconds of every step, and the peak memory, as JSON. Without a scan, the MNI152 template is used
(needs the ``demo`` extra).
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()  # before the imports, whose time counts

import argparse  # noqa: E402
import json  # noqa: E402
from dataclasses import asdict, dataclass  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

if TYPE_CHECKING:
    from LatentSpaceRestorationLib.detector import Detector
    from LatentSpaceRestorationLib.volume import Volume


@dataclass(frozen=True)
class Times:
    """One detection, in seconds of wall time.

    Attributes:
        start: until the scan and the model were there; 0 when warm.
        first_score: until the first estimate.
        first_restoration: until its images were on the scan's grid.
        final_map: until the last estimate's were, less what the first images took, which the
            command does without.
        steps: of the detection; ``undo`` is the last estimate's.
        restorations: how many were made.
        peak_gb: of the process so far; ``device_peak_gb`` of tensors on a GPU.
    """

    start: float
    first_score: float
    first_restoration: float
    final_map: float
    steps: dict[str, float]
    restorations: int
    peak_gb: float
    device_peak_gb: float


def main() -> None:
    """Detect twice and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", type=Path, nargs="?")
    parser.add_argument("--model", default="brain-t1", help="a model's name or folder")
    parser.add_argument("--mode", default="default")
    parser.add_argument("--restorations", type=int, default=15)
    parser.add_argument("--time-budget", type=float, metavar="SECONDS")
    parser.add_argument("--threads", type=int, help="of torch on the CPU; by default its own")
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu")
    parser.add_argument("--once", action="store_true", help="cold only")
    options = parser.parse_args()

    import torch
    from LatentSpaceRestorationLib.detector import Detector
    from LatentSpaceRestorationLib.evaluation.synthetic.painted_lesion import load_template
    from LatentSpaceRestorationLib.io.images import read_volume

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    volume = read_volume(options.scan) if options.scan else load_template()
    detector = Detector.load(options.model, options.device)
    cold, slices = timed(detector, volume, STARTED, options)
    figures = {
        "model": detector.bundle.name,
        "scan": list(volume.shape),
        "spacing_mm": [round(float(s), 3) for s in volume.spacing],
        "slices": slices,
        "mode": options.mode,
        "wanted": options.restorations,
        "time_budget": options.time_budget,
        "threads": torch.get_num_threads(),
        "device": detector.device,
        "cold": asdict(cold),
    }
    if not options.once:
        warm, _ = timed(detector, volume, time.perf_counter(), options)
        figures["warm"] = asdict(warm)
    print(json.dumps(figures, indent=1))


def timed(
    detector: Detector, volume: Volume, since: float, options: argparse.Namespace
) -> tuple[Times, int]:
    """Detect once; gives the times since a moment of ``time.perf_counter``, and the slices."""
    from machine import peak_device_memory_gb, peak_memory_gb

    def now() -> float:
        return time.perf_counter() - since

    start = now()
    first_score = first_restoration = 0.0
    for estimate in detector.stream(
        volume,
        mode=options.mode,
        restorations=options.restorations,
        time_budget=options.time_budget,
    ):
        if not first_score:
            first_score = now()
            estimate.detection()
            first_restoration = now()
    found = estimate.detection()
    times = Times(
        start=start,
        first_score=first_score,
        first_restoration=first_restoration,
        final_map=now() - (first_restoration - first_score),
        steps=found.seconds,
        restorations=found.restorations,
        peak_gb=peak_memory_gb(),
        device_peak_gb=peak_device_memory_gb(detector.device),
    )
    return times, len(found.slice_scores)


if __name__ == "__main__":
    main()
