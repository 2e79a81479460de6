"""Normative values: those of a method's maps in healthy scans, as a model bundle keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..bundle.schema import PLACE
from ..errors import BundleError
from ..model_space import robust_spread
from .atlas import PlaceStatistics
from .tail_probability import TailProbability

if TYPE_CHECKING:
    from torch import Tensor

    from ..bundle.bundle import Bundle


@dataclass(frozen=True)
class NormativeMap:
    """Normative values of a map: those of healthy scans.

    Attributes:
        place: mean and spread at each place.
        tail: of distances from the usual; None where the method's rule does not ask for it.
        spreads: (n,) float32, ascending, of each healthy scan how widely its brain's voxels spread
            about the normative values at their place, robustly; None as of ``tail``.
    """

    place: PlaceStatistics
    tail: TailProbability | None = None
    spreads: np.ndarray | None = None

    @property
    def of_tail(self) -> TailProbability:
        """The tail probability.

        Raises:
            BundleError: the model has none.
        """
        if self.tail is None:
            raise BundleError("the model does not say how rare its values are; calibrate it again")
        return self.tail

    def width(self, values: np.ndarray, mask: np.ndarray, position: np.ndarray) -> float:
        """How many times as widely as of the middle healthy scan a scan's values spread.

        Args:
            values: (N, rows, columns), the map.
            mask: (N, rows, columns) bool, brain.
            position: (N,) of the slices.

        Raises:
            BundleError: the model does not know how widely those of healthy scans do.
        """
        return self._width(self.place.normalise(values, position)[mask])

    def _width(self, z: np.ndarray) -> float:
        if self.spreads is None:
            raise BundleError("the model does not say how its values spread; calibrate it again")
        return robust_spread(z) / float(np.median(self.spreads))

    def deviation(self, values: np.ndarray, mask: np.ndarray, position: np.ndarray) -> np.ndarray:
        """How far each voxel is from the normative value at its place, in spreads; signed.

        Where a scan departs from healthy ones all over, since it comes from another scanner, its
        own spread counts in place of the usual one: what stands out of that is looked for.

        Args and errors are those of :meth:`width`.

        Returns:
            (N, rows, columns) float32.
        """
        z = self.place.normalise(values, position)
        return z / np.float32(max(self._width(z[mask]), 1.0))


def read_normative(bundle: Bundle, key: str) -> dict[str, NormativeMap]:
    """Normative values of each map, left and right alike.

    Args:
        bundle: the model.
        key: of the method, or its mode.

    Raises:
        BundleError: the bundle has none.
    """
    tensors = bundle.tensors(PLACE)
    names = dict.fromkeys(name.split(".")[1] for name in tensors if name.startswith(f"{key}."))
    if not names:
        raise BundleError(
            f"model {bundle.name} has no usual values of {key!r}; calibrate it on healthy scans"
        )

    def array(name: str, part: str) -> np.ndarray:
        return np.asarray(tensors[f"{key}.{name}.{part}"].float().numpy())

    return {
        name: NormativeMap(
            PlaceStatistics(array(name, "mean"), array(name, "sd")).symmetric(),
            TailProbability(array(name, "rarity")) if f"{key}.{name}.rarity" in tensors else None,
            array(name, "spreads") if f"{key}.{name}.spreads" in tensors else None,
        )
        for name in names
    }


def to_tensors(normative: Mapping[str, NormativeMap], key: str) -> dict[str, Tensor]:
    """What :func:`read_normative` reads."""
    import torch

    tensors = {}
    for name, healthy in normative.items():
        tensors[f"{key}.{name}.mean"] = torch.from_numpy(healthy.place.mean)
        tensors[f"{key}.{name}.sd"] = torch.from_numpy(healthy.place.sd)
        if healthy.tail is not None:
            tensors[f"{key}.{name}.rarity"] = torch.from_numpy(healthy.tail.ladder)
        if healthy.spreads is not None:
            tensors[f"{key}.{name}.spreads"] = torch.from_numpy(healthy.spreads)
    return tensors
