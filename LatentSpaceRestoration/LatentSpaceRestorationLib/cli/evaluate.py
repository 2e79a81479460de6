"""``lsr evaluate``: how good a model and its methods are, on anomalies that are known."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, LSRError, OutputError
from ..options import DetectionOptions, count
from .arguments import UNUSABLE_INPUT, add_options, typed
from .terminal import tell

if TYPE_CHECKING:
    from ..detector import Detector
    from ..evaluation.candidates import Candidate
    from ..evaluation.metrics.figures import FigureRow
    from ..evaluation.metrics.measures import CaseResult
    from ..evaluation.synthetic.design import Case
    from ..evaluation.synthetic.families import Family
    from ..evaluation.synthetic.sources import Source


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``lsr evaluate``."""
    parser.description = (
        "Puts synthetic anomalies of several families into healthy scans, looks for them with each "
        "method, and writes into DIR: table.md, table.csv, figures.json, roc.png, pr.png and "
        "page.html. Results of single cases stay in DIR/cases, so that an evaluation that was "
        "broken off goes on when it is started again."
    )
    add = parser.add_argument
    add(
        "source",
        type=Path,
        nargs="+",
        metavar="SOURCE",
        help="healthy scans: a subjects table (.tsv, .csv), a folder, or a BIDS data set; of "
        "several sites, each is told of by itself as well",
    )
    add("-o", "--output", type=Path, default=Path("lsr-evaluation"), metavar="DIR")
    add(
        "--model",
        action="append",
        metavar="NAME_OR_FOLDER",
        help="repeat; default: those that ship",
    )
    add(
        "--method",
        action="append",
        metavar="NAME",
        help="as of lsr detect, or lsr-paper and lsr-pixelsnail for modes of lsr; repeat; default: "
        "all that a model is calibrated for, but lsr-pixelsnail",
    )
    add("--family", action="append", metavar="NAME", help="of anomalies; repeat; default: all")
    add("--sizes", type=float, nargs="+", metavar="S", help="instead of each family's own")
    add("--contrasts", type=float, nargs="+", metavar="C", help="instead of each family's own")
    add("--full", action="store_true", help="every size with every contrast in every scan")
    add("--held-out", action="store_true", help="show the held-out family as well")
    add("--split", action="append", metavar="NAME", help="of subjects; repeat; default: tune")
    add("--subjects", type=typed(count), metavar="N", help="the first N of each site only")
    add("--lesions", type=Path, metavar="FOLDER_OR_TABLE", help="scans with lesion masks as well")
    add(
        "--shapes",
        type=Path,
        metavar="FOLDER",
        help="lesion shapes to paint, with shapes.tsv; default: the folder stroke-lesion-shapes "
        "beside that of SOURCE",
    )
    add(
        "--compare",
        choices=("paper", "beta"),
        help="paper: LSR as published beside the VAE of the same size; beta: VAEs of several beta",
    )
    add_options(parser, without=("model", "mode", "method", "time_budget", "threshold"))
    add("--replicates", type=typed(count), default=1000, metavar="N", help="of the bootstrap")
    add("--afresh", action="store_true", help="make results that are there already again")
    add("--into-card", action="store_true", help="write the figures into the models' cards")
    parser.set_defaults(command=evaluate)


def evaluate(options: argparse.Namespace) -> int:
    """Run the command; the exit status is 0, or 3 if scans were left out."""
    _check_extra()
    from ..evaluation.metrics.figures import rows_of
    from ..evaluation.runs import run
    from ..results.files import results_folder

    families, notes = _families(options)
    detectors = _detectors(options)
    from ..evaluation.candidates import candidates_of

    candidates, left_out = candidates_of(detectors, options.method or [], options.compare)
    source, lines = _source(options, detectors)
    notes += [*left_out, *lines]
    kinds = []
    for kind in families:
        why = source.missing(kind)
        if why:
            notes.append(f"{kind.name} is left out: {why}")
        else:
            kinds.append(kind)
    cases = _cases(options, source, kinds)
    for note in notes:
        tell(f"note: {note}")
    tell(f"{len(cases)} scans, {len(candidates)} method(s)")
    with results_folder(options.output) as folder:
        asked = DetectionOptions(restorations=options.restorations, seed=options.seed)
        results, troubles = run(
            cases, candidates, source, folder / "cases", asked, tell, afresh=options.afresh
        )
        if not results:
            raise InputError(f"{options.source[0]}: no scan could be used; see the lines above")
        rows = rows_of(results, replicates=options.replicates, seed=options.seed)
        _write(folder, options, rows, results, candidates, [*notes, *troubles])
    if options.into_card:
        _into_card(options, rows, candidates, len(source.healthy))
    return UNUSABLE_INPUT if troubles else 0


def _check_extra() -> None:
    try:
        import matplotlib
        import sklearn  # noqa: F401
    except ModuleNotFoundError as error:
        raise LSRError(
            f"{error.name} is missing; install latent-space-restoration[evaluation]"
        ) from error
    matplotlib.use("Agg")


def _families(options: argparse.Namespace) -> tuple[list[Family], list[str]]:
    from dataclasses import replace

    from ..evaluation.synthetic.families import FAMILIES, family

    notes = []
    kinds = [family(name) for name in dict.fromkeys(options.family or [])] or list(FAMILIES)
    if not options.held_out:
        hidden = [kind.name for kind in kinds if kind.held_out]
        if hidden and options.family:
            raise LSRError(
                f"{hidden[0]} is held out, so that nothing is tuned on it; ask for --held-out"
            )
        kinds = [kind for kind in kinds if not kind.held_out]
        notes += [f"{name} is held out (--held-out shows it)" for name in hidden]
    if (options.sizes or options.contrasts) and not options.family:
        raise LSRError("--sizes and --contrasts are in a family's own units; give its --family")
    if options.sizes:
        kinds = [replace(kind, sizes=tuple(options.sizes)) for kind in kinds]
    if options.contrasts:
        kinds = [replace(kind, contrasts=tuple(options.contrasts)) for kind in kinds]
    return kinds, notes


