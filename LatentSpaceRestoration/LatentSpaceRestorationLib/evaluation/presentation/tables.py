"""Tables of figures: one for programs (CSV), one for people (Markdown)."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..candidates import Candidate
from ..metrics.figures import FIGURES, MEAN, Figure, FigureRow
from ..metrics.measures import CaseResult
from ..synthetic.design import LESION, UNTOUCHED
from ..synthetic.families import FAMILIES

#: Figures that have a table of their own in Markdown, with what must be known to read it.
_SHOWN = {
    "pooled_ap": "All voxels of the family's changed scans and of as many untouched ones are "
    "ranked together, as the MOOD challenge does. A guess would get the share of changed voxels.",
    "case_ap": "Mean over changed scans.",
    "dice": "Mean over changed scans; the threshold is the model's own, from healthy scans.",
    "dice_oracle": "Mean over changed scans; each has the threshold that suits it best, which "
    "nobody knows beforehand.",
    "recall_1": "One threshold for all scans. A region is of the lesion if a fifth of it lies "
    "there.",
    "recall_5": "",
    "sample_auroc": "Changed scans against as many untouched ones.",
}
#: Figures whose lead is shown.
_LEADS = ("pooled_ap", "sample_auroc")
_HEALTHY = ("flagged_ml", "flagged_share", "alarms")
_FLAGGED = ("flagged_median", "flagged_p90", "flagged_worst")


def as_csv(rows: Sequence[FigureRow]) -> str:
    """One line a row; three columns a figure: value, low and high end of its interval."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = [
        "method",
        "site",
        "family",
        "held_out",
        "size",
        "size_unit",
        "contrast",
        "contrast_unit",
    ]
    ends = [name for key in FIGURES for name in (key, f"{key}_low", f"{key}_high")]
    writer.writerow([*head, "scans", *ends])
    kinds = {kind.name: kind for kind in FAMILIES}
    for row in rows:
        kind = kinds.get(row.family)
        writer.writerow(
            [
                row.candidate,
                row.site or "",
                row.family,
                "yes" if kind is not None and kind.held_out else "no",
                "" if row.size is None else f"{row.size:g}",
                kind.size_unit if kind is not None and row.size is not None else "",
                "" if row.contrast is None else f"{row.contrast:g}",
                kind.contrast_unit if kind is not None and row.contrast is not None else "",
                row.scans,
                *(_cell(row.figures.get(key), part) for key in FIGURES for part in range(3)),
            ]
        )
    return text.getvalue()


