"""Loop, skip-ahead and cached sampler on the same cases: cost, codes, arithmetic bound.

``python samplers.py`` prints a table. Every measurement is a process of its own (``measure.py``).
The cached sampler is run in full. The loop is timed on a few of its passes and skip-ahead on a few
sequences, since both take hours in full; their figures are scaled up and say so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from bound import Bound, PriorSize
from cases import LAYOUTS, PUBLISHED, load_prior, make_case
from machine import child_environment
from measure import Figures, Specification

_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Comparison:
    """One case and how thoroughly it is measured.

    Attributes:
        model: "published", or the name or the folder of a model.
        layout, share: see ``make_case``.
        slices, restorations: N and S.
        repeats: of the cached sampler and of the timed passes of the loop, by turns.
        loop_passes: how many passes of the loop over its first chunk are timed in each repeat.
        loop_sequences: slices and restorations that the loop restores in full, for its codes;
            (0, 0) leaves that out.
        skip_sequences: slices and restorations that skip-ahead restores; both counts are capped.
    """

    model: str = PUBLISHED
    layout: str = "spread"
    share: float = 0.1
    slices: int = 32
    restorations: int = 15
    repeats: int = 3
    loop_passes: int = 1
    loop_sequences: tuple[int, int] = (0, 0)
    skip_sequences: tuple[int, int] = (4, 2)

    @property
    def name(self) -> str:
        """For progress and tables."""
        return f"{Path(self.model).name}, {100 * self.share:g}% {self.layout}"


@dataclass(frozen=True)
class SamplerCost:
    """What one sampler needs for the whole case.

    Attributes:
        evaluations: of the prior, in units of whole grids.
        cpu_seconds, wall_seconds: medians over the repeats.
        times_less: CPU seconds of the loop (wall seconds on a GPU) over this sampler's: the median
            of the repeats' ratios where both were repeated.
        peak_gb: of the process, as measured, not scaled; ``before_gb`` before the sampler began.
        device_peak_gb: of a GPU.
        measured: "in full", or what the figures were scaled from.
    """

    evaluations: float
    cpu_seconds: float
    wall_seconds: float
    times_less: float
    peak_gb: float
    before_gb: float
    device_peak_gb: float
    measured: str


@dataclass(frozen=True)
class Agreement:
    """Whether a sampler gave the codes of the cached one.

    Attributes:
        identical: every code is the same.
        sequences, codes: how many were compared, and ``replaced`` how many differ from the input.
    """

    identical: bool
    sequences: int
    codes: int
    replaced: int


@dataclass(frozen=True)
class Row:
    """All that was found for one case.

    Attributes:
        flagged: share of the codes whose NLL exceeds the threshold before anything is replaced.
        replaced: share of the codes that are others in the end, mean over restorations.
        exact: grids that the cached sampler evaluated in float64, see ``Figures``.
        cost: by sampler.
        agreement: with the cached sampler, by the other sampler.
        multiply_adds: the bound, in parts (``Bound``).
        rate: multiply-adds a second that the machine gives for matrix products.
        bound_seconds: all parts over the rate: CPU seconds, wall seconds on a GPU.
        times_the_bound: the cached sampler's seconds over those.
    """

    comparison: Comparison
    flagged: float
    replaced: float
    exact: int
    cost: dict[str, SamplerCost]
    agreement: dict[str, Agreement]
    multiply_adds: dict[str, int]
    rate: float
    bound_seconds: float
    times_the_bound: float


class _Case:
    """A case on disk, and measurements of it."""

    def __init__(self, comparison: Comparison, folder: Path, threads: int, device: str) -> None:
        self.comparison, self._folder = comparison, folder
        self._threads, self._device = threads, device
        prior = load_prior(comparison.model)
        self.size = PriorSize.of(prior)
        self.case = make_case(prior, comparison.slices, comparison.layout, comparison.share)
        self.case.save(folder / "case.npz")

    def run(
        self, sampler: str, sequences: tuple[int, int] | None = None, passes: int | None = None
    ) -> tuple[Figures, np.ndarray | None]:
        """Measure a sampler in a new process; gives its codes if it goes to the end."""
        some = sequences or (self.comparison.slices, self.comparison.restorations)
        codes = self._folder / "codes.npy"
        specification = Specification(
            model=self.comparison.model,
            case=str(self._folder / "case.npz"),
            sampler=sampler,
            slices=tuple(int(i) for i in self.spread_slices(some[0])),
            restorations=some[1],
            passes=passes,
            codes=str(codes),
            threads=self._threads,
            device=self._device,
        )
        file = self._folder / "specification.json"
        file.write_text(json.dumps(asdict(specification)), encoding="utf-8")
        codes.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, str(_HERE / "measure.py"), str(file)],
            env=child_environment(count_work_only=True),
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{self.comparison.name}, {sampler}: {done.stderr.strip()}")
        figures = Figures(**json.loads(done.stdout))
        return figures, np.load(codes) if codes.exists() else None

    def spread_slices(self, count: int) -> np.ndarray:
        """``count`` slices, evenly spread over the case's, but for its very ends."""
        return ((np.arange(count) + 0.5) * len(self.case.codes) / count).astype(int)

    def agreement(
        self, sequences: tuple[int, int], codes: np.ndarray, full: np.ndarray
    ) -> Agreement:
        """Compare codes of some sequences with those of a run in full."""
        which = self.spread_slices(sequences[0])
        expected = full[which, : sequences[1]]
        return Agreement(
            identical=bool(np.array_equal(codes, expected)),
            sequences=sequences[0] * sequences[1],
            codes=int(expected.size),
            replaced=int((expected != self.case.codes[which, None]).sum()),
        )


