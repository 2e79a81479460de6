"""Prepared slices: what the networks see, as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..preprocessing import CLIP


class Pieces:
    """Arrays on disk, one after the other, of which a few rows at a time are read.

    Args:
        files: ``.npy`` files of arrays that differ in their first length alone.
        lengths: those lengths.
    """

    def __init__(self, files: Sequence[Path], lengths: Sequence[int]) -> None:
        self._arrays = [np.load(file, mmap_mode="r", allow_pickle=False) for file in files]
        self._ends = np.cumsum(lengths)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        """(M,) int indices -> (M, ...) rows."""
        piece = np.searchsorted(self._ends, index, side="right")
        starts = np.concatenate([[0], self._ends[:-1]])
        rows = [self._arrays[p][i - starts[p]] for p, i in zip(piece, index, strict=True)]
        return np.stack(rows)


@dataclass(frozen=True)
class Slices:
    """Slices of many scans.

    Attributes:
        values: (N, rows, columns) uint8; 0 is -CLIP, 255 is +CLIP. An array, or files on disk.
        position: (N,) float32 in [-0.5, 0.5].
        subject: (N,) int64, index into ``names``.
        names: the scans.
    """

    values: np.ndarray | Pieces
    position: np.ndarray
    subject: np.ndarray
    names: list[str]

    def __len__(self) -> int:
        return len(self.position)

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Slices by their (B,) indices.

        Returns:
            (B, 1, rows, columns) float32 in [-CLIP, CLIP], and (B,) float32 positions.
        """
        rows = index.numpy()
        values = torch.from_numpy(np.ascontiguousarray(self.values[rows]))
        return from_uint8(values), torch.from_numpy(self.position[rows])

    def spread(self, limit: int) -> Tensor:
        """Indices of up to ``limit`` slices, evenly over all scans."""
        return torch.linspace(0, len(self) - 1, min(limit, len(self))).long()


def to_uint8(slices: np.ndarray) -> np.ndarray:
    """[-CLIP, CLIP] -> 0..255, steps of 0.024 standard deviations."""
    return np.round((slices + CLIP) * (255.0 / (2.0 * CLIP))).astype(np.uint8)


def from_uint8(values: Tensor) -> Tensor:
    """(B, H, W) uint8 -> (B, 1, H, W) float32 in [-CLIP, CLIP]."""
    return values.float().mul(2.0 * CLIP / 255.0).sub(CLIP).unsqueeze(1)
