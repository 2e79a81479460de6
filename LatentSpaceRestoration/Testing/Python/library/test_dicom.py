"""DICOM in, DICOM out: a series is read as it lies, and results lie on it."""

from __future__ import annotations

import builtins
import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import Lsr, one_line, written
from LatentSpaceRestorationLib import __version__, cli
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.io.images import scan_name
from LatentSpaceRestorationLib.results.report.viewer import resource
from scan_grids import rotation
from tiny_model import generated_brain

highdicom = pytest.importorskip("highdicom")
pytest.importorskip("SimpleITK")

from dicom_files import INTERCEPT, PATIENT, SLOPE, write_series  # noqa: E402
from highdicom.seg import segread  # noqa: E402
from pydicom import dcmread  # noqa: E402

TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def oblique() -> np.ndarray:
    """Coronal slices 5 mm apart of 4 x 4.4 mm, tilted; right-handed in LPS as in RAS."""
    axes = np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])
    affine = np.eye(4)
    affine[:3, :3] = rotation((12.0, -7.0, 5.0)) @ axes * (4.0, 4.4, 5.0)
    affine[:3, 3] = (-60.0, 90.0, -40.0)
    return affine


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An oblique series of a brain, beside a shorter one, as in an export of a study."""
    folder = tmp_path_factory.mktemp("study") / "exam"
    brain = generated_brain((38, 34, 38), oblique())
    stored = np.where(brain.array > 0, np.round(brain.array), 0).astype(np.int16)
    write_series(folder, stored, brain.affine)
    write_series(folder, stored[:, :, :5], brain.affine, number=1)
    return folder


@pytest.fixture(scope="module")
def results(series: Path, tiny_model: Path) -> Path:
    """What ``lsr detect --dicom`` writes for the series."""
    folder = series.parent / "out"
    options = ["--model", str(tiny_model), "--restorations", "1", "--device", "cpu", "--dicom"]
    assert cli.main(["detect", str(series), "-o", str(folder), *options]) == 0
    return folder


def nifti(file: Path) -> tuple[np.ndarray, np.ndarray]:
    image = nibabel.load(file)
    return np.asarray(image.dataobj), image.affine


def on_grid(volume: highdicom.Volume, affine: np.ndarray) -> np.ndarray:
    """What was read back, by the places of its voxels, as an array on a grid of NIfTI."""
    to_index = np.linalg.inv(affine) @ TO_RAS @ volume.affine
    index = np.indices(volume.array.shape).reshape(3, -1)
    placed = to_index[:3, :3] @ index + to_index[:3, 3:]
    voxel = np.round(placed).astype(int)
    np.testing.assert_allclose(placed, voxel, atol=1e-3)
    assert voxel.min() == 0
    array = np.full(voxel.max(axis=1) + 1, -1.0, np.float32)
    array[tuple(voxel)] = volume.array.ravel()
    return array


def test_a_series_is_read_as_it_lies(
    detect: Lsr, series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def spy(self: Detector, volume, *options: object, **others: object) -> None:
        given.append(volume)
        raise KeyboardInterrupt

    monkeypatch.setattr(Detector, "detect", spy)
    detect(series)
    brain = generated_brain((38, 34, 38), oblique())
    stored = np.where(brain.array > 0, np.round(brain.array), 0)
    np.testing.assert_array_equal(given[0].array, SLOPE * stored + INTERCEPT)
    np.testing.assert_allclose(given[0].affine, brain.affine, atol=1e-4)


def test_results_in_dicom_have_the_voxels_and_places_of_those_in_nifti(results: Path) -> None:
    mask, affine = nifti(results / "exam_anomaly-mask.nii.gz")
    heat, _ = nifti(results / "exam_anomaly-map.nii.gz")
    assert 0 < mask.sum() < mask.size
    segmentation = segread(results / "exam_anomaly-mask.dcm")
    volume = segmentation.get_volume(combine_segments=True)
    np.testing.assert_array_equal(on_grid(volume, affine), mask)
    volume = highdicom.imread(results / "exam_anomaly-map.dcm").get_volume()
    np.testing.assert_array_equal(on_grid(volume, affine), heat)


def test_results_refer_to_the_series_and_say_what_made_them(results: Path, series: Path) -> None:
    sources = {dcmread(file).SOPInstanceUID: dcmread(file) for file in series.iterdir()}
    own = {uid: header for uid, header in sources.items() if header.SeriesNumber == 3}
    any_one = next(iter(own.values()))
    uids = set()
    for name in ("mask", "map"):
        found = dcmread(results / f"exam_anomaly-{name}.dcm")
        uids |= {found.SOPInstanceUID, found.SeriesInstanceUID}
        assert found.FrameOfReferenceUID == any_one.FrameOfReferenceUID
        assert found.StudyInstanceUID == any_one.StudyInstanceUID
        (referenced,) = found.ReferencedSeriesSequence
        assert referenced.SeriesInstanceUID == any_one.SeriesInstanceUID
        instances = {
            item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence
        }
        assert instances == set(own)
        frames = found.PerFrameFunctionalGroupsSequence
        assert len(frames) == len(own)
        for frame in frames:
            (derived,) = frame.DerivationImageSequence
            (image,) = derived.SourceImageSequence
            source = own[image.ReferencedSOPInstanceUID]
            place = frame.PlanePositionSequence[0].ImagePositionPatient
            np.testing.assert_allclose(place, source.ImagePositionPatient, atol=1e-4)
        # The patient and the study are the series' own, and nothing is made up.
        assert {keyword: str(found.get(keyword)) for keyword in PATIENT} == PATIENT
        for keyword in ("PatientAge", "PatientWeight", "PatientComments", "OtherPatientIDs"):
            assert keyword not in found
        assert not found.get("ContentCreatorName")
        assert found.get("ReferringPhysicianName") in (None, "")
        assert found.SoftwareVersions == __version__
        assert "not for diagnosis" in found.SeriesDescription
    assert len(uids) == 4
    assert not uids & set(sources)
    segmentation = segread(results / "exam_anomaly-mask.dcm")
    assert segmentation.number_of_segments == 1
    segment = segmentation.get_segment_description(1)
    category, kind = segment.segmented_property_category, segment.segmented_property_type
    assert (category.value, category.scheme_designator) == ("49755003", "SCT")
    assert (kind.value, kind.scheme_designator, kind.meaning) == ("4147007", "SCT", "Mass")
    assert [region.meaning for region in segment.anatomic_regions] == ["Brain"]
    algorithm = segment.algorithm_identification
    assert algorithm.name == "Latent Space Restoration"
    assert algorithm.version == __version__
    assert algorithm.parameters["model"] == "tiny"
    assert algorithm.parameters["restorations"] == "1"
    figures = json.loads((results / "exam_anomaly.json").read_text(encoding="utf-8"))
    assert float(algorithm.parameters["threshold"]) == pytest.approx(figures["threshold"], rel=1e-4)


def test_an_empty_mask_is_written_as_well(detect: Lsr, series: Path, tmp_path: Path) -> None:
    status, _, err = detect(series, "--dicom", "--threshold", 99.9999)
    assert status == 0, err
    mask, affine = nifti(tmp_path / "out" / "exam_anomaly-mask.nii.gz")
    assert not mask.any()
    volume = segread(tmp_path / "out" / "exam_anomaly-mask.dcm").get_volume(combine_segments=True)
    np.testing.assert_array_equal(on_grid(volume, affine), mask)


def test_without_the_option_nothing_of_the_patient_is_written(
    detect: Lsr, series: Path, tmp_path: Path
) -> None:
    assert detect(series, "--report")[0] == 0
    names = written(tmp_path / "out")
    assert "exam_anomaly.html" in names
    assert not any(name.endswith(".dcm") for name in names)
    for name in names:
        content = (tmp_path / "out" / name).read_bytes()
        # Pictures, volumes and the viewer have any three letters somewhere.
        content = content.replace(resource("niivue.umd.js").encode(), b"")
        content = re.sub(rb"[A-Za-z0-9+/=]{80,}", b"", content)
        assert (b"Doe" if name.endswith(("html", "json")) else b"Doe^") not in content
        assert b"J-17" not in content


@pytest.mark.parametrize(
    ("tags", "without", "says"),
    [
        ({"FrameOfReferenceUID": None}, (), "does not state its FrameOfReferenceUID"),
        ({}, (3,), "not evenly spaced, or some are missing"),
    ],
)
def test_a_series_that_results_cannot_refer_to(
    detect: Lsr,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tags: dict[str, None],
    without: tuple[int, ...],
    says: str,
) -> None:
    monkeypatch.setattr(Detector, "detect", lambda *_, **__: pytest.fail("it was analysed"))
    write_series(
        tmp_path / "s", np.ones((6, 6, 6), np.int16), oblique(), tags=tags, without=without
    )
    status, _, err = detect(tmp_path / "s", "--dicom")
    assert status == 3
    assert says in one_line(err)
    assert not (tmp_path / "out").exists()


def test_a_single_slice_is_told_to_be_one_of_a_series(detect: Lsr, series: Path) -> None:
    status, _, err = detect(next(series.iterdir()))
    assert status == 3
    assert "give the folder of its series" in one_line(err)


def test_results_are_named_after_the_folder(series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scan_name("study/1.2.840.113") == "1.2.840.113"
    assert scan_name("study/scan.v2.nii") == "scan.v2"
    assert scan_name("study/scan.nii.bz2") == "scan"
    monkeypatch.chdir(series)
    assert scan_name(".") == "exam"
    assert scan_name("../exam/") == "exam"


def test_a_file_that_is_no_series(detect: Lsr, brain_scan: Path, tmp_path: Path) -> None:
    status, _, err = detect(brain_scan, "--dicom")
    assert status == 3
    assert "need a DICOM series; give its folder" in one_line(err)
    assert not (tmp_path / "out").exists()


def test_one_line_where_highdicom_is_missing(
    detect: Lsr, series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: object, **more: object) -> object:
        if name == "highdicom":
            raise ModuleNotFoundError(name, name=name)
        return real(name, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    status, _, err = detect(series, "--dicom")
    assert status == 2
    assert "highdicom is missing; install latent-space-restoration[dicom]" in one_line(err)


@pytest.mark.parametrize(
    ("tags", "patient"),
    [
        (
            {
                "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
                "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
            },
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ),
        ({"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jürgen"}, "Müller^Jürgen"),
        ({"PatientSex": "U", "StudyTime": "10:11:12", "StudyDate": "2020.01.02"}, "Doe^Jane"),
    ],
)
def test_values_that_archives_hold_are_no_reason_not_to_write(
    detect: Lsr, tmp_path: Path, tags: dict[str, object], patient: str
) -> None:
    from pydicom import config

    brain = generated_brain((38, 34, 38), oblique())
    stored = np.where(brain.array > 0, np.round(brain.array), 0).astype(np.int16)
    before = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.IGNORE
    try:
        write_series(tmp_path / "exam", stored, brain.affine, tags=tags)
    finally:
        config.settings.writing_validation_mode = before
    status, _, err = detect(tmp_path / "exam", "--dicom")
    assert (status, err) == (0, "")
    for name in ("mask", "map"):
        header = dcmread(tmp_path / "out" / f"exam_anomaly-{name}.dcm")
        assert str(header.PatientName) == patient
        assert header.PatientSex in ("F", "")
        assert header.StudyTime in ("101112", "", None)
