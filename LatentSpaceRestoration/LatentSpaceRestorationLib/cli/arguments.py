"""Arguments that several commands take: their types, and the options of a detection."""

from __future__ import annotations

import argparse

DEVICES = ("auto", "cpu", "cuda", "mps")
#: Exit statuses. ``UNUSABLE_INPUT`` is that where a scan could not be used and the others were.
FAULT, UNUSABLE_ARGUMENTS, UNUSABLE_INPUT, CANCELLED = 1, 2, 3, 130


def add_detection_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``Detector.detect`` and ``Detector.load`` can be told."""
    from ..methods import METHODS, MODES, SHIPPED

    add = parser.add_argument
    add(
        "--model",
        metavar="NAME_OR_FOLDER",
        help=f"default: {SHIPPED['anomaly']}, or for the methods of a VAE {SHIPPED['vae']}",
    )
    add(
        "--mode",
        choices=MODES,
        default="default",
        help="of lsr; pixelsnail: by the auto-regressive prior alone, in a model that has a masked "
        "one as well; paper: the equations as published",
    )
    add(
        "--method",
        choices=METHODS,
        default="lsr",
        metavar="METHOD",
        help=f"one of {', '.join(METHODS)}; default: %(default)s",
    )
    add("--restorations", type=count, default=15, metavar="N", help="default: %(default)s")
    add("--seed", type=seed, default=0, metavar="N", help="of the restorations, default: 0")
    add(
        "--time-budget",
        type=seconds,
        metavar="SECONDS",
        help="begin no more restorations of a scan after so long; one is made in any case",
    )
    add("--device", choices=DEVICES, default="auto", help="default: %(default)s")
    add(
        "--threshold",
        type=percentile,
        metavar="P",
        help="percentile of healthy brain voxels above which a voxel is flagged, between 0 and "
        "100; default: the model's own",
    )


def count(text: str) -> int:
    """A whole number from 1."""
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def seed(text: str) -> int:
    """A whole number from 0 to 2^63 - 1."""
    value = _whole(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 2^63 - 1")
    return value


def seconds(text: str) -> float:
    """A finite time above 0."""
    value = _number(text)
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a time above 0")
    return value


def percentile(text: str) -> float:
    """Between 0 and 100, both excluded."""
    value = _number(text)
    if not 0.0 < value < 100.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 100")
    return value


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
