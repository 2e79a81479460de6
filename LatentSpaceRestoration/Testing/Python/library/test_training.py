"""Training: a loop that goes on where it stopped, and the networks that it trains."""

from __future__ import annotations

import errno
import itertools
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from LatentSpaceRestorationLib.errors import Cancelled, ConfigError, OutputError
from LatentSpaceRestorationLib.model_space import CLIP
from LatentSpaceRestorationLib.networks.pixelsnail import PixelSNAIL
from LatentSpaceRestorationLib.networks.vqvae import VQVAE
from LatentSpaceRestorationLib.training.data.augmentation import Augmentation
from LatentSpaceRestorationLib.training.data.slices import Slices, from_uint8, to_uint8
from LatentSpaceRestorationLib.training.engine import loop
from LatentSpaceRestorationLib.training.engine.loop import train
from LatentSpaceRestorationLib.training.engine.run import Run, Schedule, generator_of, order_of
from LatentSpaceRestorationLib.training.networks.prior import (
    Codes,
    code_nll,
    encode_slices,
    train_prior,
)
from LatentSpaceRestorationLib.training.networks.vqvae import reconstruction_error, train_vqvae
from tiny_model import PRIOR_SETTINGS, VQVAE_SETTINGS
from torch import Tensor, nn

VQVAE_SIZE = {**VQVAE_SETTINGS, "codes": 8, "code_dim": 4}
PRIOR_SIZE = {**PRIOR_SETTINGS, "codes": 8, "shape": [4, 3]}


def silent(_: str) -> None:
    """Takes a line of text."""


# Order, rates, checkpoints


@pytest.mark.parametrize(("length", "batch"), [(24, 6), (7, 1), (5, 5)])
def test_every_item_comes_once_an_epoch_in_a_new_order(length: int, batch: int) -> None:
    per_epoch = length // batch
    epochs = [
        torch.cat([order_of(length, batch, e * per_epoch + s, 3) for s in range(per_epoch)])
        for e in range(3)
    ]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(length))
    assert epochs[0].tolist() != epochs[1].tolist() != epochs[2].tolist()
    other_seed = torch.cat([order_of(length, batch, s, 4) for s in range(per_epoch)])
    assert other_seed.tolist() != epochs[0].tolist()


def test_no_item_comes_twice_in_an_epoch_that_does_not_divide() -> None:
    seen = torch.cat([order_of(11, 4, s, 0) for s in range(2)]).tolist()
    assert len(set(seen)) == 8
    everything = {int(i) for s in range(40) for i in order_of(11, 4, s, 0)}
    assert everything == set(range(11))
    assert len(order_of(3, 8, 5, 0)) == 3  # fewer items than a batch


def test_the_learning_rate_warms_up_and_decays() -> None:
    schedule = Schedule(200, learning_rate=1.0, warmup=10)
    rates = [schedule.rate(step) for step in range(200)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert all(b <= a for a, b in itertools.pairwise(rates[10:]))
    assert 0.02 <= rates[-1] < 0.03


def test_randomness_depends_on_seed_and_step() -> None:
    def draw(seed: int, step: int) -> float:
        return float(torch.rand((), generator=generator_of(seed, step)))

    assert draw(1, 2) == draw(1, 2)
    assert len({draw(seed, step) for seed in range(3) for step in range(5)}) == 15


def tiny_slices(count: int, seed: int) -> Slices:
    """(count, 16, 12) blobs in a background."""
    generator = np.random.default_rng(seed)
    values = generator.normal(0.0, 1.0, (count, 16, 12)).clip(-CLIP, CLIP)
    values[:, :3] = values[:, -3:] = -CLIP
    position = generator.uniform(-0.5, 0.5, count).astype(np.float32)
    return Slices(to_uint8(values), position, np.zeros(count, np.int64), ["S"])


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int | None) -> float:
    """Minutes in which the loop takes so many steps, on a clock that ticks when it is read."""
    ticks = itertools.count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    return float("inf") if steps is None else 2.0 * steps / 60.0


def same_weights(one: nn.Module, two: nn.Module) -> bool:
    """Whether every weight and buffer is the same, bit for bit."""
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_resumed_training_gives_the_same_weights_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, held_out = tiny_slices(12, 0), tiny_slices(4, 1)
    schedule = Schedule(6, batch=4, warmup=2, precision="float32", checkpoint_minutes=1e9)
    size = {**VQVAE_SIZE, "dropout": 0.2}

    def run(name: str, steps: int | None) -> VQVAE:
        return train_vqvae(
            size,
            data,
            held_out,
            Run(
                schedule,
                tmp_path / name,
                minutes=stop_after(monkeypatch, steps),
                report=lines.append,
                report_every=1,
            ),
            codebook_start=2,
        )

    lines: list[str] = []
    whole = run("whole.pt", None)
    losses = [re.sub(r"of \w+  \d+ s left", "", line) for line in lines]
    lines.clear()
    half = run("parts.pt", 3)
    assert torch.load(tmp_path / "parts.pt", weights_only=True)["step"] == 3
    assert not same_weights(whole, half)
    resumed = run("parts.pt", None)
    assert len(losses) == 6
    assert lines.pop(3) == "resumed at step 3"
    assert [re.sub(r"of \w+  \d+ s left", "", line) for line in lines] == losses
    assert same_weights(whole, resumed)
    assert not resumed.training
    assert resumed.codebook.started
    states = [torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in ("whole", "parts")]
    assert states[0]["step"] == states[1]["step"] == 6
    for key, value in states[0]["network"].items():
        assert torch.equal(value, states[1]["network"][key]), key


