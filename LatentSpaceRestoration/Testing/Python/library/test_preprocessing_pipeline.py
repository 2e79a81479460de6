"""One door into model space: what it does is stated once, and air around a head is nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import save_scan
from LatentSpaceRestorationLib.bundle.bundle import Bundle, read_bundle
from LatentSpaceRestorationLib.bundle.schema import ATLAS
from LatentSpaceRestorationLib.bundle.write import write_bundle
from LatentSpaceRestorationLib.datasets.subjects import Subject
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.errors import BundleError
from LatentSpaceRestorationLib.preprocessing.alignment import AlignmentAtlas, read_atlas
from LatentSpaceRestorationLib.preprocessing.pipeline import Preprocessing
from LatentSpaceRestorationLib.training.calibrate_bundle import calibrate_bundle
from LatentSpaceRestorationLib.training.config import read_config
from LatentSpaceRestorationLib.training.data import slice_cache
from LatentSpaceRestorationLib.training.data.atlas import make_atlas
from LatentSpaceRestorationLib.training.data.slice_cache import Brains, prepare_set
from LatentSpaceRestorationLib.training.data.slices import to_uint8
from LatentSpaceRestorationLib.training.export import export_baseline, export_model
from LatentSpaceRestorationLib.training.pipeline import TrainingPipeline
from LatentSpaceRestorationLib.volume import Volume
from patterned_brain import FINDER, GRID, brain
from scan_grids import rotation
from scipy import ndimage
from tiny_training import write_training


def tilted(own: int, degrees: tuple[float, float, float]) -> Volume:
    """A brain that lies so by its header."""
    scan, turn = brain(own), np.eye(4)
    turn[:3, :3] = rotation(degrees)
    return replace(scan, affine=turn @ scan.affine)


def saved(folder: Path, own: int, degrees: tuple[float, float, float]) -> Subject:
    scan = tilted(own, degrees)
    path = save_scan(folder / f"B{own}.nii.gz", scan.array, scan.affine)
    mask = (scan.array > 20.0).astype(np.uint8)
    marked = save_scan(folder / f"B{own}_mask.nii.gz", mask, scan.affine)
    return Subject(f"B{own}", "train", path, marked)


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> list[Subject]:
    """Six brains, each of which lies otherwise."""
    folder = tmp_path_factory.mktemp("tilted")
    nods = [(8.0, 0.0, 0.0), (-9.0, 3.0, 0.0), (0.0, -6.0, 7.0), (5.0, 5.0, -8.0), (-4.0, 0.0, 9.0)]
    return [saved(folder, own, d) for own, d in enumerate([*nods, (0.0, 7.0, -5.0)], start=2)]


@pytest.fixture(scope="module")
def atlas(subjects: list[Subject], tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    cache = tmp_path_factory.mktemp("atlas")
    lines: list[str] = []
    made = make_atlas(subjects, GRID, cache, Brains(), report=lines.append)
    assert made is not None
    assert all(line.startswith("atlas: round ") for line in lines)
    moved = [float(line.split("by ")[1].rstrip("%")) for line in lines]
    assert moved[-1] < moved[0]  # it comes to rest
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slice_cache, "read_volume", lambda _: pytest.fail("a scan was read"))
        np.testing.assert_array_equal(make_atlas(subjects, GRID, cache, Brains()), made)
    return made


def test_the_atlas_of_heads_that_lie_anyhow_is_sharper_than_their_mean(
    subjects: list[Subject], atlas: np.ndarray, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("LatentSpaceRestorationLib.training.data.atlas.MOST_ROUNDS", 0)
        mean = make_atlas(subjects, GRID, tmp_path, Brains(), report=lambda _: None)
    assert mean is not None
    assert atlas.std() > 1.05 * mean.std()


@pytest.mark.parametrize("shading", [0, 2])
def test_trainings_slices_are_detections_bit_for_bit(
    subjects: list[Subject], atlas: np.ndarray, tmp_path: Path, shading: int
) -> None:
    made = prepare_set(subjects, GRID, tmp_path, Brains(), atlas=atlas, shading=shading)
    preprocessing = Preprocessing.of(GRID, FINDER, atlas, shading)
    for number, own in enumerate(range(2, 8)):
        scan = slice_cache.read_volume(subjects[number].scan)
        prepared, laid = preprocessing(scan, brain(own).array > 20.0)
        assert laid.is_aligned
        rows = np.flatnonzero(made.slices.subject == number)
        np.testing.assert_array_equal(made.slices.values[rows], to_uint8(prepared.slices))
        np.testing.assert_array_equal(made.slices.position[rows], prepared.position)


def with_settings(bundle: Bundle, folder: Path, alignment: object, atlas: np.ndarray) -> Bundle:
    """A bundle that states how heads are laid."""
    files = [file for file in bundle.config["files"] if file.endswith(".safetensors")]
    tensors = {file: bundle.tensors(file) for file in files}
    tensors[ATLAS] = {"mean": torch.from_numpy(atlas)}
    config = {**bundle.config, "name": folder.name, "alignment": alignment}
    return write_bundle(folder, config, tensors, bundle.calibration)


def test_a_bundle_states_how_heads_are_laid_and_nothing_else_decides(
    tiny_model: Path, tmp_path: Path, atlas: np.ndarray
) -> None:
    bundle = read_bundle(tiny_model)
    aligned = with_settings(bundle, tmp_path / "aligned", {"atlas": ATLAS}, atlas)
    as_they_lie = with_settings(bundle, tmp_path / "lying", None, atlas)
    scan = tilted(9, (6.0, -4.0, 5.0))
    mask = scan.array > 20.0
    assert Detector.load(aligned.folder, "cpu").prepare(scan, mask)[0].is_aligned
    assert Detector.load(as_they_lie.folder, "cpu").prepare(scan, mask)[0].is_aligned is None
    np.testing.assert_array_equal(read_atlas(aligned), atlas)
    # A model made before it was stated is aligned with what its calibration has, if any.
    assert read_atlas(bundle) is not None
    assert np.ptp(read_atlas(bundle)) == 0.0  # the tiny model's: alike all over
    assert Detector.load(tiny_model, "cpu").prepare(scan, mask)[0].is_aligned is None
    with pytest.raises(BundleError, match="has no weights"):
        Detector.load(
            with_settings(bundle, tmp_path / "wrong", {"atlas": "x.safetensors"}, atlas).folder
        )
    with pytest.raises(BundleError, match="alignment names no atlas"):
        with_settings(bundle, tmp_path / "worse", {"atlas": 3}, atlas)


def test_a_second_calibration_writes_the_same_bytes(tmp_path: Path) -> None:
    """And so it does for both kinds of models, trained from the same few scans."""
    settings = read_config(write_training(tmp_path, people=11))
    pipeline = TrainingPipeline(settings, tmp_path / "tiny", report=lambda _: None)
    pipeline.begin()
    vqvae = pipeline.vqvae()
    model = export_model(pipeline, vqvae, pipeline.prior(vqvae), pipeline.masked(vqvae))
    baseline = export_baseline(pipeline, pipeline.baseline())
    assert model.config["alignment"] == baseline.config["alignment"]
    assert model.config["brain_model"] == "brain-extraction"
    for bundle, methods in ((model, ("lsr", "nll")), (baseline, ("vae",))):

        def contents(folder: Path = bundle.folder) -> dict[str, bytes]:
            return {file.name: file.read_bytes() for file in folder.iterdir()}

        def calibrate(folder: Path = bundle.folder, methods: tuple[str, ...] = methods) -> None:
            source = tmp_path / "tiny" / "subjects.tsv"
            calibrate_bundle(
                folder, source, methods=methods, restorations=1, device="cpu", report=str
            )

        calibrate()
        first = contents()
        calibrate()
        assert contents() == first
        assert "calibration.json" in first


@pytest.mark.parametrize("value", [0.0, -50.0, -32768.0, 32767.0])
def test_what_lies_around_a_brain_changes_nothing(value: float, atlas: np.ndarray) -> None:
    preprocessing = Preprocessing(GRID, FINDER, AlignmentAtlas.of(atlas, GRID))
    scan = brain(9)
    mask = scan.array > 20.0
    expected, _ = preprocessing(scan)
    other = replace(scan, array=np.where(mask, scan.array, np.float32(value)))
    affine = scan.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.array([7.0, 3.0, 11.0])
    pads = [(7, 2), (3, 0), (11, 5)]
    framed = replace(other, array=np.pad(other.array, pads, constant_values=value), affine=affine)
    for changed in (other, framed):
        found, laid = preprocessing(changed)
        assert laid.found.source == "extracted scan"
        np.testing.assert_allclose(found.slices, expected.slices, atol=1e-4)
        np.testing.assert_array_equal(found.mask, expected.mask)
        assert found.native_shape == changed.shape
        back, _ = found.brain_to_native()
        assert back.shape == changed.shape
    inner = back[7:-2, 3:, 11:-5]
    assert inner.sum() == back.sum()
    assert 2.0 * (inner & mask).sum() / (inner.sum() + mask.sum()) > 0.97


@pytest.mark.parametrize("value", [0.0, -5000.0, 32767.0])
def test_an_extracted_brain_comes_back_whole_with_its_dark_rim(
    value: float, atlas: np.ndarray
) -> None:
    scan = brain(9)
    mask = scan.array > 20.0
    rim = mask & ~ndimage.binary_erosion(mask)
    values = np.where(rim, 0.02 * scan.array, scan.array)  # darker than all that is in the brain
    values = np.where(mask, values, np.float32(value))
    prepared, _ = Preprocessing(GRID, FINDER, AlignmentAtlas.of(atlas, GRID))(
        replace(scan, array=values)
    )
    found, _ = prepared.brain_to_native()
    assert 2.0 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.995


def test_no_background_gets_into_the_rim_of_an_extracted_brain(atlas: np.ndarray) -> None:
    """Fine voxels are smoothed before they are made coarser; what was put in must not take part."""
    scan = brain(9)
    mask = scan.array > 20.0
    fine, inside = (np.kron(a, np.ones((2, 2, 2), np.float32)) for a in (scan.array, mask))
    affine = scan.affine @ np.diag([0.5, 0.5, 0.5, 1.0])
    affine[:3, 3] -= 1.0
    preprocessing = Preprocessing(GRID, FINDER)
    prepared, _ = preprocessing(Volume(np.where(inside, fine, 900.0).astype(np.float32), affine))
    values = prepared.slices * prepared.scale + prepared.centre
    least, most = scan.array[mask].min(), scan.array[mask].max()
    assert values[prepared.mask].min() >= least - 1e-3
    assert values[prepared.mask].max() <= most + 1e-3


@pytest.mark.parametrize("value", [0.0, 30000.0])
def test_a_fine_extracted_brain_is_looked_at_coarsely_and_comes_back_finely(
    value: float, atlas: np.ndarray
) -> None:
    """Blocks at its rim are the means of what they hold of brain."""
    scan = brain(9)
    mask = scan.array > 20.0
    fine, inside = (a.repeat(4, 0).repeat(4, 1).repeat(4, 2) for a in (scan.array, mask))
    inside = ndimage.binary_erosion(inside)  # the outermost voxels fill their blocks in part
    affine = scan.affine @ np.diag([0.25, 0.25, 0.25, 1.0])
    affine[:3, 3] = (scan.affine @ [-0.375, -0.375, -0.375, 1.0])[:3]
    bare = Volume(np.where(inside, fine, value).astype(np.float32), affine)
    preprocessing = Preprocessing(GRID, FINDER, AlignmentAtlas.of(atlas, GRID))
    prepared, laid = preprocessing(bare)
    assert laid.part.volume.spacing.min() == pytest.approx(GRID.spacing_mm / 2.0)
    found, _ = prepared.brain_to_native()
    assert 2.0 * (found & inside).sum() / (found.sum() + inside.sum()) > 0.995
    assert not (found & ~inside).any()
    values = prepared.slices * prepared.scale + prepared.centre
    assert values[prepared.mask].min() >= scan.array[mask].min() - 1e-3
    assert values[prepared.mask].max() <= scan.array[mask].max() + 1e-3
    given, _ = preprocessing(bare, inside)[0].brain_to_native()
    assert 2.0 * (given & inside).sum() / (given.sum() + inside.sum()) > 0.995


def test_a_mask_on_the_whole_grid_goes_with_a_scan_that_was_padded(tiny_model: Path) -> None:
    detector = Detector.load(tiny_model, "cpu")
    scan = brain(9)
    mask = scan.array > 20.0
    pads = [(4, 9), (6, 1), (0, 8)]
    affine = scan.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.array([4.0, 6.0, 0.0])
    framed = Volume(np.pad(scan.array, pads, constant_values=-1024.0), affine)
    expected = detector.open(scan, mask)
    found = detector.open(framed, np.pad(mask, pads))
    np.testing.assert_allclose(found.prepared.slices, expected.prepared.slices, atol=1e-5)
    assert found.warnings == expected.warnings  # not taken for CT either


def test_a_brain_that_is_cut_is_noticed_though_air_was_put_there(tiny_model: Path) -> None:
    detector = Detector.load(tiny_model, "cpu")
    half = brain(9, cut_mm=70.0)
    mask = half.array > 20.0
    framed = replace(half, array=np.pad(half.array, [(12, 0), (0, 0), (0, 0)]))
    said = detector.open(framed, np.pad(mask, [(12, 0), (0, 0), (0, 0)])).warnings
    assert any("the scan ends within the brain" in line for line in said)
