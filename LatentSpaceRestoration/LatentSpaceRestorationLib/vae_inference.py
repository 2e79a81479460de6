"""The VAE of a model at work on a prepared scan, a few slices at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .bundle import Bundle
from .inference import SIZES, SIZES_OFF_CPU, Step
from .memory import Placement
from .networks.vae import VAE, folded_vae
from .preprocessing import Prepared


@dataclass(frozen=True)
class Piece:
    """Some slices of a scan, on the device.

    Attributes:
        vae: the network, on the same device; its weights need no gradient.
        slices: (B, 1, rows, columns).
        brain: (B, 1, rows, columns) bool.
        position: (B,).
        numbers: of the slices in the scan.
        report: to be called with the fraction of the piece that is done.
    """

    vae: VAE
    slices: Tensor
    brain: Tensor
    position: Tensor
    numbers: range
    report: Step


class VAENetworks:
    """VAE of a bundle, in evaluation mode.

    Attributes:
        placement: the device, and how much goes through at a time; both change when memory runs
            out, and the results do not.
    """

    def __init__(self, vae: VAE, device: str = "cpu") -> None:
        self.vae = folded_vae(vae).to(device)
        self.placement = Placement(device, SIZES if device == "cpu" else SIZES_OFF_CPU)

    @classmethod
    def load(cls, bundle: Bundle, device: str = "cpu") -> VAENetworks:
        """Read the weights of a bundle.

        Raises:
            BundleError: a file is damaged or does not fit the settings.
        """
        try:
            vae = VAE(**bundle.config["vae"])
            vae.load_state_dict(
                {k: v.float() for k, v in bundle.tensors("vae.safetensors").items()}
            )
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            raise bundle.misfit(error) from error
        return cls(vae, device)

    def by_pieces(
        self,
        prepared: Prepared,
        compute: Callable[[Piece], Sequence[Tensor]],
        step: Step,
    ) -> list[np.ndarray]:
        """Compute something of every slice.

        Args:
            prepared: the scan in model space.
            compute: gives (B, ...) tensors of a piece; of a slice the same in any piece.
            step: called with the fraction done.

        Returns:
            (N, ...) float32 arrays, as many as ``compute`` gives.
        """
        count, done = len(prepared.slices), 0
        parts: list[list[np.ndarray]] = []

        def some(size: int, device: str) -> list[np.ndarray]:
            numbers = range(done, min(count, done + size))

            def here(array: np.ndarray) -> Tensor:
                part = np.ascontiguousarray(array[numbers.start : numbers.stop])
                return torch.from_numpy(part).to(device)

            piece = Piece(
                self.vae.to(device),
                here(prepared.slices)[:, None],
                here(prepared.mask)[:, None],
                here(prepared.position),
                numbers,
                lambda share: step((done + share * len(numbers)) / count),
            )
            return [tensor.detach().float().cpu().numpy() for tensor in compute(piece)]

        while done < count:
            parts.append(self.placement.run("slices", some))
            done += len(parts[-1][0])
            step(done / count)
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
