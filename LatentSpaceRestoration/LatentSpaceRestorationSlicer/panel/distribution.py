"""The sample scores of healthy scans, drawn as dots, with the mark of one scan among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import qt
from slicer.i18n import tr as _

_HEIGHT = 64
_MARGIN = 10
_DOT = 7
_NARROWEST = 240
#: Orange stands out from the text's colour on light and on dark.
_MARK = (230, 110, 20)


def places(values: Sequence[float], score: float, width: float) -> tuple[list[float], float]:
    """Where values, and a score that is drawn among them, lie on a line.

    Args:
        values: sample scores of healthy scans.
        score: of this scan.
        width: of the line.

    Returns:
        places of the values and of the score, 0 to ``width``, the smallest at 0.
    """
    low, high = min(*values, score), max(*values, score)
    share = width / (high - low) if high > low else 0.0
    return [(value - low) * share for value in values], (score - low) * share


class Distribution(qt.QObject):
    """Draws into a label, and again when it is shown, made wider or gets other colours.

    Args:
        label: a QLabel; its width, palette and pixels are drawn for.
    """

    def __init__(self, label: Any) -> None:
        qt.QObject.__init__(self)
        self._label = label
        self._shown: tuple[Sequence[float], float] | None = None
        self._drawn: tuple[Any, ...] | None = None
        label.installEventFilter(self)

    def showScore(self, healthyScores: Sequence[float], score: float) -> None:
        """Show where a score lies among those of healthy scans; none of these clears the label."""
        self._shown, self._drawn = (healthyScores, score), None
        self._draw()

    def eventFilter(self, label: Any, event: Any) -> bool:
        """What Qt asks of each event of the label; it is never kept from it."""
        if event.type() in (qt.QEvent.Resize, qt.QEvent.Show, qt.QEvent.PaletteChange):
            self._draw()
        return False

    def _draw(self) -> None:
        if self._shown is None:
            return
        label, (healthyScores, score) = self._label, self._shown
        if not healthyScores:
            label.clear()
            return
        width = max(label.width, _NARROWEST)
        ratio = float(label.devicePixelRatioF()) if hasattr(label, "devicePixelRatioF") else 1.0
        ink = label.palette.color(qt.QPalette.WindowText)
        drawn = (width, ratio, ink.name())
        if drawn != self._drawn:
            self._drawn = drawn
            label.setPixmap(draw(width, ratio, ink, healthyScores, score))


def draw(width: int, ratio: float, ink: Any, healthyScores: Sequence[float], score: float) -> Any:
    """A picture with a dot for each healthy scan, and a line where this scan is.

    Dots that would touch are stacked, so that each can be counted: a smooth curve would say more
    than a few scans know.

    Args:
        width: of the picture, in points.
        ratio: pixels to a point.
        ink: QColor of the dots and of the text.
        healthyScores: at least one.
        score: of this scan.

    Returns:
        a QPixmap.
    """
    dots, mark = places(healthyScores, score, width - 2 * _MARGIN - _DOT)
    picture = qt.QPixmap(round(width * ratio), round(_HEIGHT * ratio))
    if ratio != 1.0:
        picture.setDevicePixelRatio(ratio)
    picture.fill(qt.QColor(0, 0, 0, 0))
    painter = qt.QPainter(picture)
    painter.setRenderHint(qt.QPainter.Antialiasing)
    painter.setPen(ink)
    base = _HEIGHT - 20
    painter.drawLine(_MARGIN, base, width - _MARGIN, base)
    left, right = int(qt.Qt.AlignLeft), int(qt.Qt.AlignRight)
    painter.drawText(_MARGIN, base + 4, width - 2 * _MARGIN, 16, left, _("usual"))
    painter.drawText(_MARGIN, base + 4, width - 2 * _MARGIN, 16, right, _("unusual"))
    painter.setBrush(qt.QBrush(ink))
    stacked: Counter[int] = Counter()
    for place in dots:
        column = int(place // (_DOT + 1))
        row, stacked[column] = stacked[column], stacked[column] + 1
        y = max(base - (row + 1) * (_DOT + 1), 2)
        painter.drawEllipse(_MARGIN + column * (_DOT + 1), y, _DOT, _DOT)
    colour = qt.QColor(*_MARK)
    painter.setPen(colour)
    x = _MARGIN + round(mark) + _DOT // 2
    painter.fillRect(x - 1, 2, 3, base - 2, colour)
    beside = x + 6 if x < width / 2 else x - 6 - 100
    painter.drawText(beside, 0, 100, 16, left if x < width / 2 else right, _("this scan"))
    painter.end()
    return picture
