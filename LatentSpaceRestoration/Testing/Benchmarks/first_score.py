"""What the reading costs that a first score comes from, beside other ways and the bound.

    python first_score.py [SCAN]

The same masked prior reads a scan in several ways: each code judged by itself, as likelihoods of
masked priors are usually taken; by tiles, in all slices, as they are and mirrored, which is how
MIM-OOD's prior would be asked without changes; and by the model's own plan. Floating-point
operations are PyTorch's own count of what was called. The bound is the time that the convolutions
of the model's way take alone, each of the shapes that occur, at the best of several trials. Prints
the figures as JSON. Without a scan, the MNI152 template is used (needs the ``demo`` extra).
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from cases import scan_of
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.inference.latent_model import LatentModel
from LatentSpaceRestorationLib.methods.settings import ModeSettings
from LatentSpaceRestorationLib.networks.masked import MaskedPrior
from LatentSpaceRestorationLib.networks.vqvae import Decoder, Encoder
from LatentSpaceRestorationLib.preprocessing.slices import PreparedScan
from LatentSpaceRestorationLib.runtime.device import fastest_precision
from LatentSpaceRestorationLib.runtime.placement import SIZES
from LatentSpaceRestorationLib.volume import Volume
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

#: Parts of the networks, by what a reading calls them.
PARTS = {"encoder": Encoder, "masked prior": MaskedPrior, "decoder": Decoder}
_TRIALS, _TRIAL_SECONDS = 5, 0.05


@dataclass(frozen=True)
class Way:
    """One way to read a scan.

    Attributes:
        name: of it.
        tflop: floating-point operations, in 10^12.
        cpu_seconds, wall_seconds: median of the repeats; scaled up from one slice where
            ``measured`` says so.
        measured: "in full", or from what the figures were scaled.
    """

    name: str
    tflop: float
    cpu_seconds: float
    wall_seconds: float
    measured: str = "in full"


@dataclass(frozen=True)
class FirstScore:
    """What was found.

    Attributes:
        slices: of the scan.
        ways: the dearest first; the last is the model's own.
        parts: TFLOP of the model's own way, by part of the networks.
        bound_seconds: CPU seconds that its convolutions take alone.
        gflop_rate: what they do then, in 10^9 operations a second and core.
        precision: the shortest that the machine has instructions for.
        in_precision: CPU seconds of the model's own way in it; None where that is float32.
    """

    slices: int
    ways: list[Way]
    parts: dict[str, float]
    bound_seconds: float
    gflop_rate: float
    precision: str
    in_precision: float | None


def measure(
    model: str,
    scan: Volume,
    repeats: int = 3,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
) -> FirstScore:
    """Read one scan in all ways.

    Args:
        model: name or folder, of one with a masked prior.
        scan: that is read.
        repeats: of each way.
        device: that all runs on; operations and the bound are those of the CPU.
        say: called with what is being done.
    """
    detector = Detector.load(model, device, precision="float32")
    prepared, _ = detector.prepare(scan)
    settings = ModeSettings.of(detector.bundle.config, "default")
    values = detector.model.calibration().codes
    assert values is not None
    networks = detector.model.context(prepared).latent_model()
    whole = replace(settings.plan, apart=1, both_sides=True)

    def read(plan: Any, some: PreparedScan = prepared) -> None:
        networks.expect(some, plan, values)

    plans = {"tiles, all slices, as they are and mirrored": whole, "the model's own": settings.plan}
    say("first score: each code by itself, one slice")
    ways = [_one_by_one(networks, prepared, device)]
    for name, plan in plans.items():
        say(f"first score: {name}")
        ways.append(_way(name, lambda plan=plan: read(plan), repeats, device))
    with _one_thread(), FlopCounterMode(display=False) as counter:
        read(settings.plan)
    counts = counter.get_flop_counts()
    parts = {
        name: sum(counts.get(kind.__name__, {}).values()) / 1e12 for name, kind in PARTS.items()
    }
    say("first score: the bound")
    bound, flop = _bound(networks, lambda: read(settings.plan))
    precision = str(fastest_precision(device)).removeprefix("torch.")
    short = None
    if precision != "float32":
        fast = Detector.load(model, device, precision="auto").model.context(prepared).latent_model()
        short = _way(
            precision, lambda: fast.expect(prepared, settings.plan, values), repeats, device
        ).cpu_seconds
    return FirstScore(
        len(prepared.slices), ways, parts, bound, flop / bound / 1e9, precision, short
    )


def _way(name: str, work: Callable[[], Any], repeats: int, device: str) -> Way:
    with _one_thread(), FlopCounterMode(display=False) as counter:
        work()
    seconds = [_timed(work, device) for _ in range(repeats)]
    cpu, wall = (median(times) for times in zip(*seconds, strict=True))
    return Way(name, counter.get_total_flops() / 1e12, cpu, wall)


def _one_by_one(networks: LatentModel, prepared: PreparedScan, device: str) -> Way:
    """Each code hidden by itself, of the slice in the middle; as many passes as there are codes."""
    prior = networks.masked
    assert prior is not None
    slices = len(prepared.slices)
    middle = prepared.some(np.array([slices // 2]))
    codes = networks.read(middle).codes
    count = codes[0].size
    grid = torch.from_numpy(codes).to(device).expand(count, -1, -1)
    hidden = torch.eye(count, dtype=torch.bool, device=device).reshape(count, *codes.shape[1:])
    position = torch.from_numpy(middle.position).to(device).expand(count)
    size = SIZES["likelihoods"]

    def work() -> None:
        with torch.inference_mode():
            for at in range(0, count, size):
                part = slice(at, at + size)
                prior(torch.where(hidden[part], prior.mask, grid[part]), position[part])

    found = _way("each code by itself, all slices", work, 1, device)
    return Way(
        found.name,
        slices * found.tflop,
        slices * found.cpu_seconds,
        slices * found.wall_seconds,
        f"scaled from 1 of {slices} slices",
    )


def _timed(work: Callable[[], Any], device: str) -> tuple[float, float]:
    from machine import synchronise

    synchronise(device)
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    synchronise(device)
    return time.process_time() - cpu, time.perf_counter() - wall


@contextmanager
def _one_thread() -> Iterator[None]:
    """What is called in other threads is not counted."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _bound(networks: LatentModel, work: Callable[[], None]) -> tuple[float, float]:
    """CPU seconds of all convolutions and matrix products of some work alone, and their FLOP."""
    calls: Counter[tuple[nn.Module, tuple[int, ...]]] = Counter()

    def seen(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        calls[module, tuple(inputs[0].shape)] += 1

    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    assert networks.masked is not None
    modules = [*networks.masked.modules(), *networks.vqvae.modules()]
    handles = [m.register_forward_pre_hook(seen) for m in modules if isinstance(m, kinds)]
    try:
        with _one_thread():
            work()
    finally:
        for handle in handles:
            handle.remove()
    seconds = flop = 0.0
    with _one_thread(), torch.inference_mode():
        for (module, shape), times in calls.items():
            best, cost = _best(module, shape)
            seconds, flop = seconds + times * best, flop + times * cost
    return seconds, flop


def _best(module: nn.Module, shape: tuple[int, ...]) -> tuple[float, float]:
    """CPU seconds of one call at the best of some trials, and its FLOP."""
    x = torch.randn(shape, device=next(module.parameters()).device)
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    with FlopCounterMode(display=False) as counter:
        module(x)

    def trial(repeats: int) -> float:
        started = time.thread_time()
        for _ in range(repeats):
            module(x)
        return (time.thread_time() - started) / repeats

    repeats = max(1, int(_TRIAL_SECONDS / max(trial(1), 1e-6)))
    return min(trial(repeats) for _ in range(_TRIALS)), float(counter.get_total_flops())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", type=Path, nargs="?")
    parser.add_argument("--model", default="brain-t1", help="a model's name or folder")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of torch on the CPU; by default its own")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    found = measure(options.model, scan_of(options.scan), options.repeats)
    print(json.dumps(asdict(found), indent=1))


if __name__ == "__main__":
    main()
