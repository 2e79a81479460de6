"""Arrays that the cores share out: the same as in one piece, to the last bit."""

from __future__ import annotations

import os
import threading
from itertools import pairwise

import numpy as np
import pytest
from LatentSpaceRestorationLib.model_space import interpolated
from LatentSpaceRestorationLib.preprocessing.resampling import resample
from LatentSpaceRestorationLib.runtime import side_by_side as module
from LatentSpaceRestorationLib.runtime.side_by_side import gaussian_filter, side_by_side, slabs
from LatentSpaceRestorationLib.volume import Volume
from scan_grids import rotation
from scipy import ndimage


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("cores", [1, 3])
@pytest.mark.parametrize("mode", ["reflect", "constant", "nearest"])
def test_a_gaussian_is_scipys(monkeypatch: pytest.MonkeyPatch, cores: int, mode: str) -> None:
    monkeypatch.setattr(module, "cores", lambda: cores)
    array, sigma = noise(37, 50, 21), (0.7, 0.0, 2.3)
    np.testing.assert_array_equal(
        gaussian_filter(array, sigma, mode=mode, truncate=3.0),
        ndimage.gaussian_filter(array, sigma, mode=mode, truncate=3.0),
    )
    np.testing.assert_array_equal(gaussian_filter(array, 1.5), ndimage.gaussian_filter(array, 1.5))


def test_resampling_does_not_depend_on_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    affine = np.eye(4)
    affine[:3, :3] = rotation((5.0, -7.0, 12.0))
    volume, target = Volume(noise(60, 61, 62), affine), (50, 33, 35)
    found = []
    for cores in (1, 2, 5):
        monkeypatch.setattr(module, "cores", lambda cores=cores: cores)
        found.append(resample(volume, target, np.diag([1.3, 1.7, 1.9, 1.0])))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_slabs_share_out_an_axis_whatever_its_planes() -> None:
    for shape in ((1, 3, 3), (16, 4, 4), (100, 700, 700), (3, 2000, 2000)):
        parts = slabs(shape)
        assert parts[0].start == 0
        assert parts[-1].stop == shape[0]
        assert all(a.stop == b.start for a, b in pairwise(parts))


def test_results_come_in_order_and_faults_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cores", lambda: 4)
    both = threading.Barrier(2, timeout=20)

    def square(n: int) -> int:
        if n < 2:
            both.wait()  # two at a time, or never
        return n * n

    assert side_by_side(square, range(6)) == [0, 1, 4, 9, 16, 25]
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda n: 1 // n, [1, 0, 2])


def test_there_are_as_many_as_torch_has_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert module.cores() == 3
    monkeypatch.setitem(module.sys.modules, "torch", None)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert module.cores() == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert module.cores() == min(os.cpu_count() or 1, 8)


def test_values_between_those_of_a_grid_are_scipys() -> None:
    grid = noise(7, 9, 1)
    places = np.linspace(-1.0, 8.0, 23), np.linspace(-0.5, 8.5, 31), np.zeros(4)
    wanted = ndimage.map_coordinates(
        grid, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest"
    )
    np.testing.assert_allclose(interpolated(grid, *places), wanted, atol=1e-6)
    np.testing.assert_array_equal(interpolated(grid, None, None, None), grid)
