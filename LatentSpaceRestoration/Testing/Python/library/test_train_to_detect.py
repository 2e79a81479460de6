"""The whole way: scans, a training that is killed and goes on, calibration, figures, detection."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Lsr, one_line, save_scan
from LatentSpaceRestorationLib.bundle.bundle import read_bundle
from LatentSpaceRestorationLib.datasets.read import read_subjects
from LatentSpaceRestorationLib.io.images import read_volume
from LatentSpaceRestorationLib.training.config import read_config
from tiny_model import generated_brain
from tiny_training import write_training

#: Long enough to be interrupted.
LONGER = ("--set", "vqvae.training.steps=40", "--set", "vqvae.training.checkpoint_minutes=0.0")


def begin(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    """``lsr train prior`` in a process of its own."""
    path = os.pathsep.join([str(ROOT / "LatentSpaceRestoration"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "LatentSpaceRestorationLib", "train", "prior"]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(file: Path, process: subprocess.Popen[str], since: int = 0) -> int:
    """Until a file is newer than before; the time of its last change."""
    for _ in range(2400):
        if file.is_file() and file.stat().st_mtime_ns > since:
            return file.stat().st_mtime_ns
        assert process.poll() is None, process.communicate()
        time.sleep(0.025)
    raise AssertionError(f"{file} was not written within a minute")


def weights(bundle: Path) -> dict[str, str]:
    return {f: h for f, h in read_bundle(bundle).config["files"].items() if f in WEIGHTS}


WEIGHTS = ("vqvae.safetensors", "prior.safetensors")


@pytest.mark.slow
def test_from_scans_to_detections(tmp_path: Path, lsr: Lsr) -> None:
    settings = write_training(tmp_path)
    work = tmp_path / "tiny"
    fine = generated_brain((44, 52, 60), np.diag([4.0, 4.0, 2.0, 1.0]), seed=50)
    save_scan(tmp_path / "scans" / "p50.nii.gz", fine.array, fine.affine)

    # Unbroken.
    status, out, err = lsr("train", "prior", settings, "--work", tmp_path / "whole", *LONGER)
    assert status == 0, err
    assert "the sets were drawn by person with seed 0: 7 train, 5 calibrate, 1 tune" in out
    assert f"the model is trained: {tmp_path / 'whole' / 'tiny'}; now: lsr calibrate" in out

    # Killed, then stopped, then resumed.
    process = begin(tmp_path, settings, *LONGER)
    changed = wait_for(work / "vqvae.pt", process)
    process.kill()
    process.communicate()
    process = begin(tmp_path, settings, *LONGER, "--resume")
    wait_for(work / "vqvae.pt", process, changed)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert process.returncode == 130, err
    assert err.startswith("lsr: stopped at step")
    assert err.count("\n") == 1, err
    assert "resumed at step" in out
    status, out, err = lsr("train", "prior", settings, *LONGER, "--resume")
    assert status == 0, err
    assert "resumed at step" in out
    assert weights(work / "tiny") == weights(tmp_path / "whole" / "tiny")

    # Other settings in the same folder.
    status, _, err = lsr("train", "prior", settings, *LONGER, "--set", "vqvae.network.beta=1.0")
    assert status == 2
    assert "vqvae.network.beta = 0.25 and now it is 1.0" in one_line(err)

    # What the folder and the model say of themselves.
    subjects = read_subjects(work / "subjects.tsv")
    trained = read_bundle(work / "tiny").config["training"]
    assert trained["subjects"] == [s.name for s in subjects if s.split == "train"]
    assert len(trained["sha256"]) == 7
    assert trained["config"]["vqvae"]["training"]["steps"] == 40
    assert read_config(work / "config.toml").vqvae.training.steps == 40

    # Calibration: not on too few, not on scans that were trained on.
    status, _, err = lsr("detect", subjects[0].scan, "-o", tmp_path / "o", "--model", work / "tiny")
    assert status == 2
    assert "was not calibrated" in one_line(err)
    assert "1 healthy scans are too few" in calibrated_on(lsr, work, "tune", subjects, 3)
    assert "was trained on" in calibrated_on(lsr, work, "train", subjects, 3)
    status, out, err = lsr("calibrate", work / "tiny", "--restorations", 3)
    assert status == 0, err
    assert "note: 5 scans are few" in out
    healthy = [s.name for s in subjects if s.split == "calibrate"]
    assert read_bundle(work / "tiny").calibration["scans"] == sorted(healthy)
    assert "Trained on 7 scans" in read_bundle(work / "tiny").card()

    # A training that is over leaves the calibrated model as it is.
    status, out, err = lsr("train", "prior", settings, *LONGER)
    assert status == 0, err
    assert "stays as it is" in out
    assert read_bundle(work / "tiny").calibration

    figures_and_detection(lsr, tmp_path, work, subjects[0].scan)
    with_the_module(work / "tiny", subjects[0].scan)


def calibrated_on(lsr: Lsr, work: Path, split: str, subjects: list, status: int) -> str:
    """The line in which calibration on another set is refused."""
    lines = ["subject\tt1w"]
    lines += [f"{s.name}\t{s.scan}" for s in subjects if s.split == split]
    table = work / f"{split}.tsv"
    table.write_text("\n".join(lines) + "\n")
    got, _, err = lsr("calibrate", work / "tiny", table)
    assert got == status
    return one_line(err)


def figures_and_detection(lsr: Lsr, folder: Path, work: Path, scan: Path) -> None:
    status, _, err = lsr(
        *("evaluate", work / "subjects.tsv", "-o", folder / "figures", "--model", work / "tiny"),
        *("--method", "lsr", "--method", "intensity", "--family", "uniform-sphere"),
        *("--sizes", 20, "--contrasts", 3, "--restorations", 1, "--replicates", 20),
    )
    assert status == 0, err
    assert "intensity" in (folder / "figures" / "table.md").read_text(encoding="utf-8")
    status, _, err = lsr(
        *("detect", scan, "-o", folder / "out", "--model", work / "tiny", "--restorations", 2),
    )
    assert status == 0, err
    name = scan.name.removesuffix(".nii.gz")
    told = json.loads((folder / "out" / f"{name}_anomaly.json").read_text(encoding="utf-8"))
    assert told["model"] == "tiny"
    assert 0.0 <= told["percentile"] <= 100.0


def with_the_module(model: Path, scan: Path) -> None:
    """The same model in Slicer's module, on real MRML nodes."""
    import unittest

    import in_slicer

    try:
        in_slicer.begin()
    except unittest.SkipTest as reason:
        pytest.skip(f"all but the module was tried: {reason}")
    import slicer
    from scene_tools import add_volume, ijk
    from stub_detector import NothingMissing

    from LatentSpaceRestoration import LatentSpaceRestorationLogic

    slicer.mrmlScene.Clear()
    volume = read_volume(scan)
    node = add_volume(volume.array, volume.affine)
    logic = LatentSpaceRestorationLogic(packages=NothingMissing())
    result = logic.detect(node, model=str(model), restorations=2)
    assert ijk(result.anomalyMap).shape == volume.array.shape
    assert ijk(result.anomalyMap).max() > 0.0


