"""Results in DICOM: the mask as a segmentation, the map as a parametric map.

Both lie on the slices of the scan's series, in its frame of reference, refer to its instances, and
belong to its patient and study, as its headers state them; nothing is added about the patient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..errors import InputError
from ..io.dicom_headers import affine_of, check_extra, read_headers
from .files import Extra, FileResult

if TYPE_CHECKING:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.pm import ParametricMap
    from highdicom.seg import Segmentation
    from pydicom import Dataset

    from ..detection import Detection

MASK, MAP = "anomaly-mask.dcm", "anomaly-map.dcm"
_MANUFACTURER = "Latent Space Restoration"
_NOTICE = "Research use, not for diagnosis"
#: As the panel outlines what is flagged.
_COLOUR = (64, 224, 255)
#: What highdicom and pydicom raise of values that do not fit.
_UNUSABLE = (AttributeError, KeyError, LookupError, TypeError, ValueError)


def dicom_objects() -> Extra:
    """Mask and map in DICOM, as further files of a result.

    Raises:
        LSRError: highdicom or SimpleITK is missing.
    """
    check_extra()

    def prepare(scan: Path, series: str) -> Any:
        headers = read_headers(scan, series)
        _try(scan, headers)
        return lambda result, files: _write(headers, result, files)

    return Extra((MASK, MAP), prepare)


def _try(scan: Path, headers: Sequence[Dataset]) -> None:
    """Refuse, before anything is computed, headers that results cannot refer to.

    Raises:
        InputError: naming the scan and what is wrong with them.
    """
    nothing = np.zeros((1, int(headers[0].Rows), int(headers[0].Columns)), np.float32)
    try:
        _segmentation(headers[:1], nothing > 0, {}, "")
        _parametric_map(headers[:1], nothing, "")
    except _UNUSABLE as error:
        raise _cannot_refer(scan, error) from error


def _cannot_refer(scan: Path, error: Exception) -> InputError:
    return InputError(
        f"{scan}: results in DICOM cannot refer to its headers "
        f"({' '.join(str(error).split())}); leave out --dicom"
    )


def _write(headers: Sequence[Dataset], result: FileResult, files: Mapping[str, Path]) -> None:
    volume = result.volume
    rows, columns = int(headers[0].Rows), int(headers[0].Columns)
    apart = np.abs(affine_of(headers) - volume.affine).max() if len(headers) > 1 else np.inf
    if volume.shape != (columns, rows, len(headers)) or not apart < 0.01:
        raise InputError(
            f"{result.scan}: its headers place its slices elsewhere than they were read; leave out "
            "--dicom"
        )
    try:
        segmentation(headers, result).save_as(files[MASK])
        parametric_map(headers, result).save_as(files[MAP])
    except _UNUSABLE as error:
        raise _cannot_refer(result.scan, error) from error


def segmentation(headers: Sequence[Dataset], result: FileResult) -> Segmentation:
    """The mask as a binary segmentation of one segment, an unnamed abnormality of the brain.

    Args:
        headers: of the scan's slices, in order.
        result: on them, (column, row, slice).
    """
    found = result.detection
    return _segmentation(headers, _frames(found.anomaly_mask > 0), _told(found), found.model)


def _segmentation(
    headers: Sequence[Dataset], frames: np.ndarray, told: Mapping[str, str], model: str
) -> Segmentation:
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
    from highdicom.seg import Segmentation as Sop
    from pydicom.sr.codedict import codes

    segment = SegmentDescription(
        segment_number=1,
        segment_label="Anomaly",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        # As in the panel: of the types that viewers list, the one for what has no name yet.
        segmented_property_type=codes.SCT.Mass,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=_algorithm(told),
        anatomic_regions=[codes.SCT.Brain],
        display_color=CIELabColor.from_rgb(*_COLOUR),
    )
    return Sop(
        source_images=headers,
        pixel_array=frames,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        # An empty slice says that nothing is there; a missing one would not.
        omit_empty_frames=False,
        content_label="ANOMALY",
        content_description=f"Anomaly mask. {_NOTICE}",
        **_series(model, 901, "Anomaly mask"),
    )


def parametric_map(headers: Sequence[Dataset], result: FileResult) -> ParametricMap:
    """The anomaly map, float32, each value as it is.

    Args:
        headers: of the scan's slices, in order.
        result: on them, (column, row, slice).
    """
    found = result.detection
    return _parametric_map(headers, _frames(found.anomaly_map.astype(np.float32)), found.model)


def _parametric_map(headers: Sequence[Dataset], frames: np.ndarray, model: str) -> ParametricMap:
    from highdicom import ContentQualificationValues, VOILUTTransformation
    from highdicom.pm import ParametricMap as Sop
    from highdicom.pm import RealWorldValueMapping
    from pydicom.sr.codedict import codes

    top = max(float(frames.max()), 1e-6)
    meaning = RealWorldValueMapping(
        lut_label="ANOMALY",
        lut_explanation="Anomaly map, higher is more unusual",
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, top),
        slope=1.0,
        intercept=0.0,
    )
    sop = Sop(
        source_images=headers,
        pixel_array=frames,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[meaning],
        voi_lut_transformations=[VOILUTTransformation(top / 2.0, top)],
        content_label="ANOMALY",
        content_description=f"Anomaly map. {_NOTICE}",
        content_qualification=ContentQualificationValues.RESEARCH,
        **_series(model, 902, "Anomaly map"),
    )
    sop.BodyPartExamined = "BRAIN"
    return sop


def _series(model: str, number: int, description: str) -> dict[str, Any]:
    """A new series of one instance, and what made it. Software has a version for a serial number.

    Every run has UIDs of its own: two instances of one UID must not differ.
    """
    from highdicom import UID

    return {
        "series_instance_uid": UID(),
        "series_number": number,
        "sop_instance_uid": UID(),
        "instance_number": 1,
        "manufacturer": _MANUFACTURER,
        "manufacturer_model_name": model,
        "software_versions": __version__,
        "device_serial_number": __version__,
        "series_description": f"{description}. {_NOTICE}",
    }


def _frames(array: np.ndarray) -> np.ndarray:
    """(column, row, slice) -> (slice, row, column)."""
    return np.ascontiguousarray(array.transpose(2, 1, 0))


def _algorithm(told: Mapping[str, str]) -> AlgorithmIdentificationSequence:
    from highdicom import AlgorithmIdentificationSequence
    from pydicom.sr.codedict import codes

    return AlgorithmIdentificationSequence(
        name=_MANUFACTURER,
        family=codes.DCM.ArtificialIntelligence,
        version=__version__,
        parameters=dict(told),
    )


def _told(found: Detection) -> dict[str, str]:
    """How it was made."""
    return {
        "model": found.model,
        "mode": found.mode,
        "method": found.method,
        "restorations": str(found.restorations),
        "seed": str(found.seed),
        "threshold": f"{found.threshold:.6g}",
        "threshold percentile": f"{found.threshold_percentile:g}",
    }
