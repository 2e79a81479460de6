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


def draw(label: Any, width: int, healthyScores: Sequence[float], score: float) -> None:
    """Draw into a label: a dot for each healthy scan, and a line where this scan is.

    Dots that would touch are stacked, so that each can be counted: a smooth curve would say more
    than a few scans know.

    Args:
        label: a QLabel; its palette is used.
        width: of the picture.
        healthyScores: none leaves the label empty.
        score: of this scan.
    """
    if not healthyScores:
        label.clear()
        return
    dots, mark = places(healthyScores, score, width - 2 * _MARGIN - _DOT)
    picture = qt.QPixmap(width, _HEIGHT)
    picture.fill(qt.QColor(0, 0, 0, 0))
    ink = label.palette.color(qt.QPalette.WindowText)
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
    label.setPixmap(picture)
