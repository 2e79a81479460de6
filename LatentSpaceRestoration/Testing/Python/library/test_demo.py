"""The demo: its brain, its lesion, and that it finds what it can."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import Lsr, one_line, written
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.evaluation.synthetic import painted_lesion
from LatentSpaceRestorationLib.evaluation.synthetic.painted_lesion import (
    LESION_MM,
    load_template,
    paint_lesion,
)
from LatentSpaceRestorationLib.volume import Volume, dice
from scipy import ndimage

AFFINE = np.diag([-2.0, 2.0, 2.5, 1.0])
AFFINE[:3, 3] = [90.0, -120.0, -70.0]
PLACE = (-27.0, -34.0, 32.0)


def box_of_brain() -> Volume:
    array = np.zeros((90, 108, 60), np.float32)
    array[5:85, 5:100, 5:55] = 100.0
    return Volume(array, AFFINE)


def test_lesion_is_where_it_was_asked_for() -> None:
    brain = box_of_brain()
    painted, lesion = paint_lesion(brain, PLACE, 15.0)
    assert painted.array.dtype == np.float32
    index = np.argwhere(lesion)
    middle = (AFFINE[:3, :3] @ index.T + AFFINE[:3, 3:]).mean(axis=1)
    np.testing.assert_allclose(middle, PLACE, atol=6.0)
    ball = 4 / 3 * np.pi * 1.5**3
    assert 0.5 * ball < lesion.sum() * brain.voxel_volume_ml < 2.5 * ball
    # Dark within, untouched away from it, and soft between.
    inside = ndimage.binary_erosion(lesion, iterations=2)
    assert painted.array[inside].max() < 75.0
    points = np.moveaxis(np.indices(brain.shape), 0, -1) @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    away = np.linalg.norm(points - PLACE, axis=-1) > 36.0
    np.testing.assert_array_equal(painted.array[away], brain.array[away])
    edge = ndimage.binary_dilation(lesion) & ~inside
    assert ((painted.array[edge] > 65) & (painted.array[edge] < 95)).any()


def test_lesion_stays_in_the_brain_and_follows_its_seed() -> None:
    brain = box_of_brain()
    painted, lesion = paint_lesion(brain, (-85.0, -34.0, 32.0), 15.0)
    assert lesion.any()
    assert not lesion[brain.array == 0].any()
    assert not painted.array[brain.array == 0].any()
    again, _ = paint_lesion(brain, (-85.0, -34.0, 32.0), 15.0)
    other, _ = paint_lesion(brain, (-85.0, -34.0, 32.0), 15.0, seed=1)
    np.testing.assert_array_equal(painted.array, again.array)
    assert (painted.array != other.array).any()


def test_dice() -> None:
    one = np.array([0, 1, 1, 0])
    assert dice(one, one) == 1.0
    assert dice(one, np.array([0, 0, 3, 3])) == 0.5
    assert dice(one, np.array([1, 0, 0, 0])) == 0.0
    assert dice(one * 0, one * 0) == 0.0


def test_the_template_comes_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nilearn", reason="the demo's brain comes with nilearn")
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was used"))
    template = load_template()
    np.testing.assert_allclose(template.spacing, 1.0)
    brain_ml = float((template.array > 0).sum()) / 1000.0
    assert 1500 < brain_ml < 2200
    # The lesion's place is white matter, the brightest tissue.
    index = np.linalg.solve(template.affine, [*LESION_MM, 1.0])[:3].round().astype(int)
    tissue = template.array[template.array > 0]
    assert template.array[tuple(index)] > np.percentile(tissue, 60)


def test_the_whole_demo(
    lsr: Lsr, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a small generated brain and a model that knows nothing."""
    from tiny_model import generated_brain

    tiny = Detector.load(tiny_model, "cpu")
    monkeypatch.setattr(painted_lesion, "load_template", generated_brain)
    monkeypatch.setattr(Detector, "load", lambda: tiny)
    status, out, err = lsr("demo", "-o", tmp_path / "out")
    assert status == 0, err
    figures = json.loads((tmp_path / "out" / "demo_anomaly.json").read_text(encoding="utf-8"))
    assert f"score {figures['sample_score']:.4g}" in out
    assert "RAS (-27, -34, +32) mm" in out
    assert str(tmp_path / "out" / "demo_anomaly.png") in out
    lesion = nibabel.load(tmp_path / "out" / "demo-lesion.nii.gz").get_fdata()
    mask = nibabel.load(tmp_path / "out" / "demo_anomaly-mask.nii.gz").get_fdata()
    assert f"painted: {dice(lesion, mask):.2f}" in out


def test_without_nilearn(
    lsr: Lsr, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Detector, "load", lambda: None)
    monkeypatch.setitem(__import__("sys").modules, "nilearn.datasets", None)
    status, _, err = lsr("demo", "-o", tmp_path / "out")
    assert status == 2
    assert "install the package nilearn" in one_line(err)
    assert written(tmp_path) == set()
