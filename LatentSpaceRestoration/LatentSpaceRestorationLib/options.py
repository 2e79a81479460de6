"""The options of a detection, each written once.

The command line, the panel, cohorts, evaluations and the records of a result take them from here:
a further option is a field of :class:`DetectionOptions` and, if it is to be seen, its widget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

#: Of the method ``lsr``: as measured to be best; that with the auto-regressive prior alone, which
#: is the default of a model that has no other; as published.
MODES = ("default", "pixelsnail", "paper")
DEVICES = ("auto", "cpu", "cuda", "mps")
#: That networks compute in; ``auto`` is the shortest that the hardware has instructions for.
PRECISIONS = ("auto", "float32", "bfloat16")
_LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Described:
    """How an option is asked for on the command line.

    Attributes:
        help: what it is, in a few words.
        read: makes the value of what was typed; raises ValueError with what is wrong with it.
        metavar: what stands for the value in the help.
        choices: what it may be.
    """

    help: str
    read: Callable[[str], Any] = str
    metavar: str | None = None
    choices: Sequence[str] | None = None


def whole_number(text: str) -> int:
    """A whole number.

    Raises:
        ValueError: it is none.
    """
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


def count(text: str) -> int:
    """A whole number from 1; raises ValueError."""
    value = whole_number(text)
    if value < 1:
        raise ValueError(f"{text} is not at least 1")
    return value


def _seed(text: str) -> int:
    value = whole_number(text)
    if not 0 <= value <= _LARGEST_SEED:
        raise ValueError(f"{text} is not between 0 and 2^63 - 1")
    return value


def number(text: str) -> float:
    """A number; raises ValueError."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


def _seconds(text: str) -> float:
    value = number(text)
    if not 0.0 < value < float("inf"):
        raise ValueError(f"{text} is not a time above 0")
    return value


def _percentile(text: str) -> float:
    value = number(text)
    if not 0.0 < value < 100.0:
        raise ValueError(f"{text} is not between 0 and 100")
    return value


def check_percentile(percentile: float) -> None:
    """Refuse what is no percentile of healthy brain voxels to cut a map at.

    Raises:
        ValueError: not between 0 and 100, both excluded.
    """
    if not 0.0 < percentile < 100.0:
        raise ValueError(
            f"the threshold is a healthy percentile between 0 and 100, not {percentile:g}"
        )


def _option(default: Any, help: str, **described: Any) -> Any:
    return field(default=default, metadata={"option": Described(help, **described)})


@dataclass(frozen=True, kw_only=True)
class DetectionOptions:
    """How a scan is looked at.

    Attributes:
        mode: of the method ``lsr``: ``default``; ``pixelsnail`` for the auto-regressive prior in a
            model that has a masked one as well; ``paper`` for the published equations.
        method: ``lsr``, or another of the model's, each beside which it can be judged.
        restorations: S, at least 1; some methods make fewer, or none.
        seed: of the restorations: the same seed gives the same result.
        time_budget: seconds after which no more restorations are begun; None waits for all. One is
            made in any case.
        threshold: percentile of healthy brain voxels at which the mask is cut, between 0 and 100;
            None takes the model's.

    Raises:
        ValueError: an option is out of range.
    """

    mode: str = _option(
        "default",
        "of lsr; pixelsnail: by the auto-regressive prior alone, in a model that has a masked one "
        "as well; paper: the equations as published",
        choices=MODES,
    )
    method: str = _option("lsr", "how anomalies are found", metavar="METHOD")
    restorations: int = _option(15, "default: %(default)s", read=count, metavar="N")
    seed: int = _option(0, "of the restorations, default: 0", read=_seed, metavar="N")
    time_budget: float | None = _option(
        None,
        "begin no more restorations of a scan after so long; one is made in any case",
        read=_seconds,
        metavar="SECONDS",
    )
    threshold: float | None = _option(
        None,
        "percentile of healthy brain voxels above which a voxel is flagged, between 0 and 100; "
        "default: the model's own",
        read=_percentile,
        metavar="P",
    )

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode is one of {MODES}")
        if self.mode != "default" and self.method != "lsr":
            raise ValueError(f"mode {self.mode} is of method lsr, not of {self.method}")
        if self.restorations < 1:
            raise ValueError(f"at least one restoration is needed, not {self.restorations}")
        if self.time_budget is not None and not self.time_budget > 0:
            raise ValueError(f"the time budget is in seconds and above 0, not {self.time_budget:g}")
        if self.threshold is not None:
            check_percentile(self.threshold)

    @property
    def of_detection(self) -> dict[str, Any]:
        """Those that results depend on, by name."""
        return {each.name: getattr(self, each.name) for each in fields(DetectionOptions)}


@dataclass(frozen=True, kw_only=True)
class RunOptions(DetectionOptions):
    """How scans are looked at, and by which model, where.

    Attributes:
        model: name of an installed model, or a folder.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``. Results do not depend on it.
        precision: ``auto``, ``float32`` or ``bfloat16``, of the masked prior and the decoder. Codes
            are the same in each, and maps within a few hundredths.
    """

    model: str = _option("brain-t1", "of an installed model, or a folder", metavar="NAME_OR_FOLDER")
    device: str = _option("auto", "default: %(default)s", choices=DEVICES)
    precision: str = _option(
        "auto",
        "that the networks compute in; auto: bfloat16 where the hardware has it",
        choices=PRECISIONS,
    )


def described(options: type[DetectionOptions]) -> dict[str, tuple[Any, Described]]:
    """Default and description of each option, by its name."""
    return {each.name: (each.default, each.metadata["option"]) for each in fields(options)}
