"""The same on MRML nodes: through parent transforms of every kind, and through a saved scene."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import in_slicer
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

in_slicer.begin()

import slicer  # noqa: E402
import vtk  # noqa: E402
from LatentSpaceRestorationLib.detection import Detection  # noqa: E402
from LatentSpaceRestorationLib.volume import Volume  # noqa: E402
from phantoms import (  # noqa: E402
    SMALL,
    block_at,
    little_brain,
    middle_of,
    prepared_with,
)
from scan_grids import ORIENTATIONS, ScanGrid, rotation, scan_grids  # noqa: E402
from scene_tools import (  # noqa: E402
    add_transform,
    add_volume,
    affine,
    ijk,
    same_geometry,
    segment_ijk,
    to_world,
)
from stub_detector import NothingMissing, StubDetector  # noqa: E402

from LatentSpaceRestoration import LatentSpaceRestorationLogic  # noqa: E402

few = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
offsets = st.tuples(*[st.floats(-8.0, 8.0)] * 3).map(np.array)
degrees = st.tuples(*[st.floats(-180.0, 180.0)] * 3)
shifts = st.tuples(*[st.floats(-80.0, 80.0)] * 3)


class BrightDetector(StubDetector):
    """Finds what is bright, in model space, as a real detector would bring it back."""

    def _detection(
        self, volume: Volume, brain_mask: Any, threshold: Any, *further: Any
    ) -> Detection:
        made = super()._detection(volume, brain_mask, threshold, *further)
        prepared = prepared_with(volume, volume.array > 50.0)
        brain, (values,) = prepared.brain_to_native(np.maximum(prepared.slices - 1.5, 0.0))
        mask = (values >= 0.7) & brain
        return replace(made, anomaly_map=values, anomaly_mask=mask.astype(np.uint8), threshold=0.7)


class Case:
    """A scan node with an anomaly whose place is known, and a logic to find it."""

    def __init__(self, grid: ScanGrid, offset: np.ndarray, name: str = "Head") -> None:
        scan, ball = little_brain(grid, 0)
        block = block_at(grid, offset, 6.0)
        scan.array[block.box] += 100.0
        self.block, self.grid = block, grid
        self.node = add_volume(np.where(ball, scan.array, 0.0), grid.affine, name)
        self.stub = BrightDetector()
        self.logic = LatentSpaceRestorationLogic(self.stub.load, NothingMissing())

    def detect_under(self, transform: Any) -> Any:
        self.node.SetAndObserveTransformNodeID(transform and transform.GetID())
        return self.logic.detect(self.node)

    def check(self, result: Any) -> None:
        """The map lies on the scan, and is high where the anomaly is."""
        parent = self.node.GetParentTransformNode()
        for node in (result.anomalyMap, result.restoration):
            assert same_geometry(self.node, node) == ""
            assert node.GetParentTransformNode() is parent
        assert result.segmentation.GetParentTransformNode() is parent
        found = self.grid.world(middle_of(ijk(result.anomalyMap)))
        distance = np.linalg.norm(found - self.grid.world(self.block.middle))
        assert distance < 0.5 * SMALL.spacing_mm


def given_affine(case: Case) -> np.ndarray:
    """What the library was told of where the scan lies."""
    return case.stub.asked[-1].volume.affine


@few
@given(scan_grids(), offsets, degrees, shifts, st.booleans())
def test_rigid_transforms_say_what_is_axial(
    grid: ScanGrid,
    offset: np.ndarray,
    turn: tuple[float, float, float],
    shift: tuple[float, float, float],
    nested: bool,
) -> None:
    slicer.mrmlScene.Clear()
    case = Case(grid, offset)
    transform = add_transform(affine(rotation(turn), (1, 1, 1), shift))
    if nested:
        outer = add_transform(affine(rotation(turn[::-1]), (1, 1, 1), shift[::-1]))
        transform.SetAndObserveTransformNodeID(outer.GetID())
    result = case.detect_under(transform)
    case.check(result)
    assert result.warnings == ()
    for index in ((0, 0, 0), tuple(n - 1 for n in grid.shape)):
        place = (given_affine(case) @ (*index, 1))[:3]
        np.testing.assert_allclose(place, to_world(case.node, index), atol=1e-3)


def bend(name: str = "Bend") -> Any:
    """A transform node that bends space by up to 10 mm."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", name)
    spline = vtk.vtkThinPlateSplineTransform()
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for corner in np.ndindex(2, 2, 2):
        source.InsertNextPoint(*(100.0 * c for c in corner))
        target.InsertNextPoint(*(100.0 * c + 10.0 * (sum(corner) == 2) for c in corner))
    spline.SetSourceLandmarks(source)
    spline.SetTargetLandmarks(target)
    spline.SetBasisToR()
    node.SetAndObserveTransformToParent(spline)
    return node


