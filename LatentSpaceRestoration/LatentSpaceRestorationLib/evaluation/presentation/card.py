"""Figures of an evaluation for a model's own settings and card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..metrics.figures import MEAN, FigureRow
from ..synthetic.design import UNTOUCHED

#: What is told of the mean over families.
_OF_MEAN = ("pooled_ap", "pooled_auroc", "case_ap", "dice", "dice_oracle", "sample_auroc")


def card_figures(
    rows: Sequence[FigureRow], candidate: str, *, split: str, restorations: int, subjects: int
) -> dict[str, Any]:
    """One entry of a bundle's ``metrics``: flat, with a number a line.

    Args:
        rows: of the evaluation.
        candidate: whose.
        split, restorations, subjects: of the evaluation.

    Returns:
        ``yardstick``, ``split``, ``restorations``, ``subjects`` and ``scans`` (untouched and
        changed ones), and figures: means over families, the pooled AP of each family, and what is
        flagged in untouched scans.
    """
    own = {row.family: row for row in rows if row.candidate == candidate and row.is_whole}
    families = [name for name in own if name not in (MEAN, UNTOUCHED)]
    # Of one family alone no mean is made.
    mean = own.get(MEAN, own[families[0]] if len(families) == 1 else None)
    figures: dict[str, Any] = {
        "yardstick": "synthetic anomalies: " + ", ".join(families),
        "split": split,
        "restorations": restorations,
        "subjects": subjects,
        "scans": subjects + sum(own[name].scans for name in families),
    }
    for key in _OF_MEAN if mean is not None else ():
        if mean is not None and key in mean.figures:
            figures[key] = round(mean.figures[key].value, 4)
    for name in families:
        if "pooled_ap" in own[name].figures:
            figures[f"pooled_ap of {name}"] = round(own[name].figures["pooled_ap"].value, 4)
    if UNTOUCHED in own:
        healthy = own[UNTOUCHED].figures
        figures["healthy_flagged"] = round(healthy["flagged_share"].value, 5)
    return figures
