"""The processes of one training, which ``torchrun`` starts: who this one is, and sums over all.

Alone, a process is the first of one, and sums are what they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


def are_several() -> bool:
    """Whether other processes take part in this training."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """0 for the process that reports and writes."""
    return dist.get_rank() if are_several() else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if are_several() else 1


def part(length: int) -> slice:
    """This process's share of a global batch: the shares one after the other are the batch.

    Raises:
        ValueError: the batch cannot be shared evenly; a mean of means would not be the mean.
    """
    if length % size():
        raise ValueError(f"a batch of {length} cannot be shared by {size()} processes")
    share = length // size()
    return slice(rank() * share, (rank() + 1) * share)


def total(values: Tensor) -> Tensor:
    """The sum over processes, without gradient; ``values`` itself where there is one process."""
    if not are_several():
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values


def mean(value: float) -> float:
    """The mean of a figure over processes."""
    if not are_several():
        return value
    return float(total(torch.tensor(value, dtype=torch.float64, device=_device()))) / size()


def is_any(flag: bool) -> bool:
    """Whether one process says yes, so that all stop after the same step."""
    return mean(float(flag)) > 0.0


def wait() -> None:
    """Until every process is here."""
    if are_several():
        total(torch.zeros(1, device=_device()))


@contextmanager
def first_goes_first() -> Iterator[None]:
    """The first process does what stands in the block, then the others: they find its files."""
    if rank() > 0:
        wait()
    yield
    if rank() == 0:
        wait()


def _device() -> str:
    return f"cuda:{torch.cuda.current_device()}" if dist.get_backend() == "nccl" else "cpu"


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the global batch.

    ``torch.nn.SyncBatchNorm`` does the same on CUDA alone; this runs on any device, so that the
    tests of two processes need no GPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        if not self.training:
            return super().forward(x)
        from torch.distributed.nn.functional import all_reduce  # differentiable

        values = x.float()
        over = (0, 2, 3)
        count = float(x.numel() // x.shape[1] * size())
        average = all_reduce(values.sum(over)) / count
        centred = values - average.view(1, -1, 1, 1)
        variance = all_reduce(centred.square().sum(over)) / count
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.momentum is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(average, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1.0), self.momentum)
        out = centred * torch.rsqrt(variance + self.eps).view(1, -1, 1, 1)
        return (out * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x.dtype)


def share_batch_norm(network: nn.Module) -> None:
    """Let every BatchNorm2d of a network see the global batch; weights and names stay."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d:
                shared = SharedBatchNorm2d(child.num_features, child.eps, child.momentum or 0.1)
                shared.load_state_dict(child.state_dict())
                shared.to(child.weight.device)
                setattr(parent, name, shared)


def gather_rows(rows: Tensor, pick: Tensor) -> Tensor:
    """Rows of a tensor that lies in shares over the processes, the same rows for every process.

    Args:
        rows: (N, D) this process's share.
        pick: (M,) indices into all shares one after the other.

    Returns:
        (M, D).
    """
    own = pick - rank() * len(rows)
    here = (own >= 0) & (own < len(rows))
    found = rows[own.clamp(0, len(rows) - 1)]
    return total(torch.where(here[:, None], found, torch.zeros_like(found)))


def all_rows(rows: Tensor) -> Tensor:
    """(N, D) shares of all processes, one after the other; every share has the same length."""
    if not are_several():
        return rows
    padding = (0, 0, rank() * len(rows), (size() - 1 - rank()) * len(rows))
    return total(F.pad(rows, padding))


def bare(model: nn.Module) -> nn.Module:
    """The network itself, also where DistributedDataParallel is around it."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
