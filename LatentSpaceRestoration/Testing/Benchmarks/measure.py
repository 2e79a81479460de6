"""One sampler on one case, in a process of its own, so that its peak memory is its own.

``python measure.py SPECIFICATION.json`` prints the figures as JSON; ``samplers.py`` calls it.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
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
from LatentSpaceRestorationLib.sampling.restore import nll, restore
from LatentSpaceRestorationLib.sampling.row_engine import RowEngine
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
        passes: of the loop, after which it is stopped; None goes to the end.
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
    """What was measured; of a loop that was stopped, from the begin of its first pass.

    Attributes:
        cpu_seconds: of all threads.
        wall_seconds: until the device was done.
        grids: evaluations of the prior, in units of a whole grid of one sequence.
        exact: such evaluations in float64: one that measures rounding errors, and one for each
            decision that was taken again.
        peak_gb: largest resident memory of the process; ``before_gb`` of it before the sampler
            began: Python, torch, the prior and the case.
        device_peak_gb: most memory of tensors on a GPU.
        rate: ``matrix_product_rate`` just after; 0 where it was not measured.
    """

    cpu_seconds: float
    wall_seconds: float
    grids: float
    exact: int
    peak_gb: float
    before_gb: float
    device_peak_gb: float
    rate: float


class _Counter:
    """Counts the grids that go through a prior, whole or place by place.

    Attributes:
        whole: grids passed whole in float32, by size of the batch.
        exact: grids in float64.
        places: evaluated one by one.
        began: wall and CPU clock when a batch of a size first came.
    """

    def __init__(self) -> None:
        self.whole: dict[int, int] = {}
        self.exact = self.places = 0
        self.began: dict[int, tuple[float, float]] = {}
        self._lock = threading.Lock()  # the samplers work on several threads

    @contextmanager
    def watching(self, prior: PixelSNAIL) -> Iterator[None]:
        """Count while this lasts."""

        # Hooks are copied along with the prior when ``restore`` folds it.
        def before(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            size = len(inputs[0])
            with self._lock:
                if next(module.parameters()).dtype == torch.float64:
                    self.exact += size
                    return
                self.began.setdefault(size, (time.perf_counter(), time.process_time()))
                self.whole[size] = self.whole.get(size, 0) + size

        plain = RowEngine.advance

        def advance(engine: RowEngine, low: int, high: int, *rest: Any, **named: Any) -> Any:
            with self._lock:
                self.places += engine.n * (high - low)
            return plain(engine, low, high, *rest, **named)

        handle = prior.register_forward_pre_hook(before)
        RowEngine.advance = advance  # type: ignore[method-assign, assignment]
        try:
            yield
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
    counter = _Counter()
    with counter.watching(prior):
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
        ended = time.perf_counter(), time.process_time()
    grids = sum(counter.whole.values()) + counter.places / (prior.shape[0] * prior.shape[1])
    if result is None:
        # What ``restore`` does before its first pass is done once, not once a pass.
        largest = max(counter.whole)
        (wall, cpu), grids = counter.began[largest], counter.whole[largest]
    peak = peak_memory_gb()
    if specification.codes is not None and result is not None:
        np.save(specification.codes, result.cpu().numpy().astype(np.int16))
    cached = specification.sampler == "cached"
    return Figures(
        cpu_seconds=ended[1] - cpu,
        wall_seconds=ended[0] - wall,
        grids=grids,
        exact=counter.exact,
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
