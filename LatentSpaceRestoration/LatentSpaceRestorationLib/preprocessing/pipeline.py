"""The one door into model space: how a scan is prepared is a value, and one function does it.

Training, calibration, detection, evaluation and cohorts all go through :class:`Preprocessing`. A
bundle states its settings; nothing else decides how a scan is prepared.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ..errors import InputError
from ..model_space import Grid
from ..runtime.side_by_side import side_by_side
from ..volume import Volume
from .alignment import AlignmentAtlas, own_axes, upright
from .brain_extraction import (
    EXTRACTED,
    EXTRACTED_ML,
    GIVEN,
    BrainMask,
    BrainNetworks,
    extract_brain,
    largest_piece,
)
from .field_of_view import MeasuredPart, measured_part, reduced_part
from .resampling import reduced
from .shading import Shading, unshaded
from .slices import (
    MINIMUM_BRAIN_ML,
    PreparedScan,
    ResampledScan,
    at_resolution,
    cut_like,
    mask_to_head,
    prepare,
    to_head,
)

if TYPE_CHECKING:
    from ..runtime.placement import Placement

#: Voxels above this share of the model's are interpolated with splines, so as not to blur.
_FINE = 0.75
#: At least this share of a brain without a head was put in: its corners alone are more.
_LEAST_PUT_IN = 0.1


@dataclass(frozen=True)
class BrainFinder:
    """Finds the brain.

    Attributes:
        networks: of brain extraction; None where they are not installed.
        spacing_mm: that they were trained at.
        placement: asks where they run.
    """

    networks: BrainNetworks | None
    spacing_mm: float
    placement: Callable[[], Placement]

    def find(self, part: MeasuredPart, head: ResampledScan, spacing_mm: float) -> BrainMask:
        """The brain of a scan.

        Args:
            part: what was measured of the scan.
            head: the same on the patient's axes.
            spacing_mm: of the head.

        Raises:
            InputError: there is no brain, or no network to find it.
        """
        covers = part.volume.voxel_volume_ml * part.volume.array.size
        if covers < MINIMUM_BRAIN_ML:
            spacing = " x ".join(f"{mm:.3g}" for mm in part.volume.spacing)
            raise InputError(
                f"the whole scan has {covers:.3g} ml, less than a brain; check that its spacing "
                f"({spacing}) is in mm, or give a scan of the head"
            )
        if self.networks is None or self.spacing_mm == spacing_mm:
            return self._extract(part, head, spacing_mm)
        finer = to_head(part.volume, self.spacing_mm)
        found = self._extract(part, finer, self.spacing_mm)
        mask = mask_to_head(found.mask, Volume(finer.array, finer.affine), head)
        return replace(found, mask=mask)

    def _extract(self, part: MeasuredPart, head: ResampledScan, spacing_mm: float) -> BrainMask:
        measured = np.zeros(head.array.shape, dtype=bool)
        if _has_no_head(part):
            measured = mask_to_head(part.measured, part.volume, head)
        return self.placement().run(
            "brain",
            lambda _, device: extract_brain(head, measured, spacing_mm, self.networks, device),
        )


def _has_no_head(part: MeasuredPart) -> bool:
    """Whether no more was measured than a brain."""
    share = float(part.measured.mean())
    covers = part.volume.voxel_volume_ml * part.volume.array.size
    return share <= 1.0 - _LEAST_PUT_IN and share * covers <= EXTRACTED_ML


def _continued(part: MeasuredPart, reach_mm: float) -> Volume:
    """A brain without a head, whose values go on outward: no background gets into its rim.

    Ring by ring, a voxel takes the mean of its neighbours that have a value; the same along all
    axes, so that the order in which they are stored does not matter.

    Args:
        part: what was measured.
        reach_mm: how far they go on; beyond is the median.
    """
    known = part.measured.astype(np.float32)
    array = part.volume.array.astype(np.float32)
    middle = np.float32(np.median(array[part.measured]))
    # About the middle, sums lose the least to rounding.
    values = np.where(part.measured, array - middle, np.float32(0.0))
    for _ in range(math.ceil(reach_mm / float(part.volume.spacing.min()))):
        count, total = side_by_side(
            lambda array: ndimage.uniform_filter(array, 3, mode="constant"), (known, values)
        )
        ring = (known == 0) & (count > 1e-3)
        values[ring], known[ring] = total[ring] / count[ring], 1.0
    return replace(part.volume, array=values + middle)


@dataclass(frozen=True)
class AlignedScan:
    """A scan on a grid of the model's spacing, upright if it is known how it lies.

    Attributes:
        volume: the scan.
        part: what was measured of it, no finer than is looked at.
        grid: the model's.
        head: the scan as it is laid.
        mask: (slices, rows, columns) bool, brain on the head's grid.
        found: where the brain comes from.
        turn: (4, 4) RAS of the scan -> RAS of the head, in mm.
        is_aligned: whether it lies as the atlas does; None where there is no atlas.
        native: the brain on the scan's own grid, where it is known there: given, or extracted.
        shading: how to tell its shading; None takes intensities as they are.
    """

    volume: Volume
    part: MeasuredPart
    grid: Grid
    head: ResampledScan
    mask: np.ndarray
    found: BrainMask
    turn: np.ndarray
    is_aligned: bool | None
    native: np.ndarray | None = None
    shading: Shading | None = None

    def prepared(self) -> PreparedScan:
        """Its slices, in model space.

        Raises:
            InputError: too little brain, or no contrast in it.
        """
        # An aligned head lies about the origin, to less than a voxel.
        origin = np.zeros(3) if self.is_aligned else None
        laid = _moved(self.volume, self.turn)
        prepared = prepare(laid, self.head, self.mask, self.grid, origin)
        if self.shading is not None and self.is_aligned:
            prepared = self._without_shading(laid, prepared, self.shading)
        if not np.array_equal(self.turn, np.eye(4)):
            prepared = prepared.moved(np.linalg.inv(self.turn))
        return replace(prepared, is_aligned=self.is_aligned, native_mask=self.native)

    def _without_shading(
        self, laid: Volume, shaded: PreparedScan, shading: Shading
    ) -> PreparedScan:
        found = shading.coefficients(shaded)
        if found is None:
            return shaded
        field = shading.field(found, self.head, self.mask & self.head.inside)
        head, dark = unshaded(self.head, shaded, field)
        prepared = prepare(laid, head, self.mask, self.grid, np.zeros(3))
        cut = cut_like(field, self.head, prepared, 1.0)
        return replace(prepared, shading=cut, dark=dark)


@dataclass(frozen=True)
class Preprocessing:
    """How scans come into a model's space.

    The intensity rule is that of :func:`slices.normalise` in every model of this format.

    Attributes:
        grid: the model's.
        finder: finds the brain.
        atlas: the atlas that heads are aligned with; None takes them as they lie.
        shading: how to tell what shades a scan; None takes intensities as they are.
    """

    grid: Grid
    finder: BrainFinder
    atlas: AlignmentAtlas | None = None
    shading: Shading | None = None

    @classmethod
    def of(
        cls, grid: Grid, finder: BrainFinder, atlas: np.ndarray | None, shading: int = 0
    ) -> Preprocessing:
        """By an atlas, from :func:`alignment.read_atlas`, and the order of the shading."""
        return cls(grid, finder, AlignmentAtlas.of(atlas, grid), Shading.of(atlas, grid, shading))

    def __call__(
        self, volume: Volume, brain_mask: np.ndarray | None = None
    ) -> tuple[PreparedScan, AlignedScan]:
        """A scan in model space, and how it came there; args and errors as of :meth:`lay`."""
        laid = self.lay(volume, brain_mask)
        return laid.prepared(), laid

    def lay(self, volume: Volume, brain_mask: np.ndarray | None = None) -> AlignedScan:
        """Find the brain of a scan, and lay the head as the atlas lies.

        Args:
            volume: the scan.
            brain_mask: (I, J, K), above 0 is brain; None finds it.

        Raises:
            InputError: the scan, or the mask, cannot be used.
        """
        spacing = self.grid.spacing_mm
        # Up to the slices all is done along the scan's own axes, where it is the same, voxel by
        # voxel, however it lies by its header.
        own = np.eye(4)
        if self.atlas is not None:
            own[:3, :3] = own_axes(volume.affine)
        coarser = reduced(volume, spacing)
        own_part = part = measured_part(coarser)
        if coarser is not volume and _has_no_head(part):
            own_part = measured_part(volume)  # its brain comes back voxel by voxel
            part = reduced_part(own_part, volume, spacing)
        along = replace(part, volume=_moved(part.volume, own))
        scan = at_resolution(along.volume, spacing)
        head = to_head(scan, spacing, antialias=False)

        def share_of(native: np.ndarray) -> np.ndarray:
            return part.cut(reduced(replace(volume, array=native), spacing).array)

        native = share = None
        if brain_mask is not None:
            native = _given(brain_mask, volume)
            share = share_of(native)
            found = BrainMask(mask_to_head(share, scan, head), GIVEN)
        else:
            found = self.finder.find(along, head, spacing)
            if found.source == EXTRACTED:
                native = np.zeros(volume.shape, dtype=bool)
                native[own_part.box] = largest_piece(own_part.measured)
                share = share_of(native)
        if _has_no_head(along):
            # As far as smoothing and splines look.
            scan = at_resolution(_continued(along, 3.0 * spacing), spacing)
            head = to_head(scan, spacing, antialias=False)
        pose = None
        if self.atlas is not None:
            brain = found.mask & head.inside
            pose = upright(head, brain, spacing, self.atlas, own[:3, :3])
        turn = np.linalg.inv(own) if pose is None else pose
        mask = found.mask
        if pose is not None or not np.array_equal(own, np.eye(4)):
            laid = _moved(scan, turn)
            if pose is None:
                turned = to_head(laid, spacing, antialias=False)
            else:
                turned = self._through_origin(laid)
            if share is None:
                mask = mask_to_head(mask, Volume(head.array, turn @ head.affine), turned)
            else:
                mask = mask_to_head(share, laid, turned)
            head = turned
        is_aligned = None if self.atlas is None else pose is not None
        turn = turn @ own
        return AlignedScan(
            volume, part, self.grid, head, mask, found, turn, is_aligned, native, self.shading
        )

    def _through_origin(self, laid: Volume) -> ResampledScan:
        """On a grid whose middle is the origin, where an aligned brain has its own.

        Args:
            laid: at the resolution of the grid.
        """
        # The middle of a side of even length lies between two voxels.
        half = self.grid.spacing_mm / 2.0
        through = (half * ((self.grid.columns - 1) % 2), half * ((self.grid.rows - 1) % 2), 0.0)
        # What is to be made coarser is smoothed in any case.
        order = 3 if laid.spacing.max() > _FINE * self.grid.spacing_mm else 1
        return to_head(laid, self.grid.spacing_mm, through=through, order=order, antialias=False)


def _given(mask: np.ndarray, volume: Volume) -> np.ndarray:
    """A mask that was given, above 0 is brain, as bool on the scan's own grid.

    Raises:
        InputError: it is on another grid than the scan, or empty.
    """
    if mask.shape != volume.shape:
        raise InputError(
            f"the brain mask has {mask.shape} voxels and the scan {volume.shape}; "
            "give a mask on the scan's own grid"
        )
    native = np.asarray(mask) > 0
    if not native.any():
        raise InputError("the brain mask is empty; give one that marks the brain")
    return native


def _moved(volume: Volume, transform: np.ndarray) -> Volume:
    return replace(volume, affine=transform @ volume.affine)
