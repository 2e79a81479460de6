"""From a scan to model space: finding the brain, at the spacing that its network knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from .brain import BrainMask, extract_brain
from .errors import InputError
from .methods.evidence import Known
from .preprocessing import MINIMUM_BRAIN_ML, Head, Prepared, mask_to_head, to_head
from .volume import Volume

if TYPE_CHECKING:
    from .memory import Placement
    from .networks.unet import UNet3D


@dataclass(frozen=True)
class BrainFinder:
    """Finds the brain, or takes a given mask.

    Attributes:
        network: of brain extraction; None where it is not installed.
        spacing_mm: that the network was trained at.
        placement: asks where it runs.
    """

    network: UNet3D | None
    spacing_mm: float
    placement: Callable[[], Placement]

    def find(self, volume: Volume, head: Head, spacing_mm: float) -> BrainMask:
        """The brain of a scan.

        Args:
            volume: the scan.
            head: the scan on the patient's axes.
            spacing_mm: of the head.

        Raises:
            InputError: there is no brain, or no network to find it.
        """
        covers = volume.voxel_volume_ml * volume.array.size
        if covers < MINIMUM_BRAIN_ML:
            spacing = " x ".join(f"{mm:.3g}" for mm in volume.spacing)
            raise InputError(
                f"the whole scan has {covers:.3g} ml, less than a brain; check that its spacing "
                f"({spacing}) is in mm, or give a scan of the head"
            )
        if self.network is None or self.spacing_mm == spacing_mm:
            return self._extract(head, spacing_mm)
        finer = to_head(volume, self.spacing_mm)
        found = self._extract(finer, self.spacing_mm)
        mask = mask_to_head(found.mask, Volume(finer.array, finer.affine), head)
        return replace(found, mask=mask)

    def _extract(self, head: Head, spacing_mm: float) -> BrainMask:
        return self.placement().run(
            "brain", lambda _, device: extract_brain(head, spacing_mm, self.network, device)
        )


@dataclass(frozen=True)
class Opened:
    """A scan that a detector has found the brain of, and what its networks read in it.

    Attributes:
        volume: the scan.
        prepared: the scan in model space.
        warnings: what the user should know of it.
        known: what the networks have read so far; a second method goes on from there.
    """

    volume: Volume
    prepared: Prepared
    warnings: tuple[str, ...]
    known: Known = field(default_factory=Known)


def given_brain(volume: Volume, head: Head, mask: np.ndarray) -> BrainMask:
    """A mask that was given, (I, J, K) on the scan's grid, above 0 is brain.

    Raises:
        InputError: it is on another grid, or empty.
    """
    if mask.shape != volume.shape:
        raise InputError(
            f"the brain mask has {mask.shape} voxels and the scan {volume.shape}; "
            "give a mask on the scan's own grid"
        )
    found = mask_to_head(np.asarray(mask) > 0, volume, head)
    if not found.any():
        raise InputError("the brain mask is empty; give one that marks the brain")
    return BrainMask(found, "given")
