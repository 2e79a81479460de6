"""The benchmark: its arithmetic, and that all of it runs and finds the samplers' codes the same."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from LatentSpaceRestorationLib.networks.layers import fold_weight_norm
from LatentSpaceRestorationLib.networks.pixelsnail import PixelSNAIL
from LatentSpaceRestorationLib.sampling.packed_prior import PackedPrior
from LatentSpaceRestorationLib.sampling.row_engine import RowEngine
from LatentSpaceRestorationLib.volume import Volume
from torch.utils.flop_counter import FlopCounterMode

sys.path.append(str(ROOT / "LatentSpaceRestoration" / "Testing" / "Benchmarks"))

import benchmark
import growth
import scaling
import tries
from bound import Bound, PlaceCosts, PriorSize, matrix_product_rate
from cases import PUBLISHED, make_case
from report import markdown
from samplers import Comparison, compare


def _prior(shape: tuple[int, int] = (18, 30), stride: int = 2) -> PixelSNAIL:
    torch.manual_seed(0)
    return fold_weight_norm(
        PixelSNAIL(
            codes=19,
            shape=shape,
            channels=12,
            blocks=3,
            pairs=2,
            attention_stride=stride,
            key_size=5,
            value_size=7,
        )
    )


def _counted(prior: PixelSNAIL, grids: int) -> float:
    """Multiply-adds a grid that the cached sampler's engine spends, as PyTorch counts them."""

    def product(a: list[int], b: list[int]) -> int:
        return 2 * math.prod(a) * b[-1]

    def added(out: list[int], a: list[int], b: list[int], **_: Any) -> int:
        return product(a, b)

    aten = torch.ops.aten
    codes = torch.zeros((grids, *prior.shape), dtype=torch.int64)
    with torch.inference_mode():
        packed = PackedPrior.of(prior)
        engine = RowEngine(packed, codes, prior.embedding(torch.zeros(grids)))
        in_place = {aten.addmm_: added, aten.baddbmm_: added}  # PyTorch knows only the others
        with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
            for _ in range(prior.shape[0]):
                engine.start_row()
                for column in range(prior.shape[1]):
                    engine.advance(column, column + 1, logits=True)
    return counter.get_total_flops() / 2 / grids


@pytest.mark.parametrize("stride", [1, 2])
def test_the_bound_is_what_the_engine_spends(stride: int):
    """But for taps beside the grid, which the engine multiplies with zeros.

    Their number grows with the grid's rows and with its columns, but not with both: it drops out of
    the difference that another column makes, taken with more rows and with fewer.
    """
    counted, needed = [], []
    for shape in ((6, 8), (6, 6), (4, 8), (4, 6)):
        prior = _prior(shape, stride)
        everywhere = np.ones(shape, dtype=bool)
        counted.append(_counted(prior, 2))
        needed.append(PlaceCosts.of(PriorSize.of(prior)).needed(everywhere, 0))
    signs = np.array([1, -1, -1, 1])
    assert signs @ counted == signs @ needed
    assert 1.0 <= counted[0] / needed[0] < 1.25


