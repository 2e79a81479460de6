"""The slice scores as a table and a plot, and the sample score in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import slicer
from slicer import vtkMRMLPlotChartNode, vtkMRMLPlotSeriesNode, vtkMRMLTableNode
from slicer.i18n import tr as _

if TYPE_CHECKING:
    from LatentSpaceRestorationLib.detection import Detection, Estimate, SliceScore


def addNodes(
    name: str, sliceScores: Sequence[SliceScore]
) -> tuple[vtkMRMLTableNode, vtkMRMLPlotChartNode, vtkMRMLPlotSeriesNode]:
    """Make a table of slice scores with a plot of it.

    Args:
        name: the scan's.
        sliceScores: in any order; rows run from below to above.

    Returns:
        the table, the chart and its one series.
    """
    title = slicer.mrmlScene.GenerateUniqueName(_("{name} slice scores").format(name=name))
    columns = [_("Position (mm)"), _("Score")]
    ordered = sorted(sliceScores, key=lambda entry: entry.position_mm)
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", title)
    positions = np.array([entry.position_mm for entry in ordered], dtype=np.float64)
    values = np.array([entry.score for entry in ordered], dtype=np.float64)
    slicer.util.updateTableFromArray(table, [positions, values], columns)
    table.SetColumnUnitLabel(columns[0], "mm")

    series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", title)
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName(columns[0])
    series.SetYColumnName(columns[1])
    series.SetPlotType(series.PlotTypeScatter)
    series.SetMarkerStyle(series.MarkerStyleCircle)
    series.SetColor(0.85, 0.33, 0.1)

    chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", title)
    chart.SetTitle(title)
    chart.SetXAxisTitle(_("Position, from below to above (mm)"))
    chart.SetYAxisTitle(_("Slice score"))
    chart.SetLegendVisibility(False)
    chart.AddAndObservePlotSeriesNodeID(series.GetID())
    return table, chart, series


def inWords(detection: Detection) -> str:
    """How the scan compares with the model's healthy scans, in one sentence.

    n healthy scans can say no more than n / (n + 1), which is what the p-value is bounded by; the
    count comes from it, p = (1 + as high or higher) / (n + 1).
    """
    count = detection.healthy_scans
    if count == 0:
        return _("This model has no healthy scans to compare with.")
    lower = count + 1 - round(detection.p_value * (count + 1))
    if lower <= 0:
        return _("Not more unusual than any of {count} healthy scans.").format(count=count)
    return _(
        "More unusual than {lower} of {count} healthy scans (percentile {percentile})."
    ).format(lower=lower, count=count, percentile=f"{detection.percentile:.0f}")


def soFarInWords(estimate: Estimate) -> str:
    """How the scan compares with healthy scans while it is still examined, in one sentence."""
    return _(
        "So far at percentile {percentile} of healthy scans, after {made} of {wanted} restorations."
    ).format(
        percentile=f"{estimate.percentile:.0f}", made=estimate.restorations, wanted=estimate.wanted
    )


def doneInWords(seconds: float, made: int, wanted: int) -> str:
    """How long a detection took, and how many restorations it rests on if that is not all."""
    if made < wanted:
        return _("Done in {seconds} s with {made} of {wanted} restorations (time budget).").format(
            seconds=f"{seconds:.1f}", made=made, wanted=wanted
        )
    return _("Done in {seconds} s.").format(seconds=f"{seconds:.1f}")