@pytest.mark.slow
def test_the_other_networks_and_a_corrupt_scan(tmp_path: Path, lsr: Lsr) -> None:
    settings = write_training(tmp_path)
    work = tmp_path / "tiny"
    lines = ["subject\tsplit\tt1w\tbrainmask"]
    for person in range(12):
        split = ("train", "train", "calibrate", "tune")[person % 4] if person else "train"
        name = f"p{person:02}"
        lines.append(f"{name}\t{split}\tscans/{name}.nii.gz\tscans/{name}_brainmask.nii.gz")
    (tmp_path / "subjects.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "scans" / "p01.nii.gz").write_bytes(b"not a scan")
    source = ("--set", f"data.source={tmp_path / 'subjects.tsv'}")
    status, out, err = lsr("train", "baseline", settings, *source)
    assert status == 0, err
    assert sum(line.startswith("left out: p01: ") for line in out.splitlines()) == 1
    bundle = read_bundle(work / "tiny-vae")
    assert bundle.kind == "vae"
    assert "p01" not in bundle.config["training"]["subjects"]
    assert list(bundle.config["training"]["left_out"]) == ["p01"]
    status, _, err = lsr("train", "brain", settings, *source)
    assert status == 0, err
    assert read_bundle(work / "brain-extraction").config["metrics"]["scans"] == 3

    # The same image under two names, in two sets.
    twin = tmp_path / "scans" / "p03.nii.gz"
    twin.write_bytes((tmp_path / "scans" / "p00.nii.gz").read_bytes())
    more = ("--work", tmp_path / "other")
    status, _, err = lsr("train", "vqvae", settings, *source, *more)
    assert status == 3
    assert "p03 of the tune scans and p00 of the train scans are the same image" in one_line(err)


@pytest.mark.slow
def test_a_time_budget_is_kept_and_the_training_goes_on(tmp_path: Path, lsr: Lsr) -> None:
    settings = write_training(tmp_path, people=6, slices=12)
    status, _, err = lsr("train", "vqvae", settings, "--minutes", 1e-9)
    assert status == 0
    assert "the time is over at step 0 of 12" in err
    status, out, err = lsr("train", "vqvae", settings)
    assert status == 0, err
    assert "the VQ-VAE is trained" in out
