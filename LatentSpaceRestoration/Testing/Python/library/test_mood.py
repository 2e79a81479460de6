"""The MOOD challenge's interface: what it reads and writes, and how it pools.

The challenge's rules are those of its public repository (MIC-DKFZ/mood): ``docker_example`` says
what a container is asked for, ``scripts/evalresults.py`` how its files are read and ranked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import ROOT, Lsr, one_line, save_scan, written
from LatentSpaceRestorationLib import cli
from LatentSpaceRestorationLib.cli.mood import bounded
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.evaluation.metrics.histograms import Histogram, Table
from LatentSpaceRestorationLib.io.images import read_volume

SCRIPTS = ROOT / "MOOD"


@pytest.fixture(scope="module")
def scans(brain_scan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the challenge gives it, and a hidden file in it."""
    folder = tmp_path_factory.mktemp("mood") / "data"
    folder.mkdir()
    shutil.copy(brain_scan, folder / "00001.nii.gz")
    source = nibabel.load(brain_scan)
    spot = np.asarray(source.dataobj).copy()
    spot[20:28, 12:20, 12:20] *= 1.8
    save_scan(folder / "00002.nii.gz", spot, source.affine)
    (folder / ".DS_Store").write_bytes(b"x")
    return folder


@pytest.fixture
def mood(lsr: Lsr, tiny_model: Path) -> Lsr:
    def run(*arguments: object) -> tuple[int, str, str]:
        return lsr("mood", *arguments, "--model", tiny_model, "--restorations", 1)

    return run


@pytest.fixture(scope="module")
def maps(scans: Path, tiny_model: Path) -> Path:
    """What ``lsr mood pixel`` writes for the scans."""
    folder = scans.parent / "maps"
    options = ["--model", str(tiny_model), "--restorations", "1"]
    assert cli.main(["mood", "pixel", "-i", str(scans), "-o", str(folder), *options]) == 0
    return folder


def test_pixel_gives_a_map_of_the_same_name_and_grid(
    maps: Path, scans: Path, tiny_model: Path
) -> None:
    assert written(maps) == {"00001.nii.gz", "00002.nii.gz"}
    detector = Detector.load(tiny_model, "cpu")
    for name in written(maps):
        source, result = nibabel.load(scans / name), nibabel.load(maps / name)
        assert result.shape == source.shape
        np.testing.assert_array_equal(result.affine, source.affine)
        values = result.get_fdata()
        assert values.min() >= 0.0
        assert 0.0 < values.max() < 1.0
        found = detector.detect(read_volume(scans / name), restorations=1)
        np.testing.assert_allclose(values, bounded(found.anomaly_map, found.threshold), atol=1e-6)
        # One half is the threshold, whatever the scan.
        np.testing.assert_array_equal(values >= 0.5, found.anomaly_mask > 0)


def test_sample_gives_a_number_for_each_file(mood: Lsr, scans: Path, tmp_path: Path) -> None:
    status, out, err = mood("sample", "-i", scans, "-o", tmp_path / "pred")
    assert (status, err) == (0, "")
    assert written(tmp_path / "pred") == {"00001.nii.gz.txt", "00002.nii.gz.txt"}
    numbers = {}
    for file in (tmp_path / "pred").iterdir():
        with file.open() as stream:  # as the challenge reads it
            numbers[file.name] = float(stream.readline())
        assert 0.0 < numbers[file.name] < 1.0
    assert numbers["00001.nii.gz.txt"] != numbers["00002.nii.gz.txt"]
    assert f"00001.nii.gz: {numbers['00001.nii.gz.txt']:.9g}" in out


def test_a_scan_that_cannot_be_used_does_not_stop_the_others(
    mood: Lsr, scans: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(scans, tmp_path / "data"))
    (folder / "00000.nii.gz").write_bytes(b"no image")
    status, _, err = mood("sample", "-i", folder, "-o", tmp_path / "pred")
    assert status == 3
    assert "00000.nii.gz: is not an image" in one_line(err)
    assert len(written(tmp_path / "pred")) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("pixel", "-i", "none", "-o", "x"), "none: cannot be read"),
        (("pixel", "-i", ".", "-o", "x"), "holds no NIfTI file"),
        (("pixel", "-i", "data", "-o", "data/."), "would replace the scans"),
        (("voxel", "-i", "data", "-o", "x"), "'voxel'"),
        (("pixel", "-i", "data"), "-o/--output"),
    ],
)
def test_unusable_arguments(
    mood: Lsr,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    says: str,
) -> None:
    (tmp_path / "data").symlink_to(scans)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Detector, "load", lambda *_: pytest.fail("a model was loaded"))
    status, _, err = mood(*arguments)
    assert status == 2
    assert says in one_line(err)
    assert written(tmp_path) == {"data"}


