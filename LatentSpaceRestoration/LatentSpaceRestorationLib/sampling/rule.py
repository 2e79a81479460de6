"""Which codes are replaced, and by what: the one rule that all samplers share.

Samplers add the same numbers up in different orders, so that their logits differ by rounding (about
1e-5). Were a code's NLL that close to its threshold, or the two best candidates that close to each
other, they could decide differently, and every later code would follow. Such doubtful decisions, a
few dozen in a whole scan, are therefore taken again from the prior in float64 on the CPU, whose own
rounding (about 1e-13) is the only one left that could matter. What counts as doubtful is measured:
the rounding error of one slice's logits, with room to spare. That makes the codes the same for any
sampler, size of chunk, number of threads and device.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .gumbel import gumbel_noise

if TYPE_CHECKING:
    from ..networks.pixelsnail import PixelSNAIL

#: A decision compares two logits, each with its error; the rest is for errors that were not seen.
_ROOM = 8.0
#: In nats: what float32 cannot tell apart in logits of about 10.
_LEAST_MARGIN = 1e-5
#: Log-probability below which a code is never drawn, so that its logit's error does not count.
_NEVER = -16.0


@dataclass(frozen=True)
class Sequences:
    """Which code grids are meant: entry i is restoration ``restoration[i]`` of slice ``index[i]``.

    ``index`` counts into the slices given to the sampler, which has their identities (the keys of
    the noise) and positions.
    """

    index: NDArray[np.int64]  # (n,)
    restoration: NDArray[np.int64]  # (n,)

    def __getitem__(self, rows: NDArray[np.int64]) -> Sequences:
        return Sequences(self.index[rows], self.restoration[rows])

    def __len__(self) -> int:
        return len(self.index)


class Decider:
    """A code whose NLL exceeds its threshold becomes argmax(logits / temperature + noise).

    Args:
        prior: the prior, folded and in eval mode.
        codes: (N, H, W) int64 of the slices, on the prior's device.
        position: (N,) the slice positions.
        thresholds: (N, H * W) float64; infinity where a code is never replaced.
        slice_ids: (N,) the identities of the slices, for the noise.
        seed, temperature: of the draw.
    """

    def __init__(
        self,
        prior: PixelSNAIL,
        codes: Tensor,
        position: Tensor,
        thresholds: NDArray[np.float64],
        slice_ids: NDArray[np.int64],
        seed: int,
        temperature: float,
    ) -> None:
        self.codes = prior.codes
        self.thresholds = thresholds
        device = next(prior.parameters()).device
        self._float_thresholds = torch.tensor(thresholds, dtype=torch.float32, device=device)
        self._position = position.detach().to("cpu", torch.float64)
        self._slice_ids, self._seed, self._temperature = slice_ids, seed, temperature
        self._exact_prior = copy.deepcopy(prior).to("cpu").double()
        self._margin = max(_LEAST_MARGIN, _ROOM * self._rounding(prior, codes, position))

    def _rounding(self, prior: PixelSNAIL, codes: Tensor, position: Tensor) -> float:
        """The largest error of the log-probabilities of one slice in float32, in nats."""
        if len(codes) == 0:
            return 0.0
        one = slice(len(codes) // 2, len(codes) // 2 + 1)
        rounded = prior(codes[one], position[one]).cpu().double().log_softmax(1)
        exact = self._exact_prior(codes[one].cpu(), self._position[one]).log_softmax(1)
        return float((rounded - exact)[exact > _NEVER].abs().max())

    def possible_flags(self, nll: Tensor, sequences: Sequences) -> Tensor:
        """(n, H * W) bool: where NLLs (n, H * W) of the sequences may exceed their thresholds."""
        index = torch.from_numpy(sequences.index).to(nll.device)
        return nll > self._float_thresholds[index] - self._margin

    def decide(
        self,
        logits: Tensor,
        current: Tensor,
        sequences: Sequences,
        places: NDArray[np.int64],
        grids: Tensor,
    ) -> Tensor:
        """The codes that now stand at one place of each sequence.

        Args:
            logits: (n, codes) float32, given the codes before the place.
            current: (n,) int64, the codes there so far.
            sequences: whose they are.
            places: (n,) raster positions.
            grids: (n, H, W) int64, the sequences' codes as they stand before the decision.

        Returns:
            (n,) int64.
        """
        index = torch.from_numpy(sequences.index).to(logits.device)
        place = torch.from_numpy(places).to(logits.device)
        excess = F.cross_entropy(logits, current, reduction="none")
        excess = excess - self._float_thresholds[index, place]
        rows = (excess > -self._margin).nonzero()[:, 0]
        if len(rows) == 0:
            return current
        at = rows.cpu().numpy()
        noise = torch.from_numpy(self._noise(sequences[at], places[at]))
        perturbed = logits[rows] / self._temperature + noise.to(logits.device)
        best = perturbed.topk(2, dim=1)
        flagged = excess[rows] > 0
        close = best.values[:, 0] - best.values[:, 1] <= self._margin / self._temperature
        doubtful = (excess[rows] <= self._margin) | close
        codes = torch.where(flagged, best.indices[:, 0], current[rows])
        if bool(doubtful.any()):
            again = doubtful.nonzero()[:, 0].cpu()
            which = at[again.numpy()]
            exact = self._decide_exactly(
                sequences[which], places[which], grids[rows[doubtful]].cpu(), noise[again]
            )
            codes[doubtful] = exact.to(codes.device)
        result = current.clone()
        result[rows] = codes
        return result

    def _noise(self, sequences: Sequences, places: NDArray[np.int64]) -> NDArray[np.float32]:
        return gumbel_noise(
            self._seed,
            self._slice_ids[sequences.index],
            sequences.restoration,
            places,
            self.codes,
        )

    def _decide_exactly(
        self, sequences: Sequences, places: NDArray[np.int64], grids: Tensor, noise: Tensor
    ) -> Tensor:
        """The same rule in float64, from a full pass over the (n, H, W) grids."""
        every = torch.arange(len(places))
        place = torch.from_numpy(places)
        logits = self._exact_prior(grids, self._position[sequences.index]).flatten(2)
        logits = logits[every, :, place]
        current = grids.flatten(1)[every, place]
        nll = F.cross_entropy(logits, current, reduction="none")
        flagged = nll > torch.from_numpy(self.thresholds[sequences.index, places])
        draw = (logits / self._temperature + noise).argmax(dim=1)
        return torch.where(flagged, draw, current)
