"""Dask clusters: one on this machine, sized by what it has, or one that is there."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import LSRError
from .engine import ATTEMPTS

if TYPE_CHECKING:
    from distributed import Client

#: Bytes that a worker may need: the model, PyTorch, and a scan of 1 mm with its maps.
BYTES_A_WORKER = 2 * 10**9
#: Seconds to wait for a scheduler's answer.
_PATIENCE = 30
_EXTRA = "dask.distributed is missing; install latent-space-restoration[cohort]"


@dataclass(frozen=True)
class Size:
    """Workers of a machine.

    Attributes:
        workers: processes.
        threads: of each, for PyTorch.
        memory: bytes that each may take before it is ended.
        gpus: what each is to see in ``CUDA_VISIBLE_DEVICES``; empty without GPUs.
    """

    workers: int
    threads: int
    memory: int
    gpus: tuple[str, ...] = ()


def size(cores: int, memory: int, gpus: tuple[str, ...] = (), wanted: int | None = None) -> Size:
    """How many workers a machine has room for: one a GPU, or as cores and memory allow.

    On CPUs a worker computes on one thread where it can: two scans on a thread each are done
    sooner than one after the other on two.

    Args:
        cores, memory: what there is, in bytes.
        gpus: their names.
        wanted: workers, instead; with GPUs, they share them.
    """
    fitting = len(gpus) or min(cores, memory // BYTES_A_WORKER)
    workers = wanted or max(1, fitting)
    seen = tuple(gpus[i % len(gpus)] for i in range(workers)) if gpus else ()
    return Size(workers, max(1, cores // workers), memory // workers, seen)


def check_extra() -> None:
    """Raise LSRError unless Dask is installed."""
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise LSRError(f"{_EXTRA}, or give --jobs 0") from error


@contextmanager
def local(jobs: int | None, device: str, count: int) -> Iterator[Client]:
    """A cluster of processes on this machine, for as long as it is needed.

    It listens on this machine only, and speaks only to those who have its certificate.

    Args:
        jobs: workers; None as many as there is room for.
        device: what they compute on; ``cpu`` uses no GPU.
        count: of the scans; more workers are not started.
    """
    import dask
    from dask.system import CPU_COUNT
    from distributed import Client, Nanny, Scheduler, SpecCluster
    from distributed.security import Security
    from distributed.system import MEMORY_LIMIT

    gpus = () if device in ("cpu", "mps") else _gpus()
    chosen = size(CPU_COUNT, MEMORY_LIMIT, gpus, 1 if device == "mps" and jobs is None else jobs)
    chosen = size(CPU_COUNT, MEMORY_LIMIT, gpus, min(chosen.workers, count))
    security = Security.temporary()
    shared: dict[str, Any] = {"host": "127.0.0.1", "protocol": "tls://", "security": security}
    shared |= {"dashboard": False}
    workers = {
        number: {
            "cls": Nanny,
            "options": {
                **shared,
                "nthreads": 1,
                "memory_limit": chosen.memory,
                "silence_logs": logging.CRITICAL,
                "preload": [f"{__package__}.uninterrupted"],
                "env": _environment(chosen, number),
            },
        }
        for number in range(chosen.workers)
    }
    scheduler = {
        "cls": Scheduler,
        "options": {**shared, "dashboard_address": "127.0.0.1:0", "port": 0},
    }
    with (
        dask.config.set(_CONFIG),
        SpecCluster(
            workers, scheduler, security=security, silence_logs=logging.CRITICAL
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


#: A worker that runs low on memory goes on until it is ended: nothing of a scan can be put aside,
#: and one that were paused would never be woken.
_CONFIG: dict[str, Any] = {
    "distributed.scheduler.allowed-failures": ATTEMPTS - 1,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    # Dask has memory given back at once; taking it again costs a third of the CPU time of a scan.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
    # Nothing is shown to other programs on this machine.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


@contextmanager
def existing(address: str, count: int) -> Iterator[Client]:
    """A cluster that is there. Its workers may come later, and more of them.

    Args:
        address: of its scheduler.
        count: of the scans; it has as many workers as it has.

    Raises:
        LSRError: it does not answer, or its workers lack this program.
    """
    from distributed import Client

    try:
        client = Client(address, timeout=_PATIENCE)
    except (OSError, ValueError, TypeError) as error:
        raise LSRError(
            f"{address}: no scheduler answers there; start one (dask scheduler), and give its "
            "address as it prints it"
        ) from error
    with client:
        try:
            client.run(_has_program)
        except Exception as error:
            raise LSRError(
                f"{address}: its workers lack this program; install latent-space-restoration "
                "for the Python that they run"
            ) from error
        yield client


def _has_program() -> bool:
    from . import task

    return callable(task.look)


def _environment(chosen: Size, number: int) -> dict[str, str]:
    found = {
        f"{library}_NUM_THREADS": str(chosen.threads) for library in ("OMP", "MKL", "OPENBLAS")
    }
    return found | ({"CUDA_VISIBLE_DEVICES": chosen.gpus[number]} if chosen.gpus else {})


def _gpus() -> tuple[str, ...]:
    """Names of the GPUs that this process may use."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return tuple(named.split(",") if named else map(str, range(count))) if count else ()
