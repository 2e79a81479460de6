"""Arrays along the patient's axes, to right, front and above, for pictures and pages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from ..volume import Box, Volume, box_of


@dataclass(frozen=True)
class PatientAxes:
    """How a scan's own axes lie along the patient's: those of an oblique scan, the nearest.

    Attributes:
        orientation: (3, 2), as nibabel has it: of each axis, the patient's axis and 1 or -1.
        affine: (4, 4) voxel index along the patient's axes -> RAS in mm.
    """

    orientation: np.ndarray
    affine: np.ndarray

    @classmethod
    def of(cls, volume: Volume) -> PatientAxes:
        """The axes of a scan."""
        orientation = io_orientation(volume.affine)
        return cls(orientation, volume.affine @ inv_ornt_aff(orientation, volume.shape))

    @property
    def spacing(self) -> np.ndarray:
        """(3,) mm, to right, front and above."""
        spacing: np.ndarray = np.linalg.norm(self.affine[:3, :3], axis=0)
        return spacing

    def turned(self, array: np.ndarray) -> np.ndarray:
        """An (I, J, K) array of the scan's grid, as (R, A, S)."""
        turned: np.ndarray = apply_orientation(array, self.orientation)
        return turned

    def around(self, mask: np.ndarray, margin_mm: float) -> Box:
        """The box of the non-zero voxels of an (R, A, S) mask with a margin; all if there are none.

        It ends with the grid.
        """
        return box_of(mask, np.ceil(margin_mm / self.spacing))
