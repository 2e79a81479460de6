"""What is said of scans that are not like those that a model knows, and of those that are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from LatentSpaceRestorationLib.bundle.bundle import default_models_folder, read_bundle
from LatentSpaceRestorationLib.calibration.atlas import PlaceStatistics, PlaceSums
from LatentSpaceRestorationLib.preprocessing.alignment import read_atlas
from LatentSpaceRestorationLib.preprocessing.quality import doubts, doubts_of_model, likeness
from LatentSpaceRestorationLib.preprocessing.slices import PreparedScan
from LatentSpaceRestorationLib.volume import Volume
from patterned_brain import GRID, brain, prepared_of
from scipy import ndimage


@pytest.fixture(scope="module")
def usual() -> np.ndarray:
    """Mean intensity by place of four other brains."""
    sums = []
    for own in range(2, 6):
        p = prepared_of(brain(own))
        sums.append(PlaceSums.of(p.slices, p.mask, p.position))
    return PlaceStatistics.from_sums(sums[0] + sums[1] + sums[2] + sums[3]).mean


def said(
    volume: Volume, usual: np.ndarray | None = None, prepared: PreparedScan | None = None
) -> str:
    lines = doubts(volume, prepared or prepared_of(volume), GRID.spacing_mm, usual)
    assert all("\n" not in line and ":" in line for line in lines)
    return "; ".join(lines)


def test_nothing_is_said_of_a_brain_like_those_that_were_learned(usual: np.ndarray) -> None:
    assert said(brain(), usual) == ""


def test_left_and_right_do_not_matter(usual: np.ndarray) -> None:
    scan = brain()
    assert said(Volume(scan.array[::-1].copy(), scan.affine), usual) == ""


@pytest.mark.parametrize(
    ("flipped", "words"),
    [
        ((2,), "the brain lies upside down,"),
        ((1,), "the brain lies back to front"),
        ((1, 2), "the brain lies upside down and back to front"),
    ],
)
def test_a_brain_that_lies_another_way(
    usual: np.ndarray, flipped: tuple[int, ...], words: str
) -> None:
    scan = brain()
    line = said(Volume(np.flip(scan.array, flipped).copy(), scan.affine), usual)
    assert words in line
    assert "not to be trusted" in line


def test_inverted_contrast(usual: np.ndarray) -> None:
    scan = brain()
    inverted = np.where(scan.array > 0, 250.0 - scan.array, 0.0).astype(np.float32)
    assert "T2-weighted or inverted" in said(Volume(inverted, scan.affine), usual)


def test_noise_and_phantoms_do_not_look_like_brains(usual: np.ndarray) -> None:
    scan = brain()
    noise = np.random.default_rng(0).normal(100.0, 9.0, scan.array.shape)
    smooth = 100.0 + 30.0 * np.sin(np.indices(scan.array.shape)[1] / 2.0)
    for array in (noise, smooth):
        masked = np.where(scan.array > 0, array, 0.0).astype(np.float32)
        assert "does not look like the brains" in said(Volume(masked, scan.affine), usual)


def test_air_as_in_ct() -> None:
    scan = brain()
    line = said(Volume(np.where(scan.array > 0, scan.array, -1000.0), scan.affine))
    assert "as in CT" in line
    assert "not to be trusted" in line
    # A T1-weighted scan in which air is -1000 is none: its tissues are far apart.
    wide = Volume(10.0 * scan.array - 1000.0, scan.affine)
    prepared = prepared_of(scan)
    far = replace(prepared, centre=10.0 * prepared.centre - 1000.0, scale=10.0 * prepared.scale)
    assert said(wide, prepared=far) == ""
    # A scan that was standardised has negative values, too.
    assert said(Volume(scan.array - 100.0, scan.affine), prepared=prepared_of(scan)) == ""


def test_a_few_voxels_that_outshine_all_others() -> None:
    scan = brain()
    array = scan.array.copy()
    array[20:22, 20, 20] = 1e6
    line = said(Volume(array, scan.affine), prepared=prepared_of(scan))
    assert line.startswith("2 voxels reach 1e+06, where 999 of 1000 stay below ")
    assert said(Volume(scan.array * 3.0, scan.affine), prepared=prepared_of(scan)) == ""


def test_a_brain_of_which_half_is_missing() -> None:
    # Beyond the scan, and cut out of it.
    assert "the scan ends within the brain" in said(brain(cut_mm=92.0))
    scan = brain()
    scan.array[:23] = 0.0
    assert "mm wide" in said(scan) or " ml, outside" in said(scan)
    scan = brain()
    scan.array[:, :, 24:] = 0.0
    assert "mm high" in said(scan) or " ml, outside" in said(scan)


def test_a_scan_that_is_cropped_to_the_brain_is_whole() -> None:
    scan = brain()
    box = ndimage.find_objects((scan.array > 0).astype(int))[0]
    affine = scan.affine.copy()
    affine[:3, 3] += 4.0 * np.array([part.start for part in box])
    assert said(Volume(scan.array[box].copy(), affine)) == ""


def test_a_scan_that_ends_in_the_brain_at_one_side_only() -> None:
    scan = brain()
    top = int(np.flatnonzero((scan.array > 0).any(axis=(0, 1)))[-1])
    cut = Volume(scan.array[:, :, : top - 3].copy(), scan.affine)
    assert "the scan ends within the brain" in said(cut)


def test_what_the_models_own_statistics_say() -> None:
    assert doubts_of_model(None, None) == ()
    assert doubts_of_model((0.06, 0.05), 0.4) == ()
    (line,) = doubts_of_model((0.22, 0.05), 0.4)
    assert "22% of its codes are unlikely, against 5% in healthy scans)" in line
    assert "not to be trusted" in line
    (line,) = doubts_of_model((0.22, 0.05), 6.9)
    assert "healthy scans and its reconstruction error is 6.9 healthy spreads" in line
    (line,) = doubts_of_model(None, 1.5)
    assert "(its reconstruction error" in line
    assert doubts_of_model((0.06, 0.05), -0.4, 1.3) == ()
    (line,) = doubts_of_model((0.06, 0.05), -0.4, 2.4)
    assert "departs from healthy ones all over, 2.4 times as much as usual" in line


def test_too_much_or_too_little_brain() -> None:
    scan = brain()
    prepared = prepared_of(scan)
    little = replace(prepared, mask=ndimage.binary_erosion(prepared.mask, iterations=6))
    assert " ml, outside 700 to 2200 ml" in said(scan, prepared=little)
    everything = replace(prepared, mask=np.ones_like(prepared.mask))
    assert " ml, outside 700 to 2200 ml" in said(scan, prepared=everything)


def test_thick_slices() -> None:
    scan = brain(spacing=12.0)
    assert "up to 12.0 mm apart, and 4 mm" in said(scan)


def test_what_cannot_be_compared_is_not(usual: np.ndarray) -> None:
    p = prepared_of(brain())
    assert likeness(p.slices, p.mask, p.position, usual) is not None
    assert likeness(p.slices, p.mask, p.position, usual[:, :5]) is None
    assert likeness(p.slices, p.mask, p.position, np.full_like(usual, 0.5)) is None
    few = np.zeros_like(p.mask)
    few[10:12, 20:22, 20:22] = True
    assert likeness(p.slices, few, p.position, usual) is None


def test_the_shipped_model_knows_what_is_usual_where() -> None:
    usual = read_atlas(read_bundle(default_models_folder() / "brain-t1"))
    assert usual is not None
    assert usual.ndim == 3
    assert usual.std() > 0.1
    assert read_atlas(read_bundle(default_models_folder() / "brain-extraction")) is None
