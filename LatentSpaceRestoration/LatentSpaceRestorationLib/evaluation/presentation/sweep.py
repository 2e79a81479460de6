"""Figures of a sweep over models that differ in one setting, as a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..candidates import Candidate, beta_of
from ..metrics.figures import FIGURES, MEAN, FigureRow


def draw_sweep(rows: Sequence[FigureRow], candidates: Sequence[Candidate], file: Path) -> None:
    """Draw figures against beta, a line a method.

    Args:
        rows: of the evaluation.
        candidates: VAEs of several beta.
        file: PNG file to write.
    """
    from matplotlib.figure import Figure

    whole = {r.candidate: r for r in rows if r.is_whole and r.family == MEAN}
    if not whole:  # of one family alone no mean is made
        whole = {r.candidate: r for r in rows if r.is_whole and "pooled_ap" in r.figures}
    keys = ("pooled_ap", "pooled_auroc", "sample_auroc")
    drawing = Figure(figsize=(4.0 * len(keys), 3.6), layout="constrained")
    for panel, key in zip(drawing.subplots(1, len(keys)), keys, strict=True):
        for method in dict.fromkeys(candidate.method for candidate in candidates):
            points = sorted(
                (beta_of(c.detector), whole[c.name].figures[key])
                for c in candidates
                if c.method == method and c.name in whole and key in whole[c.name].figures
            )
            x, y = [beta for beta, _ in points], [figure.value for _, figure in points]
            below = [f.value - (f.value if f.low is None else f.low) for _, f in points]
            above = [(f.value if f.high is None else f.high) - f.value for _, f in points]
            panel.errorbar(x, y, yerr=[below, above], marker="o", capsize=3, label=method)
        panel.set(xlabel="beta", title=FIGURES[key], xscale="symlog")
        panel.grid(alpha=0.25)
    drawing.axes[0].legend()
    drawing.savefig(file, dpi=110)
