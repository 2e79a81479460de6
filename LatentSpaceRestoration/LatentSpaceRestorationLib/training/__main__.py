"""Train the shipped models: ``python -m LatentSpaceRestorationLib.training STEP ...``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from ..errors import LSRError
from .recipe import Recipe, Workshop
from .ship import ship_brain, ship_model
from .subjects import read_subjects

STEPS = ("brain", "vqvae", "prior", "bundle")


def main(arguments: list[str] | None = None) -> int:
    """Run one step of the recipe. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m LatentSpaceRestorationLib.training", description=__doc__
    )
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--subjects", type=Path, required=True, help="table of scans, see subjects")
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints")
    parser.add_argument("--models", type=Path, help="folder to write the models into")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="time for this call")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)

    def report(line: str) -> None:
        print(line, flush=True)

    try:
        subjects = read_subjects(options.subjects)
        shop = Workshop(Recipe(), subjects, options.work, options.device, options.minutes, report)
        if options.step == "brain":
            shop.brain()
            if options.models:
                ship_brain(shop, options.models)
        elif options.step == "vqvae":
            shop.vqvae()
        elif options.step == "prior":
            shop.prior(shop.vqvae())
        else:
            if not options.models:
                parser.error("--models is needed to write the model")
            ship_model(shop, options.models)
    except LSRError as error:
        print(error, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