def as_markdown(rows: Sequence[FigureRow], title: str, notes: Sequence[str]) -> str:
    """A table for each of the main figures, families down and methods across."""
    candidates = list(dict.fromkeys(row.candidate for row in rows))
    whole = {(r.family, r.candidate): r for r in rows if r.is_whole}
    families = [f for f in dict.fromkeys(family for family, _ in whole) if f != UNTOUCHED]
    lines = [f"# {title}", "", *(f"- {note}" for note in notes), ""]
    for key, explained in _SHOWN.items():
        there = [f for f in families if any(key in _of(whole, f, c) for c in candidates)]
        if not there:
            continue
        lines += [f"## {FIGURES[key]}", "", *([explained, ""] if explained else [])]
        guessed = ["guess"] if key == "pooled_ap" else []
        lines += _head("family", [*guessed, *candidates])
        for name in there:
            guess = [_of(whole, name, candidates[0]).get("guess_ap") for _ in guessed]
            cells = ["" if g is None else f"{g.value:.3f}" for g in guess]
            cells += [_with_interval(_of(whole, name, c).get(key)) for c in candidates]
            lines.append(f"| {_named(name)} | {' | '.join(cells)} |")
        lines.append("")
        if key in _LEADS:
            lines += _leads(whole, there, candidates, key)
    lines += ["## Untouched scans", "", *_head("", candidates)]
    for key in _HEALTHY:
        cells = [_with_interval(_of(whole, UNTOUCHED, c).get(key)) for c in candidates]
        lines.append(f"| {FIGURES[key]} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_by_site(rows), *_by_level(rows, candidates)]) + "\n"


def _leads(
    whole: Mapping[tuple[str, str], FigureRow],
    families: Sequence[str],
    candidates: Sequence[str],
    key: str,
) -> list[str]:
    """How far the first candidate is ahead of each other; nothing if nothing can be compared."""
    first, *others = candidates
    lines = []
    for name in families:
        rows = [whole.get((name, other)) for other in others]
        found = [row.lead.get(key) if row is not None else None for row in rows]
        if any(found):
            cells = [_with_interval(lead, signed=True) for lead in found]
            lines.append(f"| {_named(name)} | {' | '.join(cells)} |")
    if not lines:
        return []
    return [
        f"### {FIGURES[key]}: {first} less the other",
        "",
        "The difference in each draw of the same subjects; where its interval is above 0, "
        f"{first} is better, though the intervals of the two may overlap.",
        "",
        *_head("family", others),
        *lines,
        "",
    ]


def _by_site(rows: Sequence[FigureRow]) -> list[str]:
    """What is flagged at each site, and found; nothing of one site alone."""
    of = {(r.candidate, r.site, r.family): r for r in rows if r.site is not None}
    if not of:
        return []
    head = ["method", "site", "scans", "flagged: median", "90th percentile", "worst", "score"]
    head += ["highest", "beyond all healthy", "AP", "sample AUROC", "flagged most"]
    lines = [
        "## By site",
        "",
        "Of untouched scans: what is flagged, as a share of the brain, and where; sample scores, "
        "median and highest, and the scans with a higher one than all healthy ones that the model "
        "is calibrated on. Of changed scans: the mean over families of pooled AP and of the AUROC "
        "of sample scores.",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
    ]
    for candidate, site in dict.fromkeys((name, site) for name, site, _ in of):
        healthy = of[candidate, site, UNTOUCHED]
        known = healthy.figures
        flagged = [f"{100 * known[key].value:.2f}%" for key in _FLAGGED]
        scores = [f"{known[key].value:.3g}" for key in ("score_median", "score_highest")]
        beyond = f"{known['beyond'].value * healthy.scans:.0f}"
        changed = of.get((candidate, site, MEAN))
        found = [
            ""
            if changed is None or key not in changed.figures
            else f"{changed.figures[key].value:.2f}"
            for key in ("pooled_ap", "sample_auroc")
        ]
        cells = [candidate, site or "not named", str(healthy.scans), *flagged, *scores, beyond]
        lines.append(f"| {' | '.join([*cells, *found, '; '.join(healthy.places)])} |")
    return [*lines, ""]


def _by_level(rows: Sequence[FigureRow], candidates: Sequence[str]) -> list[str]:
    lines = []
    for attribute in ("size", "contrast"):
        some = [row for row in rows if getattr(row, attribute) is not None]
        if not some:
            continue
        lines += [
            f"## By {attribute}",
            "",
            "AP of pooled voxels; for artefacts, marked *, AUROC of sample scores.",
            "",
            *_head(f"family, {attribute}", candidates),
        ]
        kinds = {kind.name: kind for kind in FAMILIES}
        for name, level in dict.fromkeys((r.family, getattr(r, attribute)) for r in some):
            unit = getattr(kinds[name], f"{attribute}_unit") if name in kinds else ""
            cells = []
            for candidate in candidates:
                found = [
                    row.figures
                    for row in some
                    if (row.candidate, row.family, getattr(row, attribute))
                    == (candidate, name, level)
                ]
                figure = found[0].get("pooled_ap") if found else None
                starred = found[0].get("sample_auroc") if found and figure is None else None
                cells.append(
                    f"{figure.value:.2f}" if figure else f"{starred.value:.2f}*" if starred else ""
                )
            lines.append(f"| {name}, {level:g} {unit} | {' | '.join(cells)} |")
        lines.append("")
    return lines


def _of(whole: dict[tuple[str, str], FigureRow], family: str, candidate: str) -> dict[str, Figure]:
    row = whole.get((family, candidate))
    return row.figures if row is not None else {}


def _named(name: str) -> str:
    kind = next((kind for kind in FAMILIES if kind.name == name), None)
    if name == MEAN:
        return f"**{name}**"
    if name == LESION:
        return "real lesions"
    if kind is not None and kind.held_out:
        return f"{name} (held out)"
    return f"{name} (artefact)" if kind is not None and kind.whole_scan else name


def _head(corner: str, candidates: Sequence[str]) -> list[str]:
    return [f"| {corner} | {' | '.join(candidates)} |", "|---" * (len(candidates) + 1) + "|"]


def _with_interval(figure: Figure | None, *, signed: bool = False) -> str:
    if figure is None:
        return ""
    # Volumes are large, shares small: three figures that count.
    size = abs(figure.value)
    digits = 2 if signed else 1 if size >= 10 else 2 if size >= 0.1 else 3
    form = f"{'+' if signed else ''}.{digits}f"
    text = f"{figure.value:{form}}"
    if figure.low is None or figure.high is None:
        return text
    return f"{text} ({figure.low:{form}} to {figure.high:{form}})"


def _cell(figure: Figure | None, part: int) -> str:
    if figure is None:
        return ""
    value = (figure.value, figure.low, figure.high)[part]
    return "" if value is None else f"{value:.6g}"


def as_json(
    rows: Sequence[FigureRow],
    results: Sequence[CaseResult],
    notes: Sequence[str],
    candidates: Sequence[Candidate],
) -> dict[str, Any]:
    """Everything: figures with their intervals, and the numbers of every case."""
    return {
        "notes": list(notes),
        "methods": [
            {
                "name": candidate.name,
                "model": candidate.detector.bundle.name,
                "model_sha256": candidate.model_digest,
                "method": candidate.method,
                "mode": candidate.mode,
            }
            for candidate in candidates
        ],
        "rows": [asdict(row) for row in rows],
        "cases": [
            {
                **asdict(result.case),
                "site": result.site,
                "method": result.candidate,
                **result.measured.numbers,
            }
            for result in results
        ],
    }
