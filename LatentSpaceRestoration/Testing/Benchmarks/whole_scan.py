"""From a scan to its map, from a cold start and then warm: ``python whole_scan.py SCAN``.

Cold, all counts from this program's first line: importing torch, reading and checking the model,
and meanwhile reading the scan, as ``lsr detect`` does. Warm, in the same process, all counts from
the call that starts the detection. Prints the seconds until the first score, its map on the scan's
grid, the first restoration's images and the final ones, the seconds of every step, and the peak
memory, as JSON.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()  # before the imports, whose time counts

import argparse  # noqa: E402
import json  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402
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
        first_map: until its images were on the scan's grid.
        first_restoration: until those of the first estimate with a restoration were, less what the
            first ones took, which the command does without.
        final_map: until those of the last estimate were, less what the others took.
        steps: of the detection; ``undo`` is the last estimate's.
        restorations: how many were made.
        peak_gb: of the process so far; ``device_peak_gb`` of tensors on a GPU.
    """

    start: float
    first_score: float
    first_map: float
    first_restoration: float
    final_map: float
    steps: dict[str, float]
    restorations: int
    peak_gb: float
    device_peak_gb: float


def main() -> None:
    """Detect twice and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--model", default="brain-t1", help="a model's name or folder")
    parser.add_argument("--mode", default="default")
    parser.add_argument("--restorations", type=int, default=15)
    parser.add_argument("--time-budget", type=float, metavar="SECONDS")
    parser.add_argument("--threads", type=int, help="of torch on the CPU; by default its own")
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu")
    parser.add_argument("--once", action="store_true", help="cold only")
    options = parser.parse_args()

    def load() -> Detector:
        from LatentSpaceRestorationLib.detector import Detector

        return Detector.load(options.model, options.device)

    with ThreadPoolExecutor(1) as thread:
        loading = thread.submit(load)
        from LatentSpaceRestorationLib.io.images import read_volume

        volume = read_volume(options.scan)
        detector = loading.result()
    import torch

    if options.threads is not None:
        torch.set_num_threads(options.threads)
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
    first_score = first_map = first_restoration = beside = 0.0
    for estimate in detector.stream(
        volume,
        mode=options.mode,
        restorations=options.restorations,
        time_budget=options.time_budget,
    ):
        began = now()
        if not first_score:
            first_score = began
            estimate.detection()
            first_map = now()
            beside += first_map - began
        if not first_restoration and (estimate.restorations or estimate.is_last):
            first_restoration = first_map
            if estimate.restorations:
                began = now()
                estimate.detection()
                first_restoration = now() - beside
                beside += now() - began
    found = estimate.detection()
    times = Times(
        start=start,
        first_score=first_score,
        first_map=first_map,
        first_restoration=first_restoration,
        final_map=now() - beside,
        steps=found.seconds,
        restorations=found.restorations,
        peak_gb=peak_memory_gb(),
        device_peak_gb=peak_device_memory_gb(detector.device),
    )
    return times, len(found.slice_scores)


if __name__ == "__main__":
    main()
