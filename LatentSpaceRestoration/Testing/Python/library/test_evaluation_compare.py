"""``lsr evaluate --compare``: models of two kinds side by side, and VAEs of several beta."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Lsr, one_line, save_scan
from LatentSpaceRestorationLib.bundle.bundle import read_bundle
from LatentSpaceRestorationLib.bundle.write import write_bundle
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.evaluation.candidates import beta_of, candidates_of
from LatentSpaceRestorationLib.training.calibrate import HealthyScan, calibrate, to_files
from tiny_model import VAE_SETTINGS, generated_brain, write_tiny_vae_model

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def vaes(tmp_path_factory: pytest.TempPathFactory) -> dict[float, Path]:
    """By beta, VAEs that are calibrated for their reconstruction only."""
    folder = tmp_path_factory.mktemp("vaes")
    raw = read_bundle(write_tiny_vae_model(folder, "raw"))
    tensors = {"vae.safetensors": raw.tensors("vae.safetensors")}
    detector = Detector.load(raw.folder, "cpu")
    scans = [
        HealthyScan(f"C{seed}", detector.prepare(generated_brain((44, 52, 14), seed=20 + seed))[0])
        for seed in range(5)
    ]
    calibrated = calibrate(detector, scans, methods=("vae",), restorations=1, report=lambda _: None)
    data, places = to_files(*calibrated)
    made = {}
    for beta in (0.5, 2.0):
        config = {key: value for key, value in raw.config.items() if key != "files"}
        config |= {"name": f"vae-{beta:g}", "vae": {**VAE_SETTINGS, "beta": beta}}
        files = {**tensors, "place.safetensors": places}
        made[beta] = write_bundle(folder / f"vae-{beta:g}", config, files, data).folder
    return made


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two healthy scans that states no splits."""
    folder = tmp_path_factory.mktemp("scans")
    for name in ("A", "B"):
        brain = generated_brain((44, 52, 14), seed=ord(name))
        save_scan(folder / f"{name}.nii.gz", brain.array, brain.affine)
    return folder


@pytest.fixture
def evaluate(lsr: Lsr, scans: Path, tmp_path: Path) -> Lsr:
    def run(*arguments: object) -> tuple[int, str, str]:
        options = ("-o", tmp_path / "out", "--restorations", 1, "--replicates", 20)
        return lsr("evaluate", scans, *options, "--family", "uniform-sphere", *arguments)

    return run


def test_the_papers_comparison_is_one_command(
    evaluate: Lsr, tiny_model: Path, vaes: dict[float, Path]
) -> None:
    status, out, err = evaluate("--compare", "paper", "--model", tiny_model, "--model", vaes[2.0])
    assert status == 0, err
    assert "| lsr-paper | vae |" in out
    assert "8 of 8" in err


@pytest.mark.slow
def test_the_beta_sweep_is_one_command(
    evaluate: Lsr, vaes: dict[float, Path], tmp_path: Path
) -> None:
    models = [word for beta in vaes for word in ("--model", vaes[beta])]
    status, out, err = evaluate("--compare", "beta", *models)
    assert status == 0, err
    assert "| vae beta=0.5 | vae beta=2 |" in out
    # What was not calibrated is left out, and said.
    assert "vae-kl-gradient of vae-2 is left out" in err
    assert (tmp_path / "out" / "beta.png").stat().st_size > 5000
    status, _, err = evaluate("--compare", "beta", "--model", vaes[2.0])
    assert status == 2
    assert "two or more" in one_line(err)


def test_a_beta_that_is_there_twice_is_refused(
    evaluate: Lsr, vaes: dict[float, Path], tmp_path: Path
) -> None:
    whole = read_bundle(vaes[2.0])
    config = {key: value for key, value in whole.config.items() if key != "files"}
    tensors = {f: whole.tensors(f) for f in whole.config["files"] if f.endswith("safetensors")}
    copy = write_bundle(tmp_path / "other" / "vae-2", config, tensors, whole.calibration).folder
    status, _, err = evaluate("--compare", "beta", "--model", vaes[2.0], "--model", copy)
    assert status == 2
    assert "both have beta 2" in one_line(err)


def test_candidates_are_what_models_can_do_and_are_calibrated_for(
    tiny_model: Path, vaes: dict[float, Path]
) -> None:
    lsr, vae = (Detector.load(model, "cpu") for model in (tiny_model, vaes[0.5]))
    candidates, notes = candidates_of([lsr], [])
    assert [(c.name, c.method, c.mode) for c in candidates] == [
        ("lsr", "lsr", "default"),
        ("lsr-paper", "lsr", "paper"),
    ]
    assert notes == []
    both, _ = candidates_of([lsr, vae], ["vae", "lsr"])
    assert [c.name for c in both] == ["lsr", "vae"]
    alike, _ = candidates_of([vae, Detector.load(vaes[2.0], "cpu")], ["vae"])
    assert [c.name for c in alike] == ["vae-0.5 vae", "vae-2 vae"]
    assert len({replace(c, detector=lsr).folder for c in both}) == 2
    assert beta_of(vae) == 0.5
    _, notes = candidates_of([lsr], ["lsr", "intensity"])
    assert "lsr calibrate" in notes[0]
    assert np.isfinite(beta_of(vae))