#: (4, 4) of linear transforms that are not rigid.
OTHER = {
    "scaling": np.diag([1.0, 1.0, 1.2, 1.0]),
    "mirroring": np.diag([-1.0, 1.0, 1.0, 1.0]),
    "shearing": np.eye(4) + 0.2 * np.eye(4)[[3, 3, 0, 3]] * np.array([[0], [0], [1], [0]]),
}


@pytest.mark.parametrize("kind", [*OTHER, "bending", "bending in a rigid one"])
def test_other_transforms_are_carried_over_and_said(kind: str) -> None:
    slicer.mrmlScene.Clear()
    turn = affine(rotation((20.0, -30.0, 40.0)) @ ORIENTATIONS[29], (2.0, 3.0, 2.5), (9, 8, 7))
    case = Case(ScanGrid((35, 25, 31), turn), np.array([5.0, 4.0, -6.0]))
    transform = bend() if kind.startswith("bending") else add_transform(OTHER[kind])
    if kind == "bending in a rigid one":
        rigid = add_transform(affine(rotation((9.0, 8.0, 7.0)), (1, 1, 1), (6, 5, 4)))
        transform.SetAndObserveTransformNodeID(rigid.GetID())
    result = case.detect_under(transform)
    case.check(result)
    np.testing.assert_allclose(given_affine(case), case.grid.affine, atol=1e-6)
    (line,) = result.warnings
    assert "bends, scales or mirrors space" in line


def test_a_saved_scene_keeps_every_map_on_its_scan() -> None:
    slicer.mrmlScene.Clear()
    transforms = {
        "Plain": lambda: None,
        "Turned": lambda: add_transform(affine(rotation((50, 60, 70)), (1, 1, 1), (1, 2, 3))),
        "Scaled": lambda: add_transform(OTHER["scaling"]),
        "Bent": bend,
    }
    maps, places, masks = {}, {}, {}
    for number, (name, make) in enumerate(transforms.items()):
        # Left-handed grids, too.
        axes = rotation((10.0 * number, 5.0, -20.0)) @ ORIENTATIONS[11 * number + 1]
        grid = ScanGrid((33, 25, 28), affine(axes, (2.2, 3.0, 2.6), (-5, 7, 30)))
        case = Case(grid, np.array([4.0, -5.0, 6.0]), name)
        result = case.detect_under(make())
        case.check(result)
        maps[name], masks[name] = ijk(result.anomalyMap), result.detection.anomaly_mask
        places[name] = to_world(result.anomalyMap, middle_of(maps[name]))
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "scene.mrb")
        assert slicer.util.saveScene(path, {})
        slicer.mrmlScene.Clear()
        slicer.util.loadScene(path, {})
    for name in transforms:
        volume = slicer.util.getNode(name)
        loaded = slicer.util.getNode(f"{name} anomaly map")
        assert same_geometry(volume, loaded) == ""
        values = ijk(loaded)
        np.testing.assert_allclose(to_world(loaded, middle_of(values)), places[name], atol=0.05)
        # What was left-handed comes back with its slices in the other order, the scan as well.
        order = 1 if np.array_equal(values, maps[name]) else -1
        np.testing.assert_array_equal(values[:, :, ::order], maps[name])
        segmentation = slicer.util.getNode(f"{name} anomalies")
        inside = segment_ijk(segmentation, "Anomaly", volume)
        np.testing.assert_array_equal(inside[:, :, ::order], masks[name])
        # And detecting again in the loaded scene finds the same.
        stub = BrightDetector()
        again = LatentSpaceRestorationLogic(stub.load, NothingMissing()).detect(volume)
        np.testing.assert_allclose(ijk(again.anomalyMap), values, atol=1e-3)
