"""Arguments that several commands take: their types, and the options of a detection."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import LSRError
from ..methods.registry import ENTRIES, SHIPPED, names, shipped_model
from ..options import DetectionOptions, RunOptions, described

#: Exit statuses. ``UNUSABLE_INPUT`` is that where a scan could not be used and the others were.
FAULT, UNUSABLE_ARGUMENTS, UNUSABLE_INPUT, CANCELLED = 1, 2, 3, 130
_Value = TypeVar("_Value")


def add_options(
    parser: argparse.ArgumentParser,
    options: type[DetectionOptions] = RunOptions,
    *,
    without: tuple[str, ...] = (),
) -> None:
    """Add an argument for each option of a detection.

    Args:
        parser: gets them; :func:`options_of` reads them.
        options: whose options.
        without: names of those to leave out.
    """
    for name, (default, how) in described(options).items():
        if name in without:
            continue
        settings: dict[str, Any] = {"default": default, "help": how.help, "metavar": how.metavar}
        if name == "model":
            models = f"{SHIPPED['anomaly']}, or for the methods of a VAE {SHIPPED['vae']}"
            settings |= {"default": None, "help": f"default: {models}"}
        elif name == "method":
            known = ", ".join(f"{entry.name} ({entry.label})" for entry in ENTRIES)
            settings |= {"choices": names(), "help": f"one of {known}; default: %(default)s"}
        elif how.choices is not None:
            settings["choices"] = how.choices
        else:
            settings["type"] = typed(how.read)
        parser.add_argument("--" + name.replace("_", "-"), **settings)


def options_of(arguments: argparse.Namespace) -> RunOptions:
    """The options that were given; the model is that which ships for the method if none was.

    Raises:
        LSRError: they do not go together.
    """
    given = {name: getattr(arguments, name) for name in described(RunOptions) if name in arguments}
    if given.get("model") is None:
        given["model"] = shipped_model(given.get("method", "lsr"))
    try:
        return RunOptions(**given)
    except ValueError as error:
        raise LSRError(f"--{error}") from error


def typed(read: Callable[[str], _Value]) -> Callable[[str], _Value]:
    """A reader of text as a type of an argument: what is wrong is said in its own words."""

    def value(text: str) -> _Value:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return value