def test_the_bound_counts_what_is_shared_once():
    size = PriorSize.of(_prior())
    rows, columns = size.shape
    everywhere = np.ones((2, *size.shape), dtype=bool)
    low = everywhere.copy()
    low[:, :10] = False
    scan = 2 * PlaceCosts.of(size).needed(everywhere[0], 0)
    none = Bound.of(size, everywhere, np.array([-1, -1]), 15)
    assert (none.scan, none.shared, none.own) == (scan, 0, 0)

    first = np.array([10 * columns, -1])
    once, often = (Bound.of(size, low, first, restorations) for restorations in (1, 15))
    assert often.own == 15 * once.own
    assert often.shared == once.shared > 0
    # One restoration from the tenth row on, and the rows before, are one pass to the same end.
    assert 2 * (once.shared + once.own) == once.scan

    early = everywhere.copy()
    early[:, rows // 2 :] = False
    assert Bound.of(size, early, np.array([0, 0]), 1).own < 0.5 * scan


@pytest.mark.parametrize("layout", ["spread", "blobs"])
def test_cases_flag_the_share_that_is_wanted(layout: str):
    prior = _prior((12, 14))
    case = make_case(prior, 4, layout, 0.1)
    assert case.codes.shape == case.thresholds.shape == (4, *prior.shape)
    assert case.flagged == pytest.approx(0.1, abs=0.04)
    assert np.isfinite(case.thresholds).all() == (layout == "spread")
    assert ((case.first >= 0) & (case.first < 12 * 14)).any()


def test_the_rate_of_matrix_products_is_one_of_this_world():
    assert 1e8 < matrix_product_rate(16, rows=(64,), trials=1) < 1e13


def test_lines_fit_what_is_straight_and_say_what_is_not():
    line = growth.fit([1, 2, 5], [5.0, 7.0, 13.0])
    assert (line.slope, line.intercept, line.r_squared) == pytest.approx((2, 3, 1))
    assert growth.fit([1, 2, 3], [1.0, 4.0, 1.0]).r_squared == pytest.approx(0)


def test_cores_beyond_those_there_are_told_by_amdahls_law() -> None:
    warm = [
        (1, {"first_score": 10.0, "final_map": 24.0}),
        (2, {"first_score": 6.0, "final_map": 14.0}),
    ]
    one, two, eight = scaling.cores(warm)
    assert (one.threads, two.threads, eight.threads) == (1, 2, 8)
    assert (one.measured, two.measured, eight.measured) == (True, True, False)
    # 2 s are serial and 8 shared out, and 4 and 20.
    assert (eight.first_score, eight.final_map) == pytest.approx((3.0, 6.5))
    assert scaling.cores(warm[:1]) == [one]


def test_a_scan_is_brought_to_a_spacing_with_noise_where_there_is_something() -> None:
    array = np.zeros((20, 20, 20), np.float32)
    array[5:15, 5:15, 5:15] = 4.0
    brought = scaling.brought_to(Volume(array, np.diag([2.0, 2.0, 2.0, 1.0])), 1.0)
    assert brought.shape == (39, 39, 39)
    assert brought.array.dtype == np.int16
    inside = brought.array[14:26, 14:26, 14:26].astype(float)
    assert 0.02 < inside.std() / inside.mean() < 0.04
    assert not brought.array[0].any()


def test_what_was_measured_before_is_kept_as_history(tmp_path: Path) -> None:
    file = tmp_path / "benchmark.json"
    assert benchmark.history(file) == []
    times = {"first_score": 4.0, "final_map": 9.0}
    run = {
        "machine": {"date": "2026-11-24T01:43", "processor": "P", "threads": 2},
        "options": {"quick": False},
        "whole_scan": {"slices": 79, "cold": times, "warm": times},
        "samplers": [{"rate": 4e10}],
    }
    file.write_text(json.dumps(run), encoding="utf-8")
    (first,) = benchmark.history(file)
    assert (first["date"], first["tflop"], first["final_map_warm"]) == ("2026-11-24T01:43", None, 9)
    newer = {"history": [first], "version": "2", "first_score": {"ways": [{"tflop": 0.4}]}}
    file.write_text(json.dumps({**run, **newer}), encoding="utf-8")
    assert [one["tflop"] for one in benchmark.history(file)] == [None, 0.4]
    file.write_text(json.dumps({**run, **newer, "options": {"quick": True}}), encoding="utf-8")
    assert benchmark.history(file) == [first]  # a quick run is no version's


def test_tries_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def row(family: str, site: str | None, ap: float) -> dict[str, Any]:
        figures = {"pooled_ap": {"value": ap, "low": ap - 0.1, "high": ap + 0.1}}
        same = {"candidate": "lsr", "size": None, "contrast": None, "site": site}
        return {**same, "family": family, "figures": figures}

    def case(
        site: str, flagged_ml: float, p: float | None, family: str = "untouched", **more: Any
    ) -> dict[str, Any]:
        told = {"flagged_ml": flagged_ml, "brain_ml": 1000.0, "p_value": p, "healthy_scans": 19}
        return {"method": "lsr", "family": family, "site": site, **told, **more}

    figures = {
        "methods": [{"name": "lsr"}, {"name": "nll"}],
        "rows": [
            row("mean of families", "home", 0.5),
            row("mean of families", "A", 0.3),
            row("mean of families", "B", 0.1),
            row("uniform-sphere", None, 0.8),
        ],
        "cases": [
            case("home", 0.0, 0.5),
            case("A", 10.0, 0.05),
            case("B", 20.0, None),
            case("B", 1.0, 0.9, "sink"),
            *(case("C", 9.0, 0.9, "real-lesion", ap=ap, top_3=ap > 0.5) for ap in (0.4, 0.6)),
        ],
    }
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "figures.json").write_text(json.dumps(figures), encoding="utf-8")
    settings = tmp_path / "tries.toml"
    settings.write_text('home = "home"\n[[try]]\nname = "this"\nfolder = "one"\ncost = "3 h"\n')
    tries.main([str(settings)])
    expected = (
        "| this | 0.50 (0.40 to 0.60) | 0.20 | 0.80 (0.70 to 0.90) | - | - | 0.00, 0.00, 0.00 "
        "| 1.50, 1.90, 2.00 | 1 of 2, 1 distrusted | 0.50; 1 of 2 | 3 h |"
    )
    assert capsys.readouterr().out.splitlines()[-1] == expected


