"""Scans on disk: what is read, what is refused and how, and that nothing half-written stays."""

from __future__ import annotations

import contextlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import save_scan
from hypothesis import example, given, settings
from hypothesis import strategies as st
from LatentSpaceRestorationLib.errors import InputError, OutputError
from LatentSpaceRestorationLib.io.images import (
    read_geometry,
    read_mask,
    read_volume,
    scan_name,
    write_volume,
)
from LatentSpaceRestorationLib.volume import Volume

OBLIQUE = np.array(
    [[-1.7, 0.3, 0.2, 81.5], [0.25, 1.9, -0.4, -97.2], [0.1, 0.5, 2.4, -33.3], [0, 0, 0, 1]]
)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("scan.nii.gz", "scan"),
        ("scan.nii", "scan"),
        ("SCAN.NII.GZ", "SCAN"),
        ("a/b/sub-01_T1w.v2.nii.gz", "sub-01_T1w.v2"),
        ("brain.mgz", "brain"),
        (".nii.gz", ".nii"),
    ],
)
def test_scan_name(file: str, name: str) -> None:
    assert scan_name(file) == name


def test_read_applies_slope_and_intercept(tmp_path: Path) -> None:
    stored = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = nibabel.Nifti1Image(stored, OBLIQUE)
    image.header.set_slope_inter(0.5, -3.0)
    # Header scaling is applied to what is saved too, so the array is saved as scaled values.
    image = nibabel.Nifti1Image(stored * 0.5 - 3.0, OBLIQUE, image.header)
    image.header.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "scan.nii.gz")
    volume = read_volume(tmp_path / "scan.nii.gz")
    assert volume.array.dtype == np.float32
    np.testing.assert_allclose(volume.array, stored * 0.5 - 3.0, atol=1e-3)
    np.testing.assert_array_equal(volume.affine, nibabel.load(tmp_path / "scan.nii.gz").affine)
    assert volume.affine.dtype == np.float64
    assert volume.name == "scan"


@pytest.mark.parametrize("file", ["scan.mgz", "scan.img", "scan.nii"])
def test_read_other_formats(tmp_path: Path, noise: np.ndarray, file: str) -> None:
    volume = read_volume(save_scan(tmp_path / file, noise))
    np.testing.assert_array_equal(volume.array, noise)
    np.testing.assert_allclose(volume.affine, np.diag([2, 2, 2, 1.0]))


def test_read_drops_trailing_axes_of_length_one(tmp_path: Path, noise: np.ndarray) -> None:
    volume = read_volume(save_scan(tmp_path / "scan.nii", noise[..., None, None]))
    np.testing.assert_array_equal(volume.array, noise)


def _colours(shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])


def _with(array: np.ndarray, value: float) -> np.ndarray:
    array = array.copy()
    array[1, 2, 3] = value
    return array


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda a: np.stack([a, a], -1), "4 axes (5 x 6 x 7 x 2)", id="4-D"),
        pytest.param(lambda a: a[:, :, :1], "not a volume", id="one-slice"),
        pytest.param(lambda a: a[:, :, 0], "not a volume", id="2-D"),
        pytest.param(lambda a: a * 0 + 4, "every voxel is 4", id="constant"),
        pytest.param(lambda a: _with(a, np.nan), "1 of 210 voxels are NaN", id="nan"),
        pytest.param(lambda a: _with(a, np.inf), "infinite", id="infinite"),
        pytest.param(
            lambda a: _with(a, 1e300).astype(float), "more than is computed with", id="overflow"
        ),
        pytest.param(lambda a: a.astype(np.complex64), "complex", id="complex"),
        pytest.param(lambda a: _colours(a.shape), "colours", id="rgb"),
    ],
)
def test_read_refuses(tmp_path: Path, noise: np.ndarray, change, said: str) -> None:
    array = noise.astype(np.float64) if "more than" in said else noise
    path = save_scan(tmp_path / "scan.nii.gz", change(array))
    _refused(path, said)


