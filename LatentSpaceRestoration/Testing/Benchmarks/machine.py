"""The machine that figures were taken on, and what a process used of it."""

from __future__ import annotations

import os
import platform
import re
import sys
from datetime import datetime
from pathlib import Path

import torch


def describe(threads: int, device: str) -> dict[str, str | int | float]:
    """Processor, cores, device, threads, versions, the date, and how busy the machine is (load)."""
    accelerator = torch.cuda.get_device_name() if device == "cuda" else device
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "threads": threads,
        "device": accelerator,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else -1.0,
        "date": datetime.now().astimezone().isoformat(timespec="minutes"),
    }


def _processor() -> str:
    """The processor's name; where the system does not tell, its architecture."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def child_environment(count_work_only: bool = False) -> dict[str, str]:
    """The environment for a new Python process that finds the library where this one lies.

    Args:
        count_work_only: let OpenMP's threads sleep while they wait for each other. By default they
            spin, which counts as CPU time; beside another busy program it doubles it.
    """
    library = str(Path(__file__).resolve().parents[2])
    others = os.environ.get("PYTHONPATH")
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [library, others]))}
    return {**found, "OMP_WAIT_POLICY": "PASSIVE"} if count_work_only else found


def peak_memory_gb() -> float:
    """Largest resident memory of this process so far, in GB; 0 where the system does not tell."""
    try:
        # Not ru_maxrss: on Linux, a new process begins with that of the one which started it.
        text = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(text.split("VmHWM:")[1].split()[0]) * 1024 / 1e9
    except (OSError, IndexError):
        pass
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def peak_device_memory_gb(device: str) -> float:
    """Most memory that tensors took on a GPU so far, in GB; 0 where that is not counted."""
    return torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0.0


def synchronise(device: str) -> None:
    """Wait until a device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()
