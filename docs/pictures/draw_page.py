"""Draws the page of a result, as a browser shows it.

Run as ``python docs/pictures/draw_page.py``, with Chromium and its driver installed; it writes
``page.png`` beside itself. The scan is that of ``lsr demo``: a real brain with a painted lesion.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(
    0, str(HERE.parents[1] / "LatentSpaceRestoration" / "Testing" / "Python" / "support")
)

from headless import browser, live  # noqa: E402
from LatentSpaceRestorationLib.cli.demo import run  # noqa: E402

#: Of the window, and of what is shown of the page.
WIDTH, HEIGHT = 1180, 820


def main() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as folder, browser() as window:
        page = run(folder).result.files["anomaly.html"]
        window.set_window_size(WIDTH, HEIGHT + 200)
        live(window, page)
        shot = Image.open(io.BytesIO(window.get_screenshot_as_png())).convert("RGB")
    shot.crop((0, 0, WIDTH, HEIGHT)).quantize(256).save(HERE / "page.png", optimize=True)


if __name__ == "__main__":
    main()
