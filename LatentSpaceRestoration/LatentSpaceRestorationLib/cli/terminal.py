"""What is said on the terminal: usage, progress, warnings, errors."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

from ..io.files import printable
from .arguments import UNUSABLE_ARGUMENTS

if TYPE_CHECKING:
    from ..detection import Estimate


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """One line instead of the whole usage."""
        self.exit(UNUSABLE_ARGUMENTS, f"lsr: error: {message} (see {self.prog} --help)\n")


class ProgressLine:
    """A line on a terminal: how far a scan is, and its score as far as it is known."""

    def __init__(self, name: str) -> None:
        self._name, self._score = name, ""

    def __call__(self, fraction: float, message: str) -> None:
        line = f"\r\x1b[K{printable(self._name)}: {fraction:4.0%}  {message}{self._score}"
        print(line, end="", file=sys.stderr, flush=True)

    def estimate(self, estimate: Estimate) -> None:
        self._score = f", score {estimate.sample_score:.4g} so far"


@contextlib.contextmanager
def progress_line(name: str) -> Iterator[ProgressLine | None]:
    """A line on a terminal that tells how far a scan is; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    try:
        yield ProgressLine(name)
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def any_text() -> None:
    """Let names that the terminal has no letters for be printed, escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def quiet(debug: bool) -> Iterator[None]:
    """Keep the libraries' own warnings from the user, who can do nothing about them."""
    import logging
    import warnings

    with warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")
            logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
        yield


def say(line: str) -> None:
    """A line of the result."""
    print(line, flush=True)


def tell(line: str) -> None:
    """A line on how it goes, beside the result."""
    print(line, file=sys.stderr, flush=True)


def complain(message: str, debug: bool) -> None:
    """A line on what went wrong; with ``debug`` the traceback before it."""
    if debug and sys.exc_info()[0] is not None:
        traceback.print_exc()
    print(f"lsr: error: {printable(message)}", file=sys.stderr, flush=True)
