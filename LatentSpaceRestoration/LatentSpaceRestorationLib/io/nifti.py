"""What the headers of NIfTI, Analyze and MGH images leave unsaid, or contradict.

nibabel reads them, and mends in silence what it can. What it would guess, and what other readers
read otherwise, is refused here or becomes a note (NIfTI-1 standard, "Method 1 to 3" of its header).
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.analyze import AnalyzeImage
from nibabel.arrayproxy import ArrayProxy
from nibabel.freesurfer.mghformat import MGHImage
from nibabel.nifti1 import Nifti1Image, Nifti1Pair, Nifti1PairHeader
from nibabel.nifti2 import Nifti2Image, Nifti2Pair, Nifti2PairHeader
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError, SpatialImage

from ..errors import SIDE_UNKNOWN, InputError

#: Where the voxels begin in a single file, at the earliest, by the version.
_FIRST_VOXEL = {1: 352, 2: 544}
#: By how much the square of a quaternion's vector may exceed 1: float32 values that were rounded,
#: which ITK and FSL read as well.
_LONGER = 1e-3
#: Spacings, and positions of corners in mm, that differ by less are the same.
_SAME_SPACING, _SAME_PLACE_MM = 0.01, 1.0
#: Where an MGH file says that its geometry is good.
_MGH_FLAG = slice(28, 30)
_GZIP = b"\x1f\x8b"


def open_image(file: Path) -> SpatialImage:
    """Open an image; its voxels are not read.

    Raises:
        InputError: naming the file, if its header says something that cannot be.
        Exception: whatever nibabel raises of what is no image.
    """
    _refuse(file)
    try:
        image: Any = nibabel.load(file)
    except ValueError as error:
        if "w2 should be positive" not in str(error):
            raise
        image = _with_longer_quaternion(file)
    if isinstance(image, Nifti1Image):
        _begin_at_first_voxel(file, image)
    return image


def notes_of(file: Path, image: SpatialImage) -> tuple[str, ...]:
    """Lines on what an image's header leaves in doubt."""
    if isinstance(image, MGHImage):
        return _notes_of_mgh(file)
    if not isinstance(image, Nifti1Pair):
        return (SIDE_UNKNOWN,) if isinstance(image, AnalyzeImage) else ()
    header = image.header
    if int(header["qform_code"]) <= 0 and int(header["sform_code"]) <= 0:
        return (SIDE_UNKNOWN,)
    if int(header["sform_code"]) <= 0:
        return ()
    return (*_spacings(image), *_forms(image))


def _notes_of_mgh(file: Path) -> tuple[str, ...]:
    # nibabel fills in what is not good, and says then that it is.
    with ImageOpener(str(file), "rb") as stream:
        start = stream.read(_MGH_FLAG.stop)
    if int.from_bytes(start[_MGH_FLAG], "big") == 1:
        return ()
    return (SIDE_UNKNOWN, "the file does not say how far voxels are apart: 1 mm is assumed")


def mismatch(file: Path) -> str:
    """What is wrong with a file's name, if a name is what is wrong; else nothing."""
    with file.open("rb") as stream:
        start = stream.read(348)
    is_zipped, says = start.startswith(_GZIP), file.name.lower().endswith(".gz")
    if says and _is_nifti(start):
        return "the name ends in .gz, and the file is not compressed; take .gz off its name"
    if is_zipped and not says and file.name.lower().endswith((".nii", ".hdr", ".img")):
        return "the file is compressed, and its name does not say so; add .gz to its name"
    if is_zipped and says:
        try:
            with gzip.open(file) as stream:
                if stream.read(2) == _GZIP:
                    return "the file is compressed twice; decompress it once"
        except (OSError, EOFError):
            pass
    return ""


def _is_nifti(start: bytes) -> bool:
    return start[344:347] in (b"n+1", b"ni1") or start[4:7] in (b"n+2", b"ni2")


def _with_longer_quaternion(file: Path) -> Any:
    """Read a header whose quaternion is a hair too long, by normalising it."""
    for base in (Nifti1Image, Nifti1Pair, Nifti2Image, Nifti2Pair):
        kind: Any = base.header_class
        header = type(kind.__name__, (kind,), {"quaternion_threshold": -_LONGER})
        lenient: Any = type(base.__name__, (base,), {"header_class": header})
        try:
            return lenient.from_filename(file)
        except Exception:  # of another version, or apart
            continue
    raise InputError(
        f"{file}: the quaternion of its header (quatern_b, c, d) is no rotation; mend the header"
    )


