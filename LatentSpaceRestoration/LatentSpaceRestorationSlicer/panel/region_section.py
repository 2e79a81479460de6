"""The panel's list of found regions, and what it is exported as."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from ..scene import display, page, regions
from ..scene.stored import StoredResult

if TYPE_CHECKING:
    from LatentSpaceRestorationLib.results.regions import Region

#: More rows than anybody reads; all are exported.
_MOST_ROWS = 200

#: The column that says, in a word, what a region is flagged for.
_WHY = 3


class RegionSection:
    """Lists the regions of a result; the slice views jump to the one that is chosen.

    Args:
        ui: the panel's widgets.
    """

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self._result: StoredResult | None = None
        self.regions: list[Region] = []
        table = ui.regionsTable
        header = table.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        rows = table.verticalHeader()
        rows.setDefaultSectionSize(rows.minimumSectionSize)
        table.connect("itemSelectionChanged()", self.onRegionChosen)
        table.connect("cellClicked(int,int)", self.onRegionChosen)
        ui.exportButton.connect("clicked(bool)", self.onExportButton)
        ui.exportPageButton.connect("clicked(bool)", self.onExportPageButton)

    def show(self, result: StoredResult | None, smallestML: float = 0.0) -> None:
        """List the regions of a result, or none."""
        self._result = result
        self.regions = []
        words = ""
        if result is not None and result.isInScene():
            try:
                self.regions = regions.regionsOf(result, smallestML)
                words = regions.summary(result, self.regions)
            except ImportError as error:
                words = _("Regions cannot be listed: {reason}.").format(reason=error)
        # Without a result there is nothing to list, and the panel is half as high.
        self._ui.regionsSection.visible = result is not None
        self._ui.regionsLabel.text = words
        self._ui.regionsLabel.visible = bool(words)
        self._ui.exportButton.enabled = bool(self.regions)
        self._ui.exportPageButton.enabled = result is not None and result.isInScene()
        self._fill()

    def _fill(self) -> None:
        table = self._ui.regionsTable
        blocked = table.blockSignals(True)
        table.clearSelection()
        table.setCurrentCell(-1, -1)
        table.rowCount = min(len(self.regions), _MOST_ROWS)
        for row, region in enumerate(self.regions[:_MOST_ROWS]):
            place = ", ".join(f"{x:+.0f}" for x in region.position_mm)
            numbers = (f"{number:.3g}" for number in (region.volume_ml, region.peak))
            texts = (region.words, *numbers, regions.signsOf(region), place)
            for column, text in enumerate(texts):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(region.evidence.words if column == _WHY else text)
                table.setItem(row, column, item)
        table.blockSignals(blocked)

    def onRegionChosen(self, row: int = 0, column: int = 0) -> None:
        """Move the slice views to the chosen region's peak."""
        chosen = self._ui.regionsTable.currentRow()
        if 0 <= chosen < len(self.regions):
            display.jumpTo(self.regions[chosen].position_mm)

    def onExportButton(self, checked: bool = False) -> None:
        """Write the list into a table and into points."""
        if self._result is None or not self._result.isInScene():
            return
        with slicer.util.tryWithErrorDisplay(_("The list cannot be exported.")):
            table, _points = regions.export(self._result, self.regions)
            self._ui.statusLabel.text = _("Regions in table and points {name}: {count}.").format(
                count=len(self.regions), name=table.GetName()
            )

    def onExportPageButton(self, checked: bool = False) -> None:
        """Ask for a file, and write the result into it as a page."""
        if self._result is None or not self._result.isInScene():
            return
        name = self._result.anomalyMap.GetName()
        path = qt.QFileDialog.getSaveFileName(
            self._ui.regionsSection, _("Page of this result"), f"{name}.html", "HTML (*.html)"
        )
        if not path:
            return
        with slicer.util.tryWithErrorDisplay(_("The page cannot be written."), waitCursor=True):
            written = page.writePage(self._result, path)
            self._ui.statusLabel.text = _("Written: {path}").format(path=written)
