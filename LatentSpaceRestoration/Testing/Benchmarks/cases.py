"""What is looked at: a scan, and for samplers a prior, codes, and thresholds that flag a share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from LatentSpaceRestorationLib.bundle.bundle import find_bundle, read_bundle
from LatentSpaceRestorationLib.evaluation.synthetic.painted_lesion import load_template
from LatentSpaceRestorationLib.io.images import read_volume
from LatentSpaceRestorationLib.networks.layers import fold_weight_norm
from LatentSpaceRestorationLib.networks.pixelsnail import PixelSNAIL
from LatentSpaceRestorationLib.sampling.restore import nll, restore
from LatentSpaceRestorationLib.volume import Volume
from numpy.typing import NDArray

#: The published brain prior; its weights were never published, so they are random.
PUBLISHED = "published"
LAYOUTS = ("spread", "blobs")
_SEED = 0
_BLOB_PERCENTILE = 50.0  # of the NLL of codes that the prior drew
_FITTED_SLICES, _FITTING_STEPS = 4, 7


def scan_of(file: Path | None) -> Volume:
    """A scan; the MNI152 template, which needs the ``demo`` extra, if there is no file."""
    return load_template() if file is None else read_volume(file)


@dataclass(frozen=True)
class Case:
    """Input of ``restore``.

    Attributes:
        codes: (N, H, W) int64.
        position: (N,) float32 in [-0.5, 0.5].
        thresholds: (N, H, W) float32 in nats, infinite where a code is to stay.
        first: (N,) int64, the raster place of each slice's first flagged code, -1 if none.
        flagged: share of all codes whose NLL exceeds the threshold before anything is replaced.
    """

    codes: NDArray[np.int64]
    position: NDArray[np.float32]
    thresholds: NDArray[np.float32]
    first: NDArray[np.int64]
    flagged: float

    def save(self, path: Path) -> None:
        """Write an ``.npz`` file."""
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> Case:
        """Read what ``save`` wrote."""
        with np.load(path) as file:
            fields = {name: file[name] for name in file.files}
        return cls(**fields | {"flagged": float(fields["flagged"])})


def load_prior(model: str) -> PixelSNAIL:
    """The prior of an installed model or of a model's folder, or the published configuration."""
    if model == PUBLISHED:
        torch.manual_seed(_SEED)
        prior = PixelSNAIL(
            codes=128,
            shape=(20, 20),
            channels=128,
            blocks=4,
            pairs=4,
            attention_stride=2,
            key_size=16,
            value_size=128,
        )
        return fold_weight_norm(prior)
    bundle = read_bundle(find_bundle(model, ()))
    settings = {k: v for k, v in bundle.config["prior"].items() if k != "kind"}
    tensors = {k: v.float() for k, v in bundle.tensors("prior.safetensors").items()}
    return PixelSNAIL.from_tensors(tensors, **settings)


def make_case(prior: PixelSNAIL, slices: int, layout: str, share: float) -> Case:
    """Codes drawn from the prior itself, of which about ``share`` are flagged.

    Args:
        prior: of the codes; real scans' codes would need a scan, and say the same of the cost.
        slices: N, at positions from the bottom to the top of the brain.
        layout: "spread", where the threshold is that percentile of the NLL, at every place; or
            "blobs", where it is finite only in a disc a slice, as large as gives the share, whose
            codes are random ones and so unlikely: the shape of the work when only the brain or
            only a part of it may change.
        share: of all codes, above 0 and below 1.

    Raises:
        ValueError: another layout.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout {layout!r} is not one of {', '.join(LAYOUTS)}")
    position = torch.linspace(-0.45, 0.45, slices)
    nothing = torch.zeros((slices, *prior.shape), dtype=torch.int64)
    drawn = restore(
        prior, nothing, position, thresholds=-np.inf, restorations=1, seed=_SEED, chunk=32
    )[:, 0]
    cost = nll(prior, drawn, position)
    if layout == "spread":
        codes = drawn
        limit = float(np.quantile(cost.numpy(), 1.0 - share))
        thresholds = np.full(codes.shape, limit, dtype=np.float32)
    else:
        limit = float(np.percentile(cost.numpy(), _BLOB_PERCENTILE))
        codes, thresholds = _blobs(prior, drawn, position, limit, share)
        cost = nll(prior, codes, position)
    flags = (cost.numpy() > thresholds).reshape(slices, -1)
    first = np.where(flags.any(axis=1), flags.argmax(axis=1), -1).astype(np.int64)
    return Case(codes.numpy(), position.numpy(), thresholds, first, float(flags.mean()))


def _blobs(
    prior: PixelSNAIL, drawn: torch.Tensor, position: torch.Tensor, limit: float, share: float
) -> tuple[torch.Tensor, NDArray[np.float32]]:
    """Codes with a random disc a slice, and thresholds: ``limit`` in the disc, infinite outside."""
    rng = np.random.default_rng(_SEED)
    rows, columns = prior.shape
    centre = rng.uniform(0.3, 0.7, (len(drawn), 2)) * (rows, columns)
    row, column = np.indices(prior.shape) + 0.5
    distance = np.hypot(row - centre[:, :1, None], column - centre[:, 1:, None])
    other = torch.from_numpy(rng.integers(prior.codes, size=drawn.shape))

    def with_discs(radius: float, count: int) -> tuple[torch.Tensor, NDArray[np.bool_]]:
        disc = distance[:count] < radius
        return torch.where(torch.from_numpy(disc), other[:count], drawn[:count]), disc

    some = min(_FITTED_SLICES, len(drawn))
    low, high = 0.0, float(np.hypot(rows, columns))
    for _ in range(_FITTING_STEPS):
        radius = 0.5 * (low + high)
        codes, disc = with_discs(radius, some)
        flagged = (nll(prior, codes, position[:some]).numpy() > limit) & disc
        low, high = (radius, high) if flagged.mean() < share else (low, radius)
    codes, disc = with_discs(high, len(drawn))
    return codes, np.where(disc, np.float32(limit), np.float32(np.inf))