def to_zero(model: nn.Module, step: int, generator: torch.Generator) -> tuple[Tensor, dict]:
    """Loss of a linear layer that should give 0."""
    value = model(torch.randn(8, 3, generator=generator)).square().mean()
    return value, {"loss": float(value.detach())}


def linear() -> nn.Linear:
    """The same layer each time."""
    torch.manual_seed(0)
    return nn.Linear(3, 2)


PLAIN = Schedule(60, learning_rate=0.05, warmup=1, precision="float32")


def test_training_lowers_the_loss_and_reports_it(tmp_path: Path) -> None:
    lines: list[str] = []
    network = linear()
    before = to_zero(network, 0, generator_of(0, 0))[1]["loss"]
    averaged = train(
        network,
        to_zero,
        Run(PLAIN, tmp_path / "a" / "b.pt", report=lines.append),
        validate=lambda model: {"weight": float(next(model.parameters()).detach().abs().mean())},
        validate_every=20,
    )
    assert to_zero(averaged, 0, generator_of(0, 0))[1]["loss"] < 0.2 * before
    assert not averaged.training
    assert sum("held out: weight" in line for line in lines) == 3
    assert any(line.startswith("step 50/60") and "loss" in line for line in lines)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.pt"]


def test_figures_are_means_also_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def constant(model: nn.Module, step: int, generator: torch.Generator) -> tuple[Tensor, dict]:
        return to_zero(model, step, generator)[0], {"five": 5.0}

    lines: list[str] = []
    run = Run(PLAIN, tmp_path / "c.pt", report=lines.append)
    train(linear(), constant, replace(run, minutes=stop_after(monkeypatch, 30)))
    train(linear(), constant, run)
    assert any("five 5.0000" in line for line in lines)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_training_after_its_step_and_keeps_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    def interrupted(model: nn.Module, step: int, generator: torch.Generator) -> tuple[Tensor, dict]:
        if step == 4:
            signal.raise_signal(number)
        return to_zero(model, step, generator)

    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    run = Run(PLAIN, tmp_path / "c.pt", report=silent)
    with pytest.raises(Cancelled, match="stopped at step 5 of 60"):
        train(linear(), interrupted, run)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert torch.load(run.checkpoint, weights_only=True)["step"] == 5
    resumed = train(linear(), to_zero, run)
    whole = train(linear(), to_zero, replace(run, checkpoint=tmp_path / "w.pt"))
    assert same_weights(resumed, whole)


def test_a_full_disk_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(Schedule(4, precision="float32"), tmp_path / "c.pt", report=silent)
    train(linear(), to_zero, replace(run, minutes=stop_after(monkeypatch, 2)))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"c\.pt: .*No space left.*is kept") as failure:
        train(linear(), to_zero, run)
    assert "\n" not in str(failure.value)
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]
    monkeypatch.undo()
    assert torch.load(run.checkpoint, weights_only=True)["step"] == 2
    train(linear(), to_zero, run)
    assert torch.load(run.checkpoint, weights_only=True)["step"] == 4


def test_a_checkpoint_of_another_training_is_refused_in_one_line(tmp_path: Path) -> None:
    first = {"vqvae": {"codes": 8, "channels": (4, 8)}, "grid": {"rows": 4}}
    run = Run(PLAIN, tmp_path / "c.pt", minutes=0.0, report=silent, identity=first)
    train(linear(), to_zero, run)
    train(linear(), to_zero, run)
    other = {**first, "vqvae": {"codes": 16, "channels": (4, 8)}}
    with pytest.raises(
        ConfigError, match=r"vqvae\.codes = 8 and now it is 16; .*--work"
    ) as refusal:
        train(linear(), to_zero, replace(run, identity=other))
    assert "\n" not in str(refusal.value)
    run.checkpoint.write_bytes(b"half a checkpoint")
    with pytest.raises(ConfigError, match="not a checkpoint"):
        train(linear(), to_zero, run)


def test_tensorboard_gets_losses_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = Run(PLAIN, tmp_path / "c.pt", report=silent, report_every=20, tensorboard=tmp_path / "tb")
    train(
        linear(),
        to_zero,
        run,
        validate=lambda _: {"weight": 1.0},
        validate_every=30,
        pictures=lambda _: {"squares": torch.rand(1, 8, 8)},
    )
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert [e.step for e in events.Scalars("training/loss")] == [20, 40, 60]
    assert [e.step for e in events.Images("squares")] == [30, 60]
    assert events.Scalars("held out/weight")[0].value == 1.0


