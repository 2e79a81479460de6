"""Latent Space Restoration: what is unusual in a brain scan. Slicer's entry to the module."""

from __future__ import annotations

import sys
from typing import Any

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

#: Where the documentation lies: that of pyproject.toml, once the repository has an address.
HOMEPAGE = ""
#: The panel and its parameters are written in what Python 3.10 has; Slicer 5.8 has 3.9.
_IS_TOO_OLD = sys.version_info < (3, 10)
if not _IS_TOO_OLD:
    from LatentSpaceRestorationSlicer.logic import LatentSpaceRestorationLogic
    from LatentSpaceRestorationSlicer.panel.widget import LatentSpaceRestorationWidget
    from LatentSpaceRestorationSlicer.sample_data import registerSampleData
else:

    class LatentSpaceRestorationWidget(ScriptedLoadableModuleWidget):  # type: ignore[no-redef]
        """In place of the panel: what to do."""

        def setup(self) -> None:
            """Say it."""
            import qt

            super().setup()
            label = qt.QLabel(_("Latent Space Restoration needs Slicer 5.10 or later."))
            label.wordWrap = True
            self.layout.addWidget(label)


class LatentSpaceRestoration(ScriptedLoadableModule):
    """What Slicer shows of the module."""

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        parent.title = _("Latent Space Restoration")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "Volumes", "Plots", "Tables", "Markups"]
        parent.contributors = ["Latent Space Restoration contributors"]
        parent.helpText = _(
            "Finds what is unusual in a T1-weighted brain scan. A model of healthy brains says how"
            " likely each part of the scan is, and restores the unlikely parts; where the scan and"
            " its restoration differ, the anomaly map is high. For research use. Not for diagnosis."
            " Needs Slicer 5.10 or later."
        )
        if HOMEPAGE:
            documentation = _("Documentation")
            parent.helpText += f' <a href="{HOMEPAGE}#readme">{documentation}</a>.'
        parent.acknowledgementText = _(
            "Method: Naval Marimont and Tarroni, Anomaly detection through latent space restoration"
            " using vector-quantized variational autoencoders, ISBI 2021."
        )
        # Slicer's sample data module may be loaded after this one.
        if not _IS_TOO_OLD:
            slicer.app.connect("startupCompleted()", registerSampleData)


class LatentSpaceRestorationTest(ScriptedLoadableModuleTest):
    """Self-test, with the model that is installed."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def test_panelOpens(self) -> None:
        """The panel is there, and cannot detect without a volume."""
        widget = slicer.util.getModuleWidget("LatentSpaceRestoration")
        widget.initializeParameterNode()
        self.assertEqual(widget.ui.detectButton.text, _("Detect anomalies"))
        self.assertFalse(widget.ui.detectButton.enabled)

    def test_detect(self) -> None:
        """The sample gives a map on its own grid; without torch, a clear error."""
        from LatentSpaceRestorationSlicer.installation import MissingPackagesError
        from LatentSpaceRestorationSlicer.sample_data import loadSample

        volume = loadSample()
        logic = LatentSpaceRestorationLogic()
        if logic.packages.missing():
            with self.assertRaises(MissingPackagesError):
                logic.detect(volume)
            return
        result = logic.detect(volume, restorations=1)
        compare = slicer.modules.volumes.logic().CompareVolumeGeometry
        self.assertEqual(compare(volume, result.anomalyMap), "")
        self.assertGreater(result.sampleScore, 0.0)
