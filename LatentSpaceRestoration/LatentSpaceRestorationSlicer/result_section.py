"""The panel's section on the last result: its score, threshold, warnings, plot and peak."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from . import display, scores
from .results import DetectionResult, peakPosition

if TYPE_CHECKING:
    from LatentSpaceRestorationLib.detection import Estimate

_POINTS_SELECTED = "dataSelected(vtkStringArray*, vtkCollection*)"
#: Moving the slider cuts the segmentation again, but not at every step on its way.
_SETTLE_MILLISECONDS = 150


class ResultSection:
    """Shows a result, and lets the user cut it at another threshold.

    Args:
        ui: the panel's widgets.
        setThreshold: cuts a result at a healthy percentile.
    """

    def __init__(self, ui: Any, setThreshold: Callable[[DetectionResult, float], None]) -> None:
        self._ui = ui
        self._setThreshold = setThreshold
        self._result: DetectionResult | None = None
        self._plotView: Any = None
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLE_MILLISECONDS)
        self._timer.connect("timeout()", self._cutAgain)
        ui.thresholdSlider.connect("valueChanged(double)", self.onThresholdChanged)
        ui.scoresButton.connect("clicked(bool)", self.onScoresButton)
        ui.peakButton.connect("clicked(bool)", self.onPeakButton)
        self.show(None)

    def close(self) -> None:
        """The panel is about to be destroyed."""
        self._timer.stop()
        if self._plotView is not None:
            self._plotView.disconnect(_POINTS_SELECTED, self.onPointsSelected)
            self._plotView = None

    def show(self, result: DetectionResult | None) -> None:
        """Show a result, or that there is none."""
        self._result = result
        self._timer.stop()
        hasResult = result is not None
        warnings = () if result is None else result.warnings
        self._ui.scoresButton.enabled = hasResult
        self._ui.peakButton.enabled = hasResult
        self._ui.scoreLabel.visible = hasResult
        self._ui.warningsLabel.visible = bool(warnings)
        self._ui.warningsLabel.text = "\n".join(warnings)
        if result is None:
            self._ui.wordsLabel.text = _("No result yet.")
            return
        self._ui.wordsLabel.text = scores.inWords(result.detection)
        self._showScore(result.sampleScore)

    def showEstimate(self, estimate: Estimate) -> None:
        """Show the score so far of a detection that runs."""
        self._ui.wordsLabel.text = scores.soFarInWords(estimate)
        self._ui.scoreLabel.visible = True
        self._showScore(estimate.sample_score)

    def _showScore(self, score: float) -> None:
        self._ui.scoreLabel.text = _("Sample score: {score}").format(score=f"{score:.3g}")

    def onThresholdChanged(self, percentile: float) -> None:
        """The slider moved."""
        if self._result is not None:
            self._timer.start()

    def _cutAgain(self) -> None:
        if self._result is None or not self._result.isInScene():
            return
        with slicer.util.tryWithErrorDisplay(_("The threshold cannot be applied.")):
            self._setThreshold(self._result, self._ui.thresholdSlider.value)

    def onPeakButton(self, checked: bool = False) -> None:
        """Move the slice views to where the anomaly map is highest."""
        place = None if self._result is None else peakPosition(self._result)
        if place is not None:
            display.jumpTo(place)

    def onScoresButton(self, checked: bool = False) -> None:
        """Show the plot of the slice scores; selecting a point of it moves the slice views."""
        if self._result is None or not slicer.mrmlScene.IsNodePresent(self._result.scoreChart):
            return
        slicer.modules.plots.logic().ShowChartInLayout(self._result.scoreChart)
        layout = slicer.app.layoutManager()
        if layout is not None and self._plotView is None:
            self._plotView = layout.plotWidget(0).plotView()
            self._plotView.connect(_POINTS_SELECTED, self.onPointsSelected)

    def onPointsSelected(self, seriesIDs: Any, selections: Any) -> None:
        """Points of a plot were selected: show the slice of the first one."""
        if self._result is None:
            return
        series = self._result.scoreSeries
        for index in range(seriesIDs.GetNumberOfValues()):
            rows = selections.GetItemAsObject(index)
            if seriesIDs.GetValue(index) == series.GetID() and rows.GetNumberOfValues() > 0:
                column = series.GetTableNode().GetTable().GetColumn(0)
                display.showAxialSlice(column.GetValue(rows.GetValue(0)))
                return
