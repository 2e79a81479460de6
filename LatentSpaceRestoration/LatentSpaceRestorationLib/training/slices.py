"""Prepared slices: what the networks see, as uint8 on disk, so that an epoch reads no NIfTI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..io import read_volume
from ..preprocessing import CLIP, Grid, mask_to_head, prepare, to_head
from .subjects import Subject


@dataclass(frozen=True)
class Slices:
    """Slices of many scans.

    Attributes:
        values: (N, rows, columns) uint8; 0 is -CLIP, 255 is +CLIP.
        position: (N,) float32 in [-0.5, 0.5].
        subject: (N,) int64, index into ``names``.
        names: the scans.
    """

    values: np.ndarray
    position: np.ndarray
    subject: np.ndarray
    names: list[str]

    def save(self, file: Path) -> None:
        """Write as an uncompressed ``.npz``."""
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part.npz")
        np.savez(
            part,
            values=self.values,
            position=self.position,
            subject=self.subject,
            names=np.array(self.names),
        )
        part.replace(file)

    @classmethod
    def load(cls, file: Path) -> Slices:
        """Read what :meth:`save` wrote."""
        with np.load(file, allow_pickle=False) as data:
            return cls(
                data["values"], data["position"], data["subject"], [str(n) for n in data["names"]]
            )


def to_uint8(slices: np.ndarray) -> np.ndarray:
    """[-CLIP, CLIP] -> 0..255, steps of 0.024 standard deviations."""
    return np.round((slices + CLIP) * (255.0 / (2.0 * CLIP))).astype(np.uint8)


def prepare_slices(
    subjects: list[Subject], grid: Grid, progress: Callable[[int], None] | None = None
) -> Slices:
    """Prepare the slices of subjects that have a brain mask, as :func:`preprocessing.prepare`."""
    values, position, index = [], [], []
    for number, subject in enumerate(subjects):
        volume = read_volume(subject.scan)
        if subject.mask is None:
            raise ValueError(f"{subject.name} has no brain mask")
        head = to_head(volume, grid.spacing_mm)
        mask = mask_to_head(read_volume(subject.mask).array, volume, head)
        prepared = prepare(volume, head, mask, grid)
        values.append(to_uint8(prepared.slices))
        position.append(prepared.position)
        index.append(np.full(len(prepared.slices), number))
        if progress is not None:
            progress(number)
    return Slices(
        np.concatenate(values),
        np.concatenate(position),
        np.concatenate(index),
        [s.name for s in subjects],
    )
