"""The samplers: the rule by the letter, the same codes from all three, progress and cancelling."""

from __future__ import annotations

import copy
import functools
import threading

import numpy as np
import pytest
import torch
from LatentSpaceRestorationLib.errors import Cancelled
from LatentSpaceRestorationLib.networks.layers import fold_weight_norm
from LatentSpaceRestorationLib.networks.pixelsnail import PixelSNAIL
from LatentSpaceRestorationLib.runtime import threads
from LatentSpaceRestorationLib.sampling import rule
from LatentSpaceRestorationLib.sampling.gumbel import gumbel_noise
from LatentSpaceRestorationLib.sampling.restore import SAMPLERS, nll, restore

CONFIGURATIONS = {
    "stride 2": {"shape": (6, 4), "channels": 12, "blocks": 2, "pairs": 2},
    "stride 1": {"shape": (4, 5), "channels": 8, "blocks": 2, "pairs": 1, "attention_stride": 1},
    "stride 3, wide, no position": {
        "shape": (3, 9),
        "channels": 8,
        "blocks": 1,
        "pairs": 3,
        "attention_stride": 3,
        "position": False,
    },
}
SLICES = 4


@functools.cache
def _prior(name: str) -> PixelSNAIL:
    """A small random prior with peaked distributions, so that what is before a code matters."""
    torch.manual_seed(1)
    prior = PixelSNAIL(codes=12, key_size=4, value_size=10, **CONFIGURATIONS[name])
    with torch.no_grad():
        prior.last.parametrizations.weight.original0.mul_(12)
        for parameter in prior.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return prior


def _codes(prior: PixelSNAIL) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    codes = torch.randint(prior.codes, (SLICES, *prior.shape), generator=generator)
    return codes, torch.linspace(-0.4, 0.5, SLICES)


def _threshold(prior: PixelSNAIL, share: float) -> float:
    """The NLL that this share of the codes exceeds."""
    if share == 1:
        return -1.0
    return float(torch.quantile(nll(prior, *_codes(prior)), 1 - share))


def _by_the_letter(
    prior: PixelSNAIL,
    thresholds: np.ndarray,
    restorations: int,
    seed: int,
    temperature: float = 1.0,
) -> torch.Tensor:
    """The rule in float64, one grid and one place at a time."""
    exact = copy.deepcopy(prior).eval().double()
    codes, position = _codes(prior)
    result = codes[:, None].repeat(1, restorations, 1, 1)
    for i, s in np.ndindex(SLICES, restorations):
        for place, (r, c) in enumerate(np.ndindex(*prior.shape)):
            grid = result[i, s]
            with torch.no_grad():
                logits = exact(grid[None], position[i : i + 1].double())[0, :, r, c]
            if -logits.log_softmax(0)[grid[r, c]] > thresholds[i, r, c]:
                noise = torch.from_numpy(gumbel_noise(seed, i, s, place, prior.codes)[0])
                grid[r, c] = (logits / temperature + noise).argmax()
    return result


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_sampler_follows_the_rule_by_the_letter(name: str, sampler: str):
    prior = _prior(name)
    thresholds = np.full((SLICES, *prior.shape), _threshold(prior, 0.3))
    thresholds[0] = np.inf
    thresholds[1, :2] = np.inf
    thresholds[2, :, -2:] = np.inf
    expected = _reference(name, thresholds.tobytes())
    codes, position = _codes(prior)
    found = restore(
        prior,
        codes,
        position,
        thresholds=thresholds,
        restorations=2,
        seed=7,
        temperature=0.8,
        sampler=sampler,
    )
    assert torch.equal(found, expected)
    assert 0.05 < (found != codes[:, None]).float().mean() < 0.6
    assert not torch.equal(found[:, 0], found[:, 1])
    assert torch.equal(found[0], codes[:1].repeat(2, 1, 1))


@functools.cache
def _reference(name: str, thresholds: bytes) -> torch.Tensor:
    prior = _prior(name)
    array = np.frombuffer(thresholds).reshape(SLICES, *prior.shape)
    return _by_the_letter(prior, array, restorations=2, seed=7, temperature=0.8)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 1])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_samplers_give_the_same_codes(name: str, share: float):
    prior = _prior(name)
    codes, position = _codes(prior)
    threshold = _threshold(prior, share)

    def run(sampler: str, chunk: int) -> torch.Tensor:
        return restore(
            prior,
            codes,
            position,
            thresholds=threshold,
            restorations=3,
            seed=11,
            sampler=sampler,
            chunk=chunk,
        )

    expected = run("loop", 64)
    assert (expected != codes[:, None]).any()
    for sampler, chunk in (("skip-ahead", 64), ("skip-ahead", 5), ("cached", 64), ("cached", 5)):
        assert torch.equal(run(sampler, chunk), expected), (sampler, chunk)
    assert torch.equal(run("cached", 1), expected)


