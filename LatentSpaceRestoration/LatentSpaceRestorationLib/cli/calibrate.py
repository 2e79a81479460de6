"""``lsr calibrate``: tell a model what healthy scans give, or adapt it to a scanner."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import ConfigError
from .arguments import add_options
from .terminal import say


def add_calibrate(calibrate: argparse.ArgumentParser) -> None:
    """Arguments of ``lsr calibrate``."""
    calibrate.description = (
        "Writes into MODEL what healthy scans give that it was not trained on: thresholds, "
        "percentiles and what is usual at each place. At least 5 scans, better 20 or more. With "
        "--name, MODEL stays as it is, and a copy of it is adapted to the scans of one scanner, "
        "without training: its default mode takes half a minute a scan."
    )
    add = calibrate.add_argument
    add("model", metavar="MODEL", help="name or folder of a model")
    add(
        "source",
        nargs="*",
        type=Path,
        metavar="SOURCE",
        help="tables or folders of healthy scans; of those with sets, the set calibrate. "
        "Default: the subjects.tsv that lsr train left beside the model",
    )
    add("--name", metavar="NEW", help="write a model NEW that is adapted to the scans")
    add(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="folder that gets the model NEW; default: the current one",
    )
    add("--methods", nargs="+", metavar="METHOD", help="default: all that the model can do")
    add("--modes", nargs="+", metavar="MODE", help="of the method lsr; default: all")
    add_options(
        calibrate, without=("model", "mode", "method", "time_budget", "threshold", "precision")
    )
    calibrate.set_defaults(command=_calibrate)


def _calibrate(options: argparse.Namespace) -> int:
    from ..bundle.bundle import bundle_folders, find_bundle, read_bundle
    from ..training.calibrate_bundle import calibrate_bundle
    from ..training.job import check_name
    from ..training.pipeline import SUBJECTS

    folder = find_bundle(options.model)
    sources = options.source
    if not sources:
        sources = [folder.parent / SUBJECTS]
        if not sources[0].is_file():
            raise ConfigError(f"{folder}: has no {SUBJECTS} beside it; give a SOURCE of scans")
    adapted, methods, modes = None, options.methods, options.modes
    if options.name is not None:
        check_name(options.name)
        if any(options.name == own.name for own in bundle_folders()):
            raise ConfigError(f"there is a model {options.name} already; choose another name")
        adapted = (options.output or Path.cwd()) / options.name
        if methods is None and modes is None and read_bundle(folder).kind == "anomaly":
            methods, modes = ["lsr"], ["default"]
    elif options.output is not None:
        raise ConfigError("--output is of a model of another name; give --name")
    bundle = calibrate_bundle(
        folder,
        *sources,
        adapted=adapted,
        methods=methods,
        modes=modes,
        restorations=options.restorations,
        seed=options.seed,
        device=options.device,
        report=say,
    )
    scans = len(bundle.calibrated_on)
    say(f"calibrated on {scans} scans: {bundle.folder}")
    return 0
