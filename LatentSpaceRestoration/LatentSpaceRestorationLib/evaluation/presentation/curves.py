"""ROC and precision-recall curves of pooled voxels, a panel for each family."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..metrics.figures import families_of
from ..metrics.histograms import Table
from ..metrics.measures import CaseResult
from ..synthetic.design import LESION, UNTOUCHED

#: More points than this are not drawn.
_POINTS = 400


def draw_curves(results: Sequence[CaseResult], roc: Path, pr: Path) -> None:
    """Draw both pictures.

    Args:
        results: of the evaluation.
        roc, pr: PNG files to write.
    """
    from matplotlib.figure import Figure
    from sklearn.metrics import precision_recall_curve, roc_curve

    families = [
        name
        for name in families_of(results)
        if any("ap" in r.measured.numbers for r in results if r.case.family == name)
    ]
    candidates = list(dict.fromkeys(result.candidate for result in results))
    columns = min(4, max(1, len(families)))
    lines = max(1, -(-len(families) // columns))
    for file, x_name, y_name in (
        (roc, "False positive rate", "True positive rate"),
        (pr, "Recall", "Precision"),
    ):
        drawing = Figure(figsize=(3.3 * columns, 3.2 * lines + 0.6), layout="constrained")
        axes = np.atleast_1d(drawing.subplots(lines, columns, sharex=True, sharey=True)).ravel()
        for panel, name in zip(axes, families, strict=False):
            for candidate in candidates:
                table = _table(results, name, candidate)
                if table is None:
                    continue
                labels, scores, counts = table.weighted(np.ones(len(table.normal)))
                if file == roc:
                    x, y, _ = roc_curve(labels, scores, sample_weight=counts)
                else:
                    y, x, _ = precision_recall_curve(labels, scores, sample_weight=counts)
                some = np.unique(np.linspace(0, len(x) - 1, _POINTS).astype(int))
                panel.plot(x[some], y[some], label=candidate, linewidth=1.5)
            panel.set(title=name, xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
            panel.grid(alpha=0.25)
        for panel in axes[len(families) :]:
            panel.set_axis_off()
        drawing.supxlabel(x_name)
        drawing.supylabel(y_name)
        if families:
            handles, names = axes[0].get_legend_handles_labels()
            drawing.legend(handles, names, loc="outside upper center", ncols=min(5, len(names)))
        drawing.savefig(file, dpi=110)


def _table(results: Sequence[CaseResult], family: str, candidate: str) -> Table | None:
    wanted = {family} if family == LESION else {family, UNTOUCHED}
    own = [r for r in results if r.candidate == candidate and r.case.family in wanted]
    if not any(result.case.family == family for result in own):
        return None
    return Table.of([result.measured.voxels for result in own])
