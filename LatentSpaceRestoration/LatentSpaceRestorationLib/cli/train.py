"""``lsr train``: train a model on healthy scans. No torch is imported before there is work."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Cancelled, ConfigError, LSRError
from ..options import DEVICES
from .arguments import CANCELLED
from .terminal import say

if TYPE_CHECKING:
    from ..training.pipeline import TrainingPipeline

NETWORKS = ("vqvae", "prior", "brain", "baseline")
#: The checkpoint of each.
_CHECKPOINTS = {"vqvae": "vqvae.pt", "prior": "prior.pt", "brain": "unet.pt", "baseline": "vae.pt"}


def add_train(train: argparse.ArgumentParser) -> None:
    """Arguments of ``lsr train``."""
    train.description = (
        "Trains a network on healthy scans, as CONFIG says, and writes the model. A training that "
        "was stopped goes on where it was. prior trains the VQ-VAE first, if that is not done."
    )
    add = train.add_argument
    add("network", choices=NETWORKS, metavar="|".join(NETWORKS))
    add("config", type=Path, metavar="CONFIG.toml", help="settings; see docs/training.md")
    add(
        "--set",
        action="append",
        default=[],
        dest="changes",
        metavar="SECTION.KEY=VALUE",
        help="a setting instead of the one in CONFIG; may be given several times",
    )
    add("--resume", action="store_true", help="only go on with a training that was begun")
    add("--work", type=Path, metavar="DIR", help="checkpoints and slices; default: CONFIG's name")
    add("--minutes", type=_minutes, default=math.inf, metavar="M", help="stop after so long")
    add("--device", choices=DEVICES, default="auto", help="default: %(default)s")
    add("--no-tensorboard", action="store_true", help="write no TensorBoard logs")
    train.set_defaults(command=_train)


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0.0:
        raise argparse.ArgumentTypeError(f"{text} is not a number of minutes above 0")
    return value


def _train(options: argparse.Namespace) -> int:
    from ..training.config import read_config

    config = read_config(options.config, options.changes)
    work = options.work or options.config.with_suffix("")
    if work == options.config:
        raise ConfigError(f"{work}: has no ending; name the settings .toml, or give --work")
    checkpoint = work / _CHECKPOINTS[options.network]
    if options.resume and not any((work / name).is_file() for name in _begun(options.network)):
        raise ConfigError(f"{checkpoint}: is not there to resume; leave out --resume to begin")
    device = _device(options.device)
    with _term_as_interrupt(), _several_processes():
        from ..networks import distributed
        from ..training.engine.work_lock import work_lock
        from ..training.pipeline import TrainingPipeline

        pipeline = TrainingPipeline(
            config,
            work,
            device,
            options.minutes,
            say,
            progress=sys.stderr.isatty(),
            tensorboard=not options.no_tensorboard and _is_installed("tensorboard"),
        )
        try:
            with work_lock(work) if distributed.rank() == 0 else contextlib.nullcontext():
                pipeline.begin()
                _TRAIN[options.network](pipeline, distributed.rank() == 0)
        except Cancelled as stopped:
            if distributed.rank() == 0:
                print(f"lsr: {stopped}", file=sys.stderr, flush=True)
            # Out of time as it was told: not cancelled.
            return 0 if str(stopped).startswith("the time is over") else CANCELLED
        except (LSRError, RuntimeError):
            if distributed.rank() > 0 and _is_ended_by_first():
                raise SystemExit(CANCELLED) from None
            raise
    return 0


def _is_ended_by_first() -> bool:
    """Whether the first process failed as well: it says why, and torchrun ends the others."""
    try:
        time.sleep(3.0)
    except KeyboardInterrupt:  # SIGTERM
        return True
    return False


def _begun(network: str) -> tuple[str, ...]:
    """Files that tell that a training was begun: the prior's begins with the VQ-VAE's."""
    own = _CHECKPOINTS[network]
    return (own, _CHECKPOINTS["vqvae"]) if network == "prior" else (own,)


def _train_vqvae(pipeline: TrainingPipeline, writes: bool) -> None:
    pipeline.vqvae()
    if writes:
        say(f"the VQ-VAE is trained: {pipeline.folder / 'vqvae.pt'}; now train the prior")


def _train_prior(pipeline: TrainingPipeline, writes: bool) -> None:
    from ..training.export import export_model

    vqvae = pipeline.vqvae()
    prior = pipeline.prior(vqvae)
    masked = pipeline.masked(vqvae)
    if writes:
        folder = export_model(pipeline, vqvae, prior, masked).folder
        say(f"the model is trained: {folder}; now: lsr calibrate {folder}")


def _train_baseline(pipeline: TrainingPipeline, writes: bool) -> None:
    from ..training.export import export_baseline

    vae = pipeline.baseline()
    if writes:
        folder = export_baseline(pipeline, vae).folder
        say(f"the baseline is trained: {folder}; now: lsr calibrate {folder}")


def _train_brain(pipeline: TrainingPipeline, writes: bool) -> None:
    from ..training.export import export_brain

    network = pipeline.brain()
    if writes:
        bundle = export_brain(pipeline, network)
        figures = bundle.config["metrics"]
        say(
            f"brain extraction is trained: {bundle.folder}; Dice on {figures['scans']} scans of "
            f"the set tune: median {figures['dice_median']:.3f}, lowest {figures['dice_min']:.3f}"
        )


_TRAIN: dict[str, Callable[[Any, bool], None]] = {
    "vqvae": _train_vqvae,
    "prior": _train_prior,
    "baseline": _train_baseline,
    "brain": _train_brain,
}


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _device(wanted: str) -> str:
    """The torch device of this process."""
    # Of cuBLAS: the same sums in the same order each time. It is read when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    from ..runtime.device import choose_device

    device, warnings = choose_device(wanted)
    local = os.environ.get("LOCAL_RANK", "0")
    for warning in warnings if local == "0" else ():
        print(f"lsr: {warning}", file=sys.stderr)
    if device == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.cuda.set_device(int(local))
        return f"cuda:{local}"
    return device


@contextlib.contextmanager
def _term_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end what is no training, such as preparing scans, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _several_processes() -> Iterator[None]:
    """Join the processes that torchrun started, and leave them."""
    import datetime

    import torch
    import torch.distributed as dist

    joins = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if joins:
        # Before they join: its functions take the group of that moment as a default, which would
        # outlive its end, and gloo's threads with it: they can abort a finished training at exit.
        import torch.distributed.nn

        backend = "nccl" if torch.cuda.is_available() else "gloo"
        # One process prepares the scans while the others wait.
        dist.init_process_group(backend, timeout=datetime.timedelta(hours=12))
    yield
    # Not after an error: it may wait for the others, who wait for this one to say what is wrong.
    if joins:
        dist.destroy_process_group()
