"""Models that were tried, on one yardstick: ``python tries.py TRIES.toml``.

The settings name, for each try, a folder that ``lsr evaluate`` wrote with scans of several sites,
and what the try cost::

    home = "IXI"

    [[try]]
    name = "one scanner"
    folder = "evaluations/shipped"
    cost = "none"

Writes a Markdown table to the standard output: a row a try, all from the figures of each folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from LatentSpaceRestorationLib.evaluation.metrics.figures import MEAN
from LatentSpaceRestorationLib.evaluation.synthetic.design import LESION, UNTOUCHED

#: Families that have a column of their own.
_FAMILIES = ("uniform-sphere", "noise-sphere", "stroke-shape")


@dataclass(frozen=True)
class Try:
    """One model.

    Attributes:
        name, cost: in words.
        rows, cases: of ``figures.json``, of the first method there.
    """

    name: str
    cost: str
    rows: Sequence[Mapping[str, Any]]
    cases: Sequence[Mapping[str, Any]]

    @classmethod
    def read(cls, name: str, folder: Path, cost: str) -> Try:
        """What an evaluation found."""
        found = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
        first = found["methods"][0]["name"]
        rows = [row for row in found["rows"] if row["candidate"] == first]
        return cls(name, cost, rows, [c for c in found["cases"] if c["method"] == first])

    def pooled_ap(self, family: str, site: str | None) -> str:
        """Of a family at a site, or at all, with its interval if it has one; ``-`` if not known."""
        for row in self.rows:
            same = row["size"] is None and row["contrast"] is None and row["site"] == site
            if same and row["family"] == family and "pooled_ap" in row["figures"]:
                ap = row["figures"]["pooled_ap"]
                known = None not in (ap.get("low"), ap.get("high"))
                interval = f" ({ap['low']:.2f} to {ap['high']:.2f})" if known else ""
                return f"{ap['value']:.2f}{interval}"
        return "-"

    def ap_elsewhere(self, home: str) -> str:
        """Mean over all other sites of their mean pooled AP of families."""
        found = [
            row["figures"]["pooled_ap"]["value"]
            for row in self.rows
            if row["family"] == MEAN and row["site"] not in (None, home)
        ]
        return f"{np.mean(found):.2f}" if found else "-"

    def flagged(self, scans: Sequence[Mapping[str, Any]]) -> str:
        """Median, 90th percentile and worst share of the brain that is flagged, in percent."""
        shares = [100.0 * c["flagged_ml"] / c["brain_ml"] for c in scans]
        if not shares:
            return "-"
        middle, most = np.percentile(shares, (50, 90))
        return f"{middle:.2f}, {most:.2f}, {max(shares):.2f}"

    def beyond(self, scans: Sequence[Mapping[str, Any]]) -> str:
        """How many score higher than all healthy ones, and how many have no percentile."""
        p = [c["p_value"] for c in scans]
        least = [1.0 / (1 + c["healthy_scans"]) for c in scans]
        most = sum(x is not None and x <= y + 1e-9 for x, y in zip(p, least, strict=True))
        return f"{most} of {len(p)}" + (f", {p.count(None)} distrusted" if None in p else "")

    def lesions(self) -> str:
        """Mean AP over real lesions, and how many are among the three highest regions."""
        found = [c for c in self.cases if c["family"] == LESION]
        if not found:
            return "-"
        top = sum(bool(c["top_3"]) for c in found)
        return f"{np.mean([c['ap'] for c in found]):.2f}; {top} of {len(found)}"


def table(tries: Sequence[Try], home: str) -> str:
    """All tries as Markdown."""
    head = [
        "try",
        f"{home}: mean AP",
        "other sites: mean AP",
        *(f"{name.replace('-', ' ')}: AP" for name in _FAMILIES),
        f"{home}: flagged, % (median, 90th, worst)",
        "other sites: flagged, %",
        "other sites: beyond all healthy",
        "lesions: AP; in three highest",
        "cost",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for one in tries:
        untouched = [c for c in one.cases if c["family"] == UNTOUCHED]
        own = [c for c in untouched if c["site"] == home]
        others = [c for c in untouched if c["site"] != home]
        cells = [
            one.name,
            one.pooled_ap(MEAN, home),
            one.ap_elsewhere(home),
            *(one.pooled_ap(name, None) for name in _FAMILIES),
            one.flagged(own),
            one.flagged(others),
            one.beyond(others),
            one.lesions(),
            one.cost,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the tries and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tries", type=Path, metavar="tries.toml")
    options = parser.parse_args(arguments)
    told = tomllib.loads(options.tries.read_text(encoding="utf-8"))
    folder = options.tries.parent
    tries = [Try.read(t["name"], folder / t["folder"], t["cost"]) for t in told["try"]]
    sys.stdout.write(table(tries, told["home"]))


if __name__ == "__main__":
    main()
