"""The networks at work on a prepared scan: codes, likelihoods, restorations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .bundle import Bundle
from .errors import Cancelled
from .networks.pixelsnail import PixelSNAIL
from .networks.vqvae import VQVAE
from .preprocessing import Prepared
from .restoration import nll as code_nll
from .restoration import restore

#: Slices through the encoder or decoder at a time.
CHUNK = 32

Step = Callable[[float], None]


@dataclass(frozen=True)
class Reading:
    """What the networks read in a scan, before any restoration.

    Attributes:
        codes: (N, h, w) int64.
        nll: (N, h, w) float32, nats, of each code given those before it.
        brain: (N, h, w) bool, codes whose cell has brain in it.
    """

    codes: np.ndarray
    nll: np.ndarray
    brain: np.ndarray


@dataclass(frozen=True)
class Restorations:
    """Decoded restorations of every slice.

    Attributes:
        reconstruction: (N, H, W) float32, the unchanged codes decoded.
        restored: (N, S, H, W) float32.
        resampled: share of the brain's codes that were replaced, mean over restorations.
    """

    reconstruction: np.ndarray
    restored: np.ndarray
    resampled: float


class Networks:
    """VQ-VAE and prior of a bundle on a device, in evaluation mode."""

    def __init__(self, vqvae: VQVAE, prior: PixelSNAIL, device: str = "cpu") -> None:
        self.vqvae = vqvae.to(device).eval()
        self.prior = prior.to(device).eval()
        self.device = device

    @classmethod
    def load(cls, bundle: Bundle, device: str = "cpu") -> Networks:
        """Read the weights of a bundle.

        Raises:
            BundleError: a file is damaged or does not fit the settings.
        """
        try:
            vqvae = VQVAE(**bundle.config["vqvae"])
            vqvae.load_state_dict(
                {k: v.float() for k, v in bundle.tensors("vqvae.safetensors").items()}
            )
            kind = dict(bundle.config["prior"])
            kind.pop("kind", None)
            tensors = {k: v.float() for k, v in bundle.tensors("prior.safetensors").items()}
            prior = PixelSNAIL.from_tensors(tensors, **kind)
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            raise bundle.misfit(error) from error
        return cls(vqvae, prior, device)

    def read(self, prepared: Prepared, step: Step | None = None) -> Reading:
        """Encode every slice and score its codes.

        Args:
            prepared: the scan in model space.
            step: called with the fraction done.
        """
        position = self._tensor(prepared.position)
        grids = []
        with torch.inference_mode():
            slices = torch.from_numpy(prepared.slices)[:, None]
            for x, p in zip(slices.split(CHUNK), position.split(CHUNK), strict=True):
                grids.append(self.vqvae.encode(x.to(self.device), p))
                if step is not None:
                    step(0.5 * sum(len(g) for g in grids) / len(slices))
            codes = torch.cat(grids)
            nll = code_nll(self.prior, codes, position).float().cpu().numpy()
        n, h, w = codes.shape
        rows, columns = prepared.mask.shape[1:]
        cells = prepared.mask.reshape(n, h, rows // h, w, columns // w)
        return Reading(codes.cpu().numpy(), nll, np.asarray(cells.any(axis=(2, 4))))

    def restore(
        self,
        prepared: Prepared,
        reading: Reading,
        *,
        threshold: float,
        restorations: int,
        seed: int,
        step: Step | None = None,
        is_cancelled: Callable[[], bool] | None = None,
        sampler: str = "cached",
    ) -> Restorations:
        """Replace unlikely codes of the brain and decode.

        Args:
            prepared: the scan in model space.
            reading: its codes.
            threshold: nats; codes whose NLL exceeds it are resampled, in the brain only.
            restorations: S.
            seed: of the draws.
            step: called with the fraction done.
            is_cancelled: asked between rows.
            sampler: see :func:`restoration.restore`.
        """

        def part(begin: float, share: float) -> Step | None:
            return None if step is None else lambda done: step(begin + share * done)

        codes = torch.from_numpy(reading.codes).to(self.device)
        position = self._tensor(prepared.position)
        thresholds = np.where(reading.brain, threshold, np.inf).astype(np.float32)
        sampled = restore(
            self.prior,
            codes,
            position,
            thresholds=torch.from_numpy(thresholds).to(self.device),
            restorations=restorations,
            seed=seed,
            sampler=sampler,
            progress=part(0.0, 0.65),
            is_cancelled=is_cancelled,
        )
        changed = (sampled != codes[:, None]).float().mean(1).cpu().numpy()
        share = float(changed[reading.brain].mean()) if reading.brain.any() else 0.0
        grids = torch.cat([codes[:, None], sampled], 1)
        images = self._decode_distinct(grids, position, part(0.65, 0.35), is_cancelled)
        return Restorations(images[:, 0], images[:, 1:], share)

    def _decode_distinct(
        self,
        grids: Tensor,
        position: Tensor,
        step: Step | None,
        is_cancelled: Callable[[], bool] | None,
    ) -> np.ndarray:
        """Decode (N, R, h, w) code grids to (N, R, H, W), each distinct grid of a slice once."""
        n, r, h, w = grids.shape
        keep: list[tuple[int, int]] = []
        index = np.empty((n, r), np.int64)
        flat = grids.cpu().numpy().reshape(n, r, h * w)
        for i in range(n):
            _, first, inverse = np.unique(flat[i], axis=0, return_index=True, return_inverse=True)
            index[i] = len(keep) + inverse.reshape(-1)
            keep += [(i, int(j)) for j in first]
        which = torch.tensor(keep)
        decoded = []
        with torch.inference_mode():
            for done, pick in enumerate(which.split(CHUNK)):
                if is_cancelled is not None and is_cancelled():
                    raise Cancelled("cancelled")
                chosen = grids[pick[:, 0], pick[:, 1]]
                out = self.vqvae.decode(chosen, position[pick[:, 0].to(position.device)])
                decoded.append(out[:, 0].float().cpu().numpy())
                if step is not None:
                    step((done + 1) * CHUNK / max(CHUNK, len(keep)))
        return np.concatenate(decoded)[index]

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self.device)
