"""The picture of a result: the most anomalous planes, one a row.

Each row shows the scan, the hot part of the anomaly map over it, the outline of what is flagged,
and the restoration. Planes are seen as radiologists do: the patient's right on the left of the
picture, the front on top or on the left.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage.measure import find_contours

from ..volume import Volume
from .patient_axes import PatientAxes
from .regions import MostAnomalousPlace, most_anomalous_place, score_in_words

if TYPE_CHECKING:
    from ..detection import Detection

#: Anchors of the inferno colour map, evenly spaced.
_INFERNO = np.array(
    [
        *[(0, 0, 4), (22, 11, 57), (66, 10, 104), (106, 23, 110), (147, 38, 103), (188, 55, 84)],
        *[(221, 81, 58), (243, 120, 25), (252, 165, 10), (246, 215, 70), (252, 255, 164)],
    ],
    dtype=np.float32,
)
_BACKGROUND = (14, 16, 22)
_TEXT = (232, 235, 240)
_DIM = (150, 157, 170)
_WARNING = (255, 196, 87)
_OUTLINE = (64, 224, 255)

_PANE = 300
_GAP = 8
_MARGIN = 24
_HEADER = 118
_FOOTER = 92
#: mm of surroundings shown about the brain.
_SURROUND_MM = 8.0
#: Black is at most this share of the brain's range below it.
_BELOW = 0.5
#: What the panes of a row show.
COLUMNS = ("Scan", "Anomaly map", "Above threshold", "Restoration")
#: Plane, its fixed axis in RAS, that axis's letters, and what is left and right in the picture.
_PLANES = (
    ("Axial", 2, "IS", "RL"),
    ("Coronal", 1, "PA", "RL"),
    ("Sagittal", 0, "LR", "AP"),
)


@dataclass(frozen=True)
class _View:
    """A result along the patient's axes: arrays (R, A, S), cropped to the brain's surroundings."""

    scan: np.ndarray
    anomaly: np.ndarray
    mask: np.ndarray
    restoration: np.ndarray
    spacing: np.ndarray
    planes: tuple[int, int, int]
    window: tuple[float, float]
    heat: tuple[float, float]

    def plane(self, array: np.ndarray, axis: int) -> np.ndarray:
        """(rows, columns) as shown: all axes are flipped, and the earlier one runs across."""
        plane: np.ndarray = np.flip(np.take(array, self.planes[axis], axis=axis), (0, 1)).T
        return plane


def draw(volume: Volume, detection: Detection, title: str = "") -> Image.Image:
    """Draw a result.

    Args:
        volume: the (I, J, K) scan, any orientation; an oblique one is drawn along its own axes.
        detection: its result, on the same grid.
        title: headline; the volume's name if empty.

    Returns:
        RGB image of about 1270 x 1150 pixels.
    """
    place = most_anomalous_place(
        detection.anomaly_map, detection.anomaly_mask, detection.brain_mask, volume.affine
    )
    view = _view(volume, detection, place)
    width, height = _size()
    canvas = Image.new("RGB", (width, height), _BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    _write_header(pen, width, title or volume.name, detection, place)
    scale = _scale(view)
    for row, (name, axis, ends, sides) in enumerate(_PLANES):
        top = _HEADER + row * (_PANE + _GAP)
        for column, pane in enumerate(_panes(view, axis, scale)):
            left = _MARGIN + column * (_PANE + _GAP)
            canvas.paste(pane, (left, top))
            _text(pen, (left + 8, top + _PANE // 2), sides[0], 15, _DIM, "lm")
            _text(pen, (left + _PANE - 8, top + _PANE // 2), sides[1], 15, _DIM, "rm")
        at = place.position_mm[axis]
        label = f"{name}  {ends[at >= 0]} {abs(at):.0f} mm"
        _text(pen, (_MARGIN + 8, top + 8), label, 15, _TEXT, "lt")
    bottom = _HEADER + len(_PLANES) * (_PANE + _GAP)
    _draw_colour_bar(canvas, pen, _MARGIN + _PANE + _GAP, bottom + 6, view.heat, detection)
    _write_footer(pen, width, height, detection)
    return canvas


def rows(picture: Image.Image) -> list[Image.Image]:
    """The three planes of a drawn picture, each a row of panes, and the scale of its colours.

    Args:
        picture: from :func:`draw`, or read from where it was saved.

    Returns:
        four images, the last the scale; none if the picture is not one that this version draws.
    """
    width, height = _size()
    if picture.size != (width, height):
        return []
    tops = [_HEADER + row * (_PANE + _GAP) for row in range(len(_PLANES))]
    planes = [picture.crop((_MARGIN, top, width - _MARGIN, top + _PANE)) for top in tops]
    left, top = _MARGIN + _PANE + _GAP, tops[-1] + _PANE + _GAP
    return [*planes, picture.crop((left - 2, top, left + _PANE + 2, top + 36))]


def pane(row: Image.Image, column: str) -> Image.Image:
    """One pane of a row that :func:`rows` gave, by its name in ``COLUMNS``."""
    left = COLUMNS.index(column) * (_PANE + _GAP)
    return row.crop((left, 0, left + _PANE, _PANE))


def _size() -> tuple[int, int]:
    """Width and height of the picture."""
    width = 2 * _MARGIN + len(COLUMNS) * _PANE + (len(COLUMNS) - 1) * _GAP
    return width, _HEADER + len(_PLANES) * (_PANE + _GAP) + _FOOTER


def inferno(values: np.ndarray) -> np.ndarray:
    """Colours of values in [0, 1]: (..., 3) uint8."""
    place = np.clip(values, 0.0, 1.0) * (len(_INFERNO) - 1)
    below = np.minimum(place.astype(int), len(_INFERNO) - 2)
    share = (place - below)[..., None]
    return (_INFERNO[below] * (1.0 - share) + _INFERNO[below + 1] * share).round().astype(np.uint8)


def _view(volume: Volume, detection: Detection, place: MostAnomalousPlace) -> _View:
    axes = PatientAxes.of(volume)
    index = np.empty(3, int)
    for axis, (target, flip) in enumerate(axes.orientation):
        along = place.index[axis]
        index[int(target)] = along if flip > 0 else volume.shape[axis] - 1 - along
    brain = axes.turned(detection.brain_mask) > 0
    # The plane shown is within the box even if it lies outside the brain.
    cut = tuple(
        slice(min(part.start, int(at)), max(part.stop, int(at) + 1))
        for part, at in zip(axes.around(brain, _SURROUND_MM), index, strict=True)
    )
    scan = axes.turned(volume.array)[cut]
    i, j, k = (int(at) - part.start for at, part in zip(index, cut, strict=True))
    return _View(
        scan=scan,
        anomaly=axes.turned(detection.anomaly_map)[cut],
        mask=axes.turned(detection.anomaly_mask)[cut],
        restoration=axes.turned(detection.restoration)[cut],
        spacing=axes.spacing,
        planes=(i, j, k),
        window=grey_range(scan, brain[cut]),
        heat=heat_range(detection),
    )


def grey_range(scan: np.ndarray, brain: np.ndarray) -> tuple[float, float]:
    """The intensities that are shown black and white.

    Args:
        scan: of any shape.
        brain: bool, of the same; where it is nowhere true, all counts.
    """
    values = scan[brain] if brain.any() else scan
    low, high = (float(value) for value in np.percentile(values, (0.5, 99.5)))
    # Cerebrospinal fluid is darkest in T1 and still not black, unlike air; padding is far below.
    return min(low, max(float(scan.min()), low - _BELOW * (high - low))), high


def heat_range(detection: Detection) -> tuple[float, float]:
    """The map's values that get the coldest and the hottest colour: the cold half is hidden."""
    values = detection.anomaly_map[detection.brain_mask > 0]
    top = float(np.percentile(values, 99.9)) if values.size else 0.0
    low = 0.5 * detection.threshold if np.isfinite(detection.threshold) else 0.0
    return low, max(top, 3.0 * low, low + 1e-6)


