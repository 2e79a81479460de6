"""From healthy scans to a calibrated model that detects."""

from __future__ import annotations

from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import pytest
from conftest import Lsr, one_line, save_scan
from LatentSpaceRestorationLib.bundle.bundle import read_bundle
from LatentSpaceRestorationLib.bundle.write import write_bundle
from LatentSpaceRestorationLib.calibration.atlas import PlaceStatistics, PlaceSums
from LatentSpaceRestorationLib.calibration.normative import NormativeMap
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.errors import BundleError, InputError
from LatentSpaceRestorationLib.methods.lsr import LatentSpaceRestoration
from LatentSpaceRestorationLib.methods.settings import ModeSettings
from LatentSpaceRestorationLib.options import MODES
from LatentSpaceRestorationLib.scoring.anomaly_map import anomaly_map
from LatentSpaceRestorationLib.scoring.sample_score import peak_score
from LatentSpaceRestorationLib.training.calibrate import (
    HealthyScan,
    added_to,
    calibrate,
    healthy_levels,
    to_files,
)
from LatentSpaceRestorationLib.volume import Volume
from tiny_model import generated_brain

SCORING = {"restore_percentile": 70.0, "slice_percentile": 95.0}


def silent(_: str) -> None:
    """Takes a line of text."""


def healthy(seed: int) -> Volume:
    """A generated brain."""
    return generated_brain((44, 52, 10), seed=seed)


def with_calibration(
    model: Path, folder: Path, data: dict, places: dict, config: dict | None = None
) -> Path:
    """A copy of a model with another calibration."""
    bundle = read_bundle(model)
    tensors = {f: bundle.tensors(f) for f in bundle.config["files"] if f.endswith("safetensors")}
    tensors["place.safetensors"] = places
    settings = {**bundle.config, **(config or {}), "name": folder.name}
    return write_bundle(folder, settings, tensors, data).folder


