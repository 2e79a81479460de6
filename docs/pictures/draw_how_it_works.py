"""Draws how the method works, in one picture, from what the shipped model makes of ``lsr demo``.

Run as ``python docs/pictures/draw_how_it_works.py``; it writes ``how-it-works.png`` beside itself.
Needs matplotlib, of the extra ``evaluation``, and nilearn, of the extra ``demo``.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from LatentSpaceRestorationLib.detector import Detector
from LatentSpaceRestorationLib.evaluation.synthetic.painted_lesion import painted_template
from LatentSpaceRestorationLib.inference.readings import ReadingPlan
from LatentSpaceRestorationLib.methods.settings import ModeSettings
from LatentSpaceRestorationLib.preprocessing.resampling import resample
from LatentSpaceRestorationLib.volume import Volume
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

HERE = Path(__file__).resolve().parent
TITLES = (
    "1  a slice of the scan",
    "2  read as codes",
    "3  how unlikely each code is,\ngiven those around it",
    "4  unlikely codes replaced\nby likely ones",
    "5  how rare the difference is\namong healthy brains",
)
_GREY = {"cmap": "gray", "vmin": -3.0, "vmax": 2.0}


def main() -> None:
    """Detect, and draw the slice with most of the lesion."""
    volume, lesion = painted_template()
    detector = Detector.load("brain-t1")
    prepared = detector.prepare(volume)[0]
    plan = ReadingPlan(ModeSettings.of(detector.bundle.config, "default").tile_codes)
    values = detector.model.calibration().codes
    assert values is not None
    reading = detector.model.context(prepared).expect(plan, values)[1]
    detection = detector.detect(volume)

    def in_model(array: np.ndarray) -> np.ndarray:
        on_scan = Volume(array.astype(np.float32), volume.affine)
        return resample(on_scan, prepared.mask.shape, prepared.affine)

    where = int(in_model(lesion).sum(axis=(1, 2)).argmax())
    restored = (in_model(detection.restoration)[where] - prepared.centre) / prepared.scale
    restored = np.where(prepared.mask[where], restored, -3.0)
    brain = reading.brain[where]
    panes: list[tuple[np.ndarray, dict]] = [
        (prepared.slices[where], _GREY),
        (np.where(brain, shuffled(reading.decoded.codes[where]), np.nan), {"cmap": "turbo"}),
        (np.where(brain, reading.nll[where], np.nan), {"cmap": "inferno", "vmin": 0, "vmax": 12}),
        (restored, _GREY),
        (prepared.slices[where], _GREY),
    ]
    figure, axes = plt.subplots(1, 5, figsize=(13.2, 3.9), facecolor="white")
    for axis, title, (values, how) in zip(axes, TITLES, panes, strict=True):
        axis.imshow(values, extent=(0, 80, 104, 0), interpolation="nearest", **how)
        axis.set_title(title, fontsize=10.5)
        axis.set_axis_off()
    heat = in_model(detection.anomaly_map)[where]
    axes[-1].imshow(
        np.ma.masked_less(heat, detection.threshold),
        extent=(0, 80, 104, 0),
        cmap="inferno",
        vmin=0.0,
        vmax=max(float(heat.max()), 1.0),
        alpha=0.75,
    )
    for axis in axes[1:]:
        arrow(axis)
    figure.text(
        0.5,
        0.02,
        "A real brain with a painted lesion (that of `lsr demo`: the MNI152 template), seen from "
        "below; the codes' colours have no order.",
        ha="center",
        fontsize=9,
        color="#444444",
    )
    figure.subplots_adjust(left=0.01, right=0.99, top=0.84, bottom=0.08, wspace=0.12)
    figure.savefig(HERE / "how-it-works.png", dpi=100)


def shuffled(codes: np.ndarray) -> np.ndarray:
    """Codes with numbers at random: near numbers mean nothing."""
    return np.random.default_rng(1).permutation(codes.max() + 1)[codes]


def arrow(axis: Axes) -> None:
    """An arrow from the pane before."""
    axis.annotate(
        "",
        xy=(0.0, 0.5),
        xytext=(-0.13, 0.5),
        xycoords="axes fraction",
        arrowprops={"arrowstyle": "->", "lw": 1.6, "color": "#555555"},
    )


if __name__ == "__main__":
    main()