def _refused(path: Path, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_volume(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert said in message
    assert "\n" not in message
    assert ";" in message, "says what to do"


def test_read_refuses_what_is_no_image(tmp_path: Path, noise: np.ndarray) -> None:
    _refused(tmp_path / "none.nii.gz", "no such file")
    _refused(tmp_path, "is a folder without a DICOM series")
    for name, content in [("a.nii.gz", b"text"), ("b.txt", b"text"), ("c.nii", b"")]:
        (tmp_path / name).write_bytes(content)
        _refused(tmp_path / name, "not an image")


@pytest.mark.parametrize("file", ["whole.nii", "whole.nii.gz"])
def test_read_refuses_a_file_cut_short(tmp_path: Path, noise: np.ndarray, file: str) -> None:
    whole = save_scan(tmp_path / file, noise).read_bytes()
    for share in (0.3, 0.9):
        cut = tmp_path / f"cut{share}{''.join(Path(file).suffixes)}"
        cut.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InputError, match=r"damaged|not an image"):
            read_volume(cut)


def test_read_refuses_an_affine_that_cannot_be_inverted(tmp_path: Path, noise: np.ndarray) -> None:
    flat = np.diag([2.0, 2.0, 2.0, 1.0])
    flat[:3, 2] = flat[:3, 1]
    _refused(save_scan(tmp_path / "flat.nii", noise, flat), "cannot be inverted")
    image = nibabel.Nifti1Image(noise, np.eye(4))
    image.header["srow_x"] = np.nan
    image.header["sform_code"] = 1
    header = image.header.copy()
    nibabel.save(nibabel.Nifti1Image(noise, None, header), tmp_path / "nan.nii")
    _refused(tmp_path / "nan.nii", "cannot be inverted")


@settings(max_examples=60)
@given(data=st.binary(max_size=400), ending=st.sampled_from([".nii", ".nii.gz", ".mgz", ".img"]))
def test_reading_any_bytes_gives_one_line(tmp_path_factory, data: bytes, ending: str) -> None:
    path = tmp_path_factory.mktemp("bytes") / f"scan{ending}"
    path.write_bytes(data)
    with pytest.raises(InputError):
        read_volume(path)


@settings(max_examples=60)
@example(place=43, byte=128)  # a negative length of the first axis
@given(place=st.integers(0, 351), byte=st.integers(0, 255))
def test_a_changed_header_byte_is_read_or_refused(tmp_path_factory, place: int, byte: int) -> None:
    folder = tmp_path_factory.mktemp("header")
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    path = save_scan(folder / "scan.nii", array)
    content = bytearray(path.read_bytes())
    content[place] = byte
    path.write_bytes(content)
    with contextlib.suppress(InputError):  # anything else is a failure
        volume = read_volume(path)
        assert np.isfinite(volume.array).all()
        assert volume.array.ndim == 3


def test_mask_on_the_scans_grid(tmp_path: Path, noise: np.ndarray) -> None:
    scan = read_volume(save_scan(tmp_path / "scan.nii", noise, OBLIQUE))
    inside = noise > 100
    for dtype, one in [(np.uint8, 1), (np.uint8, 255), (np.float32, 1.0)]:
        path = save_scan(tmp_path / "mask.nii.gz", (inside * one).astype(dtype), OBLIQUE)
        np.testing.assert_array_equal(read_mask(path, scan), inside)
    full = save_scan(tmp_path / "full.nii", np.ones(noise.shape, np.uint8), OBLIQUE)
    assert read_mask(full, scan).all()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda a: (np.ones((5, 6, 8), np.uint8), OBLIQUE), "5 x 6 x 8 voxels and the scan 5 x 6"),
        (lambda a: (np.ones(a.shape, np.uint8), np.diag([2, 2, 2, 1.0])), "lies elsewhere"),
        (lambda a: (np.zeros(a.shape, np.uint8), OBLIQUE), "is empty"),
    ],
)
def test_mask_refused(tmp_path: Path, noise: np.ndarray, make, said: str) -> None:
    scan = Volume(noise, OBLIQUE)
    array, affine = make(noise)
    path = save_scan(tmp_path / "mask.nii.gz", array, affine)
    with pytest.raises(InputError, match=said) as caught:
        read_mask(path, scan)
    assert str(caught.value).startswith(str(path))


