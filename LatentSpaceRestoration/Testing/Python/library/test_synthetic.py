"""Anomalies put into healthy scans: where they are, what they change, and always the same bytes."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import nibabel
import numpy as np
import pytest
from LatentSpaceRestorationLib.errors import LSRError
from LatentSpaceRestorationLib.evaluation.synthetic.families import (
    FAMILIES,
    Family,
    family,
    put_in,
    seed_of,
)
from LatentSpaceRestorationLib.evaluation.synthetic.geometry import Healthy, ball
from LatentSpaceRestorationLib.evaluation.synthetic.patches import poisson_patch
from LatentSpaceRestorationLib.evaluation.synthetic.spheres import uniform_sphere
from LatentSpaceRestorationLib.evaluation.synthetic.strokes import Shape, choose_shape, read_shapes
from LatentSpaceRestorationLib.volume import Volume
from scan_grids import ORIENTATIONS, ScanGrid, rotation
from scipy import ndimage

#: Of what all families do to the scan of this file; it changes when the benchmark does.
BENCHMARK = "658cd9b7e9c2cb03"


@cache
def oblique_scan(seed: int = 0) -> Healthy:
    """Smooth noise, a ball of brain of 60 mm radius, on an oblique left-handed anisotropic grid."""
    affine = np.eye(4)
    affine[:3, :3] = rotation((8.0, -12.0, 20.0)) @ ORIENTATIONS[1] * [2.0, 3.0, 4.0]
    affine[:3, 3] = [10.0, -20.0, 30.0]
    grid = ScanGrid((66, 44, 34), affine)
    brain = np.linalg.norm(grid.positions() - grid.centre, axis=-1) <= 60.0
    noise = ndimage.uniform_filter(np.random.default_rng(seed).uniform(-1, 1, grid.shape), 3)
    return Healthy(Volume(np.round(500.0 + 300.0 * noise).astype(np.float32), affine), brain)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> list[Shape]:
    """Balls of 10 and of 40 ml in MNI space, as a folder of shapes."""
    folder = tmp_path_factory.mktemp("shapes")
    lines = ["name\tvolume_ml"]
    for name, radius in (("small", 13.37), ("large", 21.22)):
        axis = np.arange(-25, 26)
        distance = np.sqrt(sum(a**2 for a in np.meshgrid(axis, axis, axis, indexing="ij")))
        affine = np.eye(4)
        affine[:3, 3] = -25 + np.array([30, -20, 10])
        mask = (distance <= radius).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(mask, affine), folder / f"{name}.nii.gz")
        lines.append(f"{name}\t{mask.sum() / 1000:.3f}")
    (folder / "shapes.tsv").write_text("\n".join(lines) + "\n")
    return read_shapes(folder)


def changed(kind: Family, shapes: list[Shape], seed: int = 0) -> tuple[Volume, np.ndarray]:
    return put_in(
        kind,
        oblique_scan(),
        size=kind.sizes[-1],
        contrast=kind.contrasts[-1],
        seed=seed_of(seed, "someone", kind.name),
        donor=oblique_scan(1),
        shapes=shapes,
    )


@pytest.mark.parametrize("kind", FAMILIES, ids=lambda kind: kind.name)
def test_a_family_changes_what_its_label_says_and_always_the_same(
    kind: Family, shapes: list[Shape]
) -> None:
    scan = oblique_scan()
    volume, label = changed(kind, shapes)
    different = volume.array != scan.volume.array
    assert different.any()
    assert volume.array.dtype == np.float32
    assert volume.affine is not None
    if kind.whole_scan:
        assert not label.any()
    else:
        np.testing.assert_array_equal(different, label)
        assert not label[~scan.brain].any()
    again, same = changed(kind, shapes)
    assert again.array.tobytes() == volume.array.tobytes()
    np.testing.assert_array_equal(same, label)
    # Of a ghost only the axis is random.
    others = (changed(kind, shapes, seed=n)[0].array for n in range(1, 9))
    assert any(not np.array_equal(other, volume.array) for other in others)
    assert volume.array.min() >= scan.volume.array.min() or kind.whole_scan


def digest(shapes: list[Shape]) -> str:
    """Of the bytes of all families."""
    total = hashlib.sha256()
    for kind in FAMILIES:
        volume, label = changed(kind, shapes)
        total.update(kind.name.encode() + volume.array.tobytes() + label.tobytes())
    return total.hexdigest()[:16]


def test_the_benchmark_is_the_same_everywhere(shapes: list[Shape]) -> None:
    assert digest(shapes) == BENCHMARK


def test_seeds_depend_on_names_alone() -> None:
    assert seed_of(3, "a", "b") == 5374408134075226437
    assert len({seed_of(3, "a", "b"), seed_of(3, "ab"), seed_of(4, "a", "b")}) == 3


@pytest.mark.parametrize("contrast", [2.0, -2.0])
def test_a_sphere_has_its_size_place_and_intensity(contrast: float) -> None:
    scan = oblique_scan()
    centre = np.argwhere(scan.brain).mean(axis=0)
    centre = scan.volume.affine[:3, :3] @ centre + scan.volume.affine[:3, 3] + [10.0, 5.0, -8.0]
    array = uniform_sphere(scan, centre, 15.0, contrast, 0)
    where = array != scan.volume.array
    grid = ScanGrid(scan.volume.shape, scan.volume.affine)
    distance = np.linalg.norm(grid.positions() - centre, axis=-1)
    np.testing.assert_array_equal(where, distance <= 15.0)
    assert where.sum() * scan.volume.voxel_volume_ml == pytest.approx(14.1, rel=0.05)
    median, spread = scan.intensity
    np.testing.assert_allclose(array[where], median + contrast * spread, rtol=1e-6)


def test_a_sphere_gets_no_darker_than_the_scan_and_stays_in_the_brain() -> None:
    scan = oblique_scan()
    low, high = scan.extent
    edge = np.array([high[0], *(low + high)[1:] / 2.0])
    array = uniform_sphere(scan, edge, 20.0, -30.0, 0)
    where = array != scan.volume.array
    assert where.any()
    assert not where[~scan.brain].any()
    assert (array[where] == scan.volume.array.min()).all()


def test_deformations_show_the_scans_own_tissue(shapes: list[Shape]) -> None:
    """A ball of one intensity at the centre grows when pushed out and shrinks when drawn in."""
    grid = ScanGrid((60, 60, 60), np.diag([2.0, 2.0, 2.0, 1.0]))
    brain = np.linalg.norm(grid.positions() - grid.centre, axis=-1) <= 58.0
    array = np.full(grid.shape, 10.0, np.float32)
    array[np.linalg.norm(grid.positions() - grid.centre, axis=-1) <= 10.0] = 30.0
    scan = Healthy(Volume(array, grid.affine), brain)
    sizes = {
        name: int((family(name).change(scan, grid.centre, 24.0, 0.9, 0) > 20.0).sum())
        for name in ("sink", "source")
    }
    before = int((array > 20.0).sum())
    assert sizes["sink"] < 0.6 * before
    assert sizes["source"] > 1.5 * before


def test_a_poisson_patch_has_the_donors_gradients_and_no_edge() -> None:
    scan, donor = oblique_scan(), oblique_scan(1)
    low, high = scan.extent
    centre = (low + high) / 2.0
    after = poisson_patch(scan, centre, 20.0, 1.0, 0, donor).astype(np.float64)
    before = scan.volume.array.astype(np.float64)
    inside = after != before
    # Same brain, same place and nearly the same intensities: the donor itself, but for its scale.
    scale = scan.intensity[1] / donor.intensity[1]
    laplace = [ndimage.laplace(a) for a in (after, scale * donor.volume.array.astype(np.float64))]
    deep = ndimage.binary_erosion(inside)
    np.testing.assert_allclose(laplace[0][deep], laplace[1][deep], atol=0.05)
    rim = inside & ~deep
    pasted = family("fpi").change(scan, centre, 20.0, 1.0, 0, donor)
    assert np.abs(after - before)[rim].mean() < 0.8 * np.abs(pasted - before)[rim].mean()


def test_nothing_of_a_donor_is_no_change() -> None:
    scan = oblique_scan()
    for name in ("fpi", "pii"):
        kind = family(name)
        _, label = put_in(kind, scan, size=14.0, contrast=0.0, seed=1, donor=oblique_scan(1))
        assert not label.any()


def test_a_stroke_has_about_its_volume_and_lies_where_it_lay(shapes: list[Shape]) -> None:
    scan = oblique_scan()
    assert choose_shape(shapes, 12.0, 0).file.name == "small.nii.gz"
    assert choose_shape(shapes, 1000.0, 0).file.name == "large.nii.gz"
    kind = family("stroke-shape")
    _, label = put_in(kind, scan, size=10.0, contrast=-2.5, seed=5, shapes=shapes)
    low, high = scan.extent
    wanted = 10.0 * np.prod((high - low) / [144.0, 179.0, 147.0])
    assert label.sum() * scan.volume.voxel_volume_ml == pytest.approx(wanted, rel=0.15)
    point = np.argwhere(label).mean(axis=0) @ scan.volume.affine[:3, :3].T
    share = (point + scan.volume.affine[:3, 3] - low) / (high - low)
    # x = 30 or -30, y = -20, z = 10 of the MNI brain's box.
    assert min(abs(share[0] - 102 / 144), abs(share[0] - 42 / 144)) < 0.03
    np.testing.assert_allclose(share[1:], [86 / 179, 76 / 147], atol=0.03)


def test_where_there_are_no_shapes_there_are_none(tmp_path: Path) -> None:
    assert read_shapes(tmp_path) == []
    (tmp_path / "shapes.tsv").write_text("file\nx\n")
    with pytest.raises(LSRError, match=r"shapes\.tsv"):
        read_shapes(tmp_path)


def test_missing_slices_lose_their_signal() -> None:
    scan = oblique_scan()
    median = scan.intensity[0]
    array = family("missing-slices").change(scan, np.array([30.0, 20.0, 60.0]), 8.0, 1.0, 2)
    lost = array != scan.volume.array
    assert lost.any()
    assert (array[lost] == scan.volume.array.min()).all()
    assert sum(bool(lost.any(axis=tuple({0, 1, 2} - {a})).all()) for a in range(3)) == 2
    assert median > scan.volume.array.min()


def test_half_a_field_of_view_away_there_is_one_ghost() -> None:
    array = np.zeros((16, 8, 8), np.float32)
    array[4, 4, 4] = 100.0
    scan = Healthy(Volume(array, np.eye(4)), array > 0)
    seed = next(s for s in range(20) if np.random.default_rng(s).integers(3) == 0)
    ghost = family("motion-ghost").change(scan, np.zeros(3), 2.0, 0.1, seed)
    assert ghost[4, 4, 4] == pytest.approx(100.0)
    assert ghost[12, 4, 4] == pytest.approx(10.0)
    assert ghost.sum() == pytest.approx(110.0)


def test_unknown_families_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(LSRError, match="uniform-sphere"):
        family("tumour")


def test_a_ball_at_the_edge_of_the_scan_is_cut() -> None:
    scan = oblique_scan()
    corner = scan.volume.affine[:3, 3]
    region = ball(replace(scan, brain=np.ones(scan.volume.shape, bool)), corner, 10.0)
    assert region.inside[0, 0, 0]
    assert 0 < region.inside.sum() * scan.volume.voxel_volume_ml < 0.5 * 4.19
