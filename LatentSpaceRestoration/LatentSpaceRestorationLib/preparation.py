"""From a scan to model space: finding the brain, at the spacing that its network knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from .brain import BrainMask, extract_brain
from .errors import InputError
from .methods.evidence import Known
from .pose import Places, own_axes, upright
from .preprocessing import (
    MINIMUM_BRAIN_ML,
    Grid,
    Head,
    Prepared,
    mask_to_head,
    prepare,
    to_head,
)
from .volume import Volume

if TYPE_CHECKING:
    from .memory import Placement
    from .networks.unet import UNet3D


#: Voxels above this share of the model's are interpolated with splines, so as not to blur.
_FINE = 0.75


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


def into_model_space(
    volume: Volume,
    grid: Grid,
    finder: BrainFinder,
    places: Places | None = None,
    brain_mask: np.ndarray | None = None,
) -> tuple[Prepared, BrainMask]:
    """Find the brain of a scan and bring it into model space, upright if it is known how it lies.

    Args:
        volume: the scan.
        grid: the model's.
        finder: finds the brain.
        places: what the head is to fit; None leaves it as it lies.
        brain_mask: (I, J, K), above 0 is brain; None finds it.

    Raises:
        InputError: the scan cannot be used.
    """
    # Up to the slices all is done along the scan's own axes, where it is the same, voxel by voxel,
    # however it lies by its header.
    own = np.eye(4)
    if places is not None:
        own[:3, :3] = own_axes(volume.affine)
    along = _moved(volume, own)
    head = to_head(along, grid.spacing_mm)
    if brain_mask is None:
        found = finder.find(along, head, grid.spacing_mm)
    else:
        found = given_brain(along, head, brain_mask)
    pose = None
    if places is not None:
        brain = found.mask & head.inside
        pose = upright(head, brain, grid.spacing_mm, places, own[:3, :3])
    if pose is None and np.array_equal(own, np.eye(4)):
        return prepare(volume, head, found.mask, grid), found
    turn = np.linalg.inv(own) if pose is None else pose
    laid = _moved(along, turn)
    if pose is None:
        turned = to_head(laid, grid.spacing_mm)
    else:
        # The middle of a side of even length lies between two voxels.
        half = grid.spacing_mm / 2.0
        through = (half * ((grid.columns - 1) % 2), half * ((grid.rows - 1) % 2), 0.0)
        # What is to be made coarser is smoothed in any case.
        order = 3 if volume.spacing.max() > _FINE * grid.spacing_mm else 1
        turned = to_head(laid, grid.spacing_mm, through=through, order=order)
    if brain_mask is None:
        mask = mask_to_head(found.mask, Volume(head.array, turn @ head.affine), turned)
    else:
        mask = mask_to_head(brain_mask > 0, laid, turned)
    prepared = prepare(laid, turned, mask, grid, None if pose is None else np.zeros(3))
    return prepared.moved(np.linalg.inv(turn @ own)), found


def _moved(volume: Volume, transform: np.ndarray) -> Volume:
    return replace(volume, affine=transform @ volume.affine)
