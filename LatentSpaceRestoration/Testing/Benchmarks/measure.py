"""One sampler on one case, in a process of its own, so that its peak memory is its own.

``python measure.py SPECIFICATION.json`` prints the figures as JSON; ``samplers.py`` calls it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bound import matrix_product_rate
from cases import Case, load_prior
from LatentSpaceRestorationLib.errors import Cancelled
from LatentSpaceRestorationLib.networks.pixelsnail import PixelSNAIL
from LatentSpaceRestorationLib.restoration import nll, restore
from LatentSpaceRestorationLib.row_engine import RowEngine
from machine import peak_device_memory_gb, peak_memory_gb, synchronise


@dataclass(frozen=True)
class Specification:
    """What is measured.

    Attributes:
        model: a name or folder for ``load_prior``.
        case: file of the case.
        sampler: of ``restore``.
        slices: which of the case's slices.
        restorations: how many of each.
        passes: stop after so many reports of the loop, one a pass; None goes to the end.
        codes: file that gets the restored codes; None for none. Not written when stopped.
        threads, device: torch's.
    """

    model: str
    case: str
    sampler: str
    slices: tuple[int, ...]
    restorations: int
    passes: int | None
    codes: str | None
    threads: int
    device: str


@dataclass(frozen=True)
class Figures:
    """What was measured.

    Attributes:
        cpu_seconds: of all threads.
        wall_seconds: until the device was done.
        grids: evaluations of the prior, in units of a whole grid of one sequence.
        again: decisions that were taken again in float64, each another such evaluation.
        peak_gb: largest resident memory of the process; ``before_gb`` of it before the sampler
            began: Python, torch, the prior and the case.
        device_peak_gb: most memory of tensors on a GPU.
        rate: ``matrix_product_rate`` just after; 0 where it was not measured.
    """

    cpu_seconds: float
    wall_seconds: float
    grids: float
    again: int
    peak_gb: float
    before_gb: float
    device_peak_gb: float
    rate: float


@contextmanager
def _counting(prior: PixelSNAIL) -> Iterator[Callable[[], tuple[float, int]]]:
    """Counts the grids that go through a prior, whole or place by place, and those in float64."""
    grids, again, places = [0], [0], [0]

    # Hooks are copied along with the prior when ``restore`` folds it.
    def before(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        exact = next(module.parameters()).dtype == torch.float64
        (again if exact else grids)[0] += len(inputs[0])

    plain = RowEngine.advance

    def advance(engine: RowEngine, low: int, high: int, *rest: Any, **named: Any) -> Any:
        places[0] += engine.n * (high - low)
        return plain(engine, low, high, *rest, **named)

    handle = prior.register_forward_pre_hook(before)
    RowEngine.advance = advance  # type: ignore[method-assign, assignment]
    try:
        yield lambda: (grids[0] + places[0] / (prior.shape[0] * prior.shape[1]), again[0])
    finally:
        RowEngine.advance = plain  # type: ignore[method-assign]
        handle.remove()


def measure(specification: Specification) -> Figures:
    """Restore once and take the figures."""
    device = specification.device
    torch.set_num_threads(specification.threads)
    prior = load_prior(specification.model).to(device)
    case = Case.load(Path(specification.case))
    which = list(specification.slices)
    codes = torch.from_numpy(case.codes[which]).to(device)
    position = torch.from_numpy(case.position[which]).to(device)
    nll(prior, codes[:1], position[:1])  # what a first call sets up is no part of the sampler
    synchronise(device)
    reports = 0

    def enough() -> bool:
        nonlocal reports
        reports += 1
        return specification.passes is not None and reports >= specification.passes

    result = None
    before = peak_memory_gb()
    with _counting(prior) as counted:
        wall, cpu = time.perf_counter(), time.process_time()
        with suppress(Cancelled):
            result = restore(
                prior,
                codes,
                position,
                thresholds=case.thresholds[which],
                restorations=specification.restorations,
                seed=0,
                slice_ids=which,
                sampler=specification.sampler,
                is_cancelled=enough,
            )
        synchronise(device)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        grids, again = counted()
    peak = peak_memory_gb()
    if specification.codes is not None and result is not None:
        np.save(specification.codes, result.cpu().numpy().astype(np.int16))
    cached = specification.sampler == "cached"
    return Figures(
        cpu_seconds=cpu,
        wall_seconds=wall,
        grids=grids,
        again=again,
        peak_gb=peak,
        before_gb=before,
        device_peak_gb=peak_device_memory_gb(device),
        rate=matrix_product_rate(prior.channels, device) if cached else 0.0,
    )


def main() -> None:
    """Read the specification, measure, print."""
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    specification = Specification(**given | {"slices": tuple(given["slices"])})
    print(json.dumps(asdict(measure(specification))))


if __name__ == "__main__":
    main()