def _scale(view: _View) -> float:
    """Pixels a mm, the same for all panes, such that the largest plane fits."""
    return _PANE / float((np.array(view.scan.shape) * view.spacing).max())


def _panes(view: _View, axis: int, scale: float) -> list[Image.Image]:
    across, down = (a for a in range(3) if a != axis)
    size = (
        max(1, round(view.scan.shape[across] * view.spacing[across] * scale)),
        max(1, round(view.scan.shape[down] * view.spacing[down] * scale)),
    )

    def resized(array: np.ndarray) -> np.ndarray:
        plane = Image.fromarray(view.plane(array, axis).astype(np.float32))
        return np.asarray(plane.resize(size, Image.Resampling.BICUBIC))

    low, high = view.window

    def grey(array: np.ndarray) -> np.ndarray:
        level = np.clip((resized(array) - low) / max(high - low, 1e-30), 0.0, 1.0) * 255.0
        return np.repeat(level.round().astype(np.uint8)[..., None], 3, axis=2)

    scan = grey(view.scan)
    heat = np.clip((resized(view.anomaly) - view.heat[0]) / (view.heat[1] - view.heat[0]), 0, 1)
    # Fully clear where cold, and nearly opaque soon above, so that no hard edge looks like one.
    cover = (0.85 * np.clip(heat / 0.2, 0.0, 1.0))[..., None]
    warm = scan * (1.0 - cover) + inferno(0.25 + 0.75 * heat) * cover
    drawn = outlined(Image.fromarray(scan), resized(view.mask), _OUTLINE, width=5)
    shown = [scan, warm.round().astype(np.uint8), np.asarray(drawn), grey(view.restoration)]
    return [_centred(Image.fromarray(pane)) for pane in shown]


