"""The panel's texts and controls: translated, explained, reached by keys, fitting on a laptop."""

from __future__ import annotations

import ast
import re
import unittest
from collections import Counter
from xml.etree import ElementTree

import in_slicer

in_slicer.begin()

import qt  # noqa: E402
import slicer  # noqa: E402
from panel_case import PanelTestCase, click, press, type_in  # noqa: E402

MODULE = in_slicer.MODULE_FOLDER
UI_FILE = MODULE / "Resources" / "UI" / "LatentSpaceRestoration.ui"
SOURCES = [MODULE / "LatentSpaceRestoration.py"]
SOURCES += sorted((MODULE / "LatentSpaceRestorationSlicer").rglob("*.py"))
#: What a user works with, and so must be explained.
CONTROLS = ("ComboBox", "SpinBox", "SliderWidget", "Button", "CheckBox", "Edit", "List", "Table")
CONTROLS += ("Browser", "ProgressBar")
#: Texts that are no words of a language, or are kept in scenes: identifiers, units, formats.
UNTRANSLATED = (
    r"vtkMRML|vtkString|SCT\^|Segmentation category|pip |LatentSpaceRestoration|\(int,int\)"
    r"|^anomaly map$|^lsr: error: $|^Contributors|contributors$|^ ?[{},: ]*$|^Closed surface$"
    r"|^Latent Space Restoration$|^step "
)


def words(text: str) -> bool:
    """Whether a text looks like something that is read: two words, or a capitalised one."""
    return bool(re.search(r"[A-Za-z]{2,} [A-Za-z]|^[A-Z][a-z]+ [a-z]", text))


class Untranslated(ast.NodeVisitor):
    """Finds texts for users outside ``_()``, and formatted ones inside it."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in ("_", "translate"):
            if not all(isinstance(argument, ast.Constant) for argument in node.args):
                self.found.append(f"line {node.lineno}: not a plain text in {name}()")
            return
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        text = node.value
        if isinstance(text, str) and words(text) and not re.search(UNTRANSLATED, text):
            self.found.append(f"line {node.lineno}: {text!r}")

    def _skip(self, node: ast.AST) -> None:
        """Annotations are no texts."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    visit_arg = _skip


class TestTexts(unittest.TestCase):
    def test_python_texts_can_be_translated(self) -> None:
        found = {}
        for path in SOURCES:
            finder = Untranslated()
            finder.visit(ast.parse(path.read_text(encoding="utf-8")))
            if finder.found:
                found[path.name] = finder.found
        self.assertEqual(found, {})

    def test_what_is_not_translated_is_noticed(self) -> None:
        finder = Untranslated()
        finder.visit(ast.parse('x.text = "Not yet"\n_(f"{a} scans")\n_("All is well")'))
        self.assertEqual(len(finder.found), 2)

    def test_texts_of_the_panel_can_be_translated(self) -> None:
        fixed = [
            text.text
            for text in ElementTree.parse(UI_FILE).iter("string")
            if text.get("notr") == "true" and words(text.text or "")
        ]
        self.assertEqual(fixed, [])