def _nifti(tmp_path: Path, kind: str, array: np.ndarray) -> Path:
    """An image whose place in the world is told by its sform, its qform, or neither."""
    two = kind == "nifti-2"
    image = (nibabel.Nifti2Image if two else nibabel.Nifti1Image)(array, OBLIQUE)
    if kind == "qform":
        turn = np.linalg.qr(OBLIQUE[:3, :3])[0]
        affine = np.eye(4)
        affine[:3, :3] = turn * [0.9, 1.1, 1.3]
        affine[:3, 3] = [1 / 3, 2 / 7, -5 / 11]
        image = nibabel.Nifti1Image(array, None)
        image.set_sform(None, code=0)
        image.set_qform(affine, code=1)
    if kind == "neither":
        image = nibabel.Nifti1Image(array, None)
        image.header.set_zooms((1.1, 1.2, 1.3) + (1.0,) * (array.ndim - 3))
    image.header["descrip"] = b"Doe^Jane"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Doe^Jane"))
    path = tmp_path / "scan.nii.gz"
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("kind", ["sform", "qform", "neither", "nifti-2"])
@pytest.mark.parametrize("extra", [(), (1,)])
def test_results_have_the_scans_exact_geometry(
    tmp_path: Path, noise: np.ndarray, kind: str, extra: tuple[int, ...]
) -> None:
    path = _nifti(tmp_path, kind, noise.reshape(noise.shape + extra))
    scan = read_volume(path)
    source = nibabel.load(path)
    for array in (noise, noise > 100, (noise > 100).astype(np.uint8)):
        target = tmp_path / "result.nii.gz"
        write_volume(target, Volume(array, scan.affine), like=read_geometry(path))
        result = nibabel.load(target)
        assert result.shape == source.shape
        np.testing.assert_array_equal(result.affine, source.affine)
        assert result.get_data_dtype() == (np.float32 if array.dtype == np.float32 else np.uint8)
        np.testing.assert_array_equal(np.asarray(result.dataobj).reshape(array.shape), array)
        for field in ("qform_code", "sform_code", "pixdim", "xyzt_units"):
            np.testing.assert_array_equal(result.header[field], source.header[field])
        assert b"Doe" not in target.read_bytes()
        assert b"Doe" not in result.header.binaryblock
        assert not result.header.extensions


def test_written_volume_comes_back(tmp_path: Path, noise: np.ndarray) -> None:
    for affine in (OBLIQUE, np.diag([-1.0, 1.5, 2.0, 1.0])):
        write_volume(tmp_path / "v.nii.gz", Volume(noise, affine))
        back = read_volume(tmp_path / "v.nii.gz")
        np.testing.assert_array_equal(back.array, noise)
        np.testing.assert_allclose(back.affine, affine, rtol=1e-6)
    image = nibabel.load(tmp_path / "v.nii.gz")
    np.testing.assert_allclose(image.get_qform(coded=False), image.affine, atol=1e-5)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_result_of_an_mgh_scan(tmp_path: Path, noise: np.ndarray) -> None:
    path = save_scan(tmp_path / "scan.mgz", noise)
    scan = read_volume(path)
    write_volume(tmp_path / "r.nii.gz", Volume(noise, scan.affine), like=read_geometry(path))
    np.testing.assert_allclose(nibabel.load(tmp_path / "r.nii.gz").affine, scan.affine, atol=1e-5)


def test_write_leaves_nothing_when_it_fails(tmp_path: Path, noise: np.ndarray) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file.+cannot be written"):
        write_volume(tmp_path / "file" / "v.nii.gz", Volume(noise, OBLIQUE))
    (tmp_path / "taken.nii.gz").mkdir()
    with pytest.raises(OutputError, match=r"taken\.nii\.gz"):
        write_volume(tmp_path / "taken.nii.gz", Volume(noise, OBLIQUE))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "taken.nii.gz"]


def test_write_refuses_other_voxels_and_shapes(tmp_path: Path, noise: np.ndarray) -> None:
    with pytest.raises(ValueError, match="int32"):
        write_volume(tmp_path / "v.nii", Volume(noise.astype(np.int32), OBLIQUE))
    like = read_geometry(save_scan(tmp_path / "scan.nii", noise))
    with pytest.raises(ValueError, match="shape"):
        write_volume(tmp_path / "v.nii", Volume(noise[1:], OBLIQUE), like=like)
