"""The VAE of a model at work on a prepared scan, a few slices at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..bundle import schema
from ..bundle.bundle import Bundle
from ..errors import Cancelled
from ..networks.vae import VAE, folded_vae
from ..preprocessing.slices import PreparedScan
from ..runtime.placement import SIZES, SIZES_OFF_CPU, Placement
from ..runtime.progress import Step
from ..runtime.threads import in_pieces


@dataclass(frozen=True)
class Piece:
    """Some slices of a scan, on the device.

    Attributes:
        vae: the network, on the same device; its weights need no gradient.
        slices: (B, 1, rows, columns).
        brain: (B, 1, rows, columns) bool.
        position: (B,).
        numbers: of the slices in the scan.
        report: to be called with the fraction of the piece that is done; raises ``Cancelled`` when
            the work is to end.
    """

    vae: VAE
    slices: Tensor
    brain: Tensor
    position: Tensor
    numbers: Sequence[int]
    report: Step


class VAEModel:
    """VAE of a bundle, in evaluation mode.

    Attributes:
        placement: the device, and how much goes through at a time; both change when memory runs
            out, and the results do not.
    """

    def __init__(self, vae: VAE, device: str = "cpu") -> None:
        self.vae = folded_vae(vae).to(device)
        self.placement = Placement(device, SIZES if device == "cpu" else SIZES_OFF_CPU)

    @classmethod
    def load(cls, bundle: Bundle, device: str = "cpu") -> VAEModel:
        """Read the weights of a bundle.

        Raises:
            BundleError: a file is damaged or does not fit the settings.
        """
        try:
            vae = VAE(**bundle.config["vae"])
            vae.load_state_dict(bundle.weights(schema.VAE))
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            raise bundle.misfit(error) from error
        return cls(vae, device)

    def by_pieces(
        self,
        prepared: PreparedScan,
        compute: Callable[[Piece], Sequence[Tensor]],
        step: Step,
        every: int = 1,
    ) -> list[np.ndarray]:
        """Compute something of every slice, or of every n-th, and what lies between linearly.

        Args:
            prepared: the scan in model space.
            compute: gives (B, ...) tensors of a piece; of a slice the same in any piece. On a CPU
                it is called in several threads at a time.
            step: called from the calling thread with the fraction done.
            every: n; the last slice is computed in any case.

        Returns:
            (N, ...) float32 arrays, as many as ``compute`` gives.
        """
        last = len(prepared.slices) - 1
        chosen = np.unique(np.append(np.arange(0, last, every), last))
        caller = threading.get_ident()

        def all_pieces(size: int, device: str) -> list[list[np.ndarray]]:
            vae, stopped = self.vae.to(device), threading.Event()
            done = np.zeros(len(chosen))  # by piece, where it starts

            def tell(_: float = 0.0) -> None:
                try:
                    step(min(float(done.sum()) / len(chosen), 1.0))
                except BaseException:
                    stopped.set()
                    raise

            def one(part: slice) -> list[np.ndarray]:
                numbers = chosen[part]

                def here(array: np.ndarray) -> Tensor:
                    return torch.from_numpy(np.ascontiguousarray(array[numbers])).to(device)

                def report(share: float) -> None:
                    if stopped.is_set():
                        raise Cancelled("cancelled")
                    done[part.start] = share * len(numbers)
                    if threading.get_ident() == caller:
                        tell()

                with torch.inference_mode(False):  # some methods need gradients
                    piece = Piece(
                        vae,
                        here(prepared.slices)[:, None],
                        here(prepared.mask)[:, None],
                        here(prepared.position),
                        numbers.tolist(),
                        report,
                    )
                    found = [t.detach().float().cpu().numpy() for t in compute(piece)]
                report(1.0)
                return found

            return in_pieces(one, len(chosen), size, device, tell)

        parts = self.placement.run("slices", all_pieces)
        computed = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
        return computed if every == 1 else [_between(a, chosen) for a in computed]


def _between(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(N, ...) values of all slices from (n, ...) of the chosen ones, 0 and N - 1 among them."""
    if len(chosen) == 1:
        return values
    every = np.arange(chosen[-1] + 1)
    after = np.clip(np.searchsorted(chosen, every), 1, len(chosen) - 1)
    share = (every - chosen[after - 1]) / (chosen[after] - chosen[after - 1])
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    mixed = (1.0 - share) * values[after - 1] + share * values[after]
    return np.asarray(mixed, np.float32)