class TestControls(PanelTestCase):
    def controls(self) -> list[str]:
        root = ElementTree.parse(UI_FILE).getroot()
        return [
            entry.get("name", "")
            for entry in root.iter("widget")
            if entry.get("class", "").endswith(CONTROLS)
            or "Button" in entry.get("class", "")
            or entry.get("class", "").startswith(("QTable", "QList", "QText"))
        ]

    def test_every_control_teaches_what_it_is(self) -> None:
        self.assertGreater(len(self.controls()), 40)
        short = {name: getattr(self.ui, name).toolTip for name in self.controls()}
        self.assertEqual({n: t for n, t in short.items() if len(t.split()) < 4}, {})

    def test_nothing_is_styled_by_hand(self) -> None:
        self.assertNotIn("styleSheet", UI_FILE.read_text(encoding="utf-8"))
        for path in SOURCES:
            self.assertNotIn("setStyleSheet", path.read_text(encoding="utf-8"))

    def test_every_field_takes_keys(self) -> None:
        """One that consists of several widgets takes them by one of its parts."""
        panel = slicer.modules.latentspacerestoration.createNewWidgetRepresentation()
        ui = panel.self().ui
        composite = [
            part
            for part in vars(ui).values()
            if part.className() in ("qMRMLNodeComboBox", "ctkSliderWidget", "ctkPathLineEdit")
        ]
        self.assertGreater(len(composite), 8)
        for part in composite:
            with self.subTest(part.name):
                self.assertIsNotNone(part.focusProxy())
                self.assertNotEqual(part.focusProxy().focusPolicy, qt.Qt.NoFocus)
        panel.self().cleanup()

    def test_every_field_has_a_key(self) -> None:
        """A label before a field leads to it; keys are unique among what is open at first."""
        root = ElementTree.parse(UI_FILE).getroot()
        fields = {
            entry.get("name", "")
            for entry in root.iter("widget")
            if entry.get("class", "").endswith(("ComboBox", "SpinBox", "SliderWidget", "LineEdit"))
        } - {"coloursSelector"}  # beside the layer, one Tab away
        led_to, keys = set(), {}
        for entry in root.iter("widget"):
            text = entry.findtext("property[@name='text']/string", "")
            found = re.search("&(.)", text)
            if found:
                keys[entry.get("name", "")] = found[1].lower()
            buddy = entry.findtext("property[@name='buddy']/cstring")
            if buddy:
                self.assertTrue(found, text)
                led_to.add(buddy)
        self.assertEqual(fields - led_to, set())
        for section in (
            ("inputsSection", "resultSection"),
            ("outputsSection",),
            ("advancedSection",),
            ("trainingSection",),
        ):
            names = [
                entry.get("name", "")
                for name in section
                for entry in root.find(f".//widget[@name='{name}']").iter("widget")
            ]
            twice = Counter(keys[name] for name in names if name in keys)
            twice["p"] = 1  # the two opacities are never shown together
            self.assertEqual([key for key, times in twice.items() if times > 1], [], section)

    def test_the_keyboard_is_enough(self) -> None:
        """From the volume by Tab to the button, which Space presses."""
        window = self.area
        window.activateWindow()
        self.ui.inputVolumeSelector.setFocus()
        slicer.app.processEvents()
        wanted = ["inputVolumeSelector", "brainMaskSelector", "modelSelector", "detectButton"]
        passed: list[str] = []
        for _ in range(20):
            focused = qt.QApplication.focusWidget()
            while focused is not None and focused.name not in vars(self.ui):
                focused = focused.parentWidget()
            if focused is not None and (not passed or passed[-1] != focused.name):
                passed.append(focused.name)
            if passed and passed[-1] == "detectButton":
                break
            press(qt.QApplication.focusWidget() or window, "Key_Tab")
        self.assertEqual([name for name in passed if name in wanted], wanted)
        press(self.ui.detectButton, "Key_Space")
        self.assertIsNotNone(self.widget.resultSection.shown)

    def test_a_laptop_screen_is_wide_enough(self) -> None:
        """Nothing is cut off sideways in a panel as wide as Slicer's on 1366 x 768 pixels."""
        click(self.ui.detectButton)
        for name in ("outputs", "advanced", "models", "training", "computer"):
            getattr(self.ui, f"{name}Section").collapsed = False
        self.area.resize(440, 640)
        for _ in range(3):
            slicer.app.processEvents()
        self.assertEqual(self.area.horizontalScrollBar().maximum, 0)

    def test_typing_a_number(self) -> None:
        """The parameter, which follows, does not change the text while it is typed."""
        click(self.ui.detectButton)
        type_in(self.ui.smallestSpinBox, "1.25")
        self.assertEqual(self.parameters.smallest, 1.25)


if __name__ == "__main__":
    unittest.main()
