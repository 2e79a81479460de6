"""What files of strangers leave unsaid or contradict: done exactly, noted, or refused."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from conftest import Lsr, one_line, save_scan
from LatentSpaceRestorationLib.datasets.read import read_subjects
from LatentSpaceRestorationLib.errors import SIDE_UNKNOWN, InputError
from LatentSpaceRestorationLib.io import read_volume
from LatentSpaceRestorationLib.io.files import content_hash, printable, read_text
from LatentSpaceRestorationLib.io.images import files_beside, files_of, read_geometry, write_volume

AFFINE = np.array([[-2.0, 0, 0, 9], [0, 1.5, 0, -7], [0, 0, 3.0, 5], [0, 0, 0, 1]])


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return line


# NIfTI: numbers are the offsets of fields in the header of version 1


def patched(path: Path, array: np.ndarray, codes: tuple[int, int], *edits: Any) -> Path:
    """A NIfTI file with qform and sform codes, and fields overwritten: (offset, format, values)."""
    image = nibabel.Nifti1Image(array, AFFINE)
    image.set_qform(AFFINE if codes[0] else None, codes[0])
    image.set_sform(AFFINE if codes[1] else None, codes[1])
    nibabel.save(image, path)
    zipped = path.name.endswith(".gz")
    data = bytearray(gzip.decompress(path.read_bytes()) if zipped else path.read_bytes())
    for offset, kind, *values in edits:
        struct.pack_into("<" + kind, data, offset, *values)
    path.write_bytes(gzip.compress(bytes(data)) if zipped else bytes(data))
    return path


def test_a_spacing_of_0_is_refused_where_nothing_else_places_voxels(
    tmp_path: Path, noise: np.ndarray
) -> None:
    line = refusal(patched(tmp_path / "a.nii.gz", noise, (1, 0), (80, "f", 0.0)))
    assert "2" not in line.split("is ")[0].removeprefix(str(tmp_path))
    assert "0 x 1.5 x 3 mm; mend the header" in line
    placed = patched(tmp_path / "b.nii", noise, (0, 1), (80, "f", 0.0))
    np.testing.assert_allclose(read_volume(placed).affine, AFFINE, atol=1e-6)


@pytest.mark.parametrize("kind", ["codes", "analyze", "mgz", "nrrd", "mha"])
def test_a_side_that_no_header_tells_is_a_note(
    tmp_path: Path, noise: np.ndarray, kind: str
) -> None:
    if kind == "codes":
        path = patched(tmp_path / "a.nii", noise, (0, 0))
    elif kind == "analyze":
        path = tmp_path / "a.img"
        nibabel.save(nibabel.AnalyzeImage(noise, None), path)
    elif kind == "mgz":
        path = tmp_path / "a.mgh"
        nibabel.save(nibabel.MGHImage(noise, AFFINE), path)
        data = bytearray(path.read_bytes())
        struct.pack_into(">h", data, 28, 0)
        path.write_bytes(bytes(data))
    else:
        path = by_hand(tmp_path, noise, kind, spacing=True, directions=False)
    assert read_volume(path).notes[0] == SIDE_UNKNOWN


def test_what_a_header_tells_is_no_note(tmp_path: Path, noise: np.ndarray) -> None:
    assert read_volume(patched(tmp_path / "a.nii", noise, (1, 1))).notes == ()
    path = tmp_path / "a.mgz"
    nibabel.save(nibabel.MGHImage(noise, AFFINE), path)
    assert read_volume(path).notes == ()


def test_forms_that_contradict_each_other_are_a_note_with_both(
    tmp_path: Path, noise: np.ndarray
) -> None:
    halved = (AFFINE * [[0.5, 0.5, 0.5, 1]] * 1.0)[:3].ravel()
    half = patched(tmp_path / "a.nii", noise, (1, 1), (280, "12f", *halved))
    (line,) = read_volume(half).notes
    assert "1 x 0.75 x 1.5 mm by its sform" in line
    assert "2 x 1.5 x 3 mm by its pixdim" in line
    mirrored = AFFINE.copy()
    mirrored[0] *= -1
    other = patched(tmp_path / "b.nii", noise, (1, 1), (280, "12f", *mirrored[:3].ravel()))
    (line,) = read_volume(other).notes
    assert "which way the axes run" in line


def test_a_quaternion_a_hair_too_long_is_read(tmp_path: Path, noise: np.ndarray) -> None:
    turn = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]])  # by 180 degrees: its real part is 0
    affine = np.eye(4)
    affine[:3, :3] = 2.0 * turn
    image = nibabel.Nifti1Image(noise, affine)
    image.set_qform(affine, 1)
    image.set_sform(None, 0)
    nibabel.save(image, tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    vector = np.array(struct.unpack_from("<3f", data, 256)) * (1.0 + 2e-6)
    struct.pack_into("<3f", data, 256, *vector)
    (tmp_path / "a.nii").write_bytes(bytes(data))
    scan = read_volume(tmp_path / "a.nii")
    np.testing.assert_allclose(scan.affine, affine, atol=1e-4)
    # What is written of it is read by those, too, who do not take such a quaternion.
    write_volume(tmp_path / "b.nii", scan, like=read_geometry(tmp_path / "a.nii"))
    np.testing.assert_allclose(nibabel.load(tmp_path / "b.nii").affine, affine, atol=1e-4)


def test_voxels_begin_behind_the_header_whatever_the_offset(
    tmp_path: Path, noise: np.ndarray
) -> None:
    path = patched(tmp_path / "a.nii.gz", noise, (1, 1), (108, "f", 0.0))
    np.testing.assert_array_equal(read_volume(path).array, noise)
    assert "begin within it" in refusal(
        patched(tmp_path / "b.nii", noise, (1, 1), (108, "f", 16.0))
    )


def test_a_scaling_that_is_no_number_is_named(tmp_path: Path, noise: np.ndarray) -> None:
    path = patched(tmp_path / "a.nii", noise, (1, 1), (112, "2f", 1.0, float("nan")))
    assert "plus nan; mend the header (scl_slope" in refusal(path)


def test_a_name_that_says_another_compression_is_named(tmp_path: Path, noise: np.ndarray) -> None:
    plain = save_scan(tmp_path / "a.nii", noise)
    os.rename(plain, tmp_path / "b.nii.gz")
    assert "take .gz off its name" in refusal(tmp_path / "b.nii.gz")
    zipped = save_scan(tmp_path / "c.nii.gz", noise)
    (tmp_path / "e.nii.gz").write_bytes(gzip.compress(zipped.read_bytes()))
    os.rename(zipped, tmp_path / "d.nii")
    assert "add .gz to its name" in refusal(tmp_path / "d.nii")
    assert "compressed twice" in refusal(tmp_path / "e.nii.gz")


def test_notes_of_a_file_stand_in_the_result(
    lsr: Lsr, tiny_model: Path, brain_scan: Path, tmp_path: Path
) -> None:
    image = nibabel.load(brain_scan)
    image.set_qform(None, 0)
    image.set_sform(None, 0)
    nibabel.save(image, tmp_path / "a.nii.gz")
    options = ("--model", tiny_model, "--restorations", 1, "--device", "cpu")
    status, out, _ = lsr("detect", tmp_path / "a.nii.gz", "-o", tmp_path / "out", *options)
    assert status == 0
    assert f"note: {SIDE_UNKNOWN}" in out


# NRRD and MetaImage


def by_hand(
    folder: Path, array: np.ndarray, kind: str, *, spacing: bool = True, directions: bool = True
) -> Path:
    """A file whose header says only so much."""
    body = np.asfortranarray(array.astype("<f4")).tobytes("F")
    sizes = " ".join(map(str, array.shape))
    if kind == "nrrd":
        lines = ["NRRD0004", "type: float", "dimension: 3", f"sizes: {sizes}"]
        if directions:
            lines += ["space: left-posterior-superior"]
            lines += ["space directions: (2,0,0) (0,1.5,0) (0,0,3)", "space origin: (0,0,0)"]
        elif spacing:
            lines += ["spacings: 2 1.5 3"]
        lines += ["endian: little", "encoding: raw", "", ""]
    else:
        lines = ["ObjectType = Image", "NDims = 3", "BinaryData = True"]
        lines += ["BinaryDataByteOrderMSB = False"]
        if directions:
            lines += ["TransformMatrix = 1 0 0 0 1 0 0 0 1", "Offset = 0 0 0"]
        if spacing:
            lines += ["ElementSpacing = 2 1.5 3"]
        lines += [f"DimSize = {sizes}", "ElementType = MET_FLOAT", "ElementDataFile = LOCAL", ""]
    path = folder / f"by-hand.{kind}"
    path.write_bytes("\n".join(lines).encode() + body)
    return path


@pytest.mark.parametrize("kind", ["nrrd", "mha"])
def test_a_header_without_spacing_is_refused(tmp_path: Path, noise: np.ndarray, kind: str) -> None:
    pytest.importorskip("SimpleITK")
    path = by_hand(tmp_path, noise, kind, spacing=False, directions=False)
    assert "does not say how far voxels are apart" in refusal(path)
    whole = by_hand(tmp_path, noise, kind)
    upper = whole.with_name(whole.name.upper())
    os.rename(whole, upper)
    found = read_volume(upper)
    assert found.notes == ()
    np.testing.assert_array_equal(found.array, noise)
    np.testing.assert_allclose(found.spacing, (2.0, 1.5, 3.0))


def test_voxels_in_another_file_belong_to_the_image(tmp_path: Path, noise: np.ndarray) -> None:
    itk = pytest.importorskip("SimpleITK")
    image = itk.GetImageFromArray(noise.transpose(2, 1, 0))
    for ending in ("nhdr", "mhd"):
        header = tmp_path / f"scan.{ending}"
        itk.WriteImage(image, str(header))
        (data,) = files_beside(header)
        os.rename(data, tmp_path / f"voxels-{ending}")
        header.write_text(header.read_text().replace(data.name, f"voxels-{ending}"))
        assert files_beside(header) == [tmp_path / f"voxels-{ending}"]
        os.remove(tmp_path / f"voxels-{ending}")
        assert f"its voxels are in voxels-{ending}, which is not there" in refusal(header)
    nibabel.save(nibabel.Nifti1Pair(noise, AFFINE), tmp_path / "pair.hdr")
    assert files_beside(tmp_path / "pair.img") == [tmp_path / "pair.hdr"]
    assert files_beside(tmp_path / "pair.hdr") == [tmp_path / "pair.img"]


# DICOM


@pytest.fixture
def stored() -> np.ndarray:
    """(column, row, slice) int16, no two slices alike."""
    return np.random.default_rng(0).integers(0, 900, (8, 7, 6)).astype(np.int16)


def series(folder: Path, stored: np.ndarray, **options: Any) -> Path:
    """A DICOM series on an axial grid."""
    pytest.importorskip("SimpleITK")
    pytest.importorskip("pydicom")
    from dicom_files import write_series

    affine = np.diag([-2.0, -1.5, 3.0, 1.0])
    write_series(folder, stored, affine, **options)
    return folder


def changed(folder: Path, change: Callable[[Any, int], None]) -> Path:
    """Change the headers of a series; the second argument is the number of the slice."""
    from pydicom import dcmread

    for file in sorted(folder.iterdir()):
        header = dcmread(file)
        place = float(header.ImagePositionPatient[2])
        change(header, round(place / 3.0))
        header.save_as(file)
    return folder


def test_slices_that_do_not_say_where_they_lie_are_refused(
    tmp_path: Path, stored: np.ndarray
) -> None:
    def lose(header: Any, _: int) -> None:
        del header.ImagePositionPatient

    def one_place(header: Any, _: int) -> None:
        header.ImagePositionPatient = [0, 0, 0]

    assert "do not say where they lie" in refusal(changed(series(tmp_path / "a", stored), lose))
    line = refusal(changed(series(tmp_path / "b", stored), one_place))
    assert "lie at the same place" in line


def test_slices_that_do_not_say_how_they_are_turned_are_a_note(
    tmp_path: Path, stored: np.ndarray
) -> None:
    def lose(header: Any, _: int) -> None:
        del header.ImageOrientationPatient

    plain = read_volume(series(tmp_path / "a", stored))
    found = read_volume(changed(series(tmp_path / "b", stored), lose))
    assert plain.notes == ()
    assert "axial is assumed" in found.notes[0]
    np.testing.assert_array_equal(found.affine, plain.affine)


@pytest.mark.parametrize("degrees", [2.0, 15.0])
def test_a_tilted_gantry_is_a_sheared_grid(
    tmp_path: Path, stored: np.ndarray, degrees: float
) -> None:
    slope = float(np.tan(np.radians(degrees)))

    def tilt(header: Any, number: int) -> None:
        x, y, z = map(float, header.ImagePositionPatient)
        header.ImagePositionPatient = [x, y + 3.0 * slope * number, z]

    plain = read_volume(series(tmp_path / "a", stored))
    found = read_volume(changed(series(tmp_path / "b", stored), tilt))
    np.testing.assert_array_equal(found.array, plain.array)
    expected = plain.affine.copy()
    expected[1, 2] -= 3.0 * slope
    np.testing.assert_allclose(found.affine, expected, atol=1e-6)


def test_slices_that_drift_or_turn_are_refused(tmp_path: Path, stored: np.ndarray) -> None:
    def drift(header: Any, number: int) -> None:
        x, y, z = map(float, header.ImagePositionPatient)
        header.ImagePositionPatient = [x + 4.0 * (number == 3), y, z]

    def turn(header: Any, number: int) -> None:
        c, s = np.cos(0.05), np.sin(0.05)
        if number > 2:
            header.ImageOrientationPatient = [round(float(v), 9) for v in (c, s, 0, -s, c, 0)]

    line = refusal(changed(series(tmp_path / "a", stored), drift))
    assert "shifted against each other unevenly" in line
    line = refusal(changed(series(tmp_path / "b", stored), turn))
    assert "not parallel to each other" in line


def test_each_slice_has_its_own_slope_and_sign(tmp_path: Path, stored: np.ndarray) -> None:
    plain = read_volume(series(tmp_path / "a", stored, tags={"RescaleIntercept": 0}))

    def steep(header: Any, number: int) -> None:
        if number:
            header.RescaleSlope = 100.0 if number == 1 else 0.001
        if number == 2:
            header.PixelRepresentation = 0
            header.PixelData = (stored[:, :, 2].T.astype("<u2") + 40000).tobytes()

    found = read_volume(
        changed(series(tmp_path / "b", stored, tags={"RescaleIntercept": 0}), steep)
    )
    factor = np.array([2.0, 100.0, 0.001, 0.001, 0.001, 0.001])
    values = stored.astype(float)
    values[:, :, 2] += 40000
    np.testing.assert_allclose(found.array, values * factor, rtol=1e-5)
    np.testing.assert_array_equal(found.affine, plain.affine)


def test_copies_echoes_and_scouts_in_a_series_are_told_apart(
    tmp_path: Path, stored: np.ndarray
) -> None:
    plain = read_volume(series(tmp_path / "a", stored))
    copies = series(tmp_path / "b", stored)
    for file in list(copies.iterdir())[:2]:
        (copies / f"copy of {file.name}").write_bytes(file.read_bytes())
    found = read_volume(copies)
    assert found.notes == ("2 files of the series are copies of others, and counted once",)
    np.testing.assert_array_equal(found.array, plain.array)

    from pydicom import dcmread
    from pydicom.uid import generate_uid

    echoes = series(tmp_path / "c", stored)
    for file in list(echoes.iterdir()):
        header = dcmread(file)
        header.EchoNumbers = 1
        header.save_as(file)
        header.EchoNumbers = 2
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        header.RescaleSlope = 1.0
        header.save_as(echoes / f"second {file.name}")
    scout = dcmread(next(iter((tmp_path / "a").iterdir())))
    scout.SeriesInstanceUID = header.SeriesInstanceUID
    scout.SOPInstanceUID = scout.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    scout.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    scout.save_as(echoes / "scout")
    found = read_volume(echoes)
    np.testing.assert_array_equal(found.array, plain.array)
    (line,) = found.notes
    assert "echo 1, 6 of its 13 images were taken" in line


def test_a_file_that_is_no_image_does_not_hide_the_series(
    tmp_path: Path, stored: np.ndarray
) -> None:
    plain = read_volume(series(tmp_path / "a", stored))
    folder = series(tmp_path / "b", stored)

    from pydicom import dcmread

    other = dcmread(next(iter(folder.iterdir())))
    other.SeriesInstanceUID = "1.2.3"
    other.SamplesPerPixel = 0  # GDCM, asked for the series of the folder, gives up on this
    other.save_as(folder / "another")
    (folder / "cut").write_bytes((folder / "another").read_bytes()[:300])
    (folder / "notes.txt").write_text("no DICOM")
    found = read_volume(folder)
    np.testing.assert_array_equal(found.array, plain.array)
    assert found.notes == (
        "2 DICOM files of the folder hold no image that can be read, and counted for nothing",
    )


def test_the_series_is_chosen_by_its_frames_and_what_it_is(
    lsr: Lsr, tmp_path: Path, stored: np.ndarray
) -> None:
    folder = series(tmp_path / "a", stored[:, :, :4], number=5)
    localizer = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesDescription": "loc"}
    series(folder, stored, number=1, tags=localizer)
    found = read_volume(folder)
    assert found.shape == (8, 7, 4)
    (line,) = found.notes
    assert "series 5 of 4 images was taken; also there: series 1 (loc) of 6 images" in line
    from LatentSpaceRestorationLib.io.dicom_slices import series_in

    first, other = (one.uid for one in series_in(folder))
    apart = [files_of(folder, uid) for uid in (first, other)]
    assert sorted(file for files in apart for file in files) == files_of(folder)
    assert content_hash(apart[0]) != content_hash(apart[1])
    chosen = read_volume(folder, series=first)
    assert (chosen.shape, chosen.notes) == ((8, 7, 6), ())
    status, _, err = lsr("detect", folder, "-o", tmp_path / "out", "--series", "1.2.3")
    assert status == 3
    assert "without the DICOM series 1.2.3" in one_line(err)


# Names


@pytest.mark.skipif(os.name != "posix", reason="names are bytes there alone")
def test_names_that_are_no_text_are_done_and_the_others_too(
    lsr: Lsr, tiny_model: Path, brain_scan: Path, tmp_path: Path
) -> None:
    names = [
        os.fsdecode(b"M\xfcller.nii.gz"),
        "two\nlines.nii.gz",
        "y" * 240 + ".nii.gz",
        "b.nii.gz",
    ]
    for name in names:
        (tmp_path / name).write_bytes(brain_scan.read_bytes())
    options = ("--model", tiny_model, "--restorations", 1, "--device", "cpu", "--report")
    scans = [tmp_path / name for name in names]
    status, out, err = lsr("detect", *scans, "-o", tmp_path / "out", *options)
    assert status == 3, "the long one"
    assert "at most; rename the scan" in one_line(err)
    assert "M\\udcfcller.nii.gz" in out
    assert "two\\nlines.nii.gz" in out
    maps = [os.fsencode(path.name) for path in (tmp_path / "out").glob("*-map.nii.gz")]
    stems = (b"M\xfcller", b"two\nlines", b"b")
    assert sorted(maps) == sorted(stem + b"_anomaly-map.nii.gz" for stem in stems)


def test_a_name_on_a_line() -> None:
    assert printable("Müller 頭部.nii") == "Müller 頭部.nii"
    assert printable("a\nb\udcfc") == "a\\nb\\udcfc"


# Tables and data sets


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_texts_of_other_programs_are_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes("Zürich\tÄ".encode(encoding))
    assert read_text(tmp_path / "a.txt") == "Zürich\tÄ"


def bids(folder: Path, participants: bytes | None = None) -> Path:
    (folder / "sub-01" / "anat").mkdir(parents=True)
    (folder / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    (folder / "sub-01" / "anat" / "sub-01_T1w.nii.gz").write_bytes(b"")
    if participants is not None:
        (folder / "participants.tsv").write_bytes(participants)
    return folder


@pytest.mark.parametrize(
    "table",
    [
        "participant_id\tsite\nsub-01\tZürich\n".encode("latin-1"),
        "participant_id\tsite\nsub-01\tZürich\n".encode("utf-16"),
        b"participant_id\tage\tsplit\nsub-01\tn/a\tn/a\n",
        b"participant_id\tage\tsplit\nsub-01\t34\tvalidation\n",
        b"participant_id\tsplit\nsub-01\t\0\n",
    ],
)
def test_of_a_participants_table_only_what_is_needed_is_read(tmp_path: Path, table: bytes) -> None:
    for strict in (False, True):
        folder = bids(tmp_path / str(strict), table)
        (subject,) = read_subjects(folder, strict=strict)
        assert (subject.name, subject.split) == ("sub-01", "")


def test_a_split_that_is_mistyped_is_refused_where_sets_are_asked_for(tmp_path: Path) -> None:
    table = b"participant_id\tsplit\nsub-01\ttrain\nsub-02\ttune2\n"
    with pytest.raises(InputError, match="'tune2'"):
        read_subjects(bids(tmp_path / "a", table))
    assert len(read_subjects(bids(tmp_path / "b", table), strict=False)) == 1


def test_what_is_left_beside_scans_is_none(tmp_path: Path) -> None:
    folder = bids(tmp_path / "a")
    anat = folder / "sub-01" / "anat"
    for name in (
        *("._sub-01_T1w.nii.gz", "sub-01_T1w.nii.gz.bak", "sub-01_T1w.nii.gz.md5"),
        "sub-01_part-phase_T1w.nii.gz",
    ):
        (anat / name).write_bytes(b"")
    if os.name == "posix":
        (anat / "sub-01_T1w.nii.gz:Zone.Identifier").write_bytes(b"")
    (anat / "sub-01_T1w.nii").write_bytes(b"")
    lines: list[str] = []
    (subject,) = read_subjects(folder, report=lines.append)
    assert subject.scan.name == "sub-01_T1w.nii.gz"
    (line,) = lines
    assert "as .nii and .nii.gz" in line


def test_a_table_may_end_in_empty_cells_but_holds_no_nul(tmp_path: Path) -> None:
    save_scan(tmp_path / "a.nii", np.ones((3, 3, 3), np.float32))
    table = tmp_path / "t.tsv"
    table.write_text("subject\tt1w\tbrainmask\none\ta.nii\tn/a\n\t\t\n")
    (subject,) = read_subjects(table)
    assert (subject.name, subject.mask) == ("one", None)
    table.write_bytes(b"subject\tt1w\none\ta\0.nii\n")
    with pytest.raises(InputError, match="is not a table"):
        read_subjects(table)


# Cohorts


def test_a_result_is_of_every_file_that_was_read(
    lsr: Lsr, tiny_model: Path, brain_scan: Path, tmp_path: Path
) -> None:
    image = nibabel.load(brain_scan)
    scans = tmp_path / "scans"
    scans.mkdir()
    pair = nibabel.Nifti1Pair(np.asarray(image.dataobj, np.float32), image.affine)
    nibabel.save(pair, scans / "s.img")
    run = tmp_path / "run"
    options = ("--model", tiny_model, "--restorations", 1, "--device", "cpu", "--jobs", 0)
    assert lsr("cohort", run, f"{scans}/*", *options)[0] == 0
    (row,) = run.rglob("*_anomaly-map.nii.gz")
    moved = image.affine.copy()
    moved[0, 3] += 50.0
    pair = nibabel.Nifti1Pair(np.asarray(image.dataobj, np.float32), moved)
    nibabel.save(pair, tmp_path / "s.img")
    (scans / "s.hdr").write_bytes((tmp_path / "s.hdr").read_bytes())
    status, _, err = lsr("cohort", run, f"{scans}/*", *options)
    assert status == 0
    assert "were done before" not in err
    assert nibabel.load(row).affine[0, 3] == pytest.approx(moved[0, 3])
