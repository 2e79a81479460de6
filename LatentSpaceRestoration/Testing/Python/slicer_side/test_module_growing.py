"""What is known while a detection runs: estimates, the node that shows them, and the worker."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
import unittest
from collections.abc import Callable
from typing import Any

import in_slicer
import numpy as np

in_slicer.begin()

import slicer  # noqa: E402
from LatentSpaceRestorationLib.detection import Estimate  # noqa: E402
from LatentSpaceRestorationSlicer.panel import running  # noqa: E402
from LatentSpaceRestorationSlicer.panel.preview import GrowingMap  # noqa: E402
from LatentSpaceRestorationSlicer.panel.running import WorkerRun  # noqa: E402
from logic_case import LogicTestCase  # noqa: E402
from scene_tools import (  # noqa: E402
    GEOMETRIES,
    RIGID,
    add_transform,
    add_volume,
    ijk,
    node_ids,
    same_geometry,
    scan,
)


class TestEstimates(LogicTestCase):
    """The logic hands on what the library knows after each group of restorations."""

    def setUp(self) -> None:
        super().setUp()
        self.volume = add_volume(scan(), GEOMETRIES["oblique"])

    def test_each_comes_in_the_callers_thread(self) -> None:
        estimates: list[Estimate] = []
        threads: set[threading.Thread] = set()

        def look(estimate: Estimate) -> None:
            estimates.append(estimate)
            threads.add(threading.current_thread())

        result = self.logic.detect(self.volume, onEstimate=look)
        self.assertEqual([estimate.restorations for estimate in estimates], [1, 3, 7, 15])
        self.assertEqual([estimate.is_last for estimate in estimates], [False] * 3 + [True])
        self.assertEqual(threads, {threading.current_thread()})
        self.assertEqual(estimates[-1].sample_score, result.sampleScore)
        self.assertEqual(self.stub.images_made, [])
        first = estimates[0].detection().anomaly_map
        self.assertGreater(first.max(), ijk(result.anomalyMap).max())

    def test_no_trace_of_them_in_the_scene(self) -> None:
        nodes: list[set[str]] = [node_ids()]
        self.logic.detect(self.volume, onEstimate=lambda estimate: nodes.append(node_ids()))
        self.assertEqual(nodes, [nodes[0]] * 5)

    def test_a_fault_in_the_callback_leaves_nothing(self) -> None:
        before = node_ids()

        def fail(estimate: Estimate) -> None:
            raise ValueError("not now")

        with self.assertRaisesRegex(ValueError, "not now"):
            self.logic.detect(self.volume, onEstimate=fail)
        self.assertEqual(node_ids(), before)

    def test_time_budget(self) -> None:
        self.logic.detect(self.volume)
        self.assertIsNone(self.stub.asked[-1].time_budget)
        result = self.logic.detect(self.volume, timeBudget=12.0, mode="paper")
        self.assertEqual(self.stub.asked[-1].time_budget, 12.0)
        self.assertEqual(result.detection.restorations, 3)
        # The threshold is that of as many restorations as were made.
        self.assertEqual(self.stub.calibrations_asked[-1], ("paper", "lsr"))
        self.assertEqual(result.stored.record.figures.healthy_scores[0], 3.0)


class TestGrowingMap(unittest.TestCase):
    """The node that shows a growing map lies on the scan, and goes without a trace."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def test_it_lies_on_the_scan(self) -> None:
        for name, ijk_to_ras in GEOMETRIES.items():
            for transform in (None, add_transform(RIGID)):
                with self.subTest(name, transform=transform is not None):
                    volume = add_volume(scan(), ijk_to_ras, name)
                    volume.SetAndObserveTransformNodeID(transform and transform.GetID())
                    before = node_ids()
                    growing = GrowingMap(volume)
                    for factor in (1, 2):
                        growing.show(factor * scan(), 60.0)
                        (node,) = self.added(before)
                        np.testing.assert_array_equal(ijk(node), factor * scan())
                        self.assertEqual(same_geometry(volume, node), "")
                        self.assertIs(node.GetParentTransformNode(), transform)
                        self.assertEqual(node.GetDisplayNode().GetLowerThreshold(), 60.0)
                        self.assertEqual(node.GetDisplayNode().GetUpperThreshold(), factor * 200.0)
                    growing.remove()
                    self.assertEqual(node_ids(), before)

    @staticmethod
    def added(before: set[str]) -> list[Any]:
        nodes = [slicer.mrmlScene.GetNodeByID(name) for name in node_ids() - before]
        return [node for node in nodes if node.IsA("vtkMRMLVolumeNode")]

    def test_it_follows_the_scan(self) -> None:
        volume = add_volume(scan(), GEOMETRIES["LPS"])
        growing = GrowingMap(volume)
        before = node_ids()
        growing.show(scan(), 60.0)
        volume.SetOrigin(1, 2, 3)
        growing.show(scan(), 60.0)
        (node,) = self.added(before)
        self.assertEqual(same_geometry(volume, node), "")
        # A scan of another size is another scan.
        slicer.util.updateVolumeFromArray(volume, np.zeros((3, 4, 5), np.float32))
        growing.show(scan(), 60.0)
        self.assertEqual(node_ids(), before)

    def test_removed_by_another_hand(self) -> None:
        volume = add_volume(scan(), GEOMETRIES["LPS"])
        growing = GrowingMap(volume)
        before = node_ids()
        growing.show(scan(), 60.0)
        slicer.mrmlScene.RemoveNode(self.added(before)[0])
        growing.show(scan(), 60.0)
        growing.remove()
        self.assertEqual(node_ids(), before)