def _refuse(file: Path) -> None:
    """Refuse a NIfTI header that nibabel would mend in silence, or refuse without a reason."""
    header = _as_it_is(file)
    if header is None:
        return
    spacing = np.asarray(header["pixdim"][1:4], float)
    if int(header["sform_code"]) <= 0 and not (np.isfinite(spacing).all() and spacing.all()):
        stated = " x ".join(f"{mm:g}" for mm in spacing)
        raise InputError(
            f"{file}: the spacing in its header is {stated} mm; mend the header (pixdim), or "
            "convert the scan again"
        )
    offset = float(header["vox_offset"])
    if bytes(header["magic"])[:2] == b"n+" and 0 < offset < min(_FIRST_VOXEL.values()):
        raise InputError(
            f"{file}: its header has the voxels begin within it (vox_offset {offset:g}); mend it"
        )
    try:
        header.get_slope_inter()
    except HeaderDataError as error:
        slope, intercept = (float(header[f"scl_{name}"]) for name in ("slope", "inter"))
        raise InputError(
            f"{file}: the scaling in its header is {slope:g} times the voxels, plus {intercept:g}; "
            "mend the header (scl_slope, scl_inter)"
        ) from error


def _as_it_is(file: Path) -> Any:
    """The header of a NIfTI file as it stands there; None if it is none."""
    name = file.name.lower()
    for ending in (".img", ".img.gz"):
        if name.endswith(ending):
            file = file.with_name(file.name[: -len(ending)] + ending.replace("img", "hdr"))
    try:
        with ImageOpener(str(file), "rb") as stream:
            start = stream.read(max(_FIRST_VOXEL.values()))
        for kind in (Nifti1PairHeader, Nifti2PairHeader):
            size = kind.template_dtype.itemsize
            if len(start) >= size and kind.may_contain_header(start):
                return kind(start[:size], check=False)
    except Exception:  # whatever is wrong, reading it will say
        return None
    return None


def _begin_at_first_voxel(file: Path, image: Any) -> None:
    """Let the voxels begin where they can at the earliest: writers leave the offset at 0."""
    first = _FIRST_VOXEL[2 if isinstance(image, Nifti2Image) else 1]
    header = _as_it_is(file)
    if header is None or int(header["vox_offset"]) >= first:
        return
    slope, intercept = image.header.get_slope_inter()
    scaling = (1.0 if slope is None else slope, 0.0 if intercept is None else intercept)
    stated = (image.header.get_data_shape(), image.header.get_data_dtype(), first, *scaling)
    image._dataobj = ArrayProxy(str(file), stated)


def _spacings(image: Nifti1Pair) -> tuple[str, ...]:
    """Whether the steps of the sform and the spacing beside it are the same."""
    stated = np.abs(np.asarray(image.header["pixdim"][1:4], float))
    steps = np.linalg.norm(np.asarray(image.affine)[:3, :3], axis=0)
    if not np.isfinite(stated).all() or (stated == 0).any():
        return ()
    if np.abs(steps / stated - 1.0).max() <= _SAME_SPACING:
        return ()
    by_form, by_header = (" x ".join(f"{mm:.3g}" for mm in one) for one in (steps, stated))
    return (
        f"the header contradicts itself: steps of {by_form} mm by its sform, which was used, and "
        f"{by_header} mm by its pixdim: one of them is wrong",
    )


def _forms(image: Nifti1Pair) -> tuple[str, ...]:
    """Whether sform and qform place the image alike."""
    if int(image.header["qform_code"]) <= 0:
        return ()
    try:
        other = image.header.get_qform()
    except (ValueError, HeaderDataError):
        return ("the qform of the header is no rotation; its sform was used",)
    ends = [(0, n - 1) for n in image.shape[:3]]
    corners = np.stack(np.meshgrid(*ends), axis=-1).reshape(-1, 3)
    ours, theirs = (corners @ a[:3, :3].T + a[:3, 3] for a in (np.asarray(image.affine), other))
    apart = float(np.linalg.norm(ours - theirs, axis=1).max())
    if not apart > _SAME_PLACE_MM or _spacings(image):
        return ()
    turned = "".join(nibabel.aff2axcodes(other)) != "".join(nibabel.aff2axcodes(image.affine))
    how = ", and which way the axes run" if turned else ""
    return (
        f"the header contradicts itself: its sform, which was used, and its qform place the scan "
        f"up to {apart:.0f} mm apart{how}: one of them is wrong",
    )
