"""Fixtures that more than one test file uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import settings
from LatentSpaceRestorationLib import cli

# The same examples in every run, and no limit on the time of one: the machine may be busy.
settings.register_profile("lsr", derandomize=True, deadline=None)
settings.load_profile("lsr")

#: Root of the repository.
ROOT = Path(__file__).resolve().parents[3]

Lsr = Callable[..., tuple[int, str, str]]


def save_scan(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Write an array as an image of the type that the path's ending says."""
    if affine is None:
        affine = np.diag([2.0, 2.0, 2.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


@pytest.fixture
def noise() -> np.ndarray:
    """(5, 6, 7) float32 voxels."""
    return np.random.default_rng(0).normal(100.0, 20.0, (5, 6, 7)).astype(np.float32)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small model with random weights."""
    from tiny_model import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def brain_scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated brain-extracted scan that the tiny model can use, stored P, S, R."""
    from tiny_model import generated_brain

    affine = np.array([[0, 0, 4.0, -80], [-4.0, 0, 0, 96], [0, 4.0, 0, -60], [0, 0, 0, 1]])
    brain = generated_brain((52, 32, 40), affine)
    return save_scan(tmp_path_factory.mktemp("scans") / "brain.nii.gz", brain.array, brain.affine)


@pytest.fixture
def lsr(capsys: pytest.CaptureFixture[str]) -> Lsr:
    """Runs the command here; gives its status, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        status = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def detect(lsr: Lsr, tiny_model: Path, tmp_path: Path) -> Lsr:
    """``lsr detect ... -o out`` with the tiny model and one restoration, unless told otherwise."""

    def run(*arguments: object) -> tuple[int, str, str]:
        options = ["-o", tmp_path / "out", "--model", tiny_model, "--restorations", 1]
        return lsr("detect", *options, "--device", "cpu", *arguments)

    return run


def written(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def one_line(err: str) -> str:
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    assert err.startswith("lsr: error: ")
    return err
