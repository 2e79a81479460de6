"""What this computer can do: versions, device, memory, the model, and the time of a scan."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from .models import describe
from .task import DetectionTask

if TYPE_CHECKING:
    from LatentSpaceRestorationLib.detection import Estimate

#: Made to learn how long one takes; a first one also pays for the start.
MEASURED_RESTORATIONS = 3
_PACKAGES = ("torch", "numpy", "scipy", "safetensors")


def versions() -> list[str]:
    """Lines on the system and on the packages, with a word for what is missing."""
    from LatentSpaceRestorationLib import __version__

    lines = [
        _("Latent Space Restoration {version}, {application}, Python {python}").format(
            version=__version__,
            application=slicer.app.applicationName,
            python=platform.python_version(),
        ),
        f"{platform.system()} {platform.machine()}, "
        + _("{count} processors").format(count=os.cpu_count()),
    ]
    for name in _PACKAGES:
        try:
            lines.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(_("{package} is not installed").format(package=name))
    return lines


def place(device: str) -> list[str]:
    """Lines on where the networks run, and on its memory. Imports torch; runs one operation.

    Args:
        device: auto, cpu, cuda or mps.
    """
    import torch
    from LatentSpaceRestorationLib.runtime.device import choose_device

    chosen, warnings = choose_device(device)
    if chosen == "cuda":
        free, total = torch.cuda.mem_get_info()
        lines = [
            _("Runs on {card}, {free} of {total} GB free").format(
                card=torch.cuda.get_device_name(), free=_gigabytes(free), total=_gigabytes(total)
            )
        ]
    else:
        lines = [
            _("Runs on {device} with {threads} threads").format(
                device=chosen, threads=torch.get_num_threads()
            )
        ]
    memory = _memory()
    if memory:
        lines.append(_("Memory: {total} GB; about 1 GB is used").format(total=_gigabytes(memory)))
    return [*lines, *warnings]


def modelLine(model: str) -> str:
    """Whether a model's files are whole, and its figures."""
    figures, _card = describe(model)
    return f"{model}: {figures}"


def check(
    task: DetectionTask | None,
    model: str,
    device: str,
    restorations: int,
    progress: Callable[[float, str], None],
    isCancelled: Callable[[], bool],
    tell: Callable[[list[str]], None],
) -> list[str]:
    """All lines. The time is known last, so that the others are told before.

    Args:
        task: with ``MEASURED_RESTORATIONS``; None leaves the time out.
        model: name of the model.
        device: auto, cpu, cuda or mps.
        restorations: that a detection would make.
        progress, isCancelled: as in ``DetectionTask.compute``.
        tell: called with the lines that are known.
    """
    lines = [*versions(), *place(device), modelLine(model)]
    tell(lines)
    if task is None:
        return [*lines, _("Choose a volume to learn how long it would take.")]
    return [*lines, timeLine(task, restorations, progress, isCancelled)]


def timeLine(
    task: DetectionTask,
    restorations: int,
    progress: Callable[[float, str], None],
    isCancelled: Callable[[], bool],
) -> str:
    """How long a detection would take, from one with a few restorations."""
    made: list[tuple[int, float]] = []

    def onEstimate(estimate: Estimate) -> None:
        made.append((estimate.restorations, estimate.seconds))

    _detector, detection = task.compute(progress, isCancelled, onEstimate)
    total = expected(made, restorations) + detection.seconds.get("undo", 0.0)
    return _(
        "Expected for this volume: the score after {first} s, the map of {count} restorations after"
        " {total} s"
    ).format(first=f"{made[0][1]:.1f}", count=restorations, total=f"{total:.1f}")


def expected(made: Sequence[tuple[int, float]], restorations: int) -> float:
    """Seconds until the last of so many restorations, each taking as long as those after the first.

    Args:
        made: numbers of restorations, and the seconds after which they were there.
        restorations: that are wanted.
    """
    # Before the first, there may be a score without any.
    (few, early), (many, late) = next(one for one in made if one[0] or one is made[-1]), made[-1]
    each = (late - early) / max(many - few, 1)
    return early + max(restorations - few, 0) * each


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f}"


def _memory() -> int:
    """Bytes of main memory; 0 where the system does not say so in this way, as on Windows."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0
