"""What codes stand for: means over their cells in healthy scans."""

from __future__ import annotations

import numpy as np
import pytest
from LatentSpaceRestorationLib.calibration.code_values import CodeValues


def test_means_are_those_of_the_cells_of_each_code() -> None:
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 3, (40, 6, 5))
    fine = codes.repeat(4, 1).repeat(4, 2)
    slices = np.array([-1.0, 0.5, 2.0], np.float32)[fine]
    # The reconstruction is off by as much as the code says, to either side.
    off = np.array([0.1, 0.2, 0.3], np.float32)[fine] * generator.choice([-1.0, 1.0], fine.shape)
    mask = generator.random(fine.shape) < 0.5
    slices[~mask] += 0.25  # outside the brain the scan counts, the residual does not
    off[~mask] = 9.0
    found = CodeValues.of(4, [(codes, slices, slices - off, mask)])
    np.testing.assert_allclose(found.intensity[:3], [-0.875, 0.625, 2.125], atol=0.02)
    np.testing.assert_allclose(found.residual[:3], [0.1, 0.2, 0.3], atol=2e-3)
    # One that is never seen has the mean of all.
    assert found.intensity[3] == pytest.approx(slices.mean(), abs=1e-4)
    again = CodeValues.from_json(found.to_json())
    np.testing.assert_allclose(again.moments(), found.moments(), rtol=1e-5)
