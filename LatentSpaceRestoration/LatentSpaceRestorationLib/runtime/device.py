"""Where the networks run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def choose_device(wanted: str = "auto") -> tuple[str, tuple[str, ...]]:
    """A device that works, and what to tell the user if it is not the one asked for.

    A device counts as working when one small convolution runs on it: a driver that is listed may
    still fail at the first operation.

    Args:
        wanted: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns:
        torch device name, warnings.

    Raises:
        ValueError: unknown name.
    """
    import torch

    if wanted not in ("auto", "cpu", "cuda", "mps"):
        raise ValueError(f"the device is auto, cpu, cuda or mps, not {wanted!r}")
    listed = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    candidates = [name for name, there in listed.items() if there and wanted in ("auto", name)]
    for name in candidates:
        try:
            x = torch.ones(1, 1, 4, 4, device=name)
            torch.nn.functional.conv2d(x, x).sum().item()
            return name, ()
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            return "cpu", (f"{name} does not work here ({reason}); the CPU was used",)
    if wanted in listed:
        return "cpu", (f"{wanted} is not available here; the CPU was used",)
    return "cpu", ()


def fastest_precision(device: str) -> torch.dtype:
    """The shortest floating-point type that has instructions here, rather than emulation."""
    import torch

    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    flags = Path("/proc/cpuinfo")
    has_bf16 = device == "cpu" and flags.is_file() and "avx512_bf16" in flags.read_text()
    return torch.bfloat16 if has_bf16 else torch.float32