@pytest.fixture(scope="module")
def detector(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """The tiny model with percentiles of its own, not calibrated."""
    folder = tmp_path_factory.mktemp("raw") / "raw"
    return Detector.load(with_calibration(tiny_model, folder, {}, {}, {"scoring": SCORING}), "cpu")


@pytest.fixture(scope="module")
def scans(detector: Detector) -> list[HealthyScan]:
    """Five generated brains."""
    return [HealthyScan(f"H{seed}", detector.prepare(healthy(seed))[0]) for seed in range(5)]


def test_a_calibrated_model_detects(
    detector: Detector, scans: list[HealthyScan], tmp_path: Path
) -> None:
    data, places = to_files(*calibrate(detector, scans, ["lsr"], restorations=2, report=silent))
    loaded = Detector.load(
        with_calibration(detector.bundle.folder, tmp_path / "mine", data, places), "cpu"
    )

    readings = [detector.model.context(scan.prepared).read()[1] for scan in scans]
    codes = np.concatenate([r.nll[r.brain] for r in readings])
    calibration = loaded.model.calibration("pixelsnail")
    assert (codes > calibration.restore_threshold).mean() == pytest.approx(0.3, abs=0.01)
    assert (codes > calibration.slice_threshold).mean() == pytest.approx(0.05, abs=0.01)
    assert [level.restorations for level in calibration.levels] == [1, 2]
    assert all(len(level.sample_scores) == 5 for level in calibration.levels)
    assert loaded.bundle.calibration["scans"] == [f"H{seed}" for seed in range(5)]
    assert "code_nll" in loaded.bundle.calibration

    for mode in MODES:
        found = loaded.detect(healthy(9), mode=mode, restorations=2)
        assert found.healthy_scans == 5
        assert 1 / 6 <= found.p_value <= 1.0
        assert np.isfinite(found.sample_score)
        assert found.anomaly_map.max() > 0
        # One in a hundred healthy brain voxels is marked, or so.
        share = found.anomaly_mask.sum() / found.brain_mask.sum()
        assert share < 0.1


def test_a_scans_score_leaves_its_own_values_out(
    detector: Detector, scans: list[HealthyScan]
) -> None:
    way = LatentSpaceRestoration(ModeSettings(), 2.6, 2.9)
    (level,), found = healthy_levels(detector.model, scans, way, restorations=1, report=silent)
    maps = []
    for scan in scans:
        (evidence,) = way.evidence(detector.model.context(scan.prepared, 1))
        maps.append(evidence.maps)

    def usual(members: list[int], name: str) -> PlaceStatistics:
        sums = [
            PlaceSums.of(maps[i][name], scans[i].prepared.mask, scans[i].prepared.position)
            for i in members
        ]
        return PlaceStatistics.from_sums(reduce(add, sums)).symmetric()

    expected = []
    for left_out in range(5):
        others = [i for i in range(5) if i != left_out]
        prepared = scans[left_out].prepared
        usual_of_others = {name: NormativeMap(usual(others, name)) for name in maps[0]}
        spacing = detector.grid.spacing_mm
        values = anomaly_map(prepared, maps[left_out], way.rule, usual_of_others, spacing)
        expected.append(peak_score(values, prepared.mask, way.rule.peak_ml, spacing))
    assert level.restorations == 1
    assert level.sample_scores == pytest.approx(sorted(expected), rel=1e-3)
    for name, healthy in found.items():
        np.testing.assert_allclose(healthy.place.mean, usual(list(range(5)), name).mean, atol=1e-5)


def test_methods_are_added_to_a_calibration_of_the_same_scans(
    detector: Detector, scans: list[HealthyScan], tmp_path: Path
) -> None:
    first = to_files(*calibrate(detector, scans, ["lsr"], restorations=1, report=silent))
    model = with_calibration(detector.bundle.folder, tmp_path / "first", *first)
    found = calibrate(detector, scans, ["intensity"], report=silent)
    assert found[1] is None  # no codes were needed
    data, places = added_to(read_bundle(model), *to_files(*found))
    both = Detector.load(with_calibration(model, tmp_path / "both", data, places), "cpu")
    assert set(both.bundle.calibration["modes"]) == {*MODES, "intensity"}
    assert "code_nll" in both.bundle.calibration
    for method in ("lsr", "intensity"):
        result = both.detect(healthy(7), method=method, restorations=1)
        assert result.healthy_scans == 5
    others = to_files(dict.fromkeys("ABCDE", ""), None, found[2])
    data, places = added_to(read_bundle(model), *others)
    assert set(data["modes"]) == {"intensity"}
    assert all(key.startswith("intensity.") for key in places)


def test_a_model_is_adapted_to_scans_of_ones_own(
    lsr: Lsr, tiny_model: Path, tmp_path: Path
) -> None:
    """A copy knows these scans alone; the model itself stays as it is."""
    for site in ("here", "there"):
        (tmp_path / site).mkdir()
        for number in range(3):
            brain = healthy(number + 3 * (site == "there"))
            save_scan(tmp_path / site / f"{site}{number}.nii.gz", brain.array, brain.affine)
    before = {file.name: file.read_bytes() for file in tiny_model.iterdir()}
    sources = (tmp_path / "here", tmp_path / "there")
    options = ("--name", "mine", "-o", tmp_path, "--restorations", 1, "--device", "cpu")
    for _ in range(2):  # again is in its own place
        status, out, err = lsr("calibrate", tiny_model, *sources, *options)
        assert status == 0, err
    assert f"calibrated on 6 scans: {tmp_path / 'mine'}" in out
    assert before == {file.name: file.read_bytes() for file in tiny_model.iterdir()}
    mine = read_bundle(tmp_path / "mine")
    assert mine.name == "mine"
    assert mine.config["adapted_from"] == "tiny"
    assert "Adapted from `tiny`" in mine.card()
    assert list(mine.calibration["modes"]) == ["default"]
    assert len(mine.calibration["scans"]) == 6
    assert mine.calibration["sites"] == ["here", "there"]
    assert "6 other healthy scans of 2 sites (here, there)" in mine.card()
    found = Detector.load(mine.folder, "cpu").detect(healthy(7), restorations=1)
    assert (found.model, found.healthy_scans, found.healthy_sites) == ("mine", 6, 2)
    other = read_bundle(tiny_model).tensors("vqvae.safetensors")
    assert all(value.equal(other[key]) for key, value in mine.tensors("vqvae.safetensors").items())

    (tmp_path / "taken").mkdir()
    for wrong, words in (
        (("--name", "taken", "-o", tmp_path), "choose another name"),
        (("--name", "brain-t1"), "there is a model brain-t1 already"),
        (("--name", "a/b"), "cannot be a folder's"),
        (("-o", tmp_path), "give --name"),
        (("--modes", "best"), "has no mode 'best'; choose from: default"),
    ):
        status, _, err = lsr("calibrate", tiny_model, *sources, *wrong, "--device", "cpu")
        assert status != 0
        assert words in one_line(err)


def test_what_cannot_be_calibrated_is_refused(detector: Detector, scans: list[HealthyScan]) -> None:
    with pytest.raises(InputError, match="4 healthy scans are too few"):
        calibrate(detector, scans[:4])
    with pytest.raises(BundleError, match="cannot do method 'vae'"):
        calibrate(detector, scans, ["vae"])
