"""Draws the extension's and the module's icon: an axial brain slice, one half of it as the grid of
codes that the model sees, with one unlikely code glowing.

Run as ``python draw_icon.py``; it writes LatentSpaceRestoration.png beside itself and
LSRExtension.png at the root of the repository.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 128
#: Everything is drawn larger by this and reduced at the end, which smooths the edges.
OVER = 8
#: Side of a code's square, where the whole icon is 2 wide; 3 pixels in an icon of 32.
CELL = 0.2
#: The glowing code: columns right of the midline and rows below the centre.
HOT_COLUMN, HOT_ROW = 1, -2

BACKGROUND = (17, 22, 36)
HOT = ((252, 255, 164), (251, 155, 6))
GLOW = (249, 110, 20)


def slice_through_a_brain(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Grey values in [0, 1], and where there is brain, at points with x right and y down."""
    x = np.abs(x)
    angle = np.arctan2(x, -y)
    # The frontal lobes are narrower than the parietal ones; the rim has gyri.
    width = 0.80 + 0.05 * y
    radius = np.hypot(x / width, y / 0.92)
    radius = radius / (1.0 + 0.018 * np.cos(15 * angle))
    brain = radius < 1.0
    white = radius < 0.77 + 0.085 * np.cos(11 * angle + 0.6)
    grey = np.where(white, 0.93, 0.58)
    # Thalamus and basal ganglia, ventricles, and the fissure between the hemispheres.
    grey = np.where(np.hypot((x - 0.24) / 0.13, (y - 0.04) / 0.24) < 1.0, 0.66, grey)
    horn_front = np.hypot((x - 0.13 - 0.35 * (-0.3 - y)) / 0.065, (y + 0.27) / 0.2) < 1.0
    horn_back = np.hypot((x - 0.17 - 0.4 * (y - 0.36)) / 0.065, (y - 0.37) / 0.2) < 1.0
    grey = np.where(horn_front | horn_back, 0.12, grey)
    fissure = (x < 0.022) & ((y < -0.42) | (y > 0.46))
    return np.where(fissure, 0.16, grey), brain


def draw() -> Image.Image:
    """The icon, SIZE x SIZE, RGBA."""
    side = SIZE * OVER
    points = (np.arange(side) + 0.5) / side * 2.0 - 1.0
    x, y = np.meshgrid(points, points)
    grey, brain = slice_through_a_brain(x, y)

    # Right of the midline every square has the mean of what it covers, as a code would.
    cells = (np.floor(x / CELL) + 64) * 128 + np.floor(y / CELL) + 64
    index = np.unique(cells, return_inverse=True)[1].reshape(cells.shape)
    count = np.maximum(np.bincount(index.ravel(), brain.ravel().astype(float)), 1.0)
    mean = np.bincount(index.ravel(), (grey * brain).ravel()) / count
    covered = count / (side * CELL / 2.0) ** 2
    coded = x > 0.0
    edge = 0.012
    within = (np.mod(x, CELL) > edge) & (np.mod(x, CELL) < CELL - edge)
    within &= (np.mod(y, CELL) > edge) & (np.mod(y, CELL) < CELL - edge)
    grey = np.where(coded, mean[index], grey)
    brain = np.where(coded, (covered[index] > 0.6) & within, brain)

    tint = np.array([0.93, 0.97, 1.0])
    rgb = np.where(brain[..., None], grey[..., None] * 255.0 * tint, np.array(BACKGROUND, float))
    icon = Image.fromarray(rgb.round().astype(np.uint8), "RGB")

    left, top = (1 + HOT_COLUMN * CELL) * side / 2, (1 + HOT_ROW * CELL) * side / 2
    box = (left, top, left + CELL * side / 2, top + CELL * side / 2)
    light = Image.new("L", (side, side), 0)
    ImageDraw.Draw(light).rectangle(box, fill=255)
    halo = light.filter(ImageFilter.GaussianBlur(side * 0.045)).point(lambda v: min(255, 2 * v))
    icon = Image.composite(Image.new("RGB", icon.size, GLOW), icon, halo)
    centre = np.hypot(x - (HOT_COLUMN + 0.5) * CELL, y - (HOT_ROW + 0.5) * CELL) / (0.7 * CELL)
    share = np.clip(centre, 0.0, 1.0)[..., None]
    heat = np.array(HOT[0]) * (1.0 - share) + np.array(HOT[1]) * share
    icon.paste(Image.fromarray(heat.round().astype(np.uint8), "RGB"), (0, 0), light)

    corners = Image.new("L", icon.size, 0)
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, side - 1, side - 1), side * 0.16, fill=255)
    icon.putalpha(corners)
    return icon.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def main() -> None:
    here = Path(__file__).resolve().parent
    icon = draw()
    for path in (here / "LatentSpaceRestoration.png", here.parents[2] / "LSRExtension.png"):
        icon.save(path, optimize=True)


if __name__ == "__main__":
    main()