def outlined(
    pane: Image.Image, mask: np.ndarray, colour: tuple[int, int, int], *, width: int
) -> Image.Image:
    """Draw the outline where a smoothly enlarged (rows, columns) mask crosses one half.

    Args:
        pane: RGB, of the mask's size.
        mask: (rows, columns), 0 to 1.
        colour: of the line.
        width: of the line, in thirds of a pixel.
    """
    fine = 3
    line = Image.new("L", (pane.width * fine, pane.height * fine), 0)
    pen = ImageDraw.Draw(line)
    for contour in find_contours(np.pad(mask, 1), 0.5):
        points = (contour[:, ::-1] - 0.5) * fine
        pen.line([(float(x), float(y)) for x, y in points], fill=255, width=width, joint="curve")
    shade = line.resize(pane.size, Image.Resampling.LANCZOS)
    return Image.composite(Image.new("RGB", pane.size, colour), pane, shade)


def _centred(pane: Image.Image) -> Image.Image:
    square = Image.new("RGB", (_PANE, _PANE), (0, 0, 0))
    square.paste(pane, ((_PANE - pane.width) // 2, (_PANE - pane.height) // 2))
    return square


def _write_header(
    pen: ImageDraw.ImageDraw,
    width: int,
    title: str,
    detection: Detection,
    place: MostAnomalousPlace,
) -> None:
    right = width - _MARGIN
    score = f"Score {detection.sample_score:.3g}"
    if detection.healthy_scans and detection.percentile is not None:
        score += f"  ·  percentile {detection.percentile:.0f}"
    score_left = right - pen.textlength(score, font=_font(26))
    _text(pen, (right, 40), score, 26, _TEXT, "rs")
    _text(pen, (_MARGIN, 40), _fitted(pen, title, 26, score_left - 2 * _MARGIN), 26, _TEXT, "ls")
    words = score_in_words(detection.p_value, detection.healthy_scans, detection.healthy_sites)
    _text(pen, (right, 68), words[0].upper() + words[1:], 17, _DIM, "rs")
    where = f"Most anomalous place: {place.words}, RAS {place.position()}"
    flagged = f", {place.volume_ml:.1f} ml" if place.volume_ml else "; nothing is flagged"
    _text(pen, (_MARGIN, 68), where + flagged, 17, _DIM, "ls")
    for column, heading in enumerate(COLUMNS):
        middle = _MARGIN + column * (_PANE + _GAP) + _PANE // 2
        _text(pen, (middle, _HEADER - 12), heading, 17, _TEXT, "ms")


def _draw_colour_bar(
    canvas: Image.Image,
    pen: ImageDraw.ImageDraw,
    left: int,
    top: int,
    heat: tuple[float, float],
    detection: Detection,
) -> None:
    colours = inferno(np.linspace(0.25, 1.0, _PANE))
    canvas.paste(Image.fromarray(np.repeat(colours[None], 12, axis=0)), (left, top))
    _text(pen, (left, top + 17), f"{heat[0]:.3g}", 14, _DIM, "lt")
    _text(pen, (left + _PANE, top + 17), f"{heat[1]:.3g}", 14, _DIM, "rt")
    share = (detection.threshold - heat[0]) / (heat[1] - heat[0])
    if 0.0 < share < 1.0:
        at = left + round(share * _PANE)
        pen.line([(at, top - 3), (at, top + 14)], fill=_OUTLINE, width=2)
        # The words stand beside the numbers at the ends, not on them.
        room = float(np.clip(at, left + 110, left + _PANE - 110))
        _text(pen, (room, top + 17), f"threshold {detection.threshold:.3g}", 14, _OUTLINE, "mt")


def _write_footer(pen: ImageDraw.ImageDraw, width: int, height: int, detection: Detection) -> None:
    made = (
        f"model {detection.model}, {detection.mode} mode, {detection.restorations} restorations, "
        f"seed {detection.seed}, version {detection.version}"
    )
    bottom = height - 16
    _text(pen, (_MARGIN, bottom), "Research use, not for diagnosis", 17, _WARNING, "ls")
    _text(pen, (width - _MARGIN, bottom), made, 14, _DIM, "rs")
    if detection.warnings:
        warning = _fitted(pen, "; ".join(detection.warnings), 14, width - 2 * _MARGIN)
        _text(pen, (_MARGIN, bottom - 26), warning, 14, _WARNING, "ls")


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _text(
    pen: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    size: int,
    colour: tuple[int, int, int],
    anchor: str,
) -> None:
    """``at`` is where the anchor lies: left, middle or right; top, middle or baseline (s)."""
    pen.text(at, text, font=_font(size), fill=colour, anchor=anchor)


def _fitted(pen: ImageDraw.ImageDraw, text: str, size: int, width: float) -> str:
    """The text, or as much of its beginning as fits."""
    font = _font(size)
    if pen.textlength(text, font=font) <= width:
        return text
    cut = [f"{text[:length]}..." for length in range(len(text))]
    return cut[max(0, bisect_right(cut, width, key=lambda t: pen.textlength(t, font=font)) - 1)]
