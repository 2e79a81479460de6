"""The ``lsr`` command.

Exit status: 0 done; 1 a fault of the program; 2 unusable arguments; 3 an input could not be used
(others are still done); 130 cancelled. What goes wrong is one line on standard error.

torch is imported only when a scan is at hand: help and wrong arguments answer at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

# Before numpy is imported. Most of a result is 0 and never touched; with large pages it would be
# held in memory all the same, a quarter of a gigabyte for a scan of 0.5 mm.
os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")

from .. import __version__
from ..errors import Cancelled, InputError, LSRError
from .arguments import CANCELLED, FAULT, UNUSABLE_ARGUMENTS, UNUSABLE_INPUT
from .calibrate import add_calibrate
from .cohort import add_cohort
from .demo import add_demo
from .detect import add_detect
from .evaluate import add_evaluate
from .models import add_models
from .mood import add_mood
from .terminal import Parser, any_text, complain, quiet
from .train import add_train


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: what follows ``lsr``; None takes the process's own.

    Returns:
        The exit status.
    """
    debug = False
    any_text()
    try:
        options = parser().parse_args(arguments)
        debug = options.debug
        with quiet(debug):
            command: Callable[[argparse.Namespace], int] = options.command
            return command(options)
    except SystemExit as leaving:  # argparse has said all there is to say
        return leaving.code if isinstance(leaving.code, int) else 0
    except (KeyboardInterrupt, Cancelled):
        complain("cancelled", debug)
        return CANCELLED
    except LSRError as error:
        complain(str(error), debug)
        return UNUSABLE_INPUT if isinstance(error, InputError) else UNUSABLE_ARGUMENTS
    except BrokenPipeError:
        # Whoever read the output has left; Python would complain again when it closes.
        sys.stdout = None
        return FAULT
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            complain("PyTorch is missing; install the package torch", debug)
            return UNUSABLE_ARGUMENTS
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        complain(f"a fault of the program ({what}); report what --debug shows", debug)
        return FAULT


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    shared = Parser(add_help=False)
    # Suppressed, so that a command does not undo what was said before it.
    shared.add_argument(
        "--debug",
        action="store_true",
        default=argparse.SUPPRESS,
        help="show tracebacks and the libraries' warnings",
    )
    parser = Parser(
        prog="lsr",
        parents=[shared],
        description="Find what is unusual in brain scans. For research use, not for diagnosis.",
        epilog="Exit status: 0 done, 2 unusable arguments, 3 an input could not be used, "
        "130 cancelled.",
    )
    parser.add_argument("--version", action="version", version=f"lsr {__version__}")
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, what: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=[shared], help=what)

    add_detect(command("detect", "find anomalies in scans"))
    add_models(command("models", "list and check the models"), shared)
    add_demo(command("demo", "find a lesion that is painted into a real brain"))
    add_cohort(command("cohort", "find anomalies in many scans"))
    add_evaluate(command("evaluate", "measure models on anomalies that are known"))
    add_mood(command("mood", "scan folders as the MOOD challenge does"))
    add_train(command("train", "train a model on healthy scans"))
    add_calibrate(command("calibrate", "tell a model what healthy scans give"))
    return parser
