"""Measure a model: ``python -m LatentSpaceRestorationLib.evaluation --help``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..detector import MODES, Detector
from ..errors import LSRError
from ..training.ship import add_metrics
from ..training.subjects import SPLITS, of_split, read_subjects
from .spheres import run_cases, summarise


def main(arguments: list[str] | None = None) -> int:
    """Paint spheres into the scans of a split, detect, and write the figures as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m LatentSpaceRestorationLib.evaluation", description=main.__doc__
    )
    parser.add_argument("output", type=Path, help="JSON file to write")
    parser.add_argument("--subjects", type=Path, required=True, help="table of scans")
    parser.add_argument("--split", choices=SPLITS, default="tune")
    parser.add_argument("--model", default="brain-t1")
    parser.add_argument("--mode", choices=MODES, default="default")
    parser.add_argument("--per-subject", type=int, default=1, help="spheres per scan")
    parser.add_argument("--restorations", type=int, default=15)
    parser.add_argument("--limit", type=int, help="first so many scans only")
    parser.add_argument(
        "--update-card", action="store_true", help="write the figures into the model and its card"
    )
    options = parser.parse_args(arguments)
    try:
        subjects = list(of_split(read_subjects(options.subjects), options.split))[: options.limit]
        detector = Detector.load(options.model)
        cases = run_cases(
            detector,
            subjects,
            per_subject=options.per_subject,
            mode=options.mode,
            restorations=options.restorations,
            report=lambda line: print(line, flush=True),
        )
    except LSRError as error:
        print(error, file=sys.stderr)
        return 3
    figures = {
        "yardstick": "spheres of 10 to 30 mm radius, one intensity, half darker, half brighter "
        "(1.2 to 3 robust standard deviations from the brain's median); synthetic",
        "split": options.split,
        "mode": options.mode,
        "restorations": options.restorations,
        **summarise(cases),
    }
    options.output.write_text(json.dumps(figures, indent=1) + "\n")
    shown = {key: value for key, value in figures.items() if key != "cases"}
    if options.update_card:
        bundle = detector.bundle
        add_metrics(bundle.folder, {**bundle.config["metrics"], options.mode: shown})
    print(json.dumps(shown, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
