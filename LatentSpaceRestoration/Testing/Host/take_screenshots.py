"""Takes the pictures of the panel and the views that the documentation shows.

    python LatentSpaceRestoration/Testing/Host/slicer_host.py --no-splash --testing \\
        --additional-module-paths LatentSpaceRestoration \\
        --python-script LatentSpaceRestoration/Testing/Host/take_screenshots.py FOLDER

The tutorial's scan is the sample that comes with the module: a generated brain with a painted
lesion. The one on a laptop's screen is that of ``lsr demo``: a real brain with a painted lesion.
The pictures are of the stand-in host: the panel is the module's own, drawn by Qt; ``view_pictures``
says how views are drawn.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import qt
import slicer
from LatentSpaceRestorationLib.evaluation.synthetic.painted_lesion import painted_template
from LatentSpaceRestorationLib.io.images import write_volume
from LatentSpaceRestorationSlicer.sample_data import SAMPLE
from LatentSpaceRestorationSlicer.scene.nodes import SEGMENT_ID
from SampleData import SampleDataLogic
from view_pictures import outline, plot, slices, surface

_SIZE = 380
_PANEL_WIDTH = 440
#: A common laptop's screen, and what Slicer's menu, toolbars and status line leave of its height.
_LAPTOP, _BARS = (1366, 768), 118
_DARK = {"Window": 53, "Base": 35, "AlternateBase": 45, "Button": 60, "ToolTipBase": 35}
_LIGHT_TEXT = ("WindowText", "Text", "ButtonText", "ToolTipText", "BrightText")


def main() -> None:
    """Detect in the panel, and save what is seen."""
    parser = argparse.ArgumentParser(prog="take_screenshots.py")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--restorations", type=int, default=15)
    options = parser.parse_args(sys.argv[1:])
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)

    def save(picture: Any, name: str) -> None:
        picture.save(str(folder / f"{name}.png"))

    volume, lesion = SampleDataLogic().downloadSamples(SAMPLE)
    lesion.GetDisplayNode().SetVisibility(False)
    volume.GetDisplayNode().AutoWindowLevelOff()
    volume.GetDisplayNode().SetWindowLevelMinMax(30.0, 225.0)

    panel, area = openPanel()
    widget = panel.self()
    parameters = widget._parameterNode
    parameters.inputVolume = volume
    parameters.restorations = options.restorations
    save(grabPanel(area, panel), "panel-start")
    widget.ui.detectButton.click()
    result = widget.resultSection.shown
    widget.ui.regionsTable.setCurrentCell(0, 0)
    save(grabPanel(area, panel), "panel")
    outline(result)
    save(slices(_SIZE), "slices")
    save(plot(result, 760, 300), "slice-scores")
    for layer in ("restoration", "spread"):
        parameters.layer = layer
        save(slices(_SIZE), layer)
    parameters.layer = "anomaly map"
    dark()
    settle()
    widget.resultSection.show(None)
    widget.onUndone()  # draws the healthy scans in the palette's colours
    widget.ui.regionsTable.setCurrentCell(0, 0)
    save(grabPanel(area, panel), "panel-dark")
    qt.QApplication.setPalette(qt.QApplication.style().standardPalette())
    for section in ("inputs", "result", "regions"):
        getattr(widget.ui, f"{section}Section").collapsed = True
    widget.ui.modelsSection.collapsed = widget.ui.trainingSection.collapsed = False
    widget.ui.scansPath.currentPath = "/data/healthy-controls"
    widget.ui.ownFolderPath.currentPath = "/data/models"
    widget.ui.populationLineEdit.text = "healthy adults aged 20 to 40, 3 T"
    save(grabPanel(area, panel), "models")
    for section in ("inputs", "result", "regions"):
        getattr(widget.ui, f"{section}Section").collapsed = False
    widget.ui.modelsSection.collapsed = widget.ui.trainingSection.collapsed = True
    parameters.inputVolume = realBrain(folder)
    widget.ui.detectButton.click()
    result = widget.resultSection.shown
    widget.ui.regionsTable.setCurrentCell(0, 0)
    outline(result)
    solid = surface(result, SEGMENT_ID, _SIZE)
    save(laptop(area, slices(316, (solid.scaled(316, 316),), columns=2)), "laptop")


def realBrain(folder: Path) -> Any:
    """The scan of ``lsr demo``, loaded from a file as a user would."""
    painted, _ = painted_template()
    file = folder / "demo.nii.gz"
    write_volume(file, painted)
    volume = slicer.util.loadVolume(str(file))
    file.unlink()
    volume.GetDisplayNode().AutoWindowLevelOff()
    volume.GetDisplayNode().SetWindowLevelMinMax(0.0, float(np.percentile(painted.array, 99.9)))
    return volume


def openPanel() -> tuple[Any, Any]:
    """The panel, in an area as wide as Slicer's module panel."""
    qt.QApplication.setStyle("Fusion")
    panel = slicer.modules.latentspacerestoration.createNewWidgetRepresentation()
    area = qt.QScrollArea()
    area.widgetResizable = True
    area.setWidget(panel)
    area.resize(_PANEL_WIDTH, 900)
    area.show()
    panel.enter()
    slicer.app.processEvents()
    return panel, area


def settle() -> None:
    """Wrapped lines get their height a few events later."""
    for _ in range(4):
        slicer.app.processEvents()


def grabPanel(area: Any, panel: Any) -> Any:
    """A picture of the whole panel."""
    settle()
    area.resize(_PANEL_WIDTH, panel.sizeHint.height() + 4)
    settle()
    return area.grab()


def laptop(area: Any, views: Any) -> Any:
    """The panel beside the views, as large as a laptop's screen shows them.

    Raises:
        AssertionError: something of the panel is cut off sideways.
    """
    width, height = _LAPTOP
    area.resize(_PANEL_WIDTH, height - _BARS)
    settle()
    assert area.horizontalScrollBar().maximum == 0, "the panel is too wide"
    picture = qt.QImage(width, height - _BARS, qt.QImage.Format_RGB32)
    picture.fill(qt.QColor(20, 20, 24))
    painter = qt.QPainter(picture)
    painter.drawPixmap(0, 0, area.grab())
    left = _PANEL_WIDTH + (width - _PANEL_WIDTH - views.width()) // 2
    painter.drawImage(left, (picture.height() - views.height()) // 2, views)
    painter.end()
    return picture


def dark() -> None:
    """A dark palette, as Slicer's dark style has."""
    palette = qt.QPalette()
    for name, grey in _DARK.items():
        palette.setColor(getattr(qt.QPalette, name), qt.QColor(grey, grey, grey))
    for name in _LIGHT_TEXT:
        palette.setColor(getattr(qt.QPalette, name), qt.QColor(230, 230, 230))
        palette.setColor(qt.QPalette.Disabled, getattr(qt.QPalette, name), qt.QColor(130, 130, 130))
    palette.setColor(qt.QPalette.Highlight, qt.QColor(42, 130, 218))
    palette.setColor(qt.QPalette.HighlightedText, qt.QColor(0, 0, 0))
    qt.QApplication.setPalette(palette)


main()
