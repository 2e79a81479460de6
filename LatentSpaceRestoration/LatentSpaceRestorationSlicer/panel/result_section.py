"""The panel's section on a result: its score, threshold, warnings, plot and peak."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from ..scene import display, score_plot
from ..scene.results import peakPosition
from ..scene.stored import StoredResult
from .distribution import Distribution
from .layers_section import LayersSection
from .region_section import RegionSection

if TYPE_CHECKING:
    from LatentSpaceRestorationLib.detection import Estimate

_POINTS_SELECTED = "dataSelected(vtkStringArray*, vtkCollection*)"
#: Moving the slider cuts the segmentation again, but not at every step on its way.
_SETTLE_MILLISECONDS = 150
#: The surface takes longer than all else, so that it waits until the slider is left alone.
_SURFACE_MILLISECONDS = 700


class ResultSection:
    """Shows a result, and lets the user cut it at another threshold.

    Args:
        ui: the panel's widgets.
        cut: cuts a result at a healthy percentile, without making its surface again.

    Attributes:
        shown: the result, or None.
        layers: what the views show of it.
        regions: what it found.
    """

    def __init__(self, ui: Any, cut: Callable[[StoredResult, float], None]) -> None:
        self._ui = ui
        self._cut = cut
        self.shown: StoredResult | None = None
        self.layers = LayersSection(ui)
        self.regions = RegionSection(ui)
        self._distribution = Distribution(ui.distributionLabel)
        self._plotView: Any = None
        self._settled = 0.0
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLE_MILLISECONDS)
        self._timer.connect("timeout()", self._settle)
        self._surfaceTimer = qt.QTimer()
        self._surfaceTimer.setSingleShot(True)
        self._surfaceTimer.setInterval(_SURFACE_MILLISECONDS)
        self._surfaceTimer.connect("timeout()", self.layers.buildSurface)
        ui.thresholdSlider.connect("valueChanged(double)", self.onThresholdChanged)
        ui.smallestSpinBox.connect("valueChanged(double)", self._startTimer)
        ui.scoresButton.connect("clicked(bool)", self.onScoresButton)
        ui.peakButton.connect("clicked(bool)", self.onPeakButton)
        self.onThresholdChanged(ui.thresholdSlider.value)
        self.show(None)

    def close(self) -> None:
        """The panel is about to be destroyed."""
        self._timer.stop()
        self._surfaceTimer.stop()
        self.layers.close()
        if self._plotView is not None:
            self._plotView.disconnect(_POINTS_SELECTED, self.onPointsSelected)
            self._plotView = None

    def show(self, result: StoredResult | None) -> None:
        """Show a result, or that there is none."""
        self._timer.stop()
        if self._surfaceTimer.active:
            self._surfaceTimer.stop()
            self.layers.buildSurface()  # of the result that was shown
        self.shown = result
        hasResult = result is not None
        warnings = () if result is None else result.record.figures.warnings
        for part in ("scoresButton", "peakButton"):
            getattr(self._ui, part).enabled = hasResult
        for part in ("scoreLabel", "distributionLabel"):
            getattr(self._ui, part).visible = hasResult
        for part in (self._ui.warningsIcon, self._ui.warningsLabel):
            part.visible = bool(warnings)
        self._ui.warningsLabel.text = "\n".join(warnings)
        self.layers.show(result)
        self.regions.show(result, self._ui.smallestSpinBox.value)
        if result is None:
            self._ui.wordsLabel.text = _("No result yet.")
            return
        figures = result.record.figures
        self._ui.wordsLabel.text = score_plot.inWords(
            figures.p_value, figures.healthy_scans, figures.healthy_sites
        )
        score = figures.sample_score
        assert score is not None  # every detection has one
        self._showScore(score)
        self._distribution.showScore(figures.healthy_scores, score)

    def takeThreshold(self) -> None:
        """The slider was moved to where the result is cut, as far as it goes: cut nothing."""
        self._timer.stop()
        self._settled = self._ui.thresholdSlider.value

    def showEstimate(self, estimate: Estimate) -> None:
        """Show the score so far of a detection that runs."""
        self._ui.wordsLabel.text = score_plot.soFarInWords(estimate)
        self._ui.scoreLabel.visible = True
        self._showScore(estimate.sample_score)

    def _showScore(self, score: float) -> None:
        self._ui.scoreLabel.text = _("Sample score: {score}").format(score=f"{score:.3g}")

    def onThresholdChanged(self, percentile: float) -> None:
        """The slider moved."""
        self._surfaceTimer.stop()
        self._ui.rarityLabel.text = score_plot.rarityInWords(percentile)
        self._startTimer()

    def _startTimer(self) -> None:
        if self.shown is not None:
            self._timer.start()

    def _settle(self) -> None:
        """Cut the segmentation where the slider is, and list its regions."""
        result = self.shown
        if result is None or not result.isInScene():
            return
        with slicer.util.tryWithErrorDisplay(_("The threshold cannot be applied.")):
            percentile = self._ui.thresholdSlider.value
            if percentile != self._settled:
                self._cut(result, percentile)
                self._settled = percentile
            self._surfaceTimer.start()
            self.regions.show(result, self._ui.smallestSpinBox.value)

    def onPeakButton(self, checked: bool = False) -> None:
        """Move the slice views to where the anomaly map is highest."""
        place = None if self.shown is None else peakPosition(self.shown)
        if place is not None:
            display.jumpTo(place)

    def onScoresButton(self, checked: bool = False) -> None:
        """Show the plot of the slice scores; selecting a point of it moves the slice views."""
        chart = None if self.shown is None else self.shown.scoreChart
        if chart is None:
            return
        slicer.modules.plots.logic().ShowChartInLayout(chart)
        layout = slicer.app.layoutManager()
        if layout is not None and self._plotView is None:
            self._plotView = layout.plotWidget(0).plotView()
            self._plotView.connect(_POINTS_SELECTED, self.onPointsSelected)

    def onPointsSelected(self, seriesIDs: Any, selections: Any) -> None:
        """Points of a plot were selected: show the slice of the first one."""
        series = None if self.shown is None else self.shown.scoreSeries
        if series is None:
            return
        for index in range(seriesIDs.GetNumberOfValues()):
            rows = selections.GetItemAsObject(index)
            if seriesIDs.GetValue(index) == series.GetID() and rows.GetNumberOfValues() > 0:
                column = series.GetTableNode().GetTable().GetColumn(0)
                display.showAxialSlice(column.GetValue(rows.GetValue(0)))
                return