class TestWorkerRun(unittest.TestCase):
    """How the worker's news come to the main thread."""

    def run_and_wait(self, work: Any, show: Callable[[int], None]) -> Any:
        self.worker: WorkerRun[int, str] = WorkerRun(work)
        return self.worker.wait(lambda fraction, message: None, show)

    def test_what_comes_too_fast_is_replaced(self) -> None:
        showing, told, end = threading.Event(), threading.Event(), threading.Event()
        shown: list[tuple[int, threading.Thread]] = []

        def work(progress: Any, is_cancelled: Any, tell: Callable[[int], None]) -> str:
            tell(1)
            showing.wait(10.0)
            for number in (2, 3, 4):
                tell(number)
            told.set()
            end.wait(10.0)
            return "done"

        def show(number: int) -> None:
            shown.append((number, threading.current_thread()))
            showing.set()
            told.wait(10.0)
            if number == 4:
                end.set()

        self.assertEqual(self.run_and_wait(work, show), "done")
        main = threading.current_thread()
        self.assertEqual(shown, [(1, main), (4, main)])

    def test_nothing_is_shown_after_cancelling(self) -> None:
        shown: list[int] = []

        def work(progress: Any, is_cancelled: Callable[[], bool], tell: Any) -> str:
            self.worker.cancel()
            tell(1)
            progress(0.5, "still going")
            threading.Event().wait(0.15)
            return "done"

        self.run_and_wait(work, shown.append)
        self.assertEqual(shown, [])

    def test_a_fault_while_showing_stops_the_work(self) -> None:
        stopped = threading.Event()

        def work(progress: Any, is_cancelled: Callable[[], bool], tell: Any) -> str:
            tell(1)
            while not is_cancelled():
                threading.Event().wait(0.01)
            stopped.set()
            return "done"

        def show(number: int) -> None:
            raise RuntimeError("no view")

        with self.assertRaisesRegex(RuntimeError, "no view"):
            self.run_and_wait(work, show)
        self.assertTrue(stopped.wait(10.0))

    @unittest.skipUnless(in_slicer.on_host() and sys.platform != "win32", "of the stand-in host")
    def test_work_that_nobody_waits_for_goes_on_while_slicer_idles(self) -> None:
        """Its event loop holds what Python threads share; without a turn, they stand still."""
        steps, over = [0], threading.Event()

        def work() -> None:
            while not over.is_set():
                steps[0] += 1
                time.sleep(0.0)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        alone, given = 0, 0
        try:
            alone = idle(0.4, steps)
            running.letComeToItsEnd(thread)
            given = idle(0.4, steps)
        finally:
            over.set()
            idle_until(lambda: not running._ending)
        self.assertGreater(given, 5 * max(alone, 1))


def idle(seconds: float, steps: list[int]) -> int:
    """Slicer's event loop without events: its own code waits, and holds the interpreter's lock.

    Returns:
        how many steps a thread made meanwhile.
    """
    before, end = steps[0], time.monotonic() + seconds
    idle_until(lambda: time.monotonic() > end)
    return steps[0] - before


def idle_until(is_over: Callable[[], bool]) -> None:
    """The same until something is so."""
    # Of PyDLL, calls keep the lock, as those of Slicer's event loop do.
    usleep = ctypes.PyDLL(None).usleep
    while not is_over():
        slicer.app.processEvents()
        usleep(10_000)


if __name__ == "__main__":
    unittest.main()