def compare(
    comparison: Comparison,
    threads: int,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
) -> Row:
    """Measure all samplers on one case.

    Args:
        comparison: what to measure.
        threads: torch's, on the CPU.
        device: "cpu", "cuda" or "mps".
        say: called with what is being done.
    """
    with tempfile.TemporaryDirectory() as folder:
        say(f"{comparison.name}: making the case")
        return _compare(_Case(comparison, Path(folder), threads, device), device, say)


def _compare(case: _Case, device: str, say: Callable[[str], None]) -> Row:
    comparison = case.comparison
    sequences = comparison.slices * comparison.restorations
    places = case.size.shape[0] * case.size.shape[1]

    def seconds(figures: Figures) -> float:
        return figures.cpu_seconds if device == "cpu" else figures.wall_seconds

    loops, cacheds, full = [], [], None
    for repeat in range(comparison.repeats):
        say(f"{comparison.name}: loop and cached, {repeat + 1} of {comparison.repeats}")
        loops.append(case.run("loop", passes=comparison.loop_passes)[0])
        figures, codes = case.run("cached")
        assert codes is not None
        if full is not None and not np.array_equal(full, codes):
            raise RuntimeError(f"{comparison.name}: the cached sampler gave two different results")
        cacheds.append(figures)
        full = codes
    assert full is not None

    agreement = {}
    if comparison.loop_sequences[0]:
        some = _capped(comparison.loop_sequences, comparison)
        say(f"{comparison.name}: loop in full, {some[0]} x {some[1]}")
        _, codes = case.run("loop", some)
        assert codes is not None
        agreement["loop"] = case.agreement(some, codes, full)
    some = _capped(comparison.skip_sequences, comparison)
    say(f"{comparison.name}: skip-ahead, {some[0]} x {some[1]}")
    skip, codes = case.run("skip-ahead", some)
    assert codes is not None
    agreement["skip-ahead"] = case.agreement(some, codes, full)

    loop_factors = [sequences * places / figures.grids for figures in loops]
    skip_factor = sequences / (some[0] * some[1])
    loop_seconds = [f * seconds(x) for f, x in zip(loop_factors, loops, strict=True)]
    chunk = round(loops[0].grids / comparison.loop_passes)
    timed = f"{comparison.loop_passes * comparison.repeats} of {places} passes"
    bound = Bound.of(
        case.size,
        np.isfinite(case.case.thresholds),
        case.case.first,
        comparison.restorations,
    )
    rate = max(figures.rate for figures in cacheds)
    cached_seconds = [seconds(figures) for figures in cacheds]
    cost = {
        "loop": _cost(
            loops,
            loop_factors,
            1.0,
            f"scaled from {timed}, {chunk} of {sequences} sequences",
        ),
        "skip-ahead": _cost(
            [skip],
            [skip_factor],
            median(loop_seconds) / (skip_factor * seconds(skip)),
            "in full"
            if skip_factor == 1
            else f"scaled from {some[0] * some[1]} of {sequences} sequences",
        ),
        "cached": _cost(
            cacheds,
            [1.0] * len(cacheds),
            median(a / b for a, b in zip(loop_seconds, cached_seconds, strict=True)),
            "in full",
        ),
    }
    return Row(
        comparison=comparison,
        flagged=case.case.flagged,
        replaced=float((full != case.case.codes[:, None]).mean()),
        exact=cacheds[0].exact,
        cost=cost,
        agreement=agreement,
        multiply_adds={**asdict(bound), "total": bound.total},
        rate=rate,
        bound_seconds=bound.total / rate,
        times_the_bound=median(cached_seconds) / (bound.total / rate),
    )


def _capped(sequences: tuple[int, int], comparison: Comparison) -> tuple[int, int]:
    return min(sequences[0], comparison.slices), min(sequences[1], comparison.restorations)


def _cost(
    runs: list[Figures], factors: list[float], times_less: float, measured: str
) -> SamplerCost:
    """Medians over repeated runs, each scaled up by its factor."""
    scaled = list(zip(runs, factors, strict=True))
    return SamplerCost(
        evaluations=median(run.grids * factor for run, factor in scaled),
        cpu_seconds=median(run.cpu_seconds * factor for run, factor in scaled),
        wall_seconds=median(run.wall_seconds * factor for run, factor in scaled),
        times_less=times_less,
        peak_gb=max(run.peak_gb for run in runs),
        before_gb=max(run.before_gb for run in runs),
        device_peak_gb=max(run.device_peak_gb for run in runs),
        measured=measured,
    )


def main() -> None:
    """One comparison, printed as JSON."""
    default = Comparison()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=PUBLISHED, help="a model's name or folder")
    parser.add_argument("--layout", choices=LAYOUTS, default="spread")
    parser.add_argument("--share", type=float, default=0.1, help="of the codes, flagged")
    parser.add_argument("--slices", type=int, default=default.slices)
    parser.add_argument("--restorations", type=int, default=default.restorations)
    parser.add_argument("--repeats", type=int, default=default.repeats)
    for name, value in (("loop", default.loop_sequences), ("skip", default.skip_sequences)):
        parser.add_argument(
            f"--{name}-sequences",
            type=int,
            nargs=2,
            default=value,
            metavar=("SLICES", "RESTORATIONS"),
            help="restored by that sampler; more than there are stands for all",
        )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu")
    options = vars(parser.parse_args())
    threads, device = options.pop("threads"), options.pop("device")
    for name in ("loop_sequences", "skip_sequences"):
        options[name] = tuple(options[name])
    row = compare(Comparison(**options), threads, device, lambda line: print(line, file=sys.stderr))
    print(json.dumps(asdict(row), indent=1))


if __name__ == "__main__":
    main()
