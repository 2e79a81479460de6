"""DICOM series for tests, slice by slice, as a scanner would export them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

#: Somebody, so that tests can tell what is taken from a header.
PATIENT = {
    "PatientName": "Doe^Jane",
    "PatientID": "J-17",
    "PatientBirthDate": "19700203",
    "PatientSex": "F",
    "StudyDate": "20240506",
    "StudyID": "S-4",
    "AccessionNumber": "A-9",
}
SLOPE, INTERCEPT = 2.0, 10.0


def write_series(
    folder: Path,
    stored: np.ndarray,
    affine: np.ndarray,
    *,
    number: int = 3,
    without: tuple[int, ...] = (),
    tags: Mapping[str, object] | None = None,
) -> list[FileDataset]:
    """Write a series of MR images, their names in no order.

    Args:
        folder: is made.
        stored: (column, row, slice) int16; the intensity is ``SLOPE`` times that, and
            ``INTERCEPT``.
        affine: (4, 4) index -> RAS in mm, axes at right angles, right-handed in LPS: slices go
            along the normal.
        number: of the series.
        without: slices that are missing.
        tags: instead of others; None removes one.

    Returns:
        what was written, in the order of the slices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = lps[:3, :3] / spacing
    series = generate_uid(entropy_srcs=[str(folder.name), str(number)])
    written = []
    for k in range(stored.shape[2]):
        if k in without:
            continue
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, str(k)])
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        header.SOPClassUID = meta.MediaStorageSOPClassUID
        header.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        header.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
        header.SeriesInstanceUID = series
        header.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame"])
        header.Modality, header.SeriesNumber = "MR", number
        header.Manufacturer, header.InstanceNumber = "Scanner", stored.shape[2] - k
        header.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        header.ImagePositionPatient = [f"{x:.9g}" for x in lps[:3, :3] @ (0, 0, k) + lps[:3, 3]]
        header.ImageOrientationPatient = [f"{x:.12g}"[:16] for x in directions[:, :2].T.ravel()]
        header.PixelSpacing = [f"{spacing[1]:.9g}", f"{spacing[0]:.9g}"]
        # Thinner than they are apart: there is a gap between slices.
        header.SliceThickness = f"{0.8 * spacing[2]:.6g}"
        header.SpacingBetweenSlices = f"{spacing[2]:.9g}"
        header.Rows, header.Columns = stored.shape[1], stored.shape[0]
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated = header.BitsStored = 16
        header.HighBit, header.PixelRepresentation = 15, 1
        header.RescaleSlope, header.RescaleIntercept = SLOPE, INTERCEPT
        header.PixelData = np.ascontiguousarray(stored[:, :, k].T.astype("<i2")).tobytes()
        for keyword, value in {**PATIENT, **(tags or {})}.items():
            if value is None:
                delattr(header, keyword)
            else:
                setattr(header, keyword, value)
        name = hashlib.sha256(f"{number} {k}".encode()).hexdigest()[:8]
        header.save_as(folder / f"IM-{name}", enforce_file_format=True)
        written.append(header)
    return written
