"""Drawings in a page, as inline SVG."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .page import text

STYLE = """
.healthy { fill: var(--healthy); } .mark { fill: var(--mark); } a:focus .mark,
a:hover .mark { stroke: var(--ink); stroke-width: 3; } .axis { stroke: var(--dim); }
.line { fill: none; stroke: var(--mark); stroke-width: 2; }
.cut { stroke: var(--dim); stroke-dasharray: 4 4; }
"""
_WIDTH, _MARGIN = 900, 16
#: Sizes of dots; the largest is taken with which no stack is higher than this.
_DOTS = (9, 7, 5, 4, 3, 2)
_HIGHEST = 170


@dataclass(frozen=True)
class Mark:
    """A scan among others.

    Attributes:
        score: its place.
        label: shown where the pointer rests.
        anchor: of the place in the page that tells of it; none if empty.
    """

    score: float
    label: str
    anchor: str = ""


def distribution(healthy: Sequence[float], marks: Sequence[Mark], caption: str) -> str:
    """Scores of scans, dots above a line, and of the healthy scans to compare with, below it.

    Every scan is a dot, so that each can be counted: a smooth curve would say more than a few
    healthy scans know.

    Args:
        healthy: scores of the calibration scans.
        marks: at least one.
        caption: what the dots above the line are.
    """
    scores = [mark.score for mark in marks]
    low, high = min([*healthy, *scores]), max([*healthy, *scores])
    span = (high - low) or max(abs(high), 1.0)
    room = _WIDTH - 2 * _MARGIN - _DOTS[0]

    def stacked(values: Sequence[float], size: int) -> list[tuple[int, int]]:
        """(column, row) of each dot."""
        heights: Counter[int] = Counter()
        places = []
        for value in values:
            column = round((value - low) / span * room / (size + 1))
            places.append((column, heights[column]))
            heights[column] += 1
        return places

    def highest(size: int) -> int:
        rows = [row for group in (scores, healthy) for _, row in stacked(group, size)]
        return (max(rows) + 1) * (size + 1)

    size = next((size for size in _DOTS if highest(size) <= _HIGHEST), _DOTS[-1])
    above = (max(row for _, row in stacked(scores, size)) + 1) * (size + 1)
    below = (max((row for _, row in stacked(healthy, size)), default=-1) + 1) * (size + 1)
    axis = 24 + above + 4
    height = axis + 22 + below + 24
    parts = [
        f'<line class="axis" x1="{_MARGIN}" x2="{_WIDTH - _MARGIN}" y1="{axis}" y2="{axis}"/>',
        f'<text x="{_MARGIN}" y="14">{text(caption)}</text>',
        f'<text x="{_WIDTH - _MARGIN}" y="14" text-anchor="end">more unusual →</text>',
    ]
    said = f"{len(healthy)} healthy scans of the model's calibration"
    parts.append(f'<text x="{_MARGIN}" y="{height - 6}">{said if healthy else "no " + said}</text>')

    def x_of(value: float) -> float:
        return _MARGIN + _DOTS[0] / 2 + (value - low) / span * room

    for tick in _ticks(low, low + span):
        x = x_of(tick)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{axis}" y2="{axis + 5}"/>')
        parts.append(f'<text x="{x:.1f}" y="{axis + 18}" text-anchor="middle">{tick:.6g}</text>')
    left = _MARGIN + _DOTS[0] / 2
    for column, row in stacked(healthy, size):
        x, y = left + column * (size + 1), axis + 26 + (row + 0.5) * (size + 1)
        parts.append(f'<circle class="healthy" cx="{x:.1f}" cy="{y:.1f}" r="{size / 2}"/>')
    for mark, (column, row) in zip(marks, stacked(scores, size), strict=True):
        x, y = left + column * (size + 1), axis - 4 - (row + 0.5) * (size + 1)
        dot = (
            f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="{size / 2}">'
            f"<title>{text(mark.label)}</title></circle>"
        )
        if mark.anchor:
            where = text(mark.anchor)
            dot = f'<a href="#{where}" aria-label="{text(mark.label)}">{dot}</a>'
        parts.append(dot)
    kind = 'role="group"' if any(mark.anchor for mark in marks) else 'role="img"'
    words = f"{len(marks)} scores from {min(scores):.3g} to {max(scores):.3g}"
    if healthy:
        words += f"; {len(healthy)} healthy ones from {min(healthy):.3g} to {max(healthy):.3g}"
    return _svg(parts, height, f'{kind} aria-label="{text(words)}"')


def profile(positions: Sequence[float], scores: Sequence[float], threshold: float | None) -> str:
    """Scores of slices from the lowest to the highest; in a page with a viewer it moves the planes.

    Args:
        positions: RAS superior coordinates in mm, ascending; at least two.
        scores: as many.
        threshold: drawn across; None where scores are in other units.
    """
    height, top, base = 170, 12, 132
    low, high = min(0.0, *scores), max([*scores, threshold or 0.0]) or 1.0

    def y_of(value: float) -> float:
        return base - (value - low) / (high - low) * (base - top)

    left, right = 48, _WIDTH - _MARGIN
    first, last = positions[0], positions[-1]
    across = [left + (p - first) / ((last - first) or 1.0) * (right - left) for p in positions]
    points = " ".join(f"{x:.1f},{y_of(s):.1f}" for x, s in zip(across, scores, strict=True))
    parts = [f'<line class="axis" x1="{left}" x2="{right}" y1="{base}" y2="{base}"/>']
    for tick in _ticks(first, last):
        x = left + (tick - first) / ((last - first) or 1.0) * (right - left)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{base}" y2="{base + 5}"/>')
        parts.append(f'<text x="{x:.1f}" y="{base + 18}" text-anchor="middle">{tick:g}</text>')
    middle = (left + right) / 2
    parts.append(
        f'<text x="{middle:.0f}" y="{height - 4}" text-anchor="middle">'
        "mm, from below to above (RAS S)</text>"
    )
    for tick in _ticks(low, high, 3):
        parts.append(
            f'<text x="{left - 6}" y="{y_of(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    if threshold is not None:
        y = y_of(threshold)
        parts.append(f'<line class="cut" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left + 6}" y="{y - 4:.1f}">threshold</text>')
    parts.insert(0, f'<polyline class="line" points="{points}"/>')
    parts.append(f'<line class="now" x1="{left}" x2="{left}" y1="{top}" y2="{base}"/>')
    peak = max(range(len(scores)), key=scores.__getitem__)
    words = f"slice scores; the highest, {scores[peak]:.3g}, at {positions[peak]:.0f} mm"
    scale = f'data-first="{first:g}" data-last="{last:g}" data-left="{left}" data-right="{right}"'
    return _svg(parts, height, f'class="profile" {scale} role="img" aria-label="{words}"')


def _ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers within a range."""
    span = high - low
    if not span > 0.0 or not math.isfinite(span):
        return [low]
    step = 10.0 ** math.floor(math.log10(span / about))
    step *= next((n for n in (1, 2, 5) if span / (step * n) <= about), 10)
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _svg(parts: Sequence[str], height: float, marks: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}" {marks}>{"".join(parts)}</svg>'
    )