@pytest.mark.slow
def test_the_whole_benchmark_on_a_tiny_model(
    tiny_model: Path, brain_scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("matplotlib")
    tiny = Comparison(
        model=str(tiny_model),
        share=0.2,
        slices=3,
        restorations=2,
        repeats=1,
        loop_sequences=(3, 2),
        skip_sequences=(2, 2),
    )
    monkeypatch.setattr(benchmark, "comparisons", lambda model, quick: [tiny])
    options = [
        "--quick",
        "--model",
        tiny_model,
        "--scan",
        brain_scan,
        "--results",
        tmp_path / "new",
    ]
    options += ["--threads", torch.get_num_threads()]
    assert benchmark.main([str(option) for option in options]) == 0

    written = {path.name for path in (tmp_path / "new").iterdir()}
    assert written == {"benchmark.json", "benchmark.md", "growth.png"}
    results = json.loads((tmp_path / "new" / "benchmark.json").read_text(encoding="utf-8"))
    (row,) = results["samplers"]
    assert row["flagged"] == pytest.approx(0.2, abs=0.05)
    for sampler, sequences in (("loop", 6), ("skip-ahead", 4)):
        found = row["agreement"][sampler]
        assert found["identical"]
        assert (found["sequences"], found["codes"]) == (sequences, sequences * 130)
        assert found["replaced"] > 10
    evaluations = {name: cost["evaluations"] for name, cost in row["cost"].items()}
    assert evaluations["loop"] == 6 * 130
    # The pass that finds the flags, one grid for the rounding errors, and at most one a restoration
    # and one a slice.
    assert 4 < evaluations["cached"] <= 4 + 6 + 3
    assert evaluations["cached"] < evaluations["skip-ahead"] < evaluations["loop"]
    assert row["cost"]["loop"]["measured"] == "scaled from 1 of 130 passes, 6 of 6 sequences"
    assert row["cost"]["skip-ahead"]["measured"] == "scaled from 4 of 6 sequences"
    assert row["cost"]["cached"]["measured"] == "in full"
    assert row["bound_seconds"] == pytest.approx(row["multiply_adds"]["total"] / row["rate"])

    scan = results["whole_scan"]
    for name in ("cold", "warm"):
        run = scan[name]
        assert 0 <= run["start"] < run["first_score"] < run["first_map"]
        assert run["first_score"] < run["first_restoration"]
        assert run["first_score"] < run["final_map"]
        assert {"brain", "encode", "restore", "decode", "score", "undo"} <= set(run["steps"])
    assert scan["cold"]["start"] > scan["warm"]["start"]
    assert [p["restorations"] for p in results["growth"]["by_restorations"]] == [1, 3, 7]
    assert results["growth"]["by_slices"][-1]["slices"] == scan["slices"]

    ways = results["first_score"]["ways"]
    assert [way["tflop"] for way in ways] == sorted((w["tflop"] for w in ways), reverse=True)
    assert results["first_score"]["bound_seconds"] < ways[-1]["cpu_seconds"]
    parts = sum(results["first_score"]["parts"].values())
    assert parts == pytest.approx(ways[-1]["tflop"], rel=0.05)
    assert [size["spacing_mm"] for size in results["sizes"]] == [2.0]
    assert results["cores"][0]["threads"] == 1

    row["agreement"]["skip-ahead"]["identical"] = False
    text = (tmp_path / "new" / "benchmark.md").read_text(encoding="utf-8")
    assert "identical in all 2 comparisons" in text
    assert "skip-ahead gave other codes" in markdown(results)


@pytest.mark.slow
def test_the_published_prior_is_restored_near_the_arithmetic_bound():
    row = compare(
        Comparison(PUBLISHED, slices=8, restorations=15, skip_sequences=(2, 1)),
        torch.get_num_threads(),
    )
    assert all(found.identical for found in row.agreement.values())
    assert row.cost["cached"].times_less >= 150
    assert row.times_the_bound <= 4
