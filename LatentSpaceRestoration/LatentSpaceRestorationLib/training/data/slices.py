"""Prepared slices: what the networks see, as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...model_space import CLIP


class Pieces:
    """Arrays on disk, one after the other, of which a few rows at a time are read.

    Args:
        files: ``.npy`` files of arrays that differ in their first length alone; None is zeros.
        lengths: those lengths.
    """

    def __init__(self, files: Sequence[Path | None], lengths: Sequence[int]) -> None:
        there = {f: np.load(f, mmap_mode="r", allow_pickle=False) for f in files if f is not None}
        first = next(iter(there.values()))
        self._nothing = np.zeros(first.shape[1:], first.dtype)
        self._arrays = [None if file is None else there[file] for file in files]
        self._ends = np.cumsum(lengths)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        """(M,) int indices -> (M, ...) rows."""
        piece = np.searchsorted(self._ends, index, side="right")
        starts = np.concatenate([[0], self._ends[:-1]])

        def row(part: int, at: int) -> np.ndarray:
            array = self._arrays[part]
            return self._nothing if array is None else np.asarray(array[at - starts[part]])

        return np.stack([row(p, i) for p, i in zip(piece, index, strict=True)])


@dataclass(frozen=True)
class Slices:
    """Slices of many scans.

    Attributes:
        values: (N, rows, columns) uint8; 0 is -CLIP, 255 is +CLIP. An array, or files on disk.
        position: (N,) float32 in [-0.5, 0.5].
        subject: (N,) int64, index into ``names``.
        names: the scans.
        tissue: (N, rows, columns) uint8, tissue of each voxel, 0 where it is not known; None where
            no scan has a map of them.
    """

    values: np.ndarray | Pieces
    position: np.ndarray
    subject: np.ndarray
    names: list[str]
    tissue: np.ndarray | Pieces | None = None

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

    def tissue_of(self, index: Tensor) -> Tensor | None:
        """(B, 1, rows, columns) uint8, tissues of slices by index; None if none is known."""
        if self.tissue is None:
            return None
        return torch.from_numpy(np.ascontiguousarray(self.tissue[index.numpy()])).unsqueeze(1)

    def spread(self, limit: int) -> Tensor:
        """Indices of up to ``limit`` slices, evenly over all scans."""
        return torch.linspace(0, len(self) - 1, min(limit, len(self))).long()


def to_uint8(slices: np.ndarray) -> np.ndarray:
    """[-CLIP, CLIP] -> 0..255, steps of 0.024 standard deviations."""
    return np.round((slices + CLIP) * (255.0 / (2.0 * CLIP))).astype(np.uint8)


def from_uint8(values: Tensor) -> Tensor:
    """(B, H, W) uint8 -> (B, 1, H, W) float32 in [-CLIP, CLIP]."""
    return values.float().mul(2.0 * CLIP / 255.0).sub(CLIP).unsqueeze(1)
