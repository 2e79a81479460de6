"""Going on when a device cannot: in smaller pieces when memory runs out, then on the CPU."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

from .device import fastest_precision
from .memory import give_back

#: How much goes through the networks at a time: slices through encoder, decoder and prior, and
#: code grids ("sequences") through the sampler. On a CPU the fastest that was measured, or as good
#: as that and small enough for many cores to have a piece each.
SIZES = {"slices": 8, "likelihoods": 8, "sequences": 256, "brain": 1}
#: The same elsewhere, where large pieces are fast: about 2 GB with the published prior.
SIZES_OFF_CPU = {"slices": 64, "likelihoods": 64, "sequences": 1024, "brain": 1}
Result = TypeVar("Result")

#: Pieces smaller than this are faster on the CPU than on a device without room for more.
_SMALLEST_OFF_CPU = 8


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    # Its name in torch before 2.5, and one of its names since.
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    # The allocators of the CPU and of Apple's GPUs raise plain RuntimeErrors.
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    )


def free_cached(device: str) -> None:
    """Give back what the device's allocator keeps for later."""
    gc.collect()
    give_back()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    elif device.startswith("mps"):
        torch.mps.empty_cache()


class Placement:
    """Where the networks run and how much at a time.

    Args:
        device: at first.
        sizes: how much is worked on at a time, at first, by kind of work.
        precision: one of ``options.PRECISIONS``, of what is computed in :meth:`arithmetic`.

    Attributes:
        device: now.
        warnings: what the user should know, a line for each device that was too small.
    """

    def __init__(self, device: str, sizes: Mapping[str, int], precision: str = "float32") -> None:
        self.device, self._asked = device, precision
        self._dtype = self._dtype_of_device()
        self._first_sizes, self._sizes = dict(sizes), dict(sizes)
        self._warnings: dict[str, str] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(self._warnings.values())

    @property
    def precision(self) -> str:
        """That is computed in, such as ``bfloat16``."""
        return str(self._dtype).removeprefix("torch.")

    def _dtype_of_device(self) -> torch.dtype:
        if self._asked == "auto":
            return fastest_precision(self.device)
        return torch.bfloat16 if self._asked == "bfloat16" else torch.float32

    def arithmetic(self) -> torch.autocast:
        """Within it, in the thread that enters it, networks compute in the precision."""
        short = self._dtype != torch.float32
        return torch.autocast(
            torch.device(self.device).type, self._dtype if short else None, enabled=short
        )

    def run(self, kind: str, work: Callable[[int, str], Result]) -> Result:
        """``work(size, device)``, again with half the size, and at last on the CPU, if it must be.

        An operation that the device lacks leads to the CPU at once.

        What was found to fit is kept for the next call.

        Args:
            kind: of work, one of ``sizes``.
            work: gives the same for any size and device; what it did before memory ran out is lost.

        Raises:
            MemoryError: the smallest piece does not fit into the CPU's memory.
        """
        while True:
            size, device = self._sizes[kind], self.device
            try:
                return work(size, device)
            except (RuntimeError, MemoryError) as error:
                lacking = isinstance(error, NotImplementedError) and device != "cpu"
                if not lacking and not is_out_of_memory(error):
                    raise
            # Out of the handler, whose error holds on to all that was allocated.
            free_cached(device)
            if lacking:
                self._to_cpu(f"{device} lacks an operation that is needed")
            elif size > (1 if device == "cpu" else _SMALLEST_OFF_CPU):
                self._sizes[kind] = size // 2
                self._warnings[device] = f"memory ran out on {device}; it went on in smaller pieces"
            elif device != "cpu":
                self._to_cpu(f"memory ran out on {device}")
            else:
                raise MemoryError("there is not even enough memory for a single slice")

    def _to_cpu(self, reason: str) -> None:
        self._warnings[self.device] = f"{reason}; it went on on the CPU"
        self.device, self._sizes = "cpu", dict(self._first_sizes)
        self._dtype = self._dtype_of_device()