def _default_size(blocks: int) -> PixelSNAIL:
    torch.manual_seed(3)
    prior = PixelSNAIL(blocks=blocks)
    with torch.no_grad():
        prior.last.parametrizations.weight.original0.mul_(12)
    return prior


def test_cached_and_skip_ahead_agree_on_a_network_of_the_shipped_width():
    prior = _default_size(blocks=2)
    codes = torch.randint(128, (2, 24, 20), generator=torch.Generator().manual_seed(0))
    position = torch.tensor([-0.2, 0.2])
    thresholds = torch.quantile(nll(prior, codes, position), 0.9).repeat(2, 24, 20)
    thresholds[:, :18] = np.inf  # few passes for skip-ahead, and many rows of prefix for cached
    thresholds[:, :, 15:] = np.inf
    results = [
        restore(
            prior,
            codes,
            position,
            thresholds=thresholds,
            restorations=2,
            seed=5,
            sampler=sampler,
            chunk=chunk,
        )
        for sampler, chunk in (("cached", 3), ("skip-ahead", 64))
    ]
    assert torch.equal(*results)
    assert (results[0] != codes[:, None]).sum() > 10


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_slice_below_its_threshold_comes_back_unchanged(sampler: str):
    prior = _prior("stride 2")
    codes, position = _codes(prior)
    found = restore(prior, codes, position, thresholds=1e3, restorations=3, seed=0, sampler=sampler)
    assert torch.equal(found, codes[:, None].repeat(1, 3, 1, 1))


def test_a_restoration_does_not_depend_on_its_company():
    prior = _prior("stride 2")
    codes, position = _codes(prior)
    threshold = _threshold(prior, 0.4)

    def run(which: list[int], restorations: int, seed: int = 1) -> torch.Tensor:
        return restore(
            prior,
            codes[which],
            position[which],
            thresholds=threshold,
            restorations=restorations,
            seed=seed,
            slice_ids=which,
        )

    everything = run([0, 1, 2, 3], 5)
    assert torch.equal(run([0, 1, 2, 3], 2), everything[:, :2])
    assert torch.equal(run([3, 1], 5), everything[[3, 1]])
    assert torch.equal(run([2], 1), everything[[2], :1])
    assert not torch.equal(run([0, 1, 2, 3], 5, seed=2), everything)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_restorations_made_in_groups_are_those_made_at_once(sampler: str):
    prior = _prior("stride 2")
    codes, position = _codes(prior)
    options = {"thresholds": _threshold(prior, 0.4), "seed": 1, "sampler": sampler}
    everything = restore(prior, codes, position, restorations=5, **options)
    known = nll(prior, codes, position)
    for first, count in ((0, 1), (1, 3), (4, 1)):
        group = restore(
            prior,
            codes,
            position,
            restorations=count,
            first_restoration=first,
            known_nll=known,
            **options,
        )
        assert torch.equal(group, everything[:, first : first + count])


def test_threads_do_not_change_the_codes(monkeypatch: pytest.MonkeyPatch):
    prior = _prior("stride 2")
    codes, position = _codes(prior)
    options = {"thresholds": _threshold(prior, 0.4), "restorations": 4, "seed": 1}
    results = []
    for workers in (1, 3):
        monkeypatch.setattr(
            "LatentSpaceRestorationLib.sampling.cached.worker_count", lambda device, n=workers: n
        )
        results.append(restore(prior, codes, position, **options))
    assert torch.equal(*results)


def test_infinite_thresholds_keep_their_codes():
    prior = _prior("stride 2")
    codes, position = _codes(prior)
    thresholds = torch.full(prior.shape, -1.0)
    thresholds[:2], thresholds[:, 0], thresholds[4, 2] = np.inf, np.inf, np.inf
    found = restore(prior, codes, position, thresholds=thresholds, restorations=2, seed=3)
    kept = thresholds == np.inf
    assert torch.equal(found[:, :, kept], codes[:, None].repeat(1, 2, 1, 1)[:, :, kept])
    assert (found != codes[:, None])[:, :, ~kept].float().mean() > 0.5


