"""A page of example pictures: the best, the median and the worst case of each family.

It is one file that needs nothing else, and is made to be looked at: the figures of a method say how
often it fails, these pictures how.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...results.report.page import NOTICE, Strips, page
from ...results.report.page import text as escape
from ..metrics.figures import FIGURES, MEAN, FigureRow, families_of
from ..metrics.measures import CaseResult
from ..panes import PANE, PANES
from ..synthetic.design import LESION, UNTOUCHED
from ..synthetic.families import FAMILIES

#: Methods whose maps are shown beside the first one's.
_MORE_MAPS = 5
_STYLE = f"""
body {{ max-width: 1560px; }} .case {{ margin: 0 0 18px; }}
.case > b {{ display: block; font-weight: 600; }}
.case > b span {{ font-weight: 400; color: var(--dim); }}
.panes {{ display: flex; flex-wrap: wrap; gap: 6px; }} figcaption {{ max-width: {PANE}px; }}
.pane {{ width: {PANE}px; height: {PANE}px; }}
td:first-child, th:first-child {{ text-align: left; }}
.truth, .flagged {{ background: #000; padding: 0 5px; border-radius: 3px; }}
.truth {{ color: #5eea8c; }} .flagged {{ color: #40e0ff; }}
nav a {{ margin-right: 12px; white-space: nowrap; }}
"""


def write_page(
    file: Path,
    title: str,
    notes: Sequence[str],
    results: Sequence[CaseResult],
    rows: Sequence[FigureRow],
) -> None:
    """Write the page.

    Args:
        file: HTML file.
        title, notes: what was evaluated, and how.
        results: of the evaluation; their pictures are taken into the page.
        rows: its figures, for the table at the top.
    """
    candidates = list(dict.fromkeys(result.candidate for result in results))
    names = families_of(results)
    if any(result.case.family == UNTOUCHED for result in results):
        names.append(UNTOUCHED)
    pictures = _Pictures()
    sections = [_section(name, results, candidates, pictures) for name in names]
    links = " ".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in names)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="warning">{NOTICE} Anomalies are synthetic unless they are called real.</p>',
        f'<p class="dim">{"<br>".join(map(escape, notes))}</p>',
        _table(rows, candidates),
        '<p class="dim">One axial plane of each case, that with most of the anomaly; the '
        'patient’s right is on the left. Outlines: <span class="truth">the truth</span>, '
        '<span class="flagged">what is flagged</span> at the calibrated threshold. Maps are clear '
        "below half of that threshold and brightest at three times it.</p>",
        f"<nav>{links}</nav>",
        *sections,
    ]
    content = page(title, "\n".join(parts), _STYLE + pictures.strips.style)
    file.write_text(content, encoding="utf-8")


class _Pictures:
    """Each strip of panes once, of which panes show a part."""

    def __init__(self) -> None:
        self.strips = Strips()
        self._names: dict[Path, str] = {}

    def pane(self, result: CaseResult, number: int, caption: str) -> str:
        name = self._names.get(result.picture)
        if name is None:
            name = self._names[result.picture] = self.strips.add(result.picture.read_bytes())
        place = f"background-position: -{number * PANE}px 0"
        return (
            f'<figure><div class="pane {name}" style="{place}" role="img" '
            f'aria-label="{escape(caption)}"></div><figcaption>{escape(caption)}</figcaption>'
            "</figure>"
        )


def _section(
    name: str, results: Sequence[CaseResult], candidates: Sequence[str], pictures: _Pictures
) -> str:
    first = candidates[0]
    own = [r for r in results if r.case.family == name and r.candidate == first]
    key = "ap" if any("ap" in r.measured.numbers for r in own) else "sample_score"
    ranked = sorted(own, key=lambda r: r.measured.numbers.get(key, 0.0), reverse=True)
    words = ("Best", "Median", "Worst") if key == "ap" else ("Highest score", "Median", "Lowest")
    picked = {0: words[0], len(ranked) // 2: words[1], len(ranked) - 1: words[2]}
    lines = [f'<h2 id="{escape(name)}">{escape(_heading(name))}</h2>']
    lines.append(f'<p class="dim">{_about(name)}</p>')
    for place, word in sorted(picked.items()):
        result = ranked[place]
        others = [
            next((r for r in results if r.candidate == c and r.case == result.case), None)
            for c in candidates[1 : 1 + _MORE_MAPS]
        ]
        # Where nothing was put in each method is shown at its own peak, and maps alone say little.
        panes = [pictures.pane(result, 0, PANES[0])]
        if "ap" in result.measured.numbers:
            panes.append(pictures.pane(result, 1, PANES[1]))
        panes += [pictures.pane(result, 2, _caption(result))]
        panes += [pictures.pane(result, 3, PANES[3])]
        panes += [pictures.pane(r, 2, _caption(r)) for r in others if r is not None]
        lines.append(
            f'<div class="case"><b>{word} <span>{escape(_described(result))}</span></b>'
            f'<div class="panes">{"".join(panes)}</div></div>'
        )
    return "\n".join(lines)


def _heading(name: str) -> str:
    if name == LESION:
        return "Real lesions"
    if name == UNTOUCHED:
        return "Untouched scans"
    kind = next(kind for kind in FAMILIES if kind.name == name)
    return name + (" (held out)" if kind.held_out else "")


def _about(name: str) -> str:
    if name == LESION:
        return "Scans of patients, with a mask of the lesion."
    if name == UNTOUCHED:
        return "Whatever is flagged here is false; each method is shown at its own peak."
    kind = next(kind for kind in FAMILIES if kind.name == name)
    first = " ".join((kind.change.__doc__ or "").split("\n\n")[0].split())
    text = escape(first.replace("``", "").replace(":func:", "").replace("`", ""))
    return text + (" Shown at the map's peak; there is no place to find." * kind.whole_scan)


def _described(result: CaseResult) -> str:
    case, numbers = result.case, result.measured.numbers
    parts = [case.subject]
    kind = next((kind for kind in FAMILIES if kind.name == case.family), None)
    if kind is not None:
        parts.append(f"{case.size:g} {kind.size_unit}")
        parts.append(f"contrast {case.contrast:g} {kind.contrast_unit}")
    if "label_ml" in numbers:
        parts.append(f"{numbers['label_ml']:.1f} ml changed")
    return ", ".join(parts)


def _caption(result: CaseResult) -> str:
    numbers = result.measured.numbers
    text = f"{result.candidate}: "
    if "ap" in numbers:
        text += f"AP {numbers['ap']:.2f}, Dice {numbers['dice']:.2f}, "
    percentile = numbers["percentile"]
    words = "no percentile" if percentile is None else f"percentile {percentile:.0f}"
    return f"{text}score {numbers['sample_score']:.3g} ({words})"


def _table(rows: Sequence[FigureRow], candidates: Sequence[str]) -> str:
    """Pooled AP, or for artefacts the AUROC of sample scores, by family and method."""
    whole = {(r.family, r.candidate): r for r in rows if r.is_whole}
    families = [f for f in dict.fromkeys(family for family, _ in whole) if f != UNTOUCHED]
    head = "".join(f"<th>{escape(c)}</th>" for c in candidates)
    lines = [f"<table><tr><th>{FIGURES['pooled_ap']}; 95% interval</th>{head}</tr>"]
    for name in families:
        cells = []
        for candidate in candidates:
            row = whole.get((name, candidate))
            figure = row.figures.get("pooled_ap") if row else None
            star = ""
            if figure is None and row is not None:
                figure, star = row.figures.get("sample_auroc"), "*"
            text = "" if figure is None else f"{figure.value:.2f}{star}"
            if figure is not None and figure.low is not None and figure.high is not None:
                text += f" ({figure.low:.2f} to {figure.high:.2f})"
            cells.append(f"<td>{text}</td>")
        label = f"<b>{name}</b>" if name == MEAN else escape(_heading(name))
        lines.append(f"<tr><td>{label}</td>{''.join(cells)}</tr>")
    return (
        "".join(lines)
        + '</table><p class="dim">* no voxels to find: AUROC of the sample scores.</p>'
    )