def _detectors(options: argparse.Namespace) -> list[Detector]:
    from ..bundle.bundle import find_bundle
    from ..detector import Detector
    from ..methods.registry import SHIPPED

    models = options.model or [SHIPPED["anomaly"], SHIPPED["vae"]]
    folders = [find_bundle(model) for model in dict.fromkeys(models)]
    detectors = [
        Detector.load(folder, options.device, precision=options.precision) for folder in folders
    ]
    names = [detector.bundle.name for detector in detectors]
    for name in names:
        if names.count(name) > 1 and options.compare != "beta":
            raise LSRError(f"two of the models are named {name}; evaluate them one by one")
    return detectors


def _splits(options: argparse.Namespace) -> list[str]:
    return options.split or ["tune"]


def _source(options: argparse.Namespace, detectors: Sequence[Detector]) -> tuple[Source, list[str]]:
    from ..evaluation.synthetic.sources import (
        Source,
        brain_finder,
        check_unseen,
        choose,
        real_lesions,
    )

    chosen = choose(options.source, _splits(options), detectors)
    unharmed = [subject for subject in chosen if subject.lesion is None]
    healthy = [
        subject
        for site in dict.fromkeys(s.site for s in unharmed)
        for subject in [s for s in unharmed if s.site == site][: options.subjects]
    ]
    lesions = [subject for subject in chosen if subject.lesion is not None]
    if options.lesions:
        known = {subject.name for subject in lesions}
        lesions += [s for s in real_lesions(options.lesions) if s.name not in known]
    notes = check_unseen([subject.name for subject in healthy], detectors)
    shapes = options.shapes
    if shapes is not None and not (shapes / "shapes.tsv").is_file():
        raise InputError(f"{shapes}: has no shapes.tsv; give a folder of lesion shapes")
    beside = options.source[0].resolve().parent.parent / "stroke-lesion-shapes"
    if shapes is None and beside.is_dir():
        shapes = beside
    find_brain = brain_finder(detectors[0])
    return Source(healthy, lesions, shapes, options.seed, find_brain), notes


def _cases(options: argparse.Namespace, source: Source, kinds: Sequence[Family]) -> list[Case]:
    from ..evaluation.synthetic.design import LESION, Case, design

    # Each site has a design of its own, so that all have anomalies of the same sizes.
    cases = [
        case
        for site in dict.fromkeys(subject.site for subject in source.healthy)
        for case in design(
            [subject.name for subject in source.healthy if subject.site == site],
            kinds,
            seed=options.seed,
            full=options.full,
        )
    ]
    return [*cases, *(Case(patient.name, LESION) for patient in source.lesions)]


def _write(
    folder: Path,
    options: argparse.Namespace,
    rows: Sequence[FigureRow],
    results: Sequence[CaseResult],
    candidates: Sequence[Candidate],
    notes: Sequence[str],
) -> None:
    from ..evaluation.presentation.curves import draw_curves
    from ..evaluation.presentation.page import write_page
    from ..evaluation.presentation.sweep import draw_sweep
    from ..evaluation.presentation.tables import as_csv, as_json, as_markdown
    from ..evaluation.synthetic.design import LESION
    from ..io.files import reason

    models = ", ".join(dict.fromkeys(c.detector.bundle.name for c in candidates))
    title = f"Evaluation of {models}"
    healthy = len({r.case.subject for r in results if r.case.family != LESION})
    patients = len({r.case.subject for r in results if r.case.family == LESION})
    real = f" and {patients} with real lesions" if patients else ""
    splits = " and ".join(_splits(options))
    about = [
        f"{healthy} healthy subjects of split {splits}{real}; restorations: "
        f"{options.restorations}; seed {options.seed}; intervals: 95%, {options.replicates} "
        "bootstrap draws of subjects.",
        *notes,
    ]
    text = as_markdown(rows, title, about)
    try:
        (folder / "table.md").write_text(text, encoding="utf-8")
        (folder / "table.csv").write_text(as_csv(rows), encoding="utf-8")
        data = as_json(rows, results, about, candidates)
        (folder / "figures.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        draw_curves(results, folder / "roc.png", folder / "pr.png")
        if options.compare == "beta":
            draw_sweep(rows, candidates, folder / "beta.png")
        write_page(folder / "page.html", title, about, results, rows)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({reason(error)}); make room and start again: what is "
            "done is kept"
        ) from error
    print(text)
    print(f"Pictures: {folder / 'page.html'}")


def _into_card(
    options: argparse.Namespace,
    rows: Sequence[FigureRow],
    candidates: Sequence[Candidate],
    subjects: int,
) -> None:
    from ..bundle.write import add_metrics
    from ..evaluation.presentation.card import card_figures

    for detector in dict.fromkeys(candidate.detector for candidate in candidates):
        bundle = detector.bundle
        figures = {
            c.mode if c.method == "lsr" else c.method: card_figures(
                rows,
                c.name,
                split=" and ".join(_splits(options)),
                restorations=options.restorations,
                subjects=subjects,
            )
            for c in candidates
            if c.detector is detector
        }
        add_metrics(bundle.folder, {**bundle.config["metrics"], **figures})
        tell(f"figures written into {bundle.folder}")