def test_doubtful_decisions_are_taken_in_float64(monkeypatch: pytest.MonkeyPatch):
    """A threshold at a code's own NLL; logits with noise as rounding leaves, but larger."""
    prior = _prior("stride 1")
    codes, position = _codes(prior)
    exact = fold_weight_norm(prior).double()
    with torch.no_grad():
        logits = exact(codes, position.double())
        cost = torch.nn.functional.cross_entropy(logits, codes, reduction="none")
    place = (2, 3)
    thresholds = np.full((SLICES, *prior.shape), np.inf)
    for step, changes in ((1e-9, False), (-1e-9, True)):
        thresholds[:, *place] = cost[:, *place].numpy() + step
        for sampler in SAMPLERS:
            options = {"thresholds": thresholds, "restorations": 8, "seed": 0, "sampler": sampler}
            found = restore(prior, codes, position, **options)
            changed = (found != codes[:, None])[:, :, *place].any(dim=1)
            assert changed.any() == changes, (sampler, step)

    plain = rule.Decider.decide

    def disturbed(self, logits, *args):
        noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(9))
        return plain(self, logits + 0.05 * self._margin * noise, *args)

    thresholds[:] = _threshold(prior, 0.5)
    options = {"thresholds": thresholds, "restorations": 8, "seed": 0}
    expected = restore(prior, codes, position, **options)
    monkeypatch.setattr(rule.Decider, "decide", disturbed)
    assert torch.equal(restore(prior, codes, position, **options), expected)


def test_the_nll_is_that_of_the_logits_for_any_chunk():
    prior = _prior("stride 2")
    codes, position = _codes(prior)
    with torch.no_grad():
        logits = copy.deepcopy(prior).eval()(codes, position)
    expected = -logits.log_softmax(1).gather(1, codes[:, None])[:, 0]
    for chunk in (1, 3, 64):
        found = nll(prior, codes, position, chunk=chunk)
        assert found.dtype == torch.float32
        assert torch.allclose(found, expected, atol=1e-4)
    assert nll(prior, codes[:0], position[:0]).shape == (0, *prior.shape)
    assert prior.training, "the caller's network is left as it was"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_progress_runs_from_0_to_1_and_cancel_is_heard(sampler: str):
    prior = _prior("stride 2")
    codes, position = _codes(prior)
    options = {"thresholds": _threshold(prior, 0.5), "restorations": 2, "seed": 0}
    options |= {"sampler": sampler, "chunk": 3}
    seen: list[float] = []
    restore(prior, codes, position, progress=seen.append, **options)
    assert seen == sorted(seen)
    assert 0 <= seen[0] < 1
    assert seen[-1] == 1
    assert len(seen) > 1  # how many there are depends on how busy the machine is

    asked = []

    def is_cancelled() -> bool:
        asked.append(threading.current_thread())
        return True

    with pytest.raises(Cancelled):
        restore(prior, codes, position, is_cancelled=is_cancelled, **options)
    assert asked == [threading.current_thread()], "asked in the caller's thread, and no more after"


def test_jobs_on_several_threads_report_stop_and_pass_errors_on():
    before = torch.get_num_threads()

    def job(steps: int, fails: bool = False):
        for _ in range(steps):
            assert torch.get_num_threads() == 1
            assert torch.is_inference_mode_enabled()
            yield 1
        if fails:
            raise ZeroDivisionError

    reports: list[int] = []
    threads.run_jobs([job(5), job(7), job(1)], 2, reports.append)
    assert reports[-1] == 13
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError):
        threads.run_jobs([job(2), job(2, fails=True)], 2)

    def refuse(done: int) -> None:
        raise Cancelled("enough")

    def endless():
        while True:
            yield 1

    with pytest.raises(Cancelled):
        threads.run_jobs([endless(), endless()], 2, refuse)
    assert torch.get_num_threads() == before


def test_no_slices_at_all():
    prior = _prior("stride 2")
    none = torch.zeros((0, *prior.shape), dtype=torch.int64)
    for sampler in SAMPLERS:
        found = restore(
            prior, none, torch.zeros(0), thresholds=1.0, restorations=2, seed=0, sampler=sampler
        )
        assert found.shape == (0, 2, *prior.shape)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("sampler", "fast"),
        ("temperature", 0.0),
        ("restorations", 0),
        ("chunk", 0),
        ("slice_ids", [1, 2]),
        ("thresholds", [1.0, 2.0, 3.0]),
    ],
)
def test_options_that_do_not_fit_are_refused(option: str, value: object):
    prior = _prior("stride 2")
    codes, position = _codes(prior)
    options = {"thresholds": 1.0, "restorations": 1, "seed": 0} | {option: value}
    with pytest.raises(ValueError, match=r"."):
        restore(prior, codes, position, **options)
    with pytest.raises(ValueError, match="do not fit"):
        restore(prior, codes[:, :2], position, thresholds=1.0, restorations=1, seed=0)