def test_bounded_keeps_the_order_in_float16() -> None:
    values = np.concatenate([[0.0], np.geomspace(0.01, 50.0, 400)])
    told_apart = bounded(values, 2.0).astype(np.float16)
    assert told_apart[0] == 0.0
    assert (np.diff(told_apart) > 0).all()
    assert told_apart.max() < 1.0
    assert bounded(np.array([-1.0, 2.0]), 2.0).tolist() == [0.0, 0.5]


def test_pooling_is_the_challenges(maps: Path, scans: Path) -> None:
    """Voxels of all files together, by scikit-learn, and by the histograms of ``lsr evaluate``."""
    metrics = pytest.importorskip("sklearn.metrics")
    names = sorted(written(maps))
    truth = {names[0]: np.zeros(nibabel.load(scans / names[0]).shape, bool)}
    truth[names[1]] = truth[names[0]].copy()
    truth[names[1]][20:28, 12:20, 12:20] = True
    predictions, labels, histograms, rounded = [], [], [], []
    for name in names:
        image = nibabel.load(maps / name)
        # As the challenge reads predictions and labels.
        prediction = np.clip(image.get_fdata(dtype=np.float16), a_min=0.0, a_max=1.0)
        predictions.append(prediction.flatten())
        labels.append(np.rint(truth[name].astype(float)).flatten() == 1)
        values = np.asarray(image.dataobj)
        histogram = Histogram.of(values, truth[name])
        histograms.append(histogram)
        rounded.append(
            histogram.scores[
                np.searchsorted(histogram.scores, values.ravel(), side="right").clip(1) - 1
            ]
        )
    table = Table.of(histograms)
    (ap,), _ = table.ap_and_auroc(np.ones((1, len(names))))
    pooled = np.concatenate(labels)
    # The same voxels, the same rounding: the same figure.
    assert ap == pytest.approx(
        metrics.average_precision_score(pooled, np.concatenate(rounded)), abs=1e-9
    )
    # The challenge rounds to float16, which is another rounding of about the same size.
    theirs = metrics.average_precision_score(pooled, np.concatenate(predictions))
    assert ap == pytest.approx(theirs, abs=1e-3)
    # Not the mean over files: one of them has nothing to find.
    assert pooled.mean() < ap < 1.0


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a POSIX shell")
@pytest.mark.parametrize("task", ["pixel", "sample"])
def test_the_containers_scripts(task: str, tmp_path: Path) -> None:
    """Called as the challenge does, with a command that notes what it is asked for."""
    command = tmp_path / "bin" / "lsr"
    command.parent.mkdir()
    command.write_text('#!/bin/sh\nfor one in "$@"; do echo "$one"; done\nexit "$STATUS"\n')
    command.chmod(0o755)
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"

    def call(part: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", SCRIPTS / f"run_{task}_{part}.sh", "/mnt/data", "/mnt/with space"],
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": path, "STATUS": str(status)},
        )

    done = call("brain")
    assert done.stdout.splitlines() == ["mood", task, "-i", "/mnt/data", "-o", "/mnt/with space"]
    # A scan that could not be used does not throw away the others; that nothing could be done does.
    assert [call("brain", status).returncode for status in (0, 2, 3, 130)] == [0, 2, 0, 130]
    done = call("abdom")
    assert done.returncode == 2
    assert "no model of the abdomen" in done.stderr


def test_the_dockerfile_copies_what_is_there() -> None:
    text = (SCRIPTS / "Dockerfile").read_text(encoding="utf-8")
    copied = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY ")]
    allowed = (SCRIPTS / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for pattern in (name for names in copied for name in names):
        assert list(ROOT.glob(pattern)), pattern
        assert f"!{pattern}" in allowed
    for task in ("pixel", "sample"):
        for part in ("brain", "abdom"):
            assert os.access(SCRIPTS / f"run_{task}_{part}.sh", os.X_OK)
