"""The ``lsr`` command.

Exit status: 0 done; 1 a fault of the program; 2 unusable arguments; 3 an input could not be used
(others are still done); 130 cancelled. What goes wrong is one line on standard error.

torch is imported only when a scan is at hand: help and wrong arguments answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from .. import __version__
from ..errors import BundleError, Cancelled, InputError, LSRError
from ..extras import add_extras
from .arguments import CANCELLED, FAULT, UNUSABLE_ARGUMENTS, UNUSABLE_INPUT, add_detection_options

if TYPE_CHECKING:
    from ..bundle.bundle import Bundle
    from ..detection import Estimate
    from ..results.files import Result


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line instead of the whole usage."""
        self.exit(UNUSABLE_ARGUMENTS, f"lsr: error: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: what follows ``lsr``; None takes the process's own.

    Returns:
        The exit status.
    """
    debug = False
    try:
        options = _parser().parse_args(arguments)
        debug = options.debug
        with _quiet(debug):
            command: Callable[[argparse.Namespace], int] = options.command
            return command(options)
    except SystemExit as leaving:  # argparse has said all there is to say
        return leaving.code if isinstance(leaving.code, int) else 0
    except (KeyboardInterrupt, Cancelled):
        _complain("cancelled", debug)
        return CANCELLED
    except LSRError as error:
        _complain(str(error), debug)
        return UNUSABLE_INPUT if isinstance(error, InputError) else UNUSABLE_ARGUMENTS
    except BrokenPipeError:
        # Whoever read the output has left; Python would complain again when it closes.
        sys.stdout = None
        return FAULT
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            _complain("PyTorch is missing; install the package torch", debug)
            return UNUSABLE_ARGUMENTS
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        _complain(f"a fault of the program ({what}); report what --debug shows", debug)
        return FAULT


def _parser() -> argparse.ArgumentParser:
    shared = _Parser(add_help=False)
    # Suppressed, so that a command does not undo what was said before it.
    shared.add_argument(
        "--debug",
        action="store_true",
        default=argparse.SUPPRESS,
        help="show tracebacks and the libraries' warnings",
    )
    parser = _Parser(
        prog="lsr",
        parents=[shared],
        description="Find what is unusual in brain scans. For research use, not for diagnosis.",
        epilog="Exit status: 0 done, 2 unusable arguments, 3 an input could not be used, "
        "130 cancelled.",
    )
    parser.add_argument("--version", action="version", version=f"lsr {__version__}")
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_detect(commands.add_parser("detect", parents=[shared], help="find anomalies in scans"))
    _add_models(
        commands.add_parser("models", parents=[shared], help="list and check the models"), shared
    )
    demo = commands.add_parser(
        "demo", parents=[shared], help="find a lesion that is painted into a real brain"
    )
    demo.add_argument("-o", "--output", type=Path, default=Path("lsr-demo"), metavar="DIR")
    demo.set_defaults(command=_demo)
    _add_cohort(
        commands.add_parser("cohort", parents=[shared], help="find anomalies in many scans")
    )
    _add_evaluate(
        commands.add_parser(
            "evaluate", parents=[shared], help="measure models on anomalies that are known"
        )
    )
    _add_mood(
        commands.add_parser(
            "mood", parents=[shared], help="scan folders as the MOOD challenge does"
        )
    )
    _add_training(commands, shared)
    return parser


def _add_training(commands: argparse._SubParsersAction[_Parser], shared: _Parser) -> None:
    from .train import add_calibrate, add_train

    add_train(commands.add_parser("train", parents=[shared], help="train a model on healthy scans"))
    add_calibrate(
        commands.add_parser(
            "calibrate", parents=[shared], help="tell a model what healthy scans give"
        )
    )


def _add_cohort(cohort: argparse.ArgumentParser) -> None:
    from .cohort import add_cohort

    add_cohort(cohort)


def _add_mood(mood: argparse.ArgumentParser) -> None:
    from .mood import add_mood

    add_mood(mood)


def _add_evaluate(evaluate: argparse.ArgumentParser) -> None:
    from .evaluate import add_evaluate

    add_evaluate(evaluate)


def _add_detect(detect: argparse.ArgumentParser) -> None:
    detect.description = (
        "Writes for each SCAN into DIR: anomaly map, mask, restoration, spread of the "
        "restorations, a picture and the figures. Nothing is written for a scan that fails."
    )
    add = detect.add_argument
    add("scans", nargs="+", metavar="SCAN", help="T1-weighted scan, or folder of a DICOM series")
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="made if it is missing")
    add("--brain-mask", metavar="FILE", help="brain on the scan's grid, instead of finding it")
    add_detection_options(detect)
    add("--json", action="store_true", help="print each result's figures, one JSON object a line")
    add_extras(detect)
    detect.set_defaults(command=_detect)


def _add_models(models: argparse.ArgumentParser, shared: _Parser) -> None:
    models.set_defaults(command=_list_models)
    actions = models.add_subparsers(metavar="ACTION")
    listing = actions.add_parser("list", parents=[shared], help="what is installed (the default)")
    show = actions.add_parser("show", parents=[shared], help="a model's card")
    show.add_argument("model", metavar="NAME_OR_FOLDER")
    verify = actions.add_parser("verify", parents=[shared], help="check every file's hash")
    verify.add_argument("models", nargs="*", metavar="NAME_OR_FOLDER", help="default: all")
    for action, command in ((listing, _list_models), (show, _show_model), (verify, _verify)):
        action.set_defaults(command=command)


def _detect(options: argparse.Namespace) -> int:
    from ..bundle.bundle import find_bundle
    from ..extras import extras_of
    from ..methods import shipped_model
    from ..results.files import check_names, detect_file, results_folder
    from ..runtime.interruption import stop_requests

    if options.mode != "default" and options.method != "lsr":
        raise LSRError(f"--mode {options.mode} is of method lsr, not of {options.method}")
    extras = extras_of(options)
    check_names(options.scans, options.output, extras)
    model = find_bundle(options.model or shipped_model(options.method))
    status = 0
    with results_folder(options.output) as folder:
        from ..detector import Detector

        detector = Detector.load(model, options.device)
        detector.calibration(options.mode, options.method)  # refuses what it cannot do, at once
        for scan in options.scans:
            try:
                # Ctrl-C in the middle of numpy's or torch's own code can come out as another error.
                with _progress(Path(scan).name) as progress, stop_requests() as is_cancelled:
                    result = detect_file(
                        detector,
                        scan,
                        folder,
                        brain_mask=options.brain_mask,
                        mode=options.mode,
                        method=options.method,
                        threshold=options.threshold,
                        restorations=options.restorations,
                        seed=options.seed,
                        time_budget=options.time_budget,
                        estimate=None if progress is None else progress.estimate,
                        progress=progress,
                        is_cancelled=is_cancelled,
                        extras=extras,
                    )
            except InputError as error:
                _complain(str(error), options.debug)
                status = UNUSABLE_INPUT
            except MemoryError:
                _complain(f"{scan}: does not fit into memory; resample it", options.debug)
                status = UNUSABLE_INPUT
            else:
                figures = json.dumps(result.figures, ensure_ascii=False)
                print(figures if options.json else in_words(result), flush=True)
    return status


def in_words(result: Result) -> str:
    """A result as a few lines for a person."""
    from ..results.files import ENDINGS
    from ..results.regions import most_anomalous_place, score_in_words

    found = result.detection
    place = most_anomalous_place(
        found.anomaly_map, found.anomaly_mask, found.brain_mask, result.volume.affine
    )
    flagged = float((found.anomaly_mask > 0).sum()) * result.volume.voxel_volume_ml
    compared = score_in_words(found.p_value, found.healthy_scans, found.healthy_sites)
    amount = (
        f"{flagged:.1f} ml, {place.volume_ml:.1f} ml of it there (above healthy percentile "
        f"{found.threshold_percentile:g})"
        if found.p_value is not None
        else "nothing, as the note says"
    )
    lines = [
        f"{result.scan}",
        f"  score {found.sample_score:.4g}: {compared}",
        f"  most anomalous: {place.words}; RAS {place.position()}",
        f"  flagged: {amount}",
        f"  picture: {result.files['anomaly.png']}",
        *(f"  also: {file}" for ending, file in result.files.items() if ending not in ENDINGS),
        *(f"  note: {warning}" for warning in found.warnings),
    ]
    return "\n".join(lines)


def _list_models(options: argparse.Namespace) -> int:
    from ..bundle.bundle import bundle_folders, default_models_folder, read_bundle

    folders = bundle_folders()
    if not folders:
        print(f"no models in {default_models_folder()}")
    for folder in folders:
        try:
            print(_model_line(read_bundle(folder)))
        except BundleError as error:
            print(f"{folder.name:<20} damaged: {error}")
    return 0


def _model_line(bundle: Bundle) -> str:
    modality = str(bundle.config.get("modality", ""))
    size = f"{bundle.size / 1e6:.1f} MB"
    return f"{bundle.name:<20} {bundle.kind:<18} {modality:<6} {size:>9}  {bundle.folder}"


def _show_model(options: argparse.Namespace) -> int:
    from ..bundle.bundle import find_bundle, read_bundle

    bundle = read_bundle(find_bundle(options.model))
    print(_model_line(bundle))
    for key in ("licence", "grid", "spacing_mm", "orientation", "training", "metrics"):
        if key in bundle.config:
            print(f"{key}: {json.dumps(bundle.config[key], ensure_ascii=False)}")
    print(f"\n{bundle.card()}".rstrip())
    return 0


def _verify(options: argparse.Namespace) -> int:
    from ..bundle.bundle import bundle_folders, find_bundle, read_bundle

    folders = [find_bundle(model) for model in options.models] or bundle_folders()
    if not folders:
        raise BundleError("there are no models to verify; give a model's folder")
    status = 0
    for folder in folders:
        try:
            bundle = read_bundle(folder)
        except BundleError as error:
            _complain(str(error), options.debug)
            status = UNUSABLE_ARGUMENTS
        else:
            print(f"{bundle.name}: {len(bundle.config['files'])} files are as they were made")
    return status


def _demo(options: argparse.Namespace) -> int:
    from ..results.files import results_folder
    from .demo import run

    with results_folder(options.output) as folder, _progress("demo") as progress:
        report = run(folder, progress)
    print(in_words(report.result))
    print(report.in_words())
    return 0


class _ProgressLine:
    """A line on a terminal: how far a scan is, and its score as far as it is known."""

    def __init__(self, name: str) -> None:
        self._name, self._score = name, ""

    def __call__(self, fraction: float, message: str) -> None:
        line = f"\r\x1b[K{self._name}: {fraction:4.0%}  {message}{self._score}"
        print(line, end="", file=sys.stderr, flush=True)

    def estimate(self, estimate: Estimate) -> None:
        self._score = f", score {estimate.sample_score:.4g} so far"


@contextlib.contextmanager
def _progress(name: str) -> Iterator[_ProgressLine | None]:
    """A line on a terminal that tells how far a scan is; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    try:
        yield _ProgressLine(name)
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _quiet(debug: bool) -> Iterator[None]:
    """Keep the libraries' own warnings from the user, who can do nothing about them."""
    import logging
    import warnings

    with warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")
            logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
        yield


def _complain(message: str, debug: bool) -> None:
    if debug and sys.exc_info()[0] is not None:
        traceback.print_exc()
    print(f"lsr: error: {message}", file=sys.stderr, flush=True)
