"""The slice scores as a table and a plot, and the sample score in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import slicer
from slicer import vtkMRMLPlotChartNode, vtkMRMLPlotSeriesNode, vtkMRMLTableNode
from slicer.i18n import tr as _

if TYPE_CHECKING:
    from LatentSpaceRestorationLib.detection import Estimate, SliceScore


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


def inWords(pValue: float | None, healthyScans: int, healthySites: int = 0) -> str:
    """How the scan compares with the model's healthy scans, and how much these can tell.

    n healthy scans can say no more than n / (n + 1), which is what the p-value is bounded by; the
    count comes from it, p = (1 + as high or higher) / (n + 1).
    """
    count = healthyScans
    if count == 0:
        return _("This model has no healthy scans to compare with.")
    if pValue is None:
        return _("No percentile, since the map is not to be trusted.")
    lower = count + 1 - round(pValue * (count + 1))
    if healthySites > 1:
        whom = _("{count} healthy scans of {sites} sites").format(count=count, sites=healthySites)
    else:
        whom = _("{count} healthy scans").format(count=count)
    if lower <= 0:
        return _("Not more unusual than any of {whom}.").format(whom=whom)
    limit = _("With {count} scans, at most {percent}% can be claimed.").format(
        count=count, percent=100 * count // (count + 1)
    )
    if lower >= count:
        words = _("More unusual than all {whom}.").format(whom=whom)
    else:
        words = _("More unusual than {lower} of {whom}.").format(lower=lower, whom=whom)
    return f"{words} {limit}"


def rarityInWords(percentile: float) -> str:
    """A healthy percentile as a count: 99.9 is 1 voxel in 1,000."""
    one = float(f"{100.0 / (100.0 - percentile):.2g}")
    return _("1 voxel in {count} of a healthy brain is as high.").format(count=f"{one:,.10g}")


def soFarInWords(estimate: Estimate) -> str:
    """How the scan compares with healthy scans while it is still examined, in one sentence."""
    if estimate.wanted and not estimate.restorations:
        if estimate.percentile is None:
            return _("The map is there; what is unusual is being restored.")
        return _(
            "At percentile {percentile} of healthy scans; what is unusual is being restored."
        ).format(percentile=f"{estimate.percentile:.0f}")
    if estimate.percentile is None:
        return _("So far after {made} of {wanted} restorations.").format(
            made=estimate.restorations, wanted=estimate.wanted
        )
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
