"""Draws what the shipped model finds and what it misses, in one picture.

Run as ``python docs/pictures/draw_finds.py``; it writes ``finds.png`` beside itself and prints the
figures of each case. The brain is another draw of the one that comes with the extension, and the
anomalies are those of ``lsr evaluate``: all of it is synthetic.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "LatentSpaceRestoration" / "Resources" / "SampleData"))

import make_sample  # noqa: E402
from LatentSpaceRestorationLib.detection import Detection  # noqa: E402
from LatentSpaceRestorationLib.detector import Detector  # noqa: E402
from LatentSpaceRestorationLib.evaluation.panes import PANE, PANES, draw_case  # noqa: E402
from LatentSpaceRestorationLib.evaluation.synthetic.families import family, put_in  # noqa: E402
from LatentSpaceRestorationLib.evaluation.synthetic.geometry import Healthy  # noqa: E402
from LatentSpaceRestorationLib.inference.latent_model import LatentModel  # noqa: E402
from LatentSpaceRestorationLib.volume import dice  # noqa: E402

SEED = 3
#: Side of a pane, and height of a line of words, in pixels.
SIDE, LINE = 150, 24


@dataclass(frozen=True)
class Show:
    """An anomaly to show."""

    words: str
    family: str
    size: float
    contrast: float
    seed: int = 1


SHOWS = (
    Show("dark sphere of 14 mm radius", "uniform-sphere", 14.0, -2.5),
    Show("bright sphere of 8 mm radius", "uniform-sphere", 8.0, 2.5),
    Show("noise in a sphere of 14 mm", "noise-sphere", 14.0, 2.0),
    Show("brightness that grows over 22 mm", "gradient-sphere", 22.0, 3.0),
    Show("brightness that grows over 8 mm", "gradient-sphere", 8.0, 1.2),
    Show("faint noise in a sphere of 8 mm", "noise-sphere", 8.0, 0.5),
    Show("tissue shifted by 8 mm", "shift", 8.0, 8.0),
    Show("tissue that is drawn together", "sink", 18.0, 1.2),
)


def healthy_brain(detector: Detector) -> Healthy:
    """A generated brain without a lesion."""
    networks = LatentModel.load(detector.bundle)
    with torch.inference_mode():
        image = make_sample.decode(networks, make_sample.draw_codes(networks, SEED))
    volume = make_sample.to_volume(image, SEED)
    rounded = replace(volume, array=volume.array.round())
    return Healthy(rounded, rounded.array > 0)


def told(found: Detection, label: np.ndarray) -> str:
    """What came out, in a few words."""
    mask = found.anomaly_mask > 0
    share = float(mask[label].mean())
    peak = label.flat[int(found.anomaly_map.argmax())]
    return (
        f"{100 * share:.0f}% of it flagged, Dice {dice(mask, label):.2f}, "
        f"peak {'inside' if peak else 'elsewhere'}"
    )


def main() -> None:
    """Put in, detect, draw."""
    detector = Detector.load("brain-t1")
    scan = healthy_brain(detector)
    width, height = SIDE * len(PANES), SIDE + LINE
    columns, gap = 2, 14
    rows = -(-len(SHOWS) // columns)
    page = Image.new("RGB", (columns * width + gap, rows * height + LINE), "white")
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(13)
    for number, show in enumerate(SHOWS):
        changed, label = put_in(
            family(show.family), scan, size=show.size, contrast=show.contrast, seed=show.seed
        )
        found = detector.detect(changed)
        words = f"{show.words}: {told(found, label)}"
        print(words, flush=True)
        row, column = number % rows, number // rows
        left, top = column * (width + gap), row * height
        strip = Image.open(io.BytesIO(draw_case(changed, found, label)))
        size = (SIDE * strip.width // PANE, SIDE)
        page.paste(strip.resize(size, Image.Resampling.LANCZOS), (left, top + LINE))
        pen.text((left + 4, top + 5), words, fill="#222222", font=font)
    legend = (
        "Generated brain, synthetic anomalies. Panes: scan, truth (green), map with what is "
        "flagged (blue), restoration."
    )
    pen.text((4, rows * height + 5), legend, fill="#555555", font=font)
    page.save(HERE / "finds.png", optimize=True)


if __name__ == "__main__":
    main()
