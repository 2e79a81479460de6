"""What is usual of a method's maps in healthy scans, as a model bundle keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .calibration import PlaceStatistics
from .errors import BundleError
from .rarity import Rarity

if TYPE_CHECKING:
    from torch import Tensor

    from .bundle import Bundle

#: The bundle's file of what is usual, by ``<calibration key>.<map>.<part>``.
PLACE = "place.safetensors"


@dataclass(frozen=True)
class Usual:
    """What is usual of a map in healthy scans.

    Attributes:
        place: mean and spread at each place.
        rarity: of distances from the usual; None where the method's rule does not ask for it.
    """

    place: PlaceStatistics
    rarity: Rarity | None = None

    @property
    def of_rarity(self) -> Rarity:
        """The rarity.

        Raises:
            BundleError: the model has none.
        """
        if self.rarity is None:
            raise BundleError("the model does not say how rare its values are; calibrate it again")
        return self.rarity


def read_usual(bundle: Bundle, key: str) -> dict[str, Usual]:
    """What is usual of each map, left and right alike.

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
        name: Usual(
            PlaceStatistics(array(name, "mean"), array(name, "sd")).symmetric(),
            Rarity(array(name, "rarity")) if f"{key}.{name}.rarity" in tensors else None,
        )
        for name in names
    }


def to_tensors(usual: Mapping[str, Usual], key: str) -> dict[str, Tensor]:
    """What :func:`read_usual` reads."""
    import torch

    tensors = {}
    for name, healthy in usual.items():
        tensors[f"{key}.{name}.mean"] = torch.from_numpy(healthy.place.mean)
        tensors[f"{key}.{name}.sd"] = torch.from_numpy(healthy.place.sd)
        if healthy.rarity is not None:
            tensors[f"{key}.{name}.rarity"] = torch.from_numpy(healthy.rarity.ladder)
    return tensors