def test_the_averaged_network_has_statistics_of_its_own(tmp_path: Path) -> None:
    """Weights that run away leave the gathered statistics behind."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))
    first = network[0]

    def loss(
        model: nn.Module, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        x = 3.0 + torch.randn((8, 1, 6, 6), generator=generator)
        model(x)
        assert isinstance(first, nn.Conv2d)
        return -first.weight.sum(), {}

    run = Run(Schedule(40, 8, 0.2, warmup=1, average=0.9), tmp_path / "x.pt", "cpu")
    averaged = train(network, loss, run)
    assert isinstance(averaged, nn.Sequential)
    assert not any(module.training for module in averaged.modules())
    assert averaged[1].momentum == network[1].momentum
    x = 3.0 + torch.randn((64, 1, 6, 6), generator=torch.Generator().manual_seed(5))
    found = averaged[0](x)
    mean, deviation = found.mean((0, 2, 3)), found.std((0, 2, 3))
    torch.testing.assert_close(averaged[1].running_mean, mean, rtol=0.03, atol=0.03)
    torch.testing.assert_close(averaged[1].running_var.sqrt(), deviation, rtol=0.05, atol=0.05)


def test_a_step_without_a_finite_gradient_is_left_out(tmp_path: Path) -> None:
    def sometimes_nan(
        model: nn.Module, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict]:
        value, figures = to_zero(model, step, generator)
        return value * (float("nan") if step == 1 else 1.0), figures

    run = Run(Schedule(4, precision="float32"), tmp_path / "c.pt")
    averaged = train(linear(), sometimes_nan, run)
    assert all(bool(p.isfinite().all()) for p in averaged.parameters())


# The networks' own trainings


def test_a_trained_vqvae_reconstructs_better_and_uses_its_keys(tmp_path: Path) -> None:
    ramps = np.linspace(-1.0, 1.0, 12)[None, None] * np.linspace(0.5, 2.0, 40)[:, None, None]
    values = np.broadcast_to(ramps, (40, 16, 12)).copy()
    values[:, :2] = -CLIP
    data = Slices(to_uint8(values), np.zeros(40, np.float32), np.zeros(40, np.int64), ["S"])
    schedule = Schedule(60, batch=8, learning_rate=1e-2, warmup=5, average=0.9, precision="float32")
    nothing = Augmentation(*[0.0] * 10)
    torch.manual_seed(0)
    untrained = reconstruction_error(VQVAE(**VQVAE_SIZE).eval(), data)
    network = train_vqvae(
        {**VQVAE_SIZE, "dropout": 0.0},
        data,
        data,
        Run(schedule, tmp_path / "v.pt", report=silent),
        nothing,
        codebook_start=20,
    )
    trained = reconstruction_error(network, data)
    assert trained["l1_brain"] < 0.6 * untrained["l1_brain"]
    assert trained["perplexity"] > 2.0


def test_codes_for_the_prior_are_those_of_the_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = VQVAE(**VQVAE_SIZE).eval()
    data = tiny_slices(5, 0)
    plain = encode_slices(network, data, 0, batch=2, report=silent)
    with torch.inference_mode():
        expected = network.encode(
            from_uint8(torch.from_numpy(data.values)), torch.from_numpy(data.position)
        )
    np.testing.assert_array_equal(plain.values, expected)
    assert plain.values.dtype == np.uint8
    copies = encode_slices(network, data, 3, batch=2, report=silent)
    assert copies.values.shape == (15, 4, 3)
    np.testing.assert_array_equal(copies.position, np.tile(data.position, 3))
    again = encode_slices(network, data, 3, batch=2, report=silent)
    np.testing.assert_array_equal(copies.values, again.values)
    plain.save(tmp_path / "codes.npz")
    back = Codes.load(tmp_path / "codes.npz")
    np.testing.assert_array_equal(back.values, plain.values)
    np.testing.assert_array_equal(back.position, plain.position)


def test_a_trained_prior_finds_the_codes_it_saw_likely(tmp_path: Path) -> None:
    grid = (np.arange(12).reshape(4, 3) % 8).astype(np.uint8)
    codes = Codes(np.repeat(grid[None], 12, 0), np.linspace(-0.5, 0.5, 12, dtype=np.float32))
    torch.manual_seed(0)
    untrained = code_nll(PixelSNAIL(**PRIOR_SIZE).eval(), codes)["nll"]
    schedule = Schedule(40, batch=6, learning_rate=1e-2, warmup=5, average=0.9, precision="float32")
    run = Run(schedule, tmp_path / "p.pt", report=silent)
    network = train_prior(PRIOR_SIZE, codes, codes, run, code_dropout=0.1)
    assert untrained == pytest.approx(np.log(8), abs=1.0)
    assert code_nll(network, codes)["nll"] < 0.5 * untrained
